//! A decision at a glance: just the fields that filters and the order need, borrowed from its bytes.
//!
//! An export looks at every decision of the log, and reads only those that are wanted as a whole, later, when they are written.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, de};

use crate::model::{DecisionKind, Severity, Timestamp, filter::Pattern};

/// What filters and the order need of a decision.
#[derive(Debug, Deserialize)]
pub(super) struct Glance<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    time: Time,
    pub(super) decision: DecisionKind,
    pub(super) severity: Severity,
    #[serde(borrow)]
    agent: Agent<'a>,
    #[serde(borrow)]
    tool: Cow<'a, str>,
    #[serde(borrow, default)]
    operation: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct Agent<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
}

/// A text that is borrowed inside of an `Option` too, which a bare `Cow` is not.
#[derive(Debug, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A time that is read without a copy of its text.
#[derive(Debug)]
struct Time(Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl de::Visitor<'_> for Reader {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time in RFC 3339")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                text.parse().map(Time).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Reader)
    }
}

impl<'a> Glance<'a> {
    /// Looks at one record of the log; `None` of what is no decision, which nobody but a stranger on the broker appends.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        if !text.trim_ascii_start().starts_with('{') {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    pub(super) fn time(&self) -> Timestamp {
        self.time.0
    }

    pub(super) fn is_of_agent(&self, pattern: &Pattern) -> bool {
        pattern.matches(&self.agent.id) || self.agent.name.as_ref().is_some_and(|name| pattern.matches(&name.0))
    }

    pub(super) fn is_of_tool(&self, patterns: &[Pattern]) -> bool {
        let operation = self.operation.as_ref().filter(|operation| !operation.0.is_empty());
        let full = operation.map(|operation| format!("{}.{}", self.tool, operation.0));
        patterns
            .iter()
            .any(|pattern| pattern.matches(&self.tool) || full.as_ref().is_some_and(|full| pattern.matches(full)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{formats::hostile, model::Filter};

    proptest! {
        #[test]
        fn a_glance_sees_what_a_reader_of_the_whole_sees(
            decision in hostile::decision(),
            tool in "[a-z*]{0,4}",
            agent in "[a-z*]{0,4}",
        ) {
            let glance = Glance::read(decision.raw()).expect("whatever decodes can be glanced at");
            prop_assert_eq!((&*glance.id, glance.time()), (&*decision.id, decision.time));
            prop_assert_eq!((glance.decision, glance.severity), (decision.kind, decision.severity));
            let (tool, agent) = (Pattern::new(&tool), Pattern::new(&agent));
            let all = Filter { events: [decision.kind].into_iter().collect(), min_severity: Severity::Low, tools: None, agents: None };
            let of_tool = Filter { tools: Some(vec![tool.clone()]), ..all.clone() };
            let of_agent = Filter { agents: Some(vec![agent.clone()]), ..all };
            prop_assert_eq!(glance.is_of_tool(&[tool]), of_tool.wants(&decision));
            prop_assert_eq!(glance.is_of_agent(&agent), of_agent.wants(&decision));
        }
    }

    #[test]
    fn what_is_no_decision_is_not_seen_as_one() {
        for text in ["", "[]", "{}", "null", "\u{feff}{}", r#"{"id":"1","time":"now","decision":"DENY"}"#] {
            assert!(Glance::read(text.as_bytes()).is_none(), "{text}");
        }
        assert!(Glance::read(b"\xff").is_none());
    }
}
