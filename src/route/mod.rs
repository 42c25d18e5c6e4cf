//! Which channels a decision goes to.
//!
//! Rules are compiled once per configuration, so that routing among 10,000 channels costs little more than among 10: a decision
//! is looked up, not compared with every channel. Each channel stands in the index under the dimension that says no most
//! often: exact agents, exact tools, then the longest literal piece of its wildcards, and only a channel without any of these
//! under its events and severity alone. What the index yields are candidates; the filter itself has the last word, so the index
//! can make routing slow but never wrong.
//!
//! Absent on purpose: what a channel is. Channels are numbers here, in the order of the configuration.

use std::collections::{BTreeSet, HashMap};

use aho_corasick::{AhoCorasick, MatchKind};

use crate::model::{
    Decision, DecisionKind, Filter, Severity,
    filter::{KindSet, Pattern},
};

/// The compiled rules of all channels.
#[derive(Debug)]
pub struct Routes {
    filters: Vec<Filter>,
    /// Channels without tools and agents, by decision and severity: every candidate is a match.
    open: Vec<Vec<u32>>,
    agents: Dimension,
    tools: Dimension,
}

/// Channels that stand under names of one dimension.
#[derive(Debug, Default)]
struct Dimension {
    exact: HashMap<Box<str>, Vec<Candidate>>,
    /// Wildcard patterns by their longest literal piece.
    wild: Option<Wild>,
    /// Patterns without a literal piece (`*`).
    any: Vec<Candidate>,
}

#[derive(Debug)]
struct Wild {
    pieces: AhoCorasick,
    candidates: Vec<Vec<Candidate>>,
}

/// A channel that may want a decision, with what rules most decisions out at no cost.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    channel: u32,
    events: KindSet,
    min_severity: Severity,
}

/// The indices of the channels that want a decision, in the order of the configuration, each once.
pub type Matches = Vec<u32>;

impl Routes {
    /// Compiles the filters of channels 0, 1, 2 ...
    pub fn new(filters: Vec<Filter>) -> Self {
        let mut open = vec![Vec::new(); DecisionKind::ALL.len() * Severity::ALL.len()];
        let mut agents = DimensionBuilder::default();
        let mut tools = DimensionBuilder::default();
        for (channel, filter) in (0..).zip(&filters) {
            let candidate = Candidate { channel, events: filter.events, min_severity: filter.min_severity };
            match (&filter.agents, &filter.tools) {
                (None, None) => {
                    for (kind, severity) in cells() {
                        if filter.events.contains(kind) && severity >= filter.min_severity {
                            open[cell(kind, severity)].push(channel);
                        }
                    }
                }
                (Some(patterns), None) => agents.add(patterns, candidate),
                (None, Some(patterns)) => tools.add(patterns, candidate),
                // A tool is shared by many channels, an agent by few; a wildcard says less than a name.
                (Some(by_agent), Some(by_tool)) if is_vague(by_agent) && !is_vague(by_tool) => {
                    tools.add(by_tool, candidate);
                }
                (Some(by_agent), Some(_)) => agents.add(by_agent, candidate),
            }
        }
        Self { filters, open, agents: agents.build(), tools: tools.build() }
    }

    /// The channels that want `decision`, written into `matches`.
    pub fn matches(&self, decision: &Decision, matches: &mut Matches) {
        matches.clear();
        matches.extend_from_slice(&self.open[cell(decision.kind, decision.severity)]);
        let from_open = matches.len();
        let mut take = |candidate: &Candidate| {
            if candidate.events.contains(decision.kind)
                && decision.severity >= candidate.min_severity
                && self.filters[candidate.channel as usize].wants(decision)
            {
                matches.push(candidate.channel);
            }
        };
        self.agents.candidates(&decision.agent.id, &mut take);
        if let Some(name) = decision.agent.name.as_deref() {
            self.agents.candidates(name, &mut take);
        }
        self.tools.candidates(decision.tool_name(), &mut take);
        if decision.operation().is_some() {
            self.tools.candidates(decision.tool(), &mut take);
        }
        // A channel can stand under several names that this decision has.
        if matches.len() > from_open {
            matches.sort_unstable();
            matches.dedup();
        }
    }
}

fn cells() -> impl Iterator<Item = (DecisionKind, Severity)> {
    DecisionKind::ALL.into_iter().flat_map(|kind| Severity::ALL.into_iter().map(move |severity| (kind, severity)))
}

const fn cell(kind: DecisionKind, severity: Severity) -> usize {
    kind as usize * Severity::ALL.len() + severity as usize
}

