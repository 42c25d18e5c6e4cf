//! Stand-ins: local servers that answer as Slack, Discord, Teams, Telegram and the SIEMs do.
//!
//! The demo and the integration tests deliver to them, so they are strict where the platform is strict (a card that Slack would
//! refuse is refused here, in Slack's words) and can be told to misbehave in every way that an endpoint can: see [`Script`].
//! Everything that they received is recorded, with which decisions each message told and how many each digest counted, so that
//! a test can count what arrived and what arrived twice.
//!
//! HTTP is spoken by hand (`wire.rs`), not by a framework: resetting a connection halfway, never answering and answering
//! garbage are the point of a stand-in, and frameworks exist to prevent them. They listen on 127.0.0.1 only.
//!
//! To add a platform, write one file with a `judge` function, add one line to [`Platform`]'s tables and its replies to
//! `catalogue.rs`. [`Sink`] is the odd one: it judges nothing and is fast, for measuring throughput.
//!
//! Start with [`Platform`], then read `teams.rs`, the shortest platform with a trap.

mod card;
mod catalogue;
#[cfg(test)]
pub(crate) mod client;
mod datadog;
mod decisions;
mod digest;
mod discord;
mod entities;
mod ids;
mod record;
mod script;
mod server;
mod siem;
mod sink;
mod slack;
mod slack_blocks;
mod slack_wall;
mod splunk;
mod sumo;
mod teams;
mod telegram;
#[cfg(test)]
mod tests;
mod wire;

use std::{borrow::Cow, io::Read as _};

use crate::model::Reply;

pub use card::Card;
pub use catalogue::{Class, Entry, every_reply};
pub use decisions::Firewall;
pub use digest::Digest;
pub use record::{Counters, Fate, Received};
pub use script::{Script, Step};
pub use server::{Options, StandIn};
pub use sink::{Sink, Stamp};
pub use slack_wall::{SlackMessage, SlackWall};

use self::{script::Allowance, wire::Request};

/// The most that a compressed body may grow to, in bytes; what is longer reads as if it ended there.
const INFLATED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A platform that can be stood in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Platform {
    /// Slack: incoming webhooks, `chat.postMessage`, `chat.update` and the `response_url` of clicks.
    Slack,
    /// Discord's incoming webhooks.
    Discord,
    /// A Teams Workflow.
    Teams,
    /// Telegram's `sendMessage`.
    Telegram,
    /// Splunk's HTTP event collector.
    Splunk,
    /// Datadog's logs intake.
    Datadog,
    /// A Sumo Logic HTTP source.
    Sumo,
    /// Any SIEM that takes CEF or JSON, one event or lines of them, on any path.
    Siem,
}

impl Platform {
    /// Every platform.
    pub const ALL: [Self; 8] =
        [Self::Slack, Self::Discord, Self::Teams, Self::Telegram, Self::Splunk, Self::Datadog, Self::Sumo, Self::Siem];

