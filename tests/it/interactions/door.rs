//! The endpoint as Slack, and as everybody else, finds it.

use std::time::Duration;

use interven_alerts::{
    model::Clock,
    stand_ins::{Platform, Script},
};

use super::{Press, SECRET, asks, client, deliver, live, look, sign, until_ended, until_live};
use crate::support::{
    eventually,
    scene::{PUBLISHER, PUBLISHER_TOKEN, Scene, token_of},
    worker::{PATIENCE, WorkerProcess, post_events},
};

/// A worker with an embedded broker and a Slack channel with these keys.
async fn open(keys: &str) -> (Scene, WorkerProcess, String) {
    let mut scene = Scene::default();
    scene.add("soc", Platform::Slack, Script::accept(), keys).await;
    let config = format!("{PUBLISHER}{}{}", token_of("auditor"), scene.channels());
    let mut worker = WorkerProcess::new(&config);
    worker.start_ready().await;
    (scene, worker, config)
}

async fn ask(worker: &WorkerProcess, approval: &str) {
    let body = String::from_utf8(asks(approval, Duration::from_hours(1)).to_vec()).unwrap();
    let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), body).await;
    assert_eq!(answer.map(|(status, _)| status), Some(202));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_slack_has_signed_gets_in_and_a_rotated_secret_does_after_a_reload() {
    let (scene, worker, config) = open(&live()).await;
    let (slack, client) = (scene.stand_in("soc"), client());
    ask(&worker, "apr-door").await;
    let card = until_live(slack, "apr-door").await;
    let press = Press::on(slack, &card, "approve", "U7");
    let now = Clock::System.now().unix_seconds();
    let post = async |secret: &str, seconds: i64, body: String| {
        let timestamp = (now + seconds).to_string();
        deliver(&client, &worker, &timestamp, &sign(secret, &timestamp, &press.body), body).await
    };
    assert_eq!(post("another", 0, press.body.clone()).await, Some(401));
    assert_eq!(post(SECRET, 0, format!("{}x", press.body)).await, Some(401));
    assert_eq!(post(SECRET, -400, press.body.clone()).await, Some(401));
    assert_eq!(post(SECRET, 400, press.body.clone()).await, Some(401));
    let bare = client.post(format!("{}/v1/slack/interactions", worker.server())).body(press.body.clone());
    assert_eq!(bare.send().await.unwrap().status().as_u16(), 401);
    let large = "x".repeat(256 * 1024 + 1);
    let timestamp = now.to_string();
    let refused = deliver(&client, &worker, &timestamp, &sign(SECRET, &timestamp, &large), large).await;
    assert_eq!(refused, Some(413));
    assert_eq!(look(&worker, "apr-door").await.1["answer"], serde_json::Value::Null);
    // What is signed and no click of ours is taken in silence.
    let ignored = String::from("payload=%7B%22type%22%3A%22view_submission%22%7D");
    assert_eq!(deliver(&client, &worker, &timestamp, &sign(SECRET, &timestamp, &ignored), ignored).await, Some(200));

    // The secret is rotated in Slack first; the configuration follows, with both.
    assert_eq!(post("rotated", 0, press.body.clone()).await, Some(401));
    let both = format!("[\"rotated\", \"{SECRET}\"]");
    worker.reconfigure(&config.replace(&format!("\"{SECRET}\""), &both));
    worker.hang_up();
    let taken = async || (post("rotated", 0, press.body.clone()).await == Some(200)).then_some(());
    eventually("the rotated secret is known", PATIENCE, taken).await;
    until_ended(slack, &card.ts, "Approved by `U7.name` (`U7`)").await;
    let logs = worker.logs();
    let audit = logs.lines().find(|line| line.contains("interven_alerts::audit") && line.contains("apr-door"));
    let audit = audit.expect("an audit line");
    assert!(audit.contains("\"who\":\"U7\"") && audit.contains("\"outcome\":\"done\""), "{audit}");
    assert!(!logs.contains(&press.path) && !logs.contains(SECRET), "a secret is in the log");
    assert_eq!(logs.lines().filter(|line| line.contains("interactions are refused")).count(), 1, "told sparsely");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_who_is_no_approver_changes_nothing_and_an_answer_outlives_a_restart() {
    let (scene, mut worker, _) = open(&format!("approvers = [\"U7\", \"T9/U8\"]\n{}", live())).await;
    let (slack, client) = (scene.stand_in("soc"), client());
    ask(&worker, "apr-own").await;
    let card = until_live(slack, "apr-own").await;
    for user in ["U6", "U8"] {
        let press = Press::on(slack, &card, "deny", user);
        assert_eq!(press.post(&client, &worker).await, Some(200));
        let told = async || slack.wall().whispers().into_iter().find(|(path, _)| *path == press.path);
        let (_, text) = eventually("the stranger is told", PATIENCE, told).await;
        assert!(text.starts_with("You may not answer") && text.contains(&format!("`{user}`")), "{text}");
    }
    assert!(!slack.wall().messages()[0].buttons().is_empty());
    let press = Press::on(slack, &card, "approve", "U7");
    assert_eq!(press.post(&client, &worker).await, Some(200));
    until_ended(slack, &card.ts, "Approved by `U7.name` (`U7`)").await;
    assert_eq!(worker.terminate().await.0, 0);
    worker.start_ready().await;
    // Somebody whose Slack has not heard yet clicks on the old card.
    let late = Press::on(slack, &card, "deny", "U7");
    let taken = async || (late.post(&client, &worker).await == Some(200)).then_some(());
    eventually("the worker takes clicks", PATIENCE, taken).await;
    let told = async || slack.wall().whispers().into_iter().find(|(path, _)| *path == late.path);
    let (_, text) = eventually("the late one is told", PATIENCE, told).await;
    assert!(text.contains("*Approved* by `U7.name` (`U7`)"), "{text}");
    assert_eq!(look(&worker, "apr-own").await.1["answer"]["by"]["id"], "U7");
}
