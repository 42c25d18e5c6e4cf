//! A delivery: one decision on its way to one channel, and what has happened to it so far.
//!
//! [`Delivery::to_bytes`] is how it waits in a lane queue. The decision's own bytes travel inside, untouched, so a delivery
//! outlives the worker, the version and the configuration that made it.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Attempt, ChannelId, Decision, DecisionKind, Own, Severity, Timestamp, decision::DecodeError};

/// The id of a delivery: the UUIDv5 of decision id and channel id, so that it is the same on every try, in every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(Uuid);

impl DeliveryId {
    /// The namespace of our UUIDv5: itself the UUIDv5 of the DNS name `deliveries.interven-alerts` in the DNS namespace.
    pub const NAMESPACE: Uuid = Uuid::from_u128(0xb4f5_83f7_0d34_5a0c_9f0e_ee7b_e1a6_92d5);

    /// The id of the delivery of `decision` to `channel`. The name is `<channel>/<decision>`; a channel id has no slash, so
    /// two different pairs never give the same name.
    pub fn of(decision: &str, channel: &ChannelId) -> Self {
        let mut name = String::with_capacity(channel.as_str().len() + 1 + decision.len());
        name.push_str(channel.as_str());
        name.push('/');
        name.push_str(decision);
        Self(Uuid::new_v5(&Self::NAMESPACE, name.as_bytes()))
    }

    /// The id as a UUID.
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One decision on its way to one channel.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What is told. Shared: a decision may go to many channels.
    pub decision: Arc<Decision>,
    /// Whom it is told to.
    pub channel: ChannelId,
    /// When a worker first routed it.
    pub first_at: Timestamp,
    /// Tries that the endpoint answered with a failure of its own. Waiting behind a pause costs none.
    pub attempts: u32,
    /// Whether the endpoint refused the rich form, so that the plain-text form is next.
    pub plain: bool,
    /// Not to be tried before this moment: a failed try's wait, which must survive the lane queue.
    pub not_before: Option<Timestamp>,
    /// Whether a digest that told it was refused, so that it is told by itself.
    pub unfolded: bool,
    /// The last tries that failed, the oldest first.
    pub history: Vec<Attempt>,
}

/// How a delivery waits in a lane queue.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    channel: ChannelId,
    first_at: Timestamp,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    plain: bool,
    #[serde(default)]
    not_before: Option<Timestamp>,
    #[serde(default)]
    unfolded: bool,
    #[serde(default)]
    history: Vec<Attempt>,
    #[serde(borrow)]
    decision: &'a RawValue,
}

