//! The rule, record by record, and then over any order of anything.

use proptest::prelude::*;

use super::*;
use crate::approvals::{
    Answer, Card, Claim, Shown,
    testing::{asked, click, clicked, decision, start},
};

fn table(entries: impl IntoIterator<Item = Entry>) -> Table {
    let mut table = Table::default();
    for entry in entries {
        table.apply(entry);
    }
    table
}

fn after(seconds: u64) -> Timestamp {
    start().plus(Duration::from_secs(seconds))
}

fn name() -> Name {
    Name::of("apr")
}

fn at(mut click: Click, seconds: u64) -> Click {
    click.at = after(seconds);
    click
}

fn sealed(mut click: Click, expires_at: Option<Timestamp>) -> Click {
    click.claim = Some(Claim { agent: Some(Name::of("agt_42")), tool: Name::of("slack.post_message"), expires_at });
    click
}

fn scope(agent: &str, tool: &str, operation: Option<&str>) -> Scope {
    Scope { agent: agent.into(), tool: tool.into(), operation: operation.map(Into::into) }
}

#[test]
fn the_first_click_in_the_log_is_the_answer_whenever_it_was_made() {
    let (first, second) = (at(click("apr", Answer::Deny), 9), at(click("apr", Answer::Approve), 1));
    let mut table = table([asked("apr", "slack", None)]);
    assert_eq!(table.get(&name()).unwrap().state(start()), State::Waiting);
    assert!(matches!(table.apply(clicked(&first)), Some(Change::Answered(_))));
    assert!(table.apply(clicked(&second)).is_none());
    assert!(table.apply(clicked(&first)).is_none(), "the same click again");
    assert_eq!((table.fate(first.id), table.fate(second.id)), (Some(Fate::Won), Some(Fate::Late)));
    let approval = table.get(&name()).unwrap();
    assert_eq!(approval.answer.as_deref(), Some(&first));
    assert_eq!(approval.state(after(9_999)), State::Answered);
    assert_eq!(table.grant(&scope("agt_42", "slack", Some("post_message")), after(10)).map(|one| one.expires_at), None);
}

#[test]
fn a_click_is_held_against_the_end_that_the_decision_gave_by_the_time_at_which_it_was_made() {
    let end = Some(after(10));
    let (late, in_time) = (at(click("apr", Answer::Deny), 10), at(click("apr", Answer::Approve), 9));
    let mut table = table([asked("apr", "slack", end), clicked(&late)]);
    assert_eq!(table.fate(late.id), Some(Fate::Expired));
    assert_eq!(table.get(&name()).unwrap().state(after(10)), State::Expired);
    assert_eq!(table.get(&name()).unwrap().state(after(9)), State::Waiting);
    // In the log it stands later, but it was in time: its worker was slow to record it.
    assert!(table.apply(clicked(&in_time)).is_some());
    assert_eq!(table.fate(in_time.id), Some(Fate::Won));
}

#[test]
fn a_button_proves_that_we_asked_and_nothing_else_does() {
    let (bare, button) = (click("apr", Answer::Approve), sealed(click("apr", Answer::Approve), Some(after(10))));
    let mut table = table([clicked(&bare)]);
    assert_eq!((table.fate(bare.id), table.len()), (Some(Fate::Unknown), 0));
    let stale = at(sealed(click("apr", Answer::Deny), Some(after(10))), 11);
    table.apply(clicked(&stale));
    assert_eq!(table.fate(stale.id), Some(Fate::Expired));
    assert!(matches!(table.apply(clicked(&button)), Some(Change::Answered(_))));
    let approval = table.get(&name()).unwrap();
    assert_eq!((approval.id(), approval.expires_at()), (Some("apr"), Some(after(10))));
    // What was asked for is told later, and then it is a grant.
    let call = scope("agt_42", "slack", Some("post_message"));
    assert!(table.grant(&call, after(2)).is_none());
    assert!(matches!(table.apply(asked("apr", "slack", Some(after(10)))), Some(Change::Asked(_))));
    assert!(table.grant(&call, after(2)).is_some());
    // What a click came to once, it stays.
    assert!(table.apply(clicked(&bare)).is_none());
    assert_eq!(table.fate(bare.id), Some(Fate::Unknown));
}

