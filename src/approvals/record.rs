//! One record of the log: JSON, `{"v":1,"id":...,"at":...,"do":"click","approval":{"n":"apr_7"},"answer":"approve",...}`.
//!
//! The names are API between versions of workers that share a broker. A reader passes over what it does not know, so that a newer
//! worker may write more while older ones still run.
//!
//! A click carries all that it is judged by: when it was made, until when its button was good, for how long its approval is a
//! grant. So every worker judges it the same, whatever its own clock and configuration say.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    channels::button::{ButtonClaim, Name},
    model::{ChannelId, Decision, Secret, Timestamp, decision::DecodeError},
};

/// The version of the layout that this worker writes and reads.
const VERSION: u32 = 1;

/// The longest that a record keeps of what others call themselves, in characters.
const BY_CHARS_MAX: usize = 200;

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The call may be made.
    Approve,
    /// It may not.
    Deny,
}

impl Answer {
    /// The word in requests, records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
        }
    }

    /// What has become of the approval by it.
    pub const fn past(self) -> &'static str {
        match self {
            Self::Approve => "approved",
            Self::Deny => "denied",
        }
    }
}

/// Where it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// A button of a card in Slack.
    Slack,
    /// The console's approval page.
    Console,
    /// The HTTP API.
    Api,
}

impl Via {
    /// The word in answers, records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Console => "console",
            Self::Api => "api",
        }
    }
}

/// Who answered. Of Slack's people, all text is what they call themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// The id that does not change: a Slack user id, the name of a token.
    pub id: String,
    /// What people call them.
    pub name: String,
    /// The Slack workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
}

/// What a sealed button said of the approval: proof that we asked for it, also when the log does not tell of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The id of the agent; `None` in records of older workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Name>,
    /// The full name of the tool.
    pub tool: Name,
    /// From when on an answer is too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl From<&ButtonClaim> for Claim {
    fn from(claim: &ButtonClaim) -> Self {
        Self { agent: claim.agent.clone(), tool: claim.tool.clone(), expires_at: claim.expires_at }
    }
}

impl Claim {
    /// Whether a card of this decision said so: the same agent and tool, for which the answer would be a grant.
    pub(super) fn is_of(&self, decision: &Decision) -> bool {
        self.tool.is(decision.tool_name()) && self.agent.as_ref().is_none_or(|agent| agent.is(&decision.agent.id))
    }
}

/// Somebody's answer, on its way into the log or out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Click {
    /// Its own id: a click that is appended twice is still one.
    pub id: Uuid,
    /// The approval that it answers.
    pub approval: Name,
    /// What was answered.
    pub answer: Answer,
    /// By whom.
    pub by: By,
    /// Where.
    pub via: Via,
    /// When: decides whether it was in time.
    pub at: Timestamp,
    /// For how long an approval is a grant; set when the click is appended.
    pub grant: Duration,
    /// What the button said that was clicked; without it, the log must know the approval.
    pub claim: Option<Claim>,
    /// The channel whose card was clicked.
    pub channel: Option<ChannelId>,
    /// Where Slack takes another text for the clicked card, for half an hour. Whoever has it can write there.
    pub response_url: Option<Secret>,
}

impl Click {
    /// A click of this moment, without a button. The names are cut to 200 characters.
    pub fn new(approval: Name, answer: Answer, by: By, via: Via, at: Timestamp) -> Self {
        let cut = |text: String| text.chars().take(BY_CHARS_MAX).collect::<String>();
        let by = By { id: cut(by.id), name: cut(by.name), team: by.team.map(cut) };
        let id = Uuid::now_v7();
        let (grant, claim, channel, response_url) = (Duration::ZERO, None, None, None);
        Self { id, approval, answer, by, via, at, grant, claim, channel, response_url }
    }
}

/// A card that was posted and can be changed later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its id: that of the record that told of it.
    pub id: Uuid,
    /// The channel that it was posted to.
    pub channel: ChannelId,
    /// Slack's id of the conversation.
    pub conversation: String,
    /// Slack's `ts` of the message.
    pub ts: String,
}

/// What a card was changed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// Who answered, and when.
    Answered,
    /// That nobody did in time.
    Expired,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Deed {
    /// The firewall asks for an approval.
    Asked(Arc<Decision>),
    /// Somebody answered.
    Click(Click),
    /// The first answer has been published for the firewall.
    Published(Name),
    /// A card was posted that can be changed later.
    Posted(Name, Card),
    /// A card was changed: one that was posted, or the one that was clicked, by the id of the posted card or of the click.
    Updated(Name, Uuid, Shown),
}

