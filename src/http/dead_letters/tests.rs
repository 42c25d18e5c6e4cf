//! The routes over a real socket, with a store and an embedded broker; errands by themselves where a socket would be chance.

use std::{net::SocketAddr, time::Duration};

use axum::body::Body;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::{
    broker::Queue,
    dead_letters::{LetterFilter, LetterId},
    http::{Shown, tests::House},
    model::{ChannelId, Clock, DeathReason, Decision, Delivery, Filter, Role, filter::KindSet},
};

/// The letter of a delivery to `channel` that was refused; an approval with this end is asked for where there is one.
pub(in crate::http) fn letter(id: &str, channel: &str, expires_at: Option<&str>) -> DeadLetter {
    let mut body = json!({
        "id": id, "time": "2026-06-01T12:00:00Z", "decision": "DENY", "severity": "HIGH", "agent": {"id": "a"}, "tool": "t",
    });
    if let Some(expires_at) = expires_at {
        body["decision"] = json!("REQUIRE_APPROVAL");
        body["approval"] = json!({"id": "apr", "expires_at": expires_at});
    }
    let now = Clock::System.now();
    let decision = Arc::new(Decision::decode(body.to_string().into()).unwrap());
    let delivery = Delivery::new(decision, channel.parse().unwrap(), now);
    DeadLetter::of_delivery(&delivery, DeathReason::Refused, "HTTP 400: invalid_payload", None, now)
}

async fn fill(house: &House, count: usize) -> Vec<LetterId> {
    for number in 0..count {
        house.inside.store.bury(letter(&format!("d-{number}"), "soc", None)).await.unwrap();
    }
    let mut ids = house.inside.store.select(&LetterFilter::default()).await.unwrap();
    ids.reverse();
    ids
}

/// Makes `soc` a channel of the worker.
pub(in crate::http) fn show_soc(house: &House) {
    let filter =
        Filter { events: KindSet::all(), min_severity: crate::model::Severity::Low, tools: None, agents: None };
    let shown = Shown {
        id: "soc".parse().unwrap(),
        configured: json!({}),
        filter,
        max_age: Duration::from_hours(24),
        version: None,
        unreadable: false,
        lane: None,
    };
    house.channels.send_replace(Arc::from([shown]));
}

