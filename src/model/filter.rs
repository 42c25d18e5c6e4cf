//! Which decisions a channel wants: events, minimum severity, tools, agents.
//!
//! A [`Filter`] answers for one decision. Thousands of them are answered at once by `route`, which uses the same patterns
//! and must agree with [`Filter::check`]; a property test over there holds the two together.

use super::{ChannelId, Decision, DecisionKind, Severity};

/// A set of decision kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct KindSet(u8);

impl KindSet {
    /// The set of all kinds.
    pub fn all() -> Self {
        DecisionKind::ALL.into_iter().collect()
    }

    /// Whether `kind` is in the set.
    pub const fn contains(self, kind: DecisionKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// The kinds in the set, in the order of [`DecisionKind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = DecisionKind> {
        DecisionKind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}

impl FromIterator<DecisionKind> for KindSet {
    fn from_iter<I: IntoIterator<Item = DecisionKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u8))
    }
}

/// A name in which `*` stands for any text, none included. Case matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// The pattern that `text` writes. Every text is a pattern.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// As the operator wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has a wildcard; without one it matches just itself.
    pub fn is_wild(&self) -> bool {
        self.0.contains('*')
    }

    /// Whether it matches the whole of `text`. Linear in the text for every number of wildcards: the pieces between them are
    /// looked for from left to right, and the first place that fits is always good enough.
    pub fn matches(&self, text: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else { return *self.0 == *text };
        let Some(mut text) = text.strip_prefix(head) else { return false };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        for piece in middle.split('*') {
            let Some(at) = text.find(piece) else { return false };
            text = &text[at + piece.len()..];
        }
        text.ends_with(tail)
    }
}

/// Which decisions a channel wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The decisions it wants.
    pub events: KindSet,
    /// The least severity it wants.
    pub min_severity: Severity,
    /// Patterns of tools or `tool.operation`; `None` wants all.
    pub tools: Option<Vec<Pattern>>,
    /// Patterns of agent ids or names; `None` wants all.
    pub agents: Option<Vec<Pattern>>,
}

/// The first filter that a decision does not pass, with both values, in the words of `explain`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Mismatch {
    /// The configuration key: `events`, `min_severity`, `tools` or `agents`.
    pub filter: &'static str,
    /// What the channel wants.
    pub wanted: String,
    /// What the decision has.
    pub found: String,
}

/// What one channel says to a decision: an answer of `explain`, on the command line and over the API.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Explained {
    /// The channel.
    pub channel: ChannelId,
    /// Whether it wants the decision.
    pub matches: bool,
    /// Or else the first filter that says no.
    #[serde(flatten)]
    pub mismatch: Option<Mismatch>,
}

impl Explained {
    /// What the channel with this filter says to `decision`.
    pub fn of(channel: &ChannelId, filter: &Filter, decision: &Decision) -> Self {
        let mismatch = filter.check(decision).err();
        Self { channel: channel.clone(), matches: mismatch.is_none(), mismatch }
    }
}

impl Filter {
    /// What a channel without filters of its own wants. Source: contract 3.
    pub fn default_events() -> KindSet {
        [DecisionKind::RequireApproval, DecisionKind::Deny, DecisionKind::Incident].into_iter().collect()
    }

    /// Whether the channel wants `decision`, or else the first filter that says no.
    pub fn check(&self, decision: &Decision) -> Result<(), Mismatch> {
        let mismatch = |filter, wanted: String, found: String| Err(Mismatch { filter, wanted, found });
        if !self.events.contains(decision.kind) {
            let wanted = self.events.iter().map(DecisionKind::as_str).collect::<Vec<_>>().join(", ");
            return mismatch("events", wanted, decision.kind.to_string());
        }
        if decision.severity < self.min_severity {
            return mismatch("min_severity", self.min_severity.to_string(), decision.severity.to_string());
        }
        if !self.wants_tool(decision) {
            return mismatch("tools", list(self.tools.as_deref()), decision.tool_name().to_owned());
        }
        if !self.wants_agent(decision) {
            let name = decision.agent.name.as_deref().map_or(String::new(), |name| format!(" ({name})"));
            return mismatch("agents", list(self.agents.as_deref()), format!("{}{name}", decision.agent.id));
        }
        Ok(())
    }

    /// Whether the channel wants `decision`, without the words.
    pub fn wants(&self, decision: &Decision) -> bool {
        self.events.contains(decision.kind)
            && decision.severity >= self.min_severity
            && self.wants_tool(decision)
            && self.wants_agent(decision)
    }

    fn wants_tool(&self, decision: &Decision) -> bool {
        self.tools.as_ref().is_none_or(|patterns| {
            patterns.iter().any(|pattern| pattern.matches(decision.tool()) || pattern.matches(decision.tool_name()))
        })
    }

    fn wants_agent(&self, decision: &Decision) -> bool {
        self.agents.as_ref().is_none_or(|patterns| {
            patterns.iter().any(|pattern| {
                pattern.matches(&decision.agent.id)
                    || decision.agent.name.as_deref().is_some_and(|name| pattern.matches(name))
            })
        })
    }
}

fn list(patterns: Option<&[Pattern]>) -> String {
    patterns.unwrap_or_default().iter().map(Pattern::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let cases = [
            ("slack", "slack", true),
            ("slack", "slack.post", false),
            ("github.create_*", "github.create_issue", true),
            ("github.create_*", "github.delete_repo", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*prod*eu*", "my-prod-in-eu-1", true),
            ("*prod*eu*", "eu-prod", false),
            ("a**b", "ab", true),
            ("*.delete_*", "db.delete_rows", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} on {text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_pattern_agrees_with_the_definition_of_a_wildcard(pattern in "[ab*]{0,7}", text in "[ab]{0,9}") {
            fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|skip| by_definition(rest, &text[skip..])),
                    Some((byte, rest)) => text.split_first().is_some_and(|(first, text)| first == byte && by_definition(rest, text)),
                }
            }
            proptest::prop_assert_eq!(Pattern::new(&pattern).matches(&text), by_definition(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
