//! What the log has lost, and this worker still knows.
//!
//! A stream is not flushed before it confirms, so a broker of one node that loses its power can lose the last seconds of the log,
//! with an answer in it that the firewall has got already. After the next connection another click could then be the first. So
//! whoever remembers more than the log says appends it again: each record with its old id and time, so that it does not matter how
//! many workers do it.

use std::{collections::BTreeSet, time::Duration};

use super::{Deed, Entry, Table};
use crate::model::Timestamp;

/// How far back it is looked: what is older was flushed long ago, and what is missing of it, the retention took.
const BACK: Duration = Duration::from_hours(1);

/// The most records that are appended again.
const RECORDS_MAX: usize = 10_000;

/// The records that `before` has read and `after`, a reading of the same log from its beginning, has not.
pub(super) fn lost(before: &Table, after: &Table, now: Timestamp) -> Vec<Entry> {
    let is_young = |at: Timestamp| now.since(at) < BACK;
    let mut lost = Vec::new();
    for known in before.list(None, now, usize::MAX) {
        let found = after.get(&known.name);
        if let Some(decision) = known.decision.as_ref().filter(|decision| is_young(decision.time))
            && found.is_none_or(|found| found.decision.is_none())
        {
            lost.push(Deed::Asked(decision.clone()));
        }
        let answer = known.answer.as_ref().filter(|click| is_young(click.at));
        if let Some(click) = answer
            && found.is_none_or(|found| found.answer.is_none())
        {
            lost.push(Deed::Click((**click).clone()));
        }
        // Also of one that waits: its cards must be changed when it is answered.
        if answer.is_none() && known.decision.as_ref().is_none_or(|decision| !is_young(decision.time)) {
            continue;
        }
        let there: BTreeSet<_> = found.iter().flat_map(|found| &found.cards).map(|card| card.id).collect();
        let cards = known.cards.iter().filter(|card| !there.contains(&card.id));
        lost.extend(cards.map(|card| Deed::Posted(known.name.clone(), card.clone())));
    }
    lost.truncate(RECORDS_MAX);
    lost.into_iter().map(|deed| Entry::new(deed, now)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approvals::{
        Answer, Card,
        testing::{asked, click, clicked, start},
    };

    #[test]
    fn what_the_log_has_lost_makes_it_say_the_same_again() {
        let card = |ts: &str| Card {
            id: uuid::Uuid::now_v7(),
            channel: "soc".parse().unwrap(),
            conversation: String::from("C1"),
            ts: ts.to_owned(),
        };
        let (answer, other) = (click("lost", Answer::Approve), click("lost", Answer::Deny));
        let log = [
            asked("kept", "slack", None),
            clicked(&click("kept", Answer::Deny)),
            asked("lost", "slack", None),
            Entry::new(Deed::Posted(crate::approvals::Name::of("lost"), card("1")), start()),
            clicked(&answer),
            asked("waits", "slack", None),
            Entry::new(Deed::Posted(crate::approvals::Name::of("waits"), card("2")), start()),
        ];
        let table = |entries: &[Entry]| {
            let mut table = Table::default();
            for entry in entries {
                table.apply(entry.clone());
            }
            table
        };
        let (before, now) = (table(&log), start().plus(Duration::from_mins(1)));
        assert!(lost(&before, &before, now).is_empty(), "nothing is missing");
        assert!(lost(&Table::default(), &before, now).is_empty(), "a worker that was just started knows nothing");
        for kept in 0..log.len() {
            let mut cut = log[..kept].to_vec();
            let again = lost(&before, &table(&cut), now);
            // Two workers do it, and then comes somebody who would have been too late.
            cut.extend(again.iter().chain(&again).cloned());
            cut.push(clicked(&other));
            let healed = table(&cut);
            let said = |table: &Table| {
                let mut all: Vec<_> = table.list(None, now, 9).iter().map(|one| format!("{one:?}")).collect();
                all.sort();
                all
            };
            assert_eq!(said(&healed), said(&before), "{kept} records were kept");
        }
        let much_later = now.plus(BACK);
        assert!(lost(&before, &Table::default(), much_later).is_empty(), "what is old was taken by the retention");
    }
}