/// Whether some pattern has no literal piece that is worth looking for.
fn is_vague(patterns: &[Pattern]) -> bool {
    patterns.iter().any(|pattern| pattern.is_wild() && longest_piece(pattern).len() < 3)
}

fn longest_piece(pattern: &Pattern) -> &str {
    pattern.as_str().split('*').max_by_key(|piece| piece.len()).unwrap_or("")
}

#[derive(Default)]
struct DimensionBuilder {
    exact: HashMap<Box<str>, Vec<Candidate>>,
    pieces: HashMap<Box<str>, Vec<Candidate>>,
    any: Vec<Candidate>,
}

impl DimensionBuilder {
    fn add(&mut self, patterns: &[Pattern], candidate: Candidate) {
        // One channel may write the same piece twice.
        let exact: BTreeSet<&str> = patterns.iter().filter(|one| !one.is_wild()).map(Pattern::as_str).collect();
        let pieces: BTreeSet<&str> = patterns.iter().filter(|one| one.is_wild()).map(longest_piece).collect();
        for name in exact {
            self.exact.entry(name.into()).or_default().push(candidate);
        }
        for piece in pieces {
            if piece.is_empty() {
                self.any.push(candidate);
            } else {
                self.pieces.entry(piece.into()).or_default().push(candidate);
            }
        }
    }

    fn build(self) -> Dimension {
        let (pieces, candidates): (Vec<Box<str>>, Vec<Vec<Candidate>>) = self.pieces.into_iter().unzip();
        // `None` where no pattern has a wildcard, or where the automaton would be too large: then all wildcards are asked.
        let wild = (!pieces.is_empty()).then(|| {
            AhoCorasick::builder().match_kind(MatchKind::Standard).build(pieces.iter().map(|piece| piece.as_bytes()))
        });
        let mut any = self.any;
        let wild = match wild {
            Some(Ok(pieces)) => Some(Wild { pieces, candidates }),
            Some(Err(_)) => {
                any.extend(candidates.into_iter().flatten());
                None
            }
            None => None,
        };
        Dimension { exact: self.exact, wild, any }
    }
}

impl Dimension {
    fn candidates(&self, text: &str, take: &mut impl FnMut(&Candidate)) {
        if !self.exact.is_empty()
            && let Some(candidates) = self.exact.get(text)
        {
            candidates.iter().for_each(&mut *take);
        }
        if let Some(wild) = &self.wild {
            for found in wild.pieces.find_overlapping_iter(text) {
                wild.candidates[found.pattern().as_usize()].iter().for_each(&mut *take);
            }
        }
        self.any.iter().for_each(take);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn decision(
        kind: DecisionKind,
        severity: Severity,
        agent: &str,
        name: Option<&str>,
        tool: &str,
        operation: Option<&str>,
    ) -> Decision {
        let json = serde_json::json!({
            "id": "1", "time": "2026-06-01T12:00:00Z", "decision": kind, "severity": severity,
            "agent": {"id": agent, "name": name}, "tool": tool, "operation": operation,
        });
        Decision::decode(Bytes::from(json.to_string())).unwrap()
    }

    fn any_filter() -> impl Strategy<Value = Filter> {
        let patterns =
            || prop::option::of(prop::collection::vec("[ab.*]{1,4}".prop_map(|text| Pattern::new(&text)), 1..4));
        let kinds = prop::collection::vec(prop::sample::select(&DecisionKind::ALL[..]), 0..5);
        (kinds, prop::sample::select(&Severity::ALL[..]), patterns(), patterns()).prop_map(
            |(kinds, min_severity, tools, agents)| Filter {
                events: kinds.into_iter().collect(),
                min_severity,
                tools,
                agents,
            },
        )
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_asking_every_filter(
            filters in prop::collection::vec(any_filter(), 0..40),
            kind in prop::sample::select(&DecisionKind::ALL[..]),
            severity in prop::sample::select(&Severity::ALL[..]),
            agent in "[ab.]{1,4}", name in prop::option::of("[ab.]{0,4}"),
            tool in "[ab]{1,3}", operation in prop::option::of("[ab]{0,3}"),
        ) {
            let decision = decision(kind, severity, &agent, name.as_deref(), &tool, operation.as_deref());
            let expected: Vec<u32> = (0..).zip(&filters).filter(|(_, filter)| filter.check(&decision).is_ok()).map(|(at, _)| at).collect();
            let mut matches = Matches::new();
            Routes::new(filters).matches(&decision, &mut matches);
            prop_assert_eq!(matches, expected);
        }
    }
}
