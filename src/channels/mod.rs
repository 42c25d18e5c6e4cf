//! How to say it: one file per kind of destination, each with how a decision is rendered for it and what its replies mean.
//!
//! A channel is pure and total: the same delivery and occasion give the same parcel, no input makes it panic, and it knows
//! nothing of sockets, retries or rates. When and how often something is said is the lane's business.
//!
//! To add a kind, write one file with a [`Kind`] and add one line to [`KINDS`]. The configuration, the command line, the
//! console's forms, the conformance tests and the documentation walk that list.
//!
//! Start with [`Channel`], then read `discord.rs`, the shortest complete kind.

pub mod button;
mod card;
#[cfg(test)]
mod conformance;
mod digest_card;
pub mod discord;
pub mod form;
pub mod judging;
pub mod siem;
pub mod slack;
pub mod teams;
pub mod telegram;
mod text;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;

use self::form::Form;
use crate::{
    model::{Delivery, Digest, Reply, Secret, Timestamp, Verdict},
    settings::Settings,
};

/// Every kind of channel. Adding a kind is one file and one line here.
pub const KINDS: &[&Kind] = &[&slack::KIND, &discord::KIND, &teams::KIND, &telegram::KIND, &siem::KIND];

/// A kind of destination: its name, what the configuration may leave out, and how a channel of this kind is built.
#[derive(Debug)]
pub struct Kind {
    /// The value of `kind` in the configuration.
    pub name: &'static str,
    /// Sends under way at once, where the configuration does not say.
    pub concurrency: u16,
    /// Whether people read it: then storms are folded into digests.
    pub chat: bool,
    /// A complete configuration of this kind: the keys below `[[channel]]` but for `id` and `kind`. `{base}` stands for the
    /// `http://host:port` of a stand-in. The conformance tests build every kind from it.
    pub sample: &'static str,
    /// How a channel of this kind is entered by hand: the same keys as `build` reads.
    pub form: &'static Form,
    /// Reads the kind's own keys and builds the channel; `None` when a fault was noted.
    pub build: fn(&mut Settings<'_>) -> Option<Built>,
}

/// A channel and what follows from its settings.
#[derive(Debug)]
pub struct Built {
    /// The channel.
    pub channel: Arc<dyn Channel>,
    /// The pace that the platform asks for, where the configuration sets no `rate_limit`. Empty: as fast as can be.
    pub pace: Vec<Rate>,
}

/// A limit: `count` sends per `per`, of which `burst` may go at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Sends per period, at least 1.
    pub count: u32,
    /// The period, above zero.
    pub per: Duration,
    /// How many may go at once after a rest, at least 1.
    pub burst: u32,
}

/// One configured destination. Implementations hold no state that a reply changes.
pub trait Channel: Send + Sync + fmt::Debug {
    /// The request that tells `delivery` to the endpoint. `delivery.plain` asks for the plain-text form, for kinds that have
    /// one. Whatever the decision holds, the result is within the platform's limits and nothing in it is active: no mention,
    /// no markup, no link, no control character of the decision's making.
    fn render(&self, delivery: &Delivery, occasion: &Occasion<'_>) -> Parcel;

    /// What `reply` means: by body first, then by status.
    fn judge(&self, reply: &Reply) -> Verdict;

    /// Every secret that it holds, for scrubbing what others write.
    fn secrets(&self) -> Vec<Secret>;

    /// The request that tells a digest, in its plain-text form where `plain` says so; `None` for kinds that have no digests.
    /// The same limits and the same care as in [`Self::render`].
    fn render_digest(&self, digest: &Digest, plain: bool, occasion: &Occasion<'_>) -> Option<Parcel> {
        let _ = (digest, plain, occasion);
        None
    }

    /// Itself, for the one kind whose cards can be answered in place.
    fn answerable(&self) -> Option<&slack::Slack> {
        None
    }

    /// Which message the endpoint has made of a card, where `reply` says so and the message can be changed later.
    fn posted(&self, reply: &Reply) -> Option<PostedCard> {
        let _ = reply;
        None
    }

    /// How several deliveries share one request, for kinds that are configured to.
    fn batcher(&self) -> Option<&dyn Batcher> {
        None
    }
}

/// A message that an endpoint has made of a card, by the names that the endpoint gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostedCard {
    /// Slack's id of the conversation that it is in.
    pub conversation: String,
    /// Slack's `ts` of it.
    pub ts: String,
}