    /// Its name, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Discord => "discord",
            Self::Teams => "teams",
            Self::Telegram => "telegram",
            Self::Splunk => "splunk",
            Self::Datadog => "datadog",
            Self::Sumo => "sumo",
            Self::Siem => "siem",
        }
    }

    /// A path and query that it takes messages at, well formed, with a made-up credential where the path holds one.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Slack => "/services/T0STANDIN/B0STANDIN/madeUpTokenOfAStandIn",
            Self::Discord => "/api/webhooks/100000000000000001/madeUpTokenOfAStandIn",
            Self::Teams => {
                "/powerautomate/automations/direct/workflows/0standin/triggers/manual/paths/invoke\
                 ?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=madeUpSignatureOfAStandIn"
            }
            Self::Telegram => "/bot100001:madeUpTokenOfAStandIn/sendMessage",
            Self::Splunk => "/services/collector/event",
            Self::Datadog => "/api/v2/logs",
            Self::Sumo => "/receiver/v1/http/madeUpCodeOfAStandIn",
            Self::Siem => "/events",
        }
    }

    /// What the platform does with a request when nothing is scripted.
    fn judge(self, ask: &Ask<'_>) -> Judged {
        match self {
            Self::Slack => slack::judge(ask),
            Self::Discord => discord::judge(ask),
            Self::Teams => teams::judge(ask),
            Self::Telegram => telegram::judge(ask),
            Self::Splunk => splunk::judge(ask),
            Self::Datadog => datadog::judge(ask),
            Self::Sumo => sumo::judge(ask),
            Self::Siem => siem::judge(ask),
        }
    }

    /// How the platform says "too many", asking to be left alone for `seconds`.
    fn too_many(self, seconds: f64) -> Reply {
        let whole = (seconds.ceil().max(1.0)).to_string();
        match self {
            Self::Slack => Reply::new(429, format!(r#"{{"retry_after":{whole},"ok":false,"error":"rate_limited"}}"#)),
            Self::Discord => discord::too_many(seconds),
            Self::Teams => Reply::new(
                429,
                r#"{"error":{"code":"WorkflowTriggerRequestThrottled","message":"The workflow run rate limit was exceeded."}}"#,
            ),
            Self::Telegram => telegram::too_many(&whole),
            Self::Splunk => Reply::new(429, r#"{"text":"Queue at capacity","code":26}"#),
            Self::Datadog => datadog::error(429, "Too Many Requests"),
            Self::Sumo => Reply::new(
                429,
                "You have temporarily exceeded your Sumo Logic quota. Please try again at a later time",
            ),
            Self::Siem => Reply::new(429, r#"{"error":"too many requests"}"#),
        }
        .with_header("retry-after", &whole)
    }
}

/// A request as a platform sees it.
struct Ask<'a> {
    request: &'a Request,
    /// The only credential that is right; `None`: any that is well formed.
    credential: Option<&'a str>,
    /// What the strict rate leaves, where there is one.
    allowance: Option<Allowance>,
    /// Counts requests; gives replies their message ids.
    number: u64,
    /// What people see, where the platform is Slack.
    wall: &'a SlackWall,
}

impl Ask<'_> {
    /// Whether `given` is the right credential.
    fn is_right(&self, given: &str) -> bool {
        self.credential.map_or(!given.is_empty(), |right| right == given)
    }

    /// The body, inflated where it says that it is gzip. `None` for another encoding, or bytes that are no gzip.
    fn inflated(&self) -> Option<Cow<'_, [u8]>> {
        inflated(self.request)
    }
}

fn inflated(request: &Request) -> Option<Cow<'_, [u8]>> {
    match request.header("content-encoding").unwrap_or("identity") {
        "identity" => Some(Cow::Borrowed(&request.body)),
        "gzip" => {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&*request.body).take(INFLATED_BYTES_MAX).read_to_end(&mut plain).ok()?;
            Some(Cow::Owned(plain))
        }
        _ => None,
    }
}

/// What a platform made of a request.
struct Judged {
    reply: Reply,
    fate: Fate,
    /// The decisions that the platform has from now on: of a batch that it refused halfway, those before the bad one.
    ids: Vec<String>,
    /// Or the digest that it has.
    digest: Option<Digest>,
}

impl Judged {
    /// Records that the SIEM has from now on.
    fn taken(reply: Reply, ids: Vec<String>) -> Self {
        Self { reply, fate: Fate::Taken, ids, digest: None }
    }

    /// A message that people will see: a digest, or a card that tells every decision that it links to.
    fn posted(reply: Reply, platform: Platform, message: &serde_json::Value) -> Self {
        let digest = Digest::read(platform, message);
        let ids = if digest.is_some() { Vec::new() } else { ids::in_card(message) };
        Self { reply, fate: Fate::Taken, ids, digest }
    }

    /// A request that is turned down, and says so.
    fn refused(reply: Reply) -> Self {
        Self { reply, fate: Fate::Refused, ids: Vec::new(), digest: None }
    }

    /// A request that is answered as a success while nobody will ever see the message.
    fn swallowed(reply: Reply, why: impl Into<String>) -> Self {
        Self { reply, fate: Fate::Swallowed(why.into()), ids: Vec::new(), digest: None }
    }

    /// A request that is no message.
    fn aside(reply: Reply) -> Self {
        Self { reply, fate: Fate::Aside, ids: Vec::new(), digest: None }
    }
}

/// A reply of JSON.
fn json(status: u16, body: &serde_json::Value) -> Reply {
    Reply::new(status, body.to_string()).with_header("content-type", "application/json")
}

/// A reply of plain text.
fn text(status: u16, body: &'static str) -> Reply {
    Reply::new(status, body).with_header("content-type", "text/plain; charset=utf-8")
}