#[test]
fn a_button_for_another_agent_or_tool_than_the_one_that_is_asked_for_answers_nothing() {
    // Goal: of two decisions with the same approval id, nobody grants one by the card of the other.
    for (agent, tool) in [(None, "shell.run"), (Some("agt_42"), "shell.run"), (Some("agt_43"), "slack.post_message")] {
        let other = || {
            let claim = Claim { agent: agent.map(Name::of), tool: Name::of(tool), expires_at: None };
            Click { claim: Some(claim), ..click("apr", Answer::Approve) }
        };
        let (after_it, before_it) = (other(), other());
        let mut asked_first = table([asked("apr", "slack", None), clicked(&after_it)]);
        assert_eq!(asked_first.fate(after_it.id), Some(Fate::Unknown));
        assert!(asked_first.apply(clicked(&sealed(click("apr", Answer::Deny), None))).is_some());
        let clicked_first = table([clicked(&before_it), asked("apr", "slack", None)]);
        assert_eq!(clicked_first.fate(before_it.id), Some(Fate::Won));
        assert!(clicked_first.get(&name()).unwrap().decision.is_none(), "it is another one that asks");
        assert!(clicked_first.grant(&scope("agt_42", "slack", Some("post_message")), after(2)).is_none());
    }
    // A button of an older worker does not say whose it is.
    let old = Claim { agent: None, tool: Name::of("slack.post_message"), expires_at: None };
    let old = Click { claim: Some(old), ..click("apr", Answer::Approve) };
    assert_eq!(table([asked("apr", "slack", None), clicked(&old)]).fate(old.id), Some(Fate::Won));
}

#[test]
fn the_earlier_of_two_ends_counts() {
    for (asked_end, sealed_end) in [(10, 99), (99, 10)] {
        let button = at(sealed(click("apr", Answer::Approve), Some(after(sealed_end))), 10);
        let table = table([asked("apr", "slack", Some(after(asked_end))), clicked(&button)]);
        assert_eq!(table.fate(button.id), Some(Fate::Expired));
    }
}

#[test]
fn the_first_decision_that_asks_counts_and_a_long_id_is_known_by_its_digest() {
    let long = "🙂".repeat(500);
    let mut table = table([asked(&long, "first", None), asked(&long, "second", None)]);
    let Name::Digest(_) = Name::of(&long) else { panic!("not long enough") };
    let approval = table.get(&Name::of(&long)).unwrap();
    assert_eq!((approval.id(), approval.decision.as_ref().unwrap().tool()), (Some(long.as_str()), "first"));
    table.apply(clicked(&click(&long, Answer::Approve)));
    assert!(table.grant(&scope("agt_42", "first", Some("post_message")), after(2)).is_some());
    // What asks for nothing is passed over.
    let mut plain: serde_json::Value = serde_json::from_slice(decision("x", "t", None).raw()).unwrap();
    plain["decision"] = "DENY".into();
    let plain = Decision::decode(plain.to_string().into()).unwrap();
    assert!(table.apply(Entry::new(Deed::Asked(Arc::new(plain)), start())).is_none());
    assert_eq!(table.len(), 1);
}

#[test]
fn a_grant_holds_for_the_same_agent_tool_and_operation_from_the_answer_until_its_end() {
    let table = table([asked("apr", "slack", None), clicked(&at(click("apr", Answer::Approve), 5))]);
    let call = scope("agt_42", "slack", Some("post_message"));
    let end = after(5 + 600);
    assert_eq!(table.grant(&call, after(5)).map(|grant| grant.expires_at), Some(end));
    assert!(table.grant(&call, after(604)).is_some() && table.grant(&call, end).is_none());
    for other in [
        scope("agt_42", "slack", None),
        scope("agt_42", "slack", Some("post")),
        scope("agt_4", "slack", Some("post_message")),
        scope("agt_42", "slack.post_message", None),
        scope("AGT_42", "slack", Some("post_message")),
    ] {
        assert!(table.grant(&other, after(5)).is_none(), "{other:?}");
    }
}

