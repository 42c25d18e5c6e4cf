//! The reception with an embedded broker behind it and a Slack in front of it that takes everything and remembers it.

use std::{collections::VecDeque, net::Ipv4Addr, sync::PoisonError};

use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderValue;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    approvals::{Answer, By, Card, Deed, Terms},
    broker::{
        Broker,
        embedded::{Embedded, EmbeddedSettings},
    },
    channels::{
        Channel, Links, Parcel,
        slack::{Door, Interactivity},
    },
    lane::Post,
    model::{Approval, Clock, Reply, Scrubber, Timestamp, Trouble, hex},
    telemetry::Metrics,
};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const URL: &str = "https://hooks.slack.com/actions/T1/1/abc";

/// What was posted where. It answers as it was told to, and then `ok`.
#[derive(Default)]
struct Slacks {
    posted: Mutex<Vec<(String, Value)>>,
    says: Mutex<VecDeque<Result<Reply, Trouble>>>,
}

impl Post for Slacks {
    fn post(&self, parcel: Parcel, _limit: Duration) -> BoxFuture<'_, Result<Reply, Trouble>> {
        let body = serde_json::from_slice(&parcel.body).unwrap();
        let url = parcel.endpoint.expose().to_string();
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).push((url, body));
        let says = self.says.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        Box::pin(async move { says.unwrap_or_else(|| Ok(Reply::new(200, "ok"))) })
    }
}

impl Slacks {
    fn posted(&self) -> Vec<(String, Value)> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so much was posted; the texts of it.
    async fn texts(&self, count: usize) -> Vec<String> {
        let all = async {
            while self.posted().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.expect("nothing was posted");
        self.posted().iter().map(|(_, body)| body["text"].as_str().unwrap().to_owned()).collect()
    }
}

/// A Slack channel with this signing secret.
fn channel(id: &str, secret: &str, approvers: Option<&[&str]>) -> (ChannelId, Arc<dyn Channel>) {
    let approvers = approvers.map(|list| list.iter().map(|one| one.parse().unwrap()).collect());
    let interactivity =
        Interactivity { signing_secrets: vec![Secret::new(secret)], approvers, ..Interactivity::default() };
    let door = Door::Webhook("https://hooks.slack.com/services/T1/B1/abc".parse().unwrap());
    (id.parse().unwrap(), Arc::new(Slack::new(door, interactivity).unwrap()))
}

fn board(channels: Vec<(ChannelId, Arc<dyn Channel>)>) -> Arc<Answerable> {
    Arc::new(Answerable::new(channels, Arc::new(Links::none())))
}

pub(super) fn idle(approvals: Approvals) -> Reception {
    let courier =
        Courier::new(Arc::new(Slacks::default()), Scrubber::default(), Clock::System, CancellationToken::new());
    Reception::new(
        approvals,
        watch::Sender::new(board(Vec::new())).subscribe(),
        courier,
        mpsc::channel(1).0,
        TaskTracker::new(),
    )
}

struct House {
    reception: Reception,
    slack: Arc<Slacks>,
    board: watch::Sender<Arc<Answerable>>,
    approvals: Approvals,
    renew: mpsc::Receiver<Name>,
    tasks: TaskTracker,
    _following: tokio_util::task::AbortOnDropHandle<()>,
    _dir: tempfile::TempDir,
}

impl House {
    /// Two channels of one app, of which one has approvers, and one of another app.
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = EmbeddedSettings { dir: dir.path().join("broker"), keep_decisions: None, lanes: Vec::new() };
        let (clock, tasks) = (Clock::System, TaskTracker::new());
        let broker: Arc<dyn Broker> = Arc::new(Embedded::open(settings, clock, &TaskTracker::new()).await.unwrap());
        let approvals = Approvals::new(broker, clock, Metrics::new(), Terms::default(), tasks.clone());
        let following = TaskTracker::new().spawn(approvals.clone().follow());
        approvals.until_known().await;
        let channels = vec![
            channel("soc", "first", None),
            channel("vip", "first", Some(&["U1A", "T9Z/U2B"])),
            channel("other", "second", None),
        ];
        let (slack, board) = (Arc::new(Slacks::default()), watch::Sender::new(board(channels)));
        let post = Arc::clone(&slack) as Arc<dyn Post>;
        let courier = Courier::new(post, Scrubber::default(), clock, CancellationToken::new());
        let (told, renew) = mpsc::channel(8);
        let reception = Reception::new(approvals.clone(), board.subscribe(), courier, told, tasks.clone());
        let following = tokio_util::task::AbortOnDropHandle::new(following);
        Self { reception, slack, board, approvals, renew, tasks, _following: following, _dir: dir }
    }

