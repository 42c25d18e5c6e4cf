//! Which decisions are asked for: from when, until when, and of what kind.
//!
//! Two pictures: [`Asked`] is what somebody wrote, key by key, over HTTP or on the command line; [`Query`] is what the scan can
//! trust. The words are those of a channel's filters, so that what a channel gets can be exported with the same patterns.

use std::fmt;

use super::glance::Glance;
use crate::model::{
    DecisionKind, Severity, Timestamp,
    filter::{KindSet, Pattern},
};

/// The most patterns of agents, and of tools, and the most ids: each is tried on every decision.
const PATTERNS_MAX: usize = 64;

/// The keys that [`Asked::take`] knows.
pub const KEYS: &str = "since, until, decision, severity, min_severity, agent, tool, id";

/// What was asked for, as it was written.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Decided at this time or later; left out: from the first that is kept.
    pub since: Option<Timestamp>,
    /// Decided before this time; left out: up to the present.
    pub until: Option<Timestamp>,
    /// What was decided; none: anything.
    pub decisions: Vec<DecisionKind>,
    /// How grave; none: any.
    pub severities: Vec<Severity>,
    /// How grave at least.
    pub min_severity: Option<Severity>,
    /// Patterns of agent ids or names; none: any.
    pub agents: Vec<String>,
    /// Patterns of tools or `tool.operation`; none: any.
    pub tools: Vec<String>,
    /// Ids of decisions; none: any.
    pub ids: Vec<String>,
}

/// What is wrong with what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct QueryFault {
    /// The key.
    pub key: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl fmt::Display for QueryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.key, self.problem)
    }
}

impl QueryFault {
    /// A fault of `key`, which may be anything at all.
    pub fn new(key: &str, problem: impl Into<String>) -> Self {
        let key = key.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect();
        Self { key, problem: problem.into() }
    }
}

impl Asked {
    /// Takes one `key=value`. `Ok(false)` where the key is not one of [`KEYS`].
    ///
    /// Lists may be written with commas, as several of the same key, or both; patterns only as several of the same key, because a
    /// comma may be part of a name.
    pub fn take(&mut self, key: &str, value: &str) -> Result<bool, QueryFault> {
        let fault = |error: &dyn fmt::Display| QueryFault::new(key, format!("cannot be used: {error}"));
        match key {
            "since" | "until" => {
                let place = if key == "since" { &mut self.since } else { &mut self.until };
                // A plus sign in a query is a space.
                let time = value.replace(' ', "+").parse::<Timestamp>().map_err(|error| fault(&error))?;
                once(key, place, time)?;
            }
            "min_severity" => once(key, &mut self.min_severity, value.parse().map_err(|error| fault(&error))?)?,
            "decision" => listed(value, &mut self.decisions).map_err(|error| fault(&error))?,
            "severity" => listed(value, &mut self.severities).map_err(|error| fault(&error))?,
            "agent" => self.agents.push(value.to_owned()),
            "tool" => self.tools.push(value.to_owned()),
            "id" => self.ids.push(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn once<T>(key: &str, place: &mut Option<T>, value: T) -> Result<(), QueryFault> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(QueryFault::new(key, "is given twice: give it once")),
    }
}

fn listed<T: std::str::FromStr>(values: &str, list: &mut Vec<T>) -> Result<(), T::Err> {
    for value in values.split(',') {
        list.push(value.trim().parse()?);
    }
    Ok(())
}

/// Which decisions are wanted. Not every one of them is excluded, and `since < until`.
#[derive(Clone, Debug)]
pub struct Query {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    kinds: KindSet,
    severities: [bool; Severity::ALL.len()],
    agents: Vec<Pattern>,
    tools: Vec<Pattern>,
    ids: Vec<String>,
}

impl TryFrom<Asked> for Query {
    type Error = QueryFault;

    fn try_from(asked: Asked) -> Result<Self, QueryFault> {
        let Asked { since, until, decisions, severities, min_severity, agents, tools, ids } = asked;
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            let problem = format!("is {since}, which is not before `until`, {until}: give an earlier one");
            return Err(QueryFault::new("since", problem));
        }
        let wanted = |severity: Severity| {
            (severities.is_empty() || severities.contains(&severity)) && min_severity.is_none_or(|min| severity >= min)
        };
        let severities = Severity::ALL.map(wanted);
        if !severities.contains(&true) {
            return Err(QueryFault::new("min_severity", "leaves nothing of `severity`: leave one of the two out"));
        }
        for (key, patterns) in [("agent", &agents), ("tool", &tools), ("id", &ids)] {
            if patterns.len() > PATTERNS_MAX {
                return Err(QueryFault::new(key, format!("is given more than {PATTERNS_MAX} times: use wildcards")));
            }
            if patterns.iter().any(String::is_empty) {
                return Err(QueryFault::new(key, "is empty: give a name, in which * stands for any text"));
            }
        }
        let kinds = if decisions.is_empty() { KindSet::all() } else { decisions.into_iter().collect() };
        let patterns = |texts: Vec<String>| texts.iter().map(|text| Pattern::new(text)).collect();
        Ok(Self { since, until, kinds, severities, agents: patterns(agents), tools: patterns(tools), ids })
    }
}

impl Query {
    /// From when on.
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Until when, that moment left out.
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// How many ids are asked for; none: any.
    pub(super) fn ids(&self) -> usize {
        self.ids.len()
    }