/// Why a message of a lane queue is not a delivery.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Not of a delivery's shape.
    #[error("the message is not a delivery: {0}")]
    Shape(#[from] serde_json::Error),
    /// The decision inside is not one.
    #[error("the delivery holds no decision: {0}")]
    Decision(#[from] DecodeError),
}

impl Delivery {
    /// A delivery that was not tried yet.
    pub fn new(decision: Arc<Decision>, channel: ChannelId, first_at: Timestamp) -> Self {
        let (attempts, plain, not_before, unfolded) = (0, false, None, false);
        Self { decision, channel, first_at, attempts, plain, not_before, unfolded, history: Vec::new() }
    }

    /// Its id, the same on every try.
    pub fn id(&self) -> DeliveryId {
        DeliveryId::of(&self.decision.id, &self.channel)
    }

    /// Whether somebody waits for an answer: it goes before everything else that waits in its lane, and is never folded.
    pub fn is_urgent(&self) -> bool {
        self.decision.kind == DecisionKind::RequireApproval
    }

    /// What kind of a word of the worker's own it carries, if it does.
    pub fn own(&self) -> Option<Own> {
        Own::of(&self.decision)
    }

    /// Whether it only tests its channel: it is not counted as a delivery, and it never becomes a dead letter.
    pub fn is_canary(&self) -> bool {
        matches!(self.own(), Some(Own::Canary(_)))
    }

    /// Whether a digest may tell it. What the worker itself says is told by itself: a notice must not go under in the storm that it
    /// may be about, and a canary is no event.
    pub fn may_be_folded(&self) -> bool {
        !self.is_urgent() && !self.unfolded && self.decision.severity != Severity::Critical && self.own().is_none()
    }

    /// The form in which it waits in a lane queue: JSON, the decision's bytes inside as they came.
    pub fn to_bytes(&self) -> Bytes {
        let head = serde_json::json!({
            "channel": self.channel, "first_at": self.first_at, "attempts": self.attempts, "plain": self.plain,
            "not_before": self.not_before, "unfolded": self.unfolded, "history": self.history,
        })
        .to_string();
        // A decision was decoded from its raw bytes, so they are JSON and may stand as a value; only its outer white space
        // could differ, which `RawValue` drops on reading.
        let raw = self.decision.raw();
        let mut bytes = Vec::with_capacity(head.len() + raw.len() + 16);
        bytes.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
        bytes.extend_from_slice(b",\"decision\":");
        bytes.extend_from_slice(raw);
        bytes.push(b'}');
        bytes.into()
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, DeliveryError> {
        let wire: Wire<'_> = serde_json::from_slice(bytes)?;
        let raw = bytes.slice_ref(wire.decision.get().as_bytes());
        Ok(Self {
            decision: Arc::new(Decision::decode(raw)?),
            channel: wire.channel,
            first_at: wire.first_at,
            attempts: wire.attempts,
            plain: wire.plain,
            not_before: wire.not_before,
            unfolded: wire.unfolded,
            history: wire.history,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::verdict::Outcome;

    fn delivery() -> Delivery {
        let raw = br#" {"id":"d/1","time":"2026-06-01T12:00:00Z","decision":"DENY","severity":"LOW","agent":{"id":"a"},"tool":"t","x":[1, 2]}"#;
        let decision = Decision::decode(Bytes::from_static(raw)).unwrap();
        Delivery::new(Arc::new(decision), "soc".parse().unwrap(), Timestamp::from_unix_millis(1_780_000_000_000))
    }

    #[test]
    fn the_id_depends_on_decision_and_channel_and_on_nothing_else() {
        let mut tried = delivery();
        let id = tried.id();
        tried.attempts = 7;
        assert_eq!(tried.id(), id);
        assert_eq!(id.uuid().get_version_num(), 5);
        let other: ChannelId = "soc-2".parse().unwrap();
        assert_ne!(DeliveryId::of("d/1", &other), id);
        // Pinned: a changed formula would deliver again under another id after an upgrade.
        assert_eq!(id, DeliveryId::of("d/1", &tried.channel));
    }

    #[test]
    fn a_delivery_survives_its_lane_queue_with_the_decision_bytes_untouched() {
        let mut sent = delivery();
        sent.attempts = 3;
        sent.plain = true;
        sent.history.push(Attempt::new(sent.first_at, Outcome::TryLater, Some(503), "HTTP 503: later"));
        let read = Delivery::from_bytes(&sent.to_bytes()).unwrap();
        assert_eq!((read.attempts, read.plain, read.first_at), (3, true, sent.first_at));
        assert_eq!((read.id(), &read.history), (sent.id(), &sent.history));
        // As versions before wrote it.
        let bytes = String::from_utf8(delivery().to_bytes().to_vec()).unwrap().replace(r#""history":[],"#, "");
        assert!(!bytes.contains("history") && Delivery::from_bytes(&bytes.into()).unwrap().history.is_empty());
        assert_eq!(read.decision.raw(), sent.decision.raw().trim_ascii());
    }

    #[test]
    fn what_is_not_a_delivery_is_an_error() {
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"channel":"A","first_at":"x","decision":{}}"#,
            r#"{"channel":"a","first_at":"2026-06-01T12:00:00Z","decision":{}}"#,
        ] {
            assert!(Delivery::from_bytes(&Bytes::copy_from_slice(bad.as_bytes())).is_err(), "{bad}");
        }
    }
}