/// How several deliveries share one request.
pub trait Batcher: Send + Sync {
    /// When a batch is full.
    fn limits(&self) -> BatchLimits;

    /// One delivery's part of the body.
    fn record(&self, delivery: &Delivery, occasion: &Occasion<'_>) -> Bytes;

    /// The request that carries `records`, at least one, in this order.
    fn pack(&self, records: &[Bytes], occasion: &Occasion<'_>) -> Parcel;
}

/// When a batch is full: at whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Deliveries, at least 1.
    pub events: usize,
    /// Bytes of all records together, before compression. A single record above it goes alone.
    pub bytes: usize,
    /// How long the first delivery waits for company.
    pub wait: Duration,
}

/// The circumstances of one try.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// The present moment: for lateness and for signatures.
    pub now: Timestamp,
    /// Where links in cards point.
    pub links: &'a Links,
    /// The new address after a [`Verdict::Moved`].
    pub detour: Option<&'a str>,
}

/// Where links in cards point. Both are http or https URLs without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// This program's own pages.
    pub public: String,
    /// The firewall's console.
    pub console: String,
}

impl Links {
    /// Where there are no cards to link from.
    pub fn none() -> Self {
        Self { public: String::new(), console: String::new() }
    }

    /// The page that shows a decision.
    pub fn decision(&self, decision_id: &str) -> String {
        format!("{}/decisions/{}", self.console, path_segment(decision_id))
    }

    /// The page where a signed-in analyst answers an approval.
    pub fn approval(&self, approval_id: &str) -> String {
        format!("{}/approvals/{}", self.public, path_segment(approval_id))
    }
}

/// `text` as one segment of a URL's path: everything but unreserved ASCII is percent-encoded, and it is cut at 256 bytes of
/// input, so that no hostile id makes a link longer than platforms take.
fn path_segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes().take(256) {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            write!(segment, "%{byte:02X}").expect("writing to a String never fails");
        }
    }
    // A segment of dots would climb up the path.
    if segment.bytes().all(|byte| byte == b'.') { segment.replace('.', "%2E") } else { segment }
}

/// A request, ready for the socket.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Where it is posted to.
    pub endpoint: Endpoint,
    /// The headers; secret ones are marked sensitive, so that they do not print.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// The URL of an endpoint. It is a secret (it often holds a token), so it prints masked. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: Arc<url::Url>,
    /// The URL of the configuration, where a kind adds something of its own behind it: people know that one, and of the other they
    /// would be shown our addition.
    known_as: Option<Arc<url::Url>>,
}

impl Endpoint {
    /// An endpoint at `url`, whose scheme and host the configuration has checked.
    pub fn new(url: url::Url) -> Self {
        Self { url: Arc::new(url), known_as: None }
    }

    /// The same endpoint, shown as the URL that the configuration has.
    #[must_use]
    pub fn known_as(self, configured: &url::Url) -> Self {
        Self { known_as: Some(Arc::new(configured.clone())), ..self }
    }

    /// The URL itself, for the socket.
    pub fn expose(&self) -> &url::Url {
        &self.url
    }

    /// The URL as a secret, for scrubbing.
    pub fn secret(&self) -> Secret {
        Secret::new(self.url.as_str())
    }

    /// What may be shown of it.
    pub fn masked(&self) -> String {
        Secret::new(self.known_as.as_ref().unwrap_or(&self.url).as_str()).masked_url()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}