    /// The range in words, for the record of who exported what.
    pub fn range(&self) -> String {
        let show = |time: Option<Timestamp>, open: &str| time.map_or_else(|| open.to_owned(), |time| time.to_string());
        format!("{}..{}", show(self.since, "first"), show(self.until, "now"))
    }

    pub(super) fn wants(&self, glance: &Glance<'_>) -> bool {
        self.since.is_none_or(|since| glance.time() >= since)
            && self.until.is_none_or(|until| glance.time() < until)
            && self.kinds.contains(glance.decision)
            && self.severities[glance.severity as usize]
            && (self.ids.is_empty() || self.ids.iter().any(|id| *id == glance.id))
            && (self.agents.is_empty() || self.agents.iter().any(|pattern| glance.is_of_agent(pattern)))
            && (self.tools.is_empty() || glance.is_of_tool(&self.tools))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<Query, QueryFault> {
        let mut asked = Asked::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap();
            assert!(asked.take(key, value)?, "{key} is not known");
        }
        Query::try_from(asked)
    }

    fn wants(query: &str, decision: &str) -> bool {
        asked(query).unwrap().wants(&Glance::read(decision.as_bytes()).unwrap())
    }

    const DENY: &str = r#"{"id":"1","time":"2026-06-01T12:00:00Z","decision":"DENY","severity":"MEDIUM","agent":{"id":"agt_42","name":"production-langgraph"},"tool":"slack","operation":"post_message"}"#;

    #[test]
    fn since_counts_and_until_does_not() {
        for (query, expected) in [
            ("", true),
            ("since=2026-06-01T12:00:00Z", true),
            ("since=2026-06-01T12:00:00.000000001Z", false),
            ("until=2026-06-01T12:00:00Z", false),
            ("until=2026-06-01T12:00:00.000000001Z", true),
            ("since=2026-06-01T14:00:00+02:00", true),
            ("since=2026-06-01T14:00:00 02:00&until=2026-06-01T14:00:01 02:00", true),
        ] {
            assert_eq!(wants(query, DENY), expected, "{query}");
        }
    }

    #[test]
    fn every_filter_can_say_no_and_all_must_say_yes() {
        for (query, expected) in [
            ("decision=ALLOW", false),
            ("decision=ALLOW,DENY", true),
            ("decision=ALLOW&decision=DENY", true),
            ("severity=LOW", false),
            ("severity=LOW, MEDIUM", true),
            ("min_severity=HIGH", false),
            ("min_severity=MEDIUM", true),
            ("agent=agt_42", true),
            ("agent=production-*", true),
            ("agent=staging-*", false),
            ("agent=staging-*&agent=agt_*", true),
            ("tool=slack", true),
            ("tool=slack.post_*", true),
            ("tool=*.post_message", true),
            ("tool=github", false),
            ("tool=slack&decision=ALLOW", false),
            ("id=1", true),
            ("id=2", false),
            ("id=2&id=1", true),
        ] {
            assert_eq!(wants(query, DENY), expected, "{query}");
        }
    }

    #[test]
    fn a_fault_names_its_key_and_what_would_be_right() {
        for (query, key, right) in [
            ("since=yesterday", "since", "RFC 3339"),
            ("until=", "until", "RFC 3339"),
            ("since=2026-06-02T00:00:00Z&until=2026-06-01T00:00:00Z", "since", "earlier"),
            ("since=2026-06-01T00:00:00Z&until=2026-06-01T00:00:00Z", "since", "earlier"),
            ("since=2026-06-01T00:00:00Z&since=2026-06-01T00:00:00Z", "since", "once"),
            ("decision=deny", "decision", "DENY"),
            ("severity=HIGH,", "severity", "CRITICAL"),
            ("min_severity=URGENT", "min_severity", "CRITICAL"),
            ("severity=LOW&min_severity=HIGH", "min_severity", "leave one"),
            ("agent=", "agent", "name"),
        ] {
            let fault = asked(query).unwrap_err();
            assert_eq!(fault.key, key, "{query}");
            assert!(fault.problem.contains(right), "{query}: {fault}");
        }
        assert!(asked(&"&tool=a".repeat(65)).is_err());
        assert!(!Asked::default().take("sinse", "x").unwrap());
    }
}