#[test]
fn of_several_grants_for_the_same_the_one_that_ends_last_counts() {
    let short = Click { grant: Duration::from_mins(1), ..at(click("b", Answer::Approve), 6) };
    let entries = [asked("a", "slack", None), asked("b", "slack", None), asked("c", "slack", None)];
    let clicks = [at(click("a", Answer::Approve), 5), short, at(click("c", Answer::Deny), 7)];
    let table = table(entries.into_iter().chain(clicks.iter().map(clicked)));
    let grant = table.grant(&scope("agt_42", "slack", Some("post_message")), after(8)).unwrap();
    assert_eq!((grant.approval.id(), grant.expires_at), (Some("a"), after(605)));
}

#[test]
fn cards_and_what_was_done_about_an_answer_are_remembered_once_each() {
    let card = |ts: &str| Card {
        id: Uuid::now_v7(),
        channel: "soc".parse().unwrap(),
        conversation: String::from("C1"),
        ts: ts.into(),
    };
    let (first, second) = (card("1"), card("2"));
    let answer = click("apr", Answer::Approve);
    let note = |deed: Deed| Entry::new(deed, start());
    let mut table = Table::default();
    assert!(matches!(table.apply(note(Deed::Posted(name(), first.clone()))), Some(Change::Posted(_))));
    assert!(table.list(None, start(), 9).is_empty(), "of a card alone nobody is told");
    assert!(table.apply(note(Deed::Posted(name(), first.clone()))).is_none());
    table.apply(note(Deed::Posted(name(), second.clone())));
    assert!(table.apply(note(Deed::Published(name()))).is_none(), "there is no answer yet");
    table.apply(asked("apr", "slack", None));
    table.apply(clicked(&answer));
    assert_eq!(table.unpublished().count(), 1);
    assert!(matches!(table.apply(note(Deed::Published(name()))), Some(Change::Noted(_))));
    assert!(table.apply(note(Deed::Published(name()))).is_none());
    assert_eq!(table.unpublished().count(), 0);
    for id in [second.id, answer.id] {
        assert!(table.apply(note(Deed::Updated(name(), id, Shown::Answered))).is_some());
        assert!(table.apply(note(Deed::Updated(name(), id, Shown::Answered))).is_none());
        // One that was under way when the answer came: the card says the wrong thing, and only once.
        assert!(table.apply(note(Deed::Updated(name(), id, Shown::Expired))).is_some());
        let said = table.get(&name()).unwrap();
        assert!(said.shows(id, Shown::Expired) && !said.shows(id, Shown::Answered));
        assert!(table.apply(note(Deed::Updated(name(), id, Shown::Answered))).is_some());
        assert!(table.get(&name()).unwrap().shows(id, Shown::Answered));
    }
    let approval = table.get(&name()).unwrap();
    assert_eq!(approval.cards, [first.clone(), second.clone()]);
    assert!(approval.published && approval.shows(answer.id, Shown::Answered));
    assert!(!approval.shows(first.id, Shown::Answered) && !approval.shows(second.id, Shown::Expired));
}

