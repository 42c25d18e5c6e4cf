//! A decision of the firewall, read from the bytes that the broker carries.
//!
//! Two pictures: [`Wire`] mirrors the JSON as the firewall writes it, [`Decision`] is what the rest of the program trusts, and
//! [`Decision::decode`] is the only way from one to the other. The bytes are kept as they came: fields that we do not know
//! must reach JSON formats, and a log or a lane queue must carry exactly what was published.
//!
//! All text in a decision is hostile. Nothing is escaped or cut here; each format does that where it knows the rules.

use std::net::IpAddr;

use bytes::Bytes;
use serde::Deserialize;

use super::Timestamp;

/// The largest decision that is read, in bytes. Source: contract 2.
pub const DECISION_BYTES_MAX: usize = 256 * 1024;

/// What the firewall decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DecisionKind {
    /// The call went through.
    Allow,
    /// The call was stopped.
    Deny,
    /// The call went through with parts removed.
    Sanitize,
    /// The call waits for an analyst.
    RequireApproval,
    /// Something happened that people must look at.
    Incident,
}

impl DecisionKind {
    /// Every kind, in the order of the product page.
    pub const ALL: [Self; 5] = [Self::Allow, Self::Deny, Self::Sanitize, Self::RequireApproval, Self::Incident];

    /// The name on the wire, in filters, cards and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Sanitize => "SANITIZE",
            Self::RequireApproval => "REQUIRE_APPROVAL",
            Self::Incident => "INCIDENT",
        }
    }
}

/// How grave a decision is. Ordered: `Low < Medium < High < Critical`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Severity {
    /// Worth keeping.
    Low,
    /// Worth a look.
    Medium,
    /// Worth a prompt look.
    High,
    /// Somebody must look now.
    Critical,
}

impl Severity {
    /// Every severity, from the least.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The name on the wire, in filters, cards and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
            Self::Critical => "CRITICAL",
        }
    }
}

/// Implements `Display` and `FromStr` of a closed list of names by its `ALL` and `as_str`.
macro_rules! named {
    ($type:ty, $what:literal) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or_else(|| UnknownName {
                    text: text.chars().take(80).collect(),
                    what: $what,
                    known: Self::ALL.map(Self::as_str).join(", "),
                })
            }
        }
    };
}

named!(DecisionKind, "a decision");
named!(Severity, "a severity");

/// A text that names nothing of the list it was read as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: use one of {known}")]
pub struct UnknownName {
    text: String,
    what: &'static str,
    known: String,
}

/// The agent whose call was decided on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Agent {
    /// The id, never empty.
    pub id: Box<str>,
    /// The name that people gave it.
    #[serde(default)]
    pub name: Option<Box<str>>,
}

impl Agent {
    /// What people call it: the name, or else the id.
    pub fn label(&self) -> &str {
        self.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&self.id)
    }
}

/// What an analyst is asked for by a REQUIRE_APPROVAL decision.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Approval {
    /// The id of the approval, which the answer names.
    pub id: Box<str>,
    /// From when on an answer is too late.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// One decision, valid: see the contract, section 2, for every field's range.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The id, 1 to 128 printable characters.
    pub id: Box<str>,
    /// When it was decided.
    pub time: Timestamp,
    /// What was decided.
    pub kind: DecisionKind,
    /// How grave it is.
    pub severity: Severity,
    /// `0.0..=1.0`, where the firewall gave one.
    pub risk: Option<f64>,
    /// One line for people, where the firewall gave one.
    pub title: Option<Box<str>>,
    /// Whose call it was.
    pub agent: Agent,
    /// Machine-readable reasons, possibly none.
    pub reasons: Vec<Box<str>>,
    /// Where the call came from.
    pub src: Option<IpAddr>,
    /// The approval that is asked for; only REQUIRE_APPROVAL decisions carry one that means anything.
    pub approval: Option<Approval>,
    /// `tool.operation`, or just `tool`.
    tool_name: Box<str>,
    /// How many bytes of `tool_name` are the tool.
    tool_len: usize,
    /// The message as it came.
    raw: Bytes,
}

