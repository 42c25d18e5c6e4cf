//! Which cards are to be made anew, in which order, and when it is enough.

use super::*;
use crate::{
    approvals::{Answer, By, Card, Click},
    model::{Decision, Secret},
};

const SECOND: Duration = Duration::from_secs(1);

fn noon() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn asked() -> Approval {
    let text = r#"{"id":"1","time":"2026-06-01T12:00:00Z","decision":"REQUIRE_APPROVAL","severity":"HIGH","agent":{"id":"a"},
        "tool":"t","approval":{"id":"apr_7","expires_at":"2026-06-01T12:10:00Z"}}"#;
    let decision = Arc::new(Decision::decode(text.into()).unwrap());
    let name = Name::of("apr_7");
    Approval { name, decision: Some(decision), answer: None, published: false, cards: Vec::new(), shown: Vec::new() }
}

fn card(channel: &str) -> Card {
    let (conversation, ts) = (String::from("C1"), String::from("17.1"));
    Card { id: Uuid::now_v7(), channel: channel.parse().unwrap(), conversation, ts }
}

fn click(channel: &str, at: Timestamp) -> Click {
    let by = By { id: "U1".into(), name: "jane".into(), team: None };
    let mut click = Click::new(Name::of("apr_7"), Answer::Approve, by, Via::Slack, at);
    click.channel = Some(channel.parse().unwrap());
    click.response_url = Some(Secret::new("https://hooks.slack.com/actions/T1/1/x"));
    click
}

fn ids(approval: &Approval, seconds: u32) -> Vec<(Uuid, Shown)> {
    wanted(approval, noon().plus(seconds * SECOND)).into_iter().map(|key| (key.card, key.shown)).collect()
}

#[test]
fn an_approval_that_waits_wants_nothing_and_one_that_has_ended_wants_all_of_its_cards_changed_once() {
    let mut approval = asked();
    approval.cards = vec![card("soc"), card("ops")];
    let [soc, ops] = [approval.cards[0].id, approval.cards[1].id];
    assert_eq!(ids(&approval, 599), []);
    assert_eq!(ids(&approval, 600), [(soc, Shown::Expired), (ops, Shown::Expired)]);
    approval.shown = vec![(soc, Shown::Expired)];
    assert_eq!(ids(&approval, 600), [(ops, Shown::Expired)]);
    // A card that says "expired" and should say who answered is wanted again.
    approval.answer = Some(Arc::new(click("soc", noon().plus(SECOND))));
    assert_eq!(ids(&approval, 600), [(soc, Shown::Answered), (ops, Shown::Answered)]);
    assert_eq!(ids(&approval, 86_402), [], "after a day nobody cares");
}

#[test]
fn the_clicked_card_is_wanted_where_no_bot_can_change_it_and_while_its_url_is_good() {
    let mut approval = asked();
    let won = click("hook", noon().plus(SECOND));
    let id = won.id;
    approval.answer = Some(Arc::new(won));
    assert_eq!(ids(&approval, 2), [(id, Shown::Answered)]);
    assert_eq!(ids(&approval, 1 + 30 * 60), []);
    approval.cards = vec![card("bot")];
    assert_eq!(ids(&approval, 2), [(approval.cards[0].id, Shown::Answered), (id, Shown::Answered)]);
    approval.cards.push(card("hook"));
    assert_eq!(ids(&approval, 2).len(), 2, "the clicked card is the bot's");
    approval.cards.clear();
    approval.answer = Some(Arc::new(Click { response_url: None, ..click("hook", noon()) }));
    assert_eq!(ids(&approval, 2), []);
}

#[test]
fn the_worker_that_took_a_click_is_first_and_the_others_follow_one_by_one() {
    let mut approval = asked();
    assert!((0..100).all(|_| patience(&approval) <= SPREAD));
    approval.answer = Some(Arc::new(click("hook", noon())));
    assert!((0..100).all(|_| (OTHERS_WAIT..=OTHERS_WAIT + 3 * SPREAD).contains(&patience(&approval))));
    approval.answer = Some(Arc::new(Click { via: Via::Api, ..click("hook", noon()) }));
    assert!((0..100).all(|_| patience(&approval) <= SPREAD));
}