    async fn take(&self, secret: &str, payload: &Value) -> Taken {
        let body = form(payload);
        self.reception.take(&signed(secret, &body, 0), body.as_bytes(), HERE).await
    }

    fn answer(&self, approval: &str) -> Option<Arc<Click>> {
        self.approvals.get(&Name::of(approval))?.answer.clone()
    }
}

/// The headers of a request that was signed so many seconds from now.
fn signed(secret: &str, body: &str, seconds: i64) -> HeaderMap {
    let timestamp = (Clock::System.now().unix_seconds() + seconds).to_string();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("v0:{timestamp}:{body}").as_bytes());
    let tag = format!("v0={}", hex(&mac.finalize().into_bytes()));
    let mut headers = HeaderMap::new();
    headers.insert("x-slack-request-timestamp", HeaderValue::from_str(&timestamp).unwrap());
    headers.insert("x-slack-signature", HeaderValue::from_str(&tag).unwrap());
    headers
}

fn form(payload: &Value) -> String {
    url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload.to_string()).finish()
}

/// The value of a button on a card of `channel` that was sealed with `secret`, good until `end`.
fn seal(secret: &str, channel: &str, approval: &str, end: Timestamp) -> String {
    let approval = Approval { id: approval.into(), expires_at: Some(end) };
    button::seal(&Secret::new(secret), &channel.parse().unwrap(), &approval, "agt_42", "slack.post_message")
}

/// The same, good for a minute.
fn value(secret: &str, channel: &str, approval: &str) -> String {
    let end = Clock::System.now().plus(Duration::from_mins(1));
    seal(secret, channel, approval, end)
}

fn click(answer: &str, user: &str, value: &str) -> Value {
    json!({"type": "block_actions", "team": {"id": "T1"}, "user": {"id": user, "name": format!("{user}-name"), "team_id": "T1"},
        "response_url": URL, "actions": [{"type": "button", "action_id": answer, "value": value}]})
}

#[tokio::test]
async fn the_first_click_is_the_answer_and_its_cards_are_made_anew_by_the_renewer_and_later_ones_are_told_so() {
    let mut house = House::open().await;
    let value = value("first", "soc", "apr_1");
    assert_eq!(house.take("first", &click("approve", "U1A", &value)).await, Taken::Heard);
    assert_eq!(house.renew.recv().await, Some(Name::of("apr_1")));
    let won = house.answer("apr_1").unwrap();
    assert_eq!((won.by.id.as_str(), won.by.name.as_str(), won.by.team.as_deref()), ("U1A", "U1A-name", Some("T1")));
    assert_eq!(won.channel.as_ref().map(ChannelId::as_str), Some("soc"));
    assert_eq!(won.response_url.as_ref().map(Secret::expose), Some(URL));
    for (answer, user) in [("deny", "U2B"), ("approve", "U1A")] {
        assert_eq!(house.take("first", &click(answer, user, &value)).await, Taken::Heard);
    }
    for text in house.slack.texts(2).await {
        assert!(text.contains("*Approved* by `U1A-name` (`U1A`)"), "{text}");
    }
    for (url, body) in house.slack.posted() {
        assert_eq!(
            (url.as_str(), &body["response_type"], &body["replace_original"]),
            (URL, &json!("ephemeral"), &json!(false))
        );
    }
    assert_eq!(house.answer("apr_1").unwrap().id, won.id);
}

#[tokio::test]
async fn the_same_request_twice_is_one_answer() {
    let house = House::open().await;
    let body = form(&click("deny", "U1A", &value("first", "soc", "apr_1")));
    let headers = signed("first", &body, -200);
    for _ in 0..2 {
        assert_eq!(house.reception.take(&headers, body.as_bytes(), HERE).await, Taken::Heard);
    }
    let texts = house.slack.texts(1).await;
    assert!(texts[0].contains("*Denied* by `U1A-name`"), "{texts:?}");
    assert_eq!(house.approvals.list(None, 10).len(), 1);
}

