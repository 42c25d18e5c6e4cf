//! A digest: what a storm of decisions was about, in exact counts, so that one card can tell thousands.
//!
//! Built from the deliveries that it stands for, and pure: the same deliveries give the same digest, in whatever order they
//! come. Names are hostile and there may be as many as decisions, so they are counted where they lie, cut to a bound before
//! they are compared, and copied only where they are among the biggest.

use std::{
    cmp::{Ordering, Reverse},
    collections::HashMap,
    hash::Hash,
    sync::Arc,
};

use super::{Decision, DecisionKind, Delivery, Timestamp};

/// How many of the most severe decisions are named one by one.
pub const NAMED_MAX: usize = 5;

/// How many agents, tools and reasons are counted by name; the others are counted together.
pub const GROUPS_MAX: usize = 10;

/// How much of a name is read, in characters: more than any card shows. Names that begin with the same so many are one.
pub const NAME_CHARS_MAX: usize = 200;

/// The decisions of one digest, counted.
#[derive(Clone, Debug)]
pub struct Digest {
    /// How many decisions it stands for, at least 1.
    pub total: usize,
    /// Counts by kind of decision, most first; they add up to `total`.
    pub kinds: Vec<(DecisionKind, usize)>,
    /// Counts by agent; they add up to `total`. Shown by name (or else id); a name that several agents have is shown with the id.
    pub agents: Groups,
    /// Counts by `tool.operation`; they add up to `total`.
    pub tools: Groups,
    /// Counts by reason. A decision with two reasons counts in both, one without in none.
    pub reasons: Groups,
    /// The earliest and the latest time of a decision.
    pub span: (Timestamp, Timestamp),
    /// The most severe decisions (then the riskiest, then the latest), at most [`NAMED_MAX`].
    pub worst: Vec<Arc<Decision>>,
}

/// Counts by name, most first, ties by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// The biggest groups, at most [`GROUPS_MAX`]. Names are hostile text of at most [`NAME_CHARS_MAX`] characters.
    pub top: Vec<(String, usize)>,
    /// How many other groups there are.
    pub others: usize,
    /// What they count together.
    pub others_total: usize,
}

impl Digest {
    /// The digest of `deliveries`; `None` of none. Their order does not matter.
    pub fn of<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> Option<Self> {
        let mut total = 0;
        let mut kinds = DecisionKind::ALL.map(|kind| (kind, 0));
        let (mut agents, mut tools, mut reasons) = (Tally::default(), Tally::default(), Tally::default());
        let mut span = None;
        let mut worst: Vec<&Arc<Decision>> = Vec::with_capacity(NAMED_MAX + 1);
        for Delivery { decision, .. } in deliveries {
            total += 1;
            for (kind, count) in &mut kinds {
                *count += usize::from(*kind == decision.kind);
            }
            agents.count((cut(decision.agent.label()), cut(&decision.agent.id)), total);
            tools.count(cut(decision.tool_name()), total);
            for reason in &decision.reasons {
                reasons.count(cut(reason), total);
            }
            let (first, last) = span.unwrap_or((decision.time, decision.time));
            span = Some((first.min(decision.time), last.max(decision.time)));
            // What is equal in everything is the same decision once more, and is named once.
            if let Err(at) = worst.binary_search_by(|named| worst_first(named, decision)) {
                worst.insert(at, decision);
                worst.truncate(NAMED_MAX);
            }
        }
        let mut kinds: Vec<_> = kinds.into_iter().filter(|(_, count)| *count > 0).collect();
        kinds.sort_by_key(|(kind, count)| (Reverse(*count), *kind));
        Some(Self {
            total,
            kinds,
            agents: agents.groups(|agents| {
                let mut owners: HashMap<&str, usize> = HashMap::new();
                agents.for_each(|(name, _)| *owners.entry(name).or_default() += 1);
                move |(name, id)| {
                    if owners[name] > 1 && name != id { format!("{name} ({id})") } else { name.to_owned() }
                }
            }),
            tools: tools.groups(|_| str::to_owned),
            reasons: reasons.groups(|_| str::to_owned),
            span: span?,
            worst: worst.into_iter().cloned().collect(),
        })
    }
}

/// The order in which decisions deserve to be named; the id makes it total.
fn worst_first(one: &Decision, other: &Decision) -> Ordering {
    let risk = |decision: &Decision| decision.risk.unwrap_or(-1.0);
    let graver = other.severity.cmp(&one.severity).then_with(|| risk(other).total_cmp(&risk(one)));
    graver.then_with(|| other.time.cmp(&one.time)).then_with(|| one.id.cmp(&other.id))
}

/// Counts by name under way.
struct Tally<Name> {
    /// Of each name, how many decisions had it and which was the last, by its number.
    names: HashMap<Name, (usize, usize)>,
}

impl<Name> Default for Tally<Name> {
    fn default() -> Self {
        Self { names: HashMap::new() }
    }
}

impl<Name: Copy + Ord + Hash> Tally<Name> {
    /// Counts the decision with this number for `name`: once, however often it says the name.
    fn count(&mut self, name: Name, decision: usize) {
        let (count, last) = self.names.entry(name).or_default();
        if *last != decision {
            *count += 1;
            *last = decision;
        }
    }