/// The JSON as the firewall writes it.
#[derive(Deserialize)]
struct Wire {
    id: Box<str>,
    time: Timestamp,
    decision: DecisionKind,
    severity: Severity,
    #[serde(default)]
    risk: Option<f64>,
    #[serde(default)]
    title: Option<Box<str>>,
    agent: Agent,
    tool: String,
    #[serde(default)]
    operation: Option<Box<str>>,
    #[serde(default)]
    reasons: Option<Vec<Box<str>>>,
    #[serde(default)]
    src: Option<IpAddr>,
    #[serde(default)]
    approval: Option<Approval>,
}

/// Why a message is not a decision. It becomes a dead letter with reason `malformed`, and this text is its detail.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Larger than [`DECISION_BYTES_MAX`].
    #[error("the message has {bytes} bytes, more than the {DECISION_BYTES_MAX} that a decision may have")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not UTF-8.
    #[error("the message is not UTF-8 text")]
    NotText,
    /// Something else than a JSON object.
    #[error("the message is not a JSON object")]
    NotAnObject,
    /// Not JSON, or not of a decision's shape.
    #[error("the message is not a decision: {0}")]
    Json(#[from] serde_json::Error),
    /// A field is out of its range.
    #[error("`{field}` {problem}")]
    Field {
        /// The path of the field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Decision {
    /// Reads and checks one message.
    pub fn decode(raw: Bytes) -> Result<Self, DecodeError> {
        if raw.len() > DECISION_BYTES_MAX {
            return Err(DecodeError::TooLarge { bytes: raw.len() });
        }
        // Whole-message checks that serde leaves out: a field that nobody reads may hold what is no text, and a derived reader
        // takes a list for an object. Both would be found out later, when the decision must be written as JSON again.
        let text = std::str::from_utf8(&raw).map_err(|_| DecodeError::NotText)?;
        if !text.trim_ascii_start().starts_with('{') {
            return Err(DecodeError::NotAnObject);
        }
        let wire: Wire = serde_json::from_str(text)?;
        let fault = |field, problem| Err(DecodeError::Field { field, problem });
        if wire.id.is_empty() || wire.id.len() > 4 * 128 || wire.id.chars().count() > 128 {
            return fault("id", "must have 1 to 128 characters");
        }
        if wire.id.chars().any(char::is_control) {
            return fault("id", "must have printable characters only");
        }
        if wire.agent.id.is_empty() {
            return fault("agent.id", "must not be empty");
        }
        if wire.tool.is_empty() {
            return fault("tool", "must not be empty");
        }
        if wire.risk.is_some_and(|risk| !(0.0..=1.0).contains(&risk)) {
            return fault("risk", "must be from 0 to 1");
        }
        if wire.approval.as_ref().is_some_and(|approval| approval.id.is_empty()) {
            return fault("approval.id", "must not be empty");
        }
        let tool_len = wire.tool.len();
        let mut tool_name = wire.tool;
        if let Some(operation) = wire.operation.filter(|operation| !operation.is_empty()) {
            tool_name.reserve_exact(1 + operation.len());
            tool_name.push('.');
            tool_name.push_str(&operation);
        }
        Ok(Self {
            id: wire.id,
            time: wire.time,
            kind: wire.decision,
            severity: wire.severity,
            risk: wire.risk,
            title: wire.title.filter(|title| !title.is_empty()),
            agent: wire.agent,
            reasons: wire.reasons.unwrap_or_default(),
            src: wire.src,
            approval: wire.approval,
            tool_name: tool_name.into(),
            tool_len,
            raw,
        })
    }

    /// The tool, never empty.
    pub fn tool(&self) -> &str {
        &self.tool_name[..self.tool_len]
    }

    /// The operation, where the firewall gave one.
    pub fn operation(&self) -> Option<&str> {
        self.tool_name.get(self.tool_len + 1..)
    }

    /// The full name that people see: `tool.operation`, or just the tool.
    pub fn tool_name(&self) -> &str {
        &self.tool_name
    }

    /// The message as it came: valid JSON, at most [`DECISION_BYTES_MAX`] bytes.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The approval that an analyst may answer: only a REQUIRE_APPROVAL decision has one.
    pub fn approval_asked(&self) -> Option<&Approval> {
        self.approval.as_ref().filter(|_| self.kind == DecisionKind::RequireApproval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"{"id":"f1e2d3c4-5b6a-4788-99aa-bbccddeeff00","time":"2026-06-01T12:00:00.123Z","decision":"REQUIRE_APPROVAL",
 "severity":"HIGH","risk":0.71,"title":"Secret egress blocked","agent":{"id":"agt_42","name":"production-langgraph"},
 "tool":"slack","operation":"post_message","reasons":["PII_EGRESS","SENSITIVE_DATA_EGRESS"],"src":"10.0.0.42",
 "approval":{"id":"apr_7","expires_at":"2026-06-01T12:10:00Z"},"tenant":"acme"}"#;

    fn decode(text: &str) -> Result<Decision, DecodeError> {
        Decision::decode(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn edited(edit: impl FnOnce(&mut serde_json::Value)) -> Result<Decision, DecodeError> {
        let mut value: serde_json::Value = serde_json::from_str(EXAMPLE).unwrap();
        edit(&mut value);
        decode(&value.to_string())
    }

    #[test]
    fn the_example_of_the_contract_is_read_whole() {
        let decision = decode(EXAMPLE).unwrap();
        assert_eq!(decision.kind, DecisionKind::RequireApproval);
        assert_eq!((decision.tool(), decision.operation()), ("slack", Some("post_message")));
        assert_eq!(decision.tool_name(), "slack.post_message");
        assert_eq!(decision.agent.label(), "production-langgraph");
        assert_eq!(decision.approval_asked().map(|approval| &*approval.id), Some("apr_7"));
        assert_eq!(decision.raw(), EXAMPLE.as_bytes());
    }

    #[test]
    fn only_the_required_fields_are_required() {
        let minimal = r#"{"id":"1","time":"2026-06-01T12:00:00Z","decision":"ALLOW","severity":"LOW","agent":{"id":"a"},"tool":"t"}"#;
        let decision = decode(minimal).unwrap();
        assert_eq!((decision.operation(), decision.tool_name(), decision.agent.label()), (None, "t", "a"));
        for field in ["id", "time", "decision", "severity", "agent", "tool"] {
            assert!(edited(|value| drop(value.as_object_mut().unwrap().remove(field))).is_err(), "{field}");
        }
        for field in ["risk", "title", "operation", "reasons", "src", "approval"] {
            assert!(edited(|value| value[field] = serde_json::Value::Null).is_ok(), "{field}: null");
        }
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_name_of_their_field() {
        let cases: [(&str, serde_json::Value, &str); 9] = [
            ("id", "".into(), "id"),
            ("id", "a\u{7}".into(), "id"),
            ("id", "x".repeat(129).into(), "id"),
            ("risk", 1.01.into(), "risk"),
            ("risk", (-0.1).into(), "risk"),
            ("tool", "".into(), "tool"),
            ("src", "10.0.0".into(), "IP"),
            ("severity", "high".into(), "severity"),
            ("decision", "BLOCK".into(), "decision"),
        ];
        for (field, value, named) in cases {
            let error = edited(|decision| decision[field] = value.clone()).unwrap_err().to_string();
            assert!(error.contains(named) || error.contains("unknown variant"), "{field} = {value}: {error}");
        }
        assert!(edited(|decision| decision["src"] = "2001:db8::1".into()).is_ok());
        assert!(edited(|decision| decision["id"] = "x".repeat(128).into()).is_ok());
    }

    #[test]
    fn a_message_above_the_limit_is_refused_unread() {
        let error = Decision::decode(Bytes::from(vec![b' '; DECISION_BYTES_MAX + 1])).unwrap_err();
        assert!(matches!(error, DecodeError::TooLarge { bytes } if bytes == DECISION_BYTES_MAX + 1));
    }

    #[test]
    fn what_would_fail_to_be_written_again_is_refused_when_read() {
        let mut bytes = EXAMPLE.replace("acme", "ac?me").into_bytes();
        let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
        bytes[at] = 0xff;
        assert!(matches!(Decision::decode(bytes.into()), Err(DecodeError::NotText)));
        let list = r#"["1","2026-06-01T12:00:00Z","DENY","LOW",null,null,{"id":"a"},"t",null,null,null,null]"#;
        assert!(matches!(decode(list), Err(DecodeError::NotAnObject)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            drop(Decision::decode(Bytes::from(bytes)));
        }
    }
}
