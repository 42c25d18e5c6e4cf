//! A dead letter: the message as it came, why it could not be delivered, and all that an operator needs to decide.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{Attempt, ChannelId, DeathReason, DecisionKind, Delivery, DeliveryId, Severity, Timestamp};

/// The id of a dead letter: a UUIDv7, so ids sort by the time of death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LetterId(pub Uuid);

impl std::fmt::Display for LetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for LetterId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// What the endpoint said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReply {
    /// The HTTP status; none where no reply came.
    pub status: Option<u16>,
    /// What it said or what went wrong, free of secrets, at most 2,000 characters.
    pub text: String,
    /// When.
    pub at: Timestamp,
}

/// A decision or delivery that the worker could not deliver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its id.
    pub id: LetterId,
    /// What it stands for: the delivery id, or for a message that is no delivery the UUIDv5 of its bytes. The store keeps one
    /// letter per subject: a delivery that dies again after a redelivery replaces its letter.
    pub subject: Uuid,
    /// Why it is dead.
    pub reason: DeathReason,
    /// The detail for people: the decoding error, the endpoint's words; free of secrets, at most 2,000 characters.
    pub detail: String,
    /// The channel, for a delivery.
    pub channel: Option<ChannelId>,
    /// The decision's id, where it could be read.
    pub decision_id: Option<String>,
    /// What was decided, where it could be read.
    pub decision: Option<DecisionKind>,
    /// How grave, where it could be read.
    pub severity: Option<Severity>,
    /// When a worker first saw it.
    pub first_at: Timestamp,
    /// When it died.
    pub died_at: Timestamp,
    /// Tries that the endpoint answered with a failure of its own.
    pub attempts: u32,
    /// What the endpoint said last.
    pub last_reply: Option<LastReply>,
    /// The last tries that failed, the oldest first; none where it was never tried, or by a version that did not keep them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Attempt>,
    /// The decision's message, as it came.
    #[serde(with = "body_text")]
    pub body: Bytes,
}

impl DeadLetter {
    /// The longest `detail` and reply text, in characters.
    pub const TEXT_CHARS_MAX: usize = 2_000;

    /// The letter of a delivery.
    pub fn of_delivery(
        delivery: &Delivery,
        reason: DeathReason,
        detail: &str,
        last_reply: Option<LastReply>,
        now: Timestamp,
    ) -> Self {
        Self {
            id: LetterId(Uuid::now_v7()),
            subject: delivery.id().uuid(),
            reason,
            detail: cut(detail),
            channel: Some(delivery.channel.clone()),
            decision_id: Some(delivery.decision.id.to_string()),
            decision: Some(delivery.decision.kind),
            severity: Some(delivery.decision.severity),
            first_at: delivery.first_at,
            died_at: now,
            attempts: delivery.attempts,
            last_reply: last_reply.map(|reply| LastReply { text: cut(&reply.text), ..reply }),
            history: delivery.history.clone(),
            body: delivery.decision.raw().clone(),
        }
    }

    /// The letter of a message that is no delivery: malformed, poison, or given up by the broker.
    pub fn of_message(body: Bytes, reason: DeathReason, detail: &str, now: Timestamp) -> Self {
        Self {
            id: LetterId(Uuid::now_v7()),
            subject: Uuid::new_v5(&DeliveryId::NAMESPACE, &body),
            reason,
            detail: cut(detail),
            channel: None,
            decision_id: None,
            decision: None,
            severity: None,
            first_at: now,
            died_at: now,
            attempts: 0,
            last_reply: None,
            history: Vec::new(),
            body,
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(DeadLetter::TEXT_CHARS_MAX).collect()
}

/// A body in JSON: text where it is UTF-8, else `{"base64": "..."}`, so that a person can read most of them.
mod body_text {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(untagged)]
    enum Body {
        Text(String),
        Binary { base64: String },
    }

    pub(super) fn serialize<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(body) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Body::Binary { base64: STANDARD.encode(body) }.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        match Body::deserialize(deserializer)? {
            Body::Text(text) => Ok(text.into()),
            Body::Binary { base64 } => STANDARD.decode(base64).map(Bytes::from).map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_survives_json_with_its_bytes_untouched() {
        for body in [&b"{\"not\": json"[..], b"\xff\xfe\x00", b""] {
            let letter = DeadLetter::of_message(
                Bytes::copy_from_slice(body),
                DeathReason::Malformed,
                "no",
                Timestamp::UNIX_EPOCH,
            );
            let read: DeadLetter = serde_json::from_slice(&serde_json::to_vec(&letter).unwrap()).unwrap();
            assert_eq!(read, letter);
        }
    }
}