#[test]
fn a_list_tells_the_newest_first() {
    let entries = ["a", "b", "c", "d"].map(|id| asked(id, "slack", (id == "b").then(|| after(10))));
    let table = table(entries.into_iter().chain([clicked(&click("c", Answer::Deny))]));
    let ids = |state, most| {
        let list = table.list(state, after(20), most);
        list.iter().map(|one| one.id().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(None, 9), ["d", "c", "b", "a"]);
    assert_eq!(ids(None, 2), ["d", "c"]);
    assert_eq!(ids(Some(State::Waiting), 9), ["d", "a"]);
    assert_eq!(ids(Some(State::Answered), 9), ["c"]);
    assert_eq!(ids(Some(State::Expired), 9), ["b"]);
}

#[test]
fn the_newest_are_those_that_were_asked_for_last_in_whatever_order_the_log_has_them() {
    let decided = |id: &str, seconds| {
        let mut decision = Arc::unwrap_or_clone(decision(id, "slack", None));
        decision.time = after(seconds);
        Entry::new(Deed::Asked(Arc::new(decision)), after(99))
    };
    // Of "late" only the answer is known, one second after the start; of "same" the log tells after "b", which is as old.
    let entries = [decided("c", 30), decided("a", 10), decided("b", 20), decided("same", 20)];
    let table = table(entries.into_iter().chain([clicked(&sealed(click("late", Answer::Deny), None))]));
    let ids = |most| {
        let list = table.list(None, after(99), most);
        list.iter().map(|one| one.id().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = ["c", "same", "b", "a", "late"];
    for most in 0..=all.len() + 1 {
        assert_eq!(ids(most), all[..most.min(all.len())], "the newest {most}");
    }
}

#[test]
fn each_end_of_a_time_is_told_once_and_of_what_was_answered_none() {
    let entries = [asked("a", "slack", Some(after(10))), asked("b", "slack", Some(after(10)))];
    let more = [asked("c", "slack", Some(after(20))), asked("d", "slack", None)];
    let table = table(entries.into_iter().chain(more).chain([clicked(&click("b", Answer::Deny))]));
    let ids = |from, until| {
        table.expired(after(from), after(until)).map(|one| one.id().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(0, 9), [""; 0]);
    assert_eq!(ids(9, 10), ["a"]);
    assert_eq!(ids(10, 30), ["c"]);
    assert_eq!(ids(0, 30), ["a", "c"]);
}

#[test]
fn what_ended_long_ago_is_forgotten_first_then_what_has_ended_and_then_the_oldest() {
    const DAY: u64 = 24 * 3_600;
    let mut table = Table::with(Limits { approvals: 10, ..Limits::default() });
    table.apply(asked("live", "slack", None));
    for number in 0..4 {
        table.apply(asked(&format!("over-{number}"), "slack", Some(after(70 * DAY + number))));
    }
    for number in 0..4 {
        table.apply(asked(&format!("long-{number}"), "slack", Some(after(1))));
    }
    let now = |entry: Entry| Entry { at: after(80 * DAY), ..entry };
    for number in 0..2 {
        table.apply(now(asked(&format!("new-{number}"), "slack", None)));
    }
    let knows = |table: &Table, id: &str| table.get(&Name::of(id)).is_some();
    assert_eq!((table.len(), table.live_forgotten()), (9, 0));
    assert!(!knows(&table, "long-0") && !knows(&table, "long-1") && knows(&table, "long-2"));
    for number in 2..9 {
        table.apply(now(asked(&format!("new-{number}"), "slack", None)));
    }
    assert!(knows(&table, "live") && knows(&table, "new-0") && !knows(&table, "over-2"), "what has ended went");
    assert_eq!(table.live_forgotten(), 0);
    for number in 9..13 {
        table.apply(now(asked(&format!("new-{number}"), "slack", None)));
    }
    assert!(!knows(&table, "live") && knows(&table, "new-12"), "the oldest went");
    assert!(table.live_forgotten() > 0 && table.len() <= 10);
    assert!(table.list(None, start(), 100).len() <= 10 && table.expired(start(), after(99 * DAY)).count() == 0);
}

#[test]
fn large_decisions_are_bounded_together() {
    let mut table = Table::with(Limits { bytes: 10_000, ..Limits::default() });
    for number in 0..100 {
        table.apply(asked(&format!("{number}"), &"t".repeat(1_000), None));
    }
    assert!(table.len() < 10 && table.len() > 3, "{}", table.len());
    assert_eq!(table.live_forgotten(), 100 - table.len() as u64);
}

#[test]
fn grants_and_fates_are_bounded_too() {
    let mut table = Table::with(Limits { approvals: 10, fates: 10, ..Limits::default() });
    for number in 0..100 {
        table.apply(asked(&format!("{number}"), &format!("tool-{number}"), None));
        table.apply(clicked(&at(click(&format!("{number}"), Answer::Approve), number)));
    }
    assert!(table.grants.len() <= 10 && table.fates.len() <= 10 && table.fates_in_order.len() <= 10);
    assert!(table.grant(&scope("agt_42", "tool-99", Some("post_message")), after(100)).is_some());
    assert!(table.unpublished().count() <= 10);
}

/// Anything that can be in a log about three approvals, some of it twice.
fn any_log() -> impl Strategy<Value = Vec<Entry>> {
    let one = (0..3_usize, 0..8_u8, 0..6_u64, any::<prop::sample::Index>());
    prop::collection::vec(one, 1..60).prop_map(|plan| {
        let mut log: Vec<Entry> = Vec::new();
        for (approval, what, second, index) in plan {
            let id = ["a", "b", "c"][approval];
            let end = (id != "c").then(|| after(4));
            let answer = if second % 2 == 0 { Answer::Approve } else { Answer::Deny };
            let one = at(click(id, answer), second);
            let entry = match what {
                0 => asked(id, "slack", end),
                1..=3 => clicked(&one),
                4 => clicked(&sealed(one, end)),
                5 => Entry::new(Deed::Published(Name::of(id)), after(second)),
                // A record that was appended twice.
                _ if !log.is_empty() => log[index.index(log.len())].clone(),
                _ => asked(id, "slack", end),
            };
            log.push(entry);
        }
        log
    })
}

/// All that a table says.
fn said(table: &Table, clicks: &[Uuid]) -> String {
    let calls = [after(0), after(3), after(601), after(605)]
        .map(|now| table.grant(&scope("agt_42", "slack", Some("post_message")), now).map(|grant| grant.expires_at));
    let fates: Vec<_> = clicks.iter().map(|id| table.fate(*id)).collect();
    let unpublished: Vec<_> = table.unpublished().map(|one| one.name.clone()).collect();
    format!("{:?} {calls:?} {fates:?} {unpublished:?}", table.list(None, after(3), 99))
}

proptest! {
    #[test]
    fn every_reader_says_the_same_of_the_same_records_and_an_answer_never_changes(log in any_log()) {
        let clicks: Vec<Uuid> =
            log.iter().filter_map(|entry| matches!(entry.deed, Deed::Click(_)).then_some(entry.id)).collect();
        let mut steady = Table::default();
        let mut answers: HashMap<Name, Uuid> = HashMap::new();
        let mut told: HashMap<Name, u32> = HashMap::new();
        for (at, entry) in log.iter().enumerate() {
            if let Some(Change::Answered(approval)) = steady.apply(entry.clone()) {
                *told.entry(approval.name.clone()).or_default() += 1;
            }
            // One that was started just now and has read as far.
            let fresh = table(log[..=at].iter().cloned());
            prop_assert_eq!(said(&steady, &clicks), said(&fresh, &clicks));
            for approval in steady.list(None, after(3), 99) {
                if let Some(answer) = &approval.answer {
                    let first = *answers.entry(approval.name.clone()).or_insert(answer.id);
                    prop_assert_eq!(first, answer.id, "the answer changed");
                }
            }
        }
        for (name, id) in &answers {
            let won = clicks.iter().filter(|click| steady.fate(**click) == Some(Fate::Won));
            let of_this = log.iter().filter_map(|entry| match &entry.deed {
                Deed::Click(click) if click.approval == *name => Some(click.id),
                Deed::Asked(_) | Deed::Click(_) | Deed::Published(_) | Deed::Posted(..) | Deed::Updated(..) => None,
            }).collect::<BTreeSet<_>>();
            let won: BTreeSet<Uuid> = won.copied().filter(|click| of_this.contains(click)).collect();
            prop_assert_eq!(won, BTreeSet::from([*id]), "exactly one click won");
            prop_assert_eq!(told.get(name), Some(&1), "and it was told once");
        }
    }

    #[test]
    fn records_that_are_there_twice_change_nothing(log in any_log()) {
        // Goal: a publisher that repeats what was in doubt does no harm, wherever the copy lands after the original.
        let clicks: Vec<Uuid> =
            log.iter().filter_map(|entry| matches!(entry.deed, Deed::Click(_)).then_some(entry.id)).collect();
        let once = table(log.iter().cloned());
        let mut clicks_again = log.iter().filter(|entry| matches!(entry.deed, Deed::Click(_))).cloned();
        let doubled = table(log.iter().flat_map(|entry| [entry.clone(), entry.clone()]).chain(&mut clicks_again));
        prop_assert_eq!(said(&once, &clicks), said(&doubled, &clicks));
    }
}
