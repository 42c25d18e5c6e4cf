//! One worker on the embedded broker: the same answers, and what the API says at its edges.

use std::time::Duration;

use serde_json::{Value, json};

use super::{LOOKS, answer_all, asks, grant, look, tokens, until_agreed, until_asked, with_status};
use crate::support::{
    eventually,
    scene::{PUBLISHER, PUBLISHER_TOKEN},
    worker::{PATIENCE, WorkerProcess, post_events},
};

const HOUR: Duration = Duration::from_hours(1);

async fn publish(worker: &WorkerProcess, decision: bytes::Bytes) {
    let body = String::from_utf8(decision.to_vec()).unwrap();
    let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), body).await.unwrap();
    assert_eq!(answer.0, 202, "{answer:?}");
}

async fn answer(worker: &WorkerProcess, approval: &str, body: &str) -> (u16, Value) {
    worker.api("POST", &format!("/api/approvals/{approval}"), "token-of-analyst", body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_embedded_broker_one_answer_counts_also_after_kill_9() {
    const ANSWERS: usize = 200;
    let mut workers = [WorkerProcess::new(&format!("{PUBLISHER}{}", tokens()))];
    workers[0].start_ready().await;
    publish(&workers[0], asks("apr", "slack", HOUR)).await;
    until_asked(&workers, "apr").await;
    let given = answer_all(&workers, "apr", ANSWERS, |_| {}).await;
    assert_eq!((with_status(&given, 200).len(), with_status(&given, 409).len()), (1, ANSWERS - 1), "{given:#?}");
    workers[0].kill();
    workers[0].start_ready().await;
    until_asked(&workers, "apr").await;
    let said = until_agreed(&workers, "apr").await;
    assert_eq!(said["answer"]["by"]["name"], with_status(&given, 200)[0].who);
    let counted = workers[0].metrics().await.sum("approvals_total", &[]);
    assert_eq!(counted, 0, "it was counted before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_says_what_is_wrong_and_every_answer_is_an_audit_line() {
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{}[approvals]\ngrant = \"3s\"\n", tokens()));
    worker.start_ready().await;
    let hostile = "a/b ü\"\u{1}%2F";
    let encoded = "a%2Fb%20%C3%BC%22%01%252F";
    for (approval, lasts) in [("apr", HOUR), (hostile, HOUR), ("short", Duration::from_secs(1))] {
        publish(&worker, asks(approval, "slack", lasts)).await;
    }
    eventually("all are known", PATIENCE, async || (look(&worker, "short").await.0 == 200).then_some(())).await;
    let approve = r#"{"answer":"approve"}"#;
    for (body, approval, status, code) in [
        ("", "apr", 400, "malformed"),
        ("{}", "apr", 400, "malformed"),
        (r#"{"answer":"maybe"}"#, "apr", 400, "malformed"),
        (r#"{"answer":"approve","by":"me"}"#, "apr", 400, "malformed"),
        (approve, "nothing", 404, "unknown_approval"),
        (approve, "%ff", 400, "malformed"),
    ] {
        let (had, said) = answer(&worker, approval, body).await;
        assert_eq!((had, &said["error"]["code"]), (status, &json!(code)), "{body} {approval}: {said}");
    }
    assert_eq!(look(&worker, "nothing").await.0, 404);
    eventually("it expires", PATIENCE, async || (look(&worker, "short").await.1["state"] == "expired").then_some(()))
        .await;
    let (status, said) = answer(&worker, "short", approve).await;
    assert_eq!((status, &said["error"]["code"]), (410, &json!("approval_expired")), "{said}");

    let (status, said) = answer(&worker, encoded, approve).await;
    assert_eq!((status, &said["id"], &said["state"]), (200, &json!(hostile), &json!("answered")), "{said}");
    assert_eq!((&said["answer"]["by"]["id"], &said["answer"]["via"]), (&json!("the-analyst"), &json!("api")), "{said}");
    let (status, said) = answer(&worker, encoded, r#"{"answer":"deny"}"#).await;
    assert_eq!((status, &said["error"]["code"]), (409, &json!("already_answered")), "{said}");

    // The grant, for exactly this call, for three seconds.
    let ended = async || (grant(&worker, "slack", Some("post_message")).await.0 == 404).then_some(());
    eventually("the grant ends", PATIENCE, ended).await;
    assert_eq!(answer(&worker, "apr", approve).await.0, 200);
    let (status, said) = grant(&worker, "slack", Some("post_message")).await;
    assert!(status == 200 && said["approval_id"] == "apr" || status == 404, "{said}");
    for (tool, operation) in [("slack", None), ("slack", Some("post")), ("slack.post_message", None)] {
        assert_eq!(grant(&worker, tool, operation).await.0, 404, "{tool} {operation:?}");
    }
    for query in ["", "?agent=agt_42", "?tool=slack", "?agent=&tool=slack", "?agent=a&tool=t&why=x"] {
        let (status, said) = worker.api("GET", &format!("/api/grants{query}"), LOOKS, "").await;
        assert_eq!((status, &said["error"]["code"]), (400, &json!("malformed")), "{query}: {said}");
    }

    let ids = async |query: &str| {
        let (status, said) = worker.api("GET", &format!("/api/approvals{query}"), LOOKS, "").await;
        assert_eq!(status, 200, "{said}");
        said.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("").await, ["short", hostile, "apr"]);
    assert_eq!(ids("?state=answered&limit=1").await, [hostile]);
    assert_eq!(ids("?state=expired").await, ["short"]);
    assert_eq!(ids("?state=waiting").await, [""; 0]);
    for query in ["?state=gone", "?limit=0", "?limit=501", "?limit=x", "?page=2"] {
        assert_eq!(worker.api("GET", &format!("/api/approvals{query}"), LOOKS, "").await.0, 400, "{query}");
    }

    let metrics = worker.metrics().await;
    assert_eq!(metrics.sum("approvals_total", &["answer=\"approve\"", "via=\"api\""]), 2);
    assert_eq!(metrics.sum("approval_latency_seconds_count", &[]), 2);
    assert_eq!(worker.terminate().await.0, 0);
    let logs = worker.logs();
    let audits: Vec<&str> = logs.lines().filter(|line| line.contains("interven_alerts::audit")).collect();
    for outcome in ["\"done\"", "answered already", "it had expired", "no such approval"] {
        let told = audits.iter().any(|line| line.contains(outcome) && line.contains("the-analyst"));
        assert!(told, "no audit line says {outcome}: {audits:#?}");
    }
}