fn key() -> Key {
    Key { approval: Name::of("apr_7"), card: Uuid::now_v7(), shown: Shown::Answered }
}

#[tokio::test(start_paused = true)]
async fn the_agenda_gives_what_is_due_in_order_and_each_card_once() {
    let (mut agenda, now, [one, two]) = (Agenda::default(), Instant::now(), [key(), key()]);
    agenda.add(one.clone(), now + 2 * SECOND);
    agenda.add(two.clone(), now + SECOND);
    agenda.add(one.clone(), now + 3 * SECOND);
    assert_eq!(agenda.next_due(), Some(now + SECOND), "later wishes delay nothing");
    agenda.add(one.clone(), now);
    assert_eq!(agenda.take(now).map(|(key, _)| key), Some(one.clone()), "earlier ones hurry it");
    // While it is under way it is nobody else's.
    agenda.add(one.clone(), now);
    assert!(agenda.take(now).is_none());
    let (second, mut job) = agenda.take(now + SECOND).unwrap();
    assert_eq!(second, two);
    // One that failed waits for its reason.
    job.tries = 1;
    agenda.put_back(two.clone(), job, now + 9 * SECOND);
    agenda.add(two.clone(), now);
    assert_eq!(agenda.next_due(), Some(now + 9 * SECOND));
    agenda.remove(&one);
    agenda.add(one, now);
    assert!(agenda.take(now).is_some(), "what is done may come again");
}

fn job() -> Job {
    let mut agenda = Agenda::default();
    agenda.add(key(), Instant::now());
    agenda.take(Instant::now()).unwrap().1
}

fn again(after: Option<u64>, used: bool) -> Tried {
    Tried::Again { after: after.map(Duration::from_secs), used, why: String::from("503") }
}

#[tokio::test(start_paused = true)]
async fn what_time_may_mend_is_tried_again_when_slack_says_so_and_never_for_ever() {
    let half_an_hour = Duration::from_mins(30);
    let waits = |step: &Step| if let Step::Again(wait) = step { Some(*wait) } else { None };
    assert!(matches!(job().judge(Tried::Done, true, half_an_hour), (Step::Note, None)));
    assert_eq!(waits(&job().judge(again(Some(30), true), true, half_an_hour).0), Some(30 * SECOND));
    assert_eq!(waits(&job().judge(again(Some(3_000), true), true, half_an_hour).0), None, "longer than it is worth");
    // The URL of a click is good for five uses; what never reached Slack is none.
    let mut clicked = job();
    let tries = (1..=20).take_while(|_| waits(&clicked.judge(again(Some(1), true), false, half_an_hour).0).is_some());
    assert_eq!(tries.count(), 4);
    let mut unreached = job();
    assert!((0..100).all(|_| waits(&unreached.judge(again(None, false), false, half_an_hour).0).is_some()));
    // Once more as plain text, then no more.
    let mut refused = job();
    let plainer = || Tried::Plainer(String::from("invalid_blocks"));
    assert_eq!(waits(&refused.judge(plainer(), true, half_an_hour).0), Some(Duration::ZERO));
    assert!(refused.plain && matches!(refused.judge(plainer(), true, half_an_hour), (Step::Note, Some(_))));
    // A token can be mended; a click's URL cannot.
    let broken = || Tried::Broken(String::from("invalid_auth"));
    assert!(waits(&job().judge(broken(), true, half_an_hour).0).is_some_and(|wait| wait >= BROKEN_WAIT));
    assert!(matches!(job().judge(broken(), false, half_an_hour), (Step::Note, Some(_))));
    assert!(matches!(job().judge(Tried::Hopeless("gone".into()), true, half_an_hour), (Step::Note, Some(_))));
}