#[tokio::test]
async fn what_nobody_we_know_has_signed_is_refused_before_it_is_read() {
    let house = House::open().await;
    let body = form(&click("approve", "U1A", &value("first", "soc", "apr_1")));
    let mut changed = body.clone().into_bytes();
    *changed.last_mut().unwrap() ^= 1;
    let forged = [
        (HeaderMap::new(), body.as_bytes()),
        (signed("third", &body, 0), body.as_bytes()),
        (signed("first", &body, 0), &changed[..]),
        (signed("first", &body, 310), body.as_bytes()),
        (signed("first", &body, -310), body.as_bytes()),
        (signed("", &body, 0), body.as_bytes()),
    ];
    for (headers, body) in forged {
        assert_eq!(house.reception.take(&headers, body, HERE).await, Taken::Forged, "{headers:?}");
    }
    assert!(house.answer("apr_1").is_none() && house.slack.posted().is_empty());
    // A reload takes a rotated secret in without a restart, and the cards that are out stay good.
    let rotated =
        Interactivity { signing_secrets: vec![Secret::new("third"), Secret::new("first")], ..Interactivity::default() };
    let door = Door::Webhook("https://hooks.slack.com/services/T1/B1/abc".parse().unwrap());
    let soc: Arc<dyn Channel> = Arc::new(Slack::new(door, rotated).unwrap());
    house.board.send_replace(board(vec![("soc".parse().unwrap(), soc)]));
    assert_eq!(house.reception.take(&signed("third", &body, 0), body.as_bytes(), HERE).await, Taken::Heard);
    assert!(house.answer("apr_1").is_some());
}

#[tokio::test]
async fn what_is_no_click_on_a_button_of_ours_is_passed_over_in_silence() {
    let house = House::open().await;
    let good = value("first", "soc", "apr_1");
    let strangers = [
        click("view", "U1A", &good),
        click("approve", "U1A", "v1.a.b"),
        click("approve", "U1A", ""),
        // A button that another app made, of which we know the secret too.
        click("approve", "U1A", &value("second", "other", "apr_1")),
        click("approve", "U1A", &value("second", "soc", "apr_1")),
        json!({"type": "view_submission"}),
    ];
    for payload in &strangers {
        assert_eq!(house.take("first", payload).await, Taken::Heard, "{payload}");
    }
    // And a button of ours in a request that another app has signed.
    assert_eq!(house.take("second", &click("approve", "U1A", &good)).await, Taken::Heard);
    house.tasks.close();
    house.tasks.wait().await;
    assert!(house.answer("apr_1").is_none() && house.slack.posted().is_empty(), "{:?}", house.slack.posted());
}

#[tokio::test]
async fn only_approvers_answer_and_the_others_are_told_privately() {
    let house = House::open().await;
    let value = value("first", "vip", "apr_1");
    let from = |user: &str, team: &str| {
        let mut payload = click("approve", user, &value);
        payload["user"]["team_id"] = team.into();
        payload
    };
    let strangers = [from("U3C", "T1"), from("U1A", "T9Z"), from("U2B", "T1")];
    for (at, payload) in strangers.iter().enumerate() {
        assert_eq!(house.take("first", payload).await, Taken::Heard);
        let texts = house.slack.texts(at + 1).await;
        assert!(texts[at].starts_with("You may not answer"), "{texts:?}");
    }
    assert!(house.answer("apr_1").is_none());
    assert_eq!(house.take("first", &from("U2B", "T9Z")).await, Taken::Heard);
    assert_eq!(house.answer("apr_1").unwrap().by.id, "U2B");
}