/// Asks and reads the answer to its end: status and body.
async fn ask(door: SocketAddr, method: &str, path: &str, token: &str, more: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(door).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {token}\r\n{more}content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut answer)).await.expect("no answer").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn get(house: &House, path: &str) -> (u16, Value) {
    let (status, body) = ask(house.doors.api, "GET", path, "auditor", "", "").await;
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

async fn order(house: &House, deed: &str, token: &str, body: &Value) -> (u16, Value) {
    let path = format!("/api/dead-letters/{deed}");
    let (status, body) = ask(house.doors.api, "POST", &path, token, "", &body.to_string()).await;
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

#[tokio::test]
async fn letters_are_listed_in_pages_newest_first_grouped_by_cause_and_shown_whole() {
    let house = House::open().await;
    let ids = fill(&house, 5).await;
    let (mut found, mut before, mut workers) = (Vec::new(), String::new(), Vec::new());
    loop {
        let (status, page) = get(&house, &format!("/api/dead-letters?limit=2{before}")).await;
        assert_eq!(status, 200, "{page}");
        found.extend(page["letters"].as_array().unwrap().iter().map(|letter| letter["id"].clone()));
        workers.push(page["worker"].clone());
        let Some(next) = page["next"].as_str() else { break };
        before = format!("&before={next}");
    }
    assert_eq!(Value::from(found), json!(ids));
    assert!(workers.iter().all(|worker| worker.is_string() && *worker == workers[0]), "{workers:?}");
    let (_, page) = get(&house, "/api/dead-letters?bodies=false&limit=1").await;
    assert_eq!((&page["letters"][0]["body"], &page["letters"][0]["decision_id"]), (&json!(""), &json!("d-4")));
    let (status, causes) = get(&house, "/api/dead-letters?by_cause=true&channel=soc").await;
    assert_eq!((status, causes["causes"].as_array().unwrap().len()), (200, 1), "{causes}");
    assert_eq!((&causes["causes"][0]["count"], &causes["causes"][0]["reason"]), (&json!(5), &json!("refused")));
    let (status, shown) = get(&house, &format!("/api/dead-letters/{}", ids[2])).await;
    assert_eq!(
        (status, &shown["decision_id"], &shown["detail"]),
        (200, &json!("d-2"), &json!("HTTP 400: invalid_payload"))
    );
    for (path, status, code) in [
        ("/api/dead-letters?nonsense=1", 400, "malformed"),
        ("/api/dead-letters/nonsense", 400, "malformed"),
        ("/api/dead-letters/0197a2b4-0000-7000-8000-000000000001", 404, "unknown_dead_letter"),
    ] {
        let (got, answer) = get(&house, path).await;
        assert_eq!((got, &answer["error"]["code"]), (status, &json!(code)), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_replay_sends_what_can_be_sent_and_says_what_it_left() {
    let house = House::open().await;
    show_soc(&house);
    fill(&house, 300).await;
    for other in [letter("late", "soc", Some("2026-06-01T12:10:00Z")), letter("gone", "gone", None)] {
        house.inside.store.bury(other).await.unwrap();
    }
    let soc: ChannelId = "soc".parse().unwrap();
    let waiting = async || house.inside.broker.waiting(Queue::Lane(soc.clone())).await.unwrap();
    let (status, told) = order(&house, "replay", "analyst", &json!({"dry_run": true})).await;
    assert_eq!((status, &told["selected"], &told["replayed"]), (200, &json!(302), &json!(300)), "{told}");
    assert_eq!((waiting().await, house.inside.metrics.channel(&soc).replayed.get()), (0, 0), "a dry run did something");

    let accept = "accept: application/x-ndjson\r\n";
    let (status, body) =
        ask(house.doors.api, "POST", "/api/dead-letters/replay", "analyst", accept, r#"{"filter":{"limit":302}}"#)
            .await;
    assert_eq!(status, 200, "{body}");
    // Chunked: the lines of the body stand between those of the framing.
    let lines: Vec<Value> =
        body.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["progress"].is_object(), "{body}");
    let summary = &lines.last().unwrap()["summary"];
    let counts = ["selected", "replayed", "skipped_expired", "skipped_no_channel", "failed"];
    assert_eq!(counts.map(|key| summary[key].as_u64().unwrap()), [302, 300, 1, 1, 0], "{summary}");
    assert!(summary["stopped"].is_null() && summary["notes"][0][1].as_str().unwrap().contains("expired"), "{summary}");
    assert_eq!((waiting().await, house.inside.metrics.channel(&soc).replayed.get()), (300, 300));
    assert_eq!(house.inside.store.count(&LetterFilter::default()).await.unwrap(), 2);
}

#[tokio::test]
async fn only_an_admin_purges_and_only_what_was_chosen() {
    let house = House::open().await;
    let ids = fill(&house, 4).await;
    let left = async || house.inside.store.count(&LetterFilter::default()).await.unwrap();
    let one = json!({"ids": [ids[0]]});
    for (token, body, status) in [
        ("auditor", &one, 403),
        ("analyst", &one, 403),
        ("right", &one, 403),
        ("admin", &json!({}), 400),
        ("admin", &json!({"ids": []}), 400),
    ] {
        let (got, answer) = order(&house, "purge", token, body).await;
        assert_eq!((got, left().await), (status, 4), "{token} {body}: {answer}");
    }
    for (body, purged, remain) in [
        (json!({"ids": [ids[0]], "dry_run": true}), 1, 4),
        (one, 1, 3),
        (json!({"filter": {"decision": "d-0"}}), 1, 2),
        (json!({"filter": {"channel": "other"}}), 0, 2),
        (json!({"all": true}), 2, 0),
    ] {
        let (status, answer) = order(&house, "purge", "admin", &body).await;
        assert_eq!((status, &answer["purged"], left().await), (200, &json!(purged), remain), "{body}: {answer}");
    }
}

pub(super) fn caller() -> Caller {
    Caller {
        name: String::from("ann"),
        role: Role::Admin,
        via: crate::http::access::Via::Token,
        from: SocketAddr::from(([127, 0, 0, 1], 1)),
    }
}

#[tokio::test]
async fn an_errand_whose_caller_has_gone_stops_after_the_batch_under_way() {
    let house = House::open().await;
    show_soc(&house);
    fill(&house, 600).await;
    let order = Order::read(Body::from("{}"), Deed::Replay).await.unwrap();
    let tasks = TaskTracker::new();
    let desk = Desk::new(house.inside.clone(), &tasks, Uuid::nil());
    // On this thread the task has not begun when the answer is dropped, as it is when its connection breaks.
    drop(desk.begin(Deed::Replay, order, caller()).await.unwrap().answer(true).await);
    tasks.close();
    tasks.wait().await;
    let soc = Queue::Lane("soc".parse().unwrap());
    let left = house.inside.store.count(&LetterFilter::default()).await.unwrap();
    let doing = desk.causes(&LetterFilter::default()).await.unwrap().errand.unwrap();
    assert_eq!((doing.what.as_str(), doing.of, doing.seen, doing.done), ("replay", Some(600), 256, 256));
    assert!(doing.ended.is_some() && doing.outcome.unwrap().contains("the caller has gone"));
    assert_eq!((left, house.inside.broker.waiting(soc).await.unwrap()), (344, 256));
}

#[tokio::test]
async fn a_second_errand_is_told_that_the_worker_is_busy() {
    let house = House::open().await;
    let desk = Desk::new(house.inside.clone(), &TaskTracker::new(), Uuid::nil());
    let request = || Request::new(Body::from("{}"));
    let place = Arc::clone(&desk.errands).acquire_owned().await.unwrap();
    let refused = act(desk.clone(), Deed::Replay, caller(), request()).await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    let counted = act(desk.clone(), Deed::Replay, caller(), Request::new(Body::from(r#"{"dry_run":true}"#))).await;
    assert_eq!(counted.status(), StatusCode::OK, "to count disturbs nobody");
    drop(place);
    for _ in 0..2 {
        let done = act(desk.clone(), Deed::Replay, caller(), request()).await;
        assert_eq!(done.status(), StatusCode::OK, "the place of an errand that is done is free again");
    }
}

#[tokio::test]
async fn explain_says_which_channel_wants_a_decision_and_why_another_does_not() {
    let house = House::open().await;
    show_soc(&house);
    let event =
        r#"{"id":"1","time":"2026-06-01T12:00:00Z","decision":"DENY","severity":"LOW","agent":{"id":"a"},"tool":"t"}"#;
    let (status, body) = ask(house.doors.api, "POST", "/api/explain", "auditor", "", event).await;
    assert_eq!((status, body.as_str()), (200, r#"[{"channel":"soc","matches":true}]"#));
    house.channels.send_modify(|shown| {
        let mut one = shown[0].clone();
        one.filter.min_severity = crate::model::Severity::High;
        *shown = Arc::from([one]);
    });
    let (_, body) = ask(house.doors.api, "POST", "/api/explain", "auditor", "", event).await;
    let says: Value = serde_json::from_str(&body).unwrap();
    let no = json!({"channel": "soc", "matches": false, "filter": "min_severity", "wanted": "HIGH", "found": "LOW"});
    assert_eq!(says, json!([no]));
    for malformed in ["", "{}", "[1]"] {
        let (status, body) = ask(house.doors.api, "POST", "/api/explain", "auditor", "", malformed).await;
        assert!(status == 400 && body.contains(r#""code":"malformed""#), "{malformed}: {body}");
    }
}