/// One record.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its own id.
    pub id: Uuid,
    /// When it was written.
    pub at: Timestamp,
    /// What happened.
    pub deed: Deed,
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not of a record's shape.
    #[error("the record is none: {0}")]
    Shape(#[from] serde_json::Error),
    /// The decision inside is not one.
    #[error("the record holds no decision: {0}")]
    Decision(#[from] DecodeError),
}

#[derive(Serialize, Deserialize)]
struct Wire<T> {
    v: u32,
    id: Uuid,
    at: Timestamp,
    #[serde(flatten)]
    rest: T,
}

/// Not flattened: what is flattened goes through a tree of values, and the decision must stay as it came.
#[derive(Serialize, Deserialize)]
struct WireAsked<'a> {
    v: u32,
    id: Uuid,
    at: Timestamp,
    r#do: &'a str,
    #[serde(borrow)]
    decision: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum WireDeed {
    Click {
        approval: Name,
        answer: Answer,
        by: By,
        via: Via,
        #[serde(default)]
        grant_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claim: Option<Claim>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<ChannelId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        response_url: Option<String>,
    },
    Published {
        approval: Name,
    },
    Posted {
        approval: Name,
        channel: ChannelId,
        conversation: String,
        ts: String,
    },
    Updated {
        approval: Name,
        card: Uuid,
        shown: Shown,
    },
}

/// Only what decides whether this reader knows the record at all.
#[derive(Deserialize)]
struct Kind {
    v: u32,
    r#do: String,
}

const ASKED: &str = "asked";
const OTHERS: [&str; 4] = ["click", "published", "posted", "updated"];

/// The record that tells of a decision's approval, and its id. No decision is copied more than once for it.
#[expect(clippy::missing_panics_doc, reason = "it never does: a decision is JSON text, which its reading has checked")]
pub fn asked(decision: &Decision, at: Timestamp) -> (Uuid, Bytes) {
    let id = Uuid::now_v7();
    let text = std::str::from_utf8(decision.raw()).expect("a decision is UTF-8");
    let decision: &RawValue = serde_json::from_str(text).expect("a decision is JSON");
    let wire = WireAsked { v: VERSION, id, at, r#do: ASKED, decision };
    (id, serde_json::to_vec(&wire).expect("texts and JSON are always JSON").into())
}

impl Entry {
    /// A record of this moment, but for clicks, which have an id and a time of their own.
    pub fn new(deed: Deed, at: Timestamp) -> Self {
        match &deed {
            Deed::Click(click) => Self { id: click.id, at: click.at, deed },
            Deed::Posted(_, card) => Self { id: card.id, at, deed },
            Deed::Asked(_) | Deed::Published(_) | Deed::Updated(..) => Self { id: Uuid::now_v7(), at, deed },
        }
    }

    /// The record as it is appended.
    #[expect(clippy::missing_panics_doc, reason = "it never does: numbers and plain text are always JSON")]
    pub fn to_bytes(&self) -> Bytes {
        let rest = match self.deed.clone() {
            Deed::Asked(decision) => return asked(&decision, self.at).1,
            Deed::Click(click) => WireDeed::Click {
                approval: click.approval,
                answer: click.answer,
                by: click.by,
                via: click.via,
                grant_ms: u64::try_from(click.grant.as_millis()).unwrap_or(u64::MAX),
                claim: click.claim,
                channel: click.channel,
                response_url: click.response_url.map(|url| url.expose().to_owned()),
            },
            Deed::Published(approval) => WireDeed::Published { approval },
            Deed::Posted(approval, Card { id: _, channel, conversation, ts }) => {
                WireDeed::Posted { approval, channel, conversation, ts }
            }
            Deed::Updated(approval, card, shown) => WireDeed::Updated { approval, card, shown },
        };
        let wire = Wire { v: VERSION, id: self.id, at: self.at, rest };
        serde_json::to_vec(&wire).expect("plain text is always JSON").into()
    }

    /// Reads a record; `None` where a newer worker wrote what this one does not know, and of a mark.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, RecordError> {
        let kind: Kind = serde_json::from_slice(bytes)?;
        if kind.v != VERSION {
            return Ok(None);
        }
        if kind.r#do == ASKED {
            let wire: WireAsked<'_> = serde_json::from_slice(bytes)?;
            let decision = Decision::decode(Bytes::copy_from_slice(wire.decision.get().as_bytes()))?;
            return Ok(Some(Self { id: wire.id, at: wire.at, deed: Deed::Asked(Arc::new(decision)) }));
        }
        if !OTHERS.contains(&kind.r#do.as_str()) {
            return Ok(None);
        }
        let Wire { id, at, rest, .. } = serde_json::from_slice::<Wire<WireDeed>>(bytes)?;
        let deed = match rest {
            WireDeed::Click { approval, answer, by, via, grant_ms, claim, channel, response_url } => {
                Deed::Click(Click {
                    id,
                    approval,
                    answer,
                    by,
                    via,
                    at,
                    grant: Duration::from_millis(grant_ms),
                    claim,
                    channel,
                    response_url: response_url.map(Secret::new),
                })
            }
            WireDeed::Published { approval } => Deed::Published(approval),
            WireDeed::Posted { approval, channel, conversation, ts } => {
                Deed::Posted(approval, Card { id, channel, conversation, ts })
            }
            WireDeed::Updated { approval, card, shown } => Deed::Updated(approval, card, shown),
        };
        Ok(Some(Self { id, at, deed }))
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