#[tokio::test]
async fn a_late_click_on_another_channels_card_makes_that_card_anew_once() {
    let house = House::open().await;
    let [here, there] = ["soc", "vip"].map(|channel| value("first", channel, "apr_1"));
    assert_eq!(house.take("first", &click("deny", "U1A", &here)).await, Taken::Heard);
    for _ in 0..2 {
        assert_eq!(house.take("first", &click("approve", "U1A", &there)).await, Taken::Heard);
    }
    house.slack.texts(3).await;
    let posted = house.slack.posted();
    let replaced: Vec<&Value> =
        posted.iter().map(|(_, body)| body).filter(|one| one["replace_original"] == true).collect();
    assert_eq!(replaced.len(), 1, "{posted:?}");
    assert!(replaced[0]["text"].as_str().unwrap().contains("Denied by `U1A-name`"), "{}", replaced[0]);
    assert_eq!(posted.len(), 3, "and two whispers");
}

#[tokio::test]
async fn a_click_that_comes_when_the_time_is_over_answers_nothing_and_is_told_so() {
    let house = House::open().await;
    let end: Timestamp = "2026-06-01T12:10:00Z".parse().unwrap();
    let value = seal("first", "soc", "apr_1", end);
    assert_eq!(house.take("first", &click("approve", "U1A", &value)).await, Taken::Heard);
    let texts = house.slack.texts(1).await;
    assert_eq!(texts[0], "Your click came too late. *Expired* at 2026-06-01 12:10:00 UTC: nobody answered in time.");
    assert!(house.answer("apr_1").is_none());
}

#[tokio::test]
async fn a_click_on_a_card_of_a_channel_that_is_gone_is_told_so() {
    let house = House::open().await;
    let value = value("first", "removed", "apr_1");
    assert_eq!(house.take("first", &click("approve", "U1A", &value)).await, Taken::Heard);
    let texts = house.slack.texts(1).await;
    assert!(texts[0].contains("not configured any more"), "{texts:?}");
    assert!(house.answer("apr_1").is_none());
}

#[tokio::test]
async fn answers_are_posted_to_slack_only_whatever_the_payload_says() {
    let house = House::open().await;
    for (at, url) in ["https://evil.example/", "http://hooks.slack.com/", "http://127.0.0.1:1/"].into_iter().enumerate()
    {
        for user in ["U1A", "U2B"] {
            let mut payload = click("approve", user, &value("first", "soc", &format!("apr_{at}")));
            payload["response_url"] = url.into();
            assert_eq!(house.take("first", &payload).await, Taken::Heard);
        }
        assert!(house.answer(&format!("apr_{at}")).unwrap().response_url.is_none(), "the click counts all the same");
    }
    house.tasks.close();
    house.tasks.wait().await;
    assert_eq!(house.slack.posted(), []);
}

#[tokio::test]
async fn a_worker_that_stops_or_has_too_much_to_do_says_so_that_slack_warns() {
    let house = House::open().await;
    let payload = click("approve", "U1A", &value("first", "soc", "apr_1"));
    let all = u32::try_from(UNDER_WAY_MAX).unwrap();
    let places = house.reception.0.places.acquire_many(all).await.unwrap();
    assert_eq!(house.take("first", &payload).await, Taken::Busy);
    drop(places);
    house.tasks.close();
    assert_eq!(house.take("first", &payload).await, Taken::Busy);
    assert!(house.answer("apr_1").is_none());
}