    /// The groups. `shown` is given all names, and says how each is shown.
    fn groups<Shown: Fn(Name) -> String>(self, shown: impl FnOnce(&mut dyn Iterator<Item = Name>) -> Shown) -> Groups {
        let shown = shown(&mut self.names.keys().copied());
        let mut all: Vec<(Name, usize)> = self.names.into_iter().map(|(name, (count, _))| (name, count)).collect();
        let most_first = |(name, count): &(Name, usize), (other, than): &(Name, usize)| {
            than.cmp(count).then_with(|| name.cmp(other))
        };
        all.sort_unstable_by(most_first);
        let (top, others) = all.split_at(all.len().min(GROUPS_MAX));
        Groups {
            top: top.iter().map(|(name, count)| (shown(*name), *count)).collect(),
            others: others.len(),
            others_total: others.iter().map(|(_, count)| count).sum(),
        }
    }
}

/// The beginning of a name, at most [`NAME_CHARS_MAX`] characters of it.
fn cut(name: &str) -> &str {
    name.char_indices().nth(NAME_CHARS_MAX).map_or(name, |(end, _)| &name[..end])
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn delivery(edit: impl FnOnce(&mut Value)) -> Delivery {
        let mut decision = json!({"id": "d-1", "time": "2026-06-01T12:00:00Z", "decision": "DENY", "severity": "HIGH",
            "agent": {"id": "agt_1", "name": "crawler"}, "tool": "slack", "operation": "post", "reasons": ["PII"]});
        edit(&mut decision);
        let decision = Decision::decode(Bytes::from(decision.to_string())).unwrap();
        Delivery::new(Arc::new(decision), "soc".parse().unwrap(), Timestamp::UNIX_EPOCH)
    }

    fn ids(digest: &Digest) -> Vec<&str> {
        digest.worst.iter().map(|decision| &*decision.id).collect()
    }

    fn counted(groups: &Groups) -> usize {
        groups.others_total + groups.top.iter().map(|(_, count)| count).sum::<usize>()
    }

    #[test]
    fn a_digest_counts_by_kind_agent_tool_and_reason_and_knows_its_span() {
        let deliveries = [
            delivery(|d| d["time"] = "2026-06-01T12:00:09Z".into()),
            delivery(|d| d["reasons"] = json!(["PII", "SECRET", "PII"])),
            delivery(|d| {
                d["decision"] = "ALLOW".into();
                d["agent"] = json!({"id": "agt_2"});
                d["operation"] = Value::Null;
                d["reasons"] = Value::Null;
                d["time"] = "2026-06-01T11:59:00Z".into();
            }),
        ];
        let digest = Digest::of(&deliveries).unwrap();
        let groups = |top: &[(&str, usize)]| Groups {
            top: top.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            ..Groups::default()
        };
        assert_eq!(digest.total, 3);
        assert_eq!(digest.kinds, [(DecisionKind::Deny, 2), (DecisionKind::Allow, 1)]);
        assert_eq!(digest.agents, groups(&[("crawler", 2), ("agt_2", 1)]));
        assert_eq!(digest.tools, groups(&[("slack.post", 2), ("slack", 1)]));
        assert_eq!(digest.reasons, groups(&[("PII", 2), ("SECRET", 1)]), "a reason that is said twice counts once");
        let (first, last) = digest.span;
        assert_eq!([first, last].map(|time| time.to_string()), ["2026-06-01T11:59:00Z", "2026-06-01T12:00:09Z"]);
        assert!(Digest::of([]).is_none());
    }

    #[test]
    fn the_most_severe_are_named_then_the_riskiest_then_the_latest_and_each_once() {
        let one = |id: &str, severity: &str, risk: Option<f64>, second: u32| {
            delivery(|d| {
                d["id"] = id.into();
                d["severity"] = severity.into();
                d["risk"] = risk.into();
                d["time"] = format!("2026-06-01T12:00:{second:02}Z").into();
            })
        };
        let mut deliveries = vec![
            one("low", "LOW", Some(1.0), 9),
            one("riskless", "HIGH", None, 9),
            one("b", "HIGH", Some(0.5), 1),
            one("a", "HIGH", Some(0.5), 1),
            one("later", "HIGH", Some(0.5), 2),
            one("riskier", "HIGH", Some(0.6), 0),
            one("b", "HIGH", Some(0.5), 1),
        ];
        let expected = ["riskier", "later", "a", "b", "riskless"];
        assert_eq!(ids(&Digest::of(&deliveries).unwrap()), expected);
        deliveries.reverse();
        assert_eq!(ids(&Digest::of(&deliveries).unwrap()), expected);
    }

    #[test]
    fn thousands_of_names_are_counted_exactly_and_only_the_biggest_are_kept_and_none_whole_that_is_endless() {
        let long = "🙂".repeat(NAME_CHARS_MAX + 1);
        let named = |name: String| delivery(|d| d["agent"]["name"] = name.into());
        let rare = (0..3_000).map(|number| named(format!("agent-{number:04}")));
        let often = (0..7).flat_map(|number| [named(format!("{long}{number}")), named("twice-seven".into())]);
        let deliveries: Vec<Delivery> = rare.chain(often).collect();
        let agents = Digest::of(&deliveries).unwrap().agents;
        assert_eq!((agents.top.len(), agents.others, agents.others_total), (GROUPS_MAX, 2_992, 2_992));
        assert_eq!(agents.top[0], ("twice-seven".to_owned(), 7));
        assert_eq!(agents.top[1], ("🙂".repeat(NAME_CHARS_MAX), 7));
        assert_eq!(agents.top[2], ("agent-0000".to_owned(), 1), "ties go by name");
    }

    #[test]
    fn agents_with_one_name_are_counted_apart() {
        let of = |id: &'static str, name: &'static str| {
            delivery(|d| d["agent"] = serde_json::json!({"id": id, "name": name}))
        };
        let deliveries = [of("a", "bot"), of("b", "bot"), of("b", "bot"), of("c", "other")];
        let expected = [("bot (b)", 2), ("bot (a)", 1), ("other", 1)].map(|(name, count)| (name.to_owned(), count));
        assert_eq!(Digest::of(&deliveries).unwrap().agents.top, expected);
    }

    fn some_delivery() -> impl Strategy<Value = Delivery> {
        let name = prop_oneof![3 => "[a-c]{1,2}", 1 => ".{1,8}"];
        let pick = |names: &'static [&'static str]| proptest::sample::select(names);
        let risk = prop::option::of(prop_oneof![Just(0.0), Just(0.5), 0.0..=1.0]);
        let kind = pick(&["ALLOW", "DENY", "SANITIZE", "REQUIRE_APPROVAL", "INCIDENT"]);
        let severity = pick(&["LOW", "MEDIUM", "HIGH", "CRITICAL"]);
        ("[a-z]{1,3}", kind, severity, risk, name.clone(), name.clone(), prop::collection::vec(name, 0..4), 0..60_u32)
            .prop_map(|(id, kind, severity, risk, agent, tool, reasons, second)| {
                delivery(|d| {
                    d["id"] = id.into();
                    d["decision"] = kind.into();
                    d["severity"] = severity.into();
                    d["risk"] = risk.into();
                    d["agent"]["name"] = agent.into();
                    d["tool"] = tool.into();
                    d["reasons"] = reasons.into();
                    d["time"] = format!("2026-06-01T12:00:{second:02}Z").into();
                })
            })
    }

    proptest! {
        #[test]
        fn whatever_is_counted_adds_up_and_is_in_order_and_does_not_depend_on_the_order_it_came_in(
            deliveries in prop::collection::vec(some_delivery(), 1..80),
            turn in any::<prop::sample::Index>(),
        ) {
            let digest = Digest::of(&deliveries).unwrap();
            prop_assert_eq!(digest.total, deliveries.len());
            prop_assert_eq!(digest.kinds.iter().map(|(_, count)| count).sum::<usize>(), digest.total);
            prop_assert!(digest.kinds.iter().all(|(_, count)| *count > 0));
            prop_assert!(digest.kinds.is_sorted_by_key(|(kind, count)| (Reverse(*count), *kind)));
            prop_assert_eq!([counted(&digest.agents), counted(&digest.tools)], [digest.total; 2]);
            let said = |delivery: &Delivery| {
                let mut reasons = delivery.decision.reasons.clone();
                reasons.sort_unstable();
                reasons.dedup();
                reasons.len()
            };
            prop_assert_eq!(counted(&digest.reasons), deliveries.iter().map(said).sum::<usize>());
            for groups in [&digest.agents, &digest.tools, &digest.reasons] {
                prop_assert!(groups.top.len() <= GROUPS_MAX && (groups.others == 0 || groups.top.len() == GROUPS_MAX));
                prop_assert!(groups.others <= groups.others_total);
                prop_assert!(groups.top.is_sorted_by_key(|(name, count)| (Reverse(*count), name.clone())));
                let least = groups.top.last().map_or(0, |(_, count)| *count);
                prop_assert!(groups.others_total <= groups.others * least, "a bigger group is among the others");
            }
            prop_assert!(digest.worst.is_sorted_by(|one, other| worst_first(one, other) == Ordering::Less));
            let gravest = deliveries.iter().map(|delivery| delivery.decision.severity).max();
            prop_assert_eq!(digest.worst.first().map(|decision| decision.severity), gravest);
            let times = || deliveries.iter().map(|delivery| delivery.decision.time);
            prop_assert_eq!(Some(digest.span), times().min().zip(times().max()));

            let mut turned = deliveries.clone();
            turned.rotate_left(turn.index(deliveries.len()));
            turned.reverse();
            let other = Digest::of(&turned).unwrap();
            prop_assert_eq!(ids(&digest), ids(&other));
            prop_assert_eq!((&digest.kinds, digest.span), (&other.kinds, other.span));
            prop_assert_eq!(
                [&digest.agents, &digest.tools, &digest.reasons],
                [&other.agents, &other.tools, &other.reasons]
            );
        }
    }
}