#[tokio::test]
async fn a_slack_that_takes_no_whispers_keeps_nobody_from_answering() {
    let house = House::open().await;
    let busy = || Ok(Reply::new(429, r#"{"retry_after":60,"ok":false,"error":"rate_limited"}"#));
    house.slack.says.lock().unwrap().extend((0..2).map(|_| busy()));
    let forbidden = click("approve", "U3C", &value("first", "vip", "apr_1"));
    assert_eq!(house.take("first", &forbidden).await, Taken::Heard);
    let end: Timestamp = "2026-06-01T12:10:00Z".parse().unwrap();
    let late = seal("first", "soc", "apr_2", end);
    assert_eq!(house.take("first", &click("approve", "U1A", &late)).await, Taken::Heard);
    house.slack.texts(2).await;
    assert_eq!(house.reception.0.places.available_permits(), UNDER_WAY_MAX, "whispers take no places of clicks");
    assert_eq!(house.reception.0.whispers.available_permits(), WHISPERS_MAX - 2);
    let all = u32::try_from(WHISPERS_MAX - 2).unwrap();
    let _all = house.reception.0.whispers.acquire_many(all).await.unwrap();
    assert_eq!(house.take("first", &forbidden).await, Taken::Heard, "and too many of them are left out");
    assert_eq!(house.take("first", &click("deny", "U1A", &value("first", "soc", "apr_3"))).await, Taken::Heard);
    assert!(house.answer("apr_3").is_some());
    assert_eq!(house.slack.posted().len(), 2);
}

#[tokio::test]
async fn a_card_that_still_has_buttons_long_after_the_answer_is_made_anew_by_the_next_click() {
    // Goal: also on the worker that took the answer: its change of the card may have failed, or there is a second card.
    let house = House::open().await;
    let button = value("first", "soc", "apr_1");
    let (by, at) = (By { id: "U1A".into(), name: "ann".into(), team: None }, Clock::System.now());
    let mut won = Click::new(Name::of("apr_1"), Answer::Deny, by, Via::Slack, at.minus(2 * STALE_AFTER));
    (won.channel, won.claim) =
        (Some("soc".parse().unwrap()), Some((&button::open(&[Secret::new("first")], &button).unwrap()).into()));
    house.approvals.answer(won).await.unwrap();
    let replaced = || house.slack.posted().iter().filter(|(_, one)| one["replace_original"] == true).count();
    assert!(house.reception.0.claim_replacement(&Name::of("apr_1"), &"soc".parse().unwrap()));
    house.take("first", &click("approve", "U2B", &button)).await;
    house.slack.texts(1).await;
    assert_eq!(replaced(), 0, "it was just made anew");
    house.reception.0.replaced.lock().unwrap()[0].2 -= STALE_AFTER;
    house.take("first", &click("approve", "U2B", &button)).await;
    house.slack.texts(3).await;
    assert_eq!(replaced(), 1, "{:?}", house.slack.posted());
}

#[tokio::test]
async fn a_bots_card_is_left_to_the_bot_at_first_and_then_made_anew_by_the_next_click() {
    // Goal: a try that timed out may have left a second card, which no record tells of.
    let house = House::open().await;
    for (approval, ago, replaced) in [("apr_1", STALE_AFTER / 4, 0), ("apr_2", 2 * STALE_AFTER, 1)] {
        let button = value("first", "soc", approval);
        let (conversation, ts) = (String::from("C1"), String::from("17.1"));
        let card = Card { id: uuid::Uuid::now_v7(), channel: "soc".parse().unwrap(), conversation, ts };
        house.approvals.note(Deed::Posted(Name::of(approval), card)).await.unwrap();
        let (by, at) = (By { id: "soc".into(), name: "soc".into(), team: None }, Clock::System.now().minus(ago));
        let mut won = Click::new(Name::of(approval), Answer::Deny, by, Via::Api, at);
        won.claim = Some((&button::open(&[Secret::new("first")], &button).unwrap()).into());
        house.approvals.answer(won).await.unwrap();
        let before = house.slack.posted().len();
        house.take("first", &click("approve", "U2B", &button)).await;
        house.slack.texts(before + 1 + replaced).await;
        let posted = house.slack.posted().split_off(before);
        let is_change = |(_, one): &&(String, Value)| one["replace_original"] == true;
        assert_eq!(posted.iter().filter(is_change).count(), replaced, "{posted:?}");
    }
}

#[tokio::test]
async fn a_whisper_that_fails_is_tried_again_and_no_more_than_the_url_is_good_for() {
    let house = House::open().await;
    let end: Timestamp = "2026-06-01T12:10:00Z".parse().unwrap();
    let value = seal("first", "soc", "apr_1", end);
    let too_many = || Ok(Reply::new(429, r#"{"retry_after":0,"ok":false,"error":"rate_limited"}"#));
    house.slack.says.lock().unwrap().extend((0..2).map(|_| too_many()));
    house.take("first", &click("approve", "U1A", &value)).await;
    assert_eq!(house.slack.texts(3).await.len(), 3);
    house.slack.says.lock().unwrap().extend((0..9).map(|_| too_many()));
    house.take("first", &click("approve", "U1A", &value)).await;
    house.tasks.close();
    house.tasks.wait().await;
    assert_eq!(house.slack.posted().len(), 3 + 5);
}
