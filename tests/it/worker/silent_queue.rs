//! A queue that the broker cannot serve, as when a cluster has lost most of its nodes, while everything else works.

use std::time::Duration;

use bytes::Bytes;
use interven_alerts::stand_ins::{Platform, Script};

use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{PATIENT, Scene, on},
    unique_name,
    worker::{PATIENCE, WorkerProcess},
};

/// Stops or starts the one replica of a quorum queue.
async fn replica(rabbit: &Rabbit, call: &str, queue: &str) {
    let said = rabbit.ctl(&["eval", &format!("ra:{call}(quorum_queues, {{'%2F_{queue}', node()}}).")]).await;
    assert!(said.contains("ok"), "{call}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_queue_that_does_not_answer_delays_its_own_channel_and_no_other() {
    // Goal: while one lane's queue confirms nothing, the others deliver, each once; and when it is back, nothing is lost.
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("silent"));
    let mut scene = Scene::default();
    for id in ["silent", "fine"] {
        scene
            .add(id, Platform::Slack, Script::accept(), &format!("rate_limit = \"500/s\"\nburst = 50\n{PATIENT}"))
            .await;
    }
    let config = format!("{}{}", on(rabbit, &prefix, "keep_decisions = \"none\""), scene.channels());
    let mut worker = WorkerProcess::new(&config);
    let decisions: Vec<Bytes> = (0..60).map(|number| super::deny(&format!("silent-{number}"))).collect();
    let expected = Scene::expected(&worker.config(), &decisions);
    let fine: Vec<_> = expected.iter().filter(|(id, _)| id.as_str() == "fine").cloned().collect();
    worker.start_ready().await;
    // RabbitMQ closes the connection of whoever begins to consume a queue without a leader, so both must be consumed by now.
    eventually("the lanes have started", PATIENCE, async || {
        (worker.metrics().await.sum("lane_state", &["state=\"flowing\""]) == 2).then_some(())
    })
    .await;
    eventually("both lanes are consumed", PATIENCE, async || {
        let listed = rabbit.ctl(&["list_queues", "name", "consumers", "--silent"]).await;
        let consumed = |id: &str| {
            listed.lines().any(|line| line.split_whitespace().eq([&*format!("{prefix}.alerts.lane.{id}"), "1"]))
        };
        (consumed("silent") && consumed("fine")).then_some(())
    })
    .await;
    let queue = format!("{prefix}.alerts.lane.silent");
    replica(rabbit, "stop_server", &queue).await;
    Publisher::new(rabbit.url(), &prefix).publish_surely(&decisions, PATIENCE).await;
    scene.until_told(&fine, PATIENCE).await;
    // The try that was under way with it has failed by now, and the next ones too.
    eventually("the trouble is told", PATIENCE, async || worker.logs().contains("could not hand over").then_some(()))
        .await;
    assert_eq!(scene.stand_in("silent").counters().taken, 0);
    replica(rabbit, "restart_server", &queue).await;
    scene.until_told(&expected, Duration::from_mins(1)).await;
    assert_eq!(worker.terminate().await.0, 0);
    let again = scene.stand_in("fine").received_ids().into_values().filter(|count| *count > 1).count();
    assert_eq!(again, 0, "decisions were told twice to the channel that was fine");
}

/// Makes the one replica of a quorum queue fall silent, or speak again: it takes what is sent, and confirms nothing.
async fn silence(rabbit: &Rabbit, call: &str, queue: &str) {
    let said = rabbit.ctl(&["eval", &format!("sys:{call}('%2F_{queue}').")]).await;
    assert!(said.contains("ok"), "{call}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_queue_that_falls_silent_delays_its_own_channel_and_no_other() {
    // Goal: while one lane's queue confirms nothing, the others deliver; and when it is back, nothing is lost.
    // Method: the queues work for a while first, as they do when a node dies; then decisions come in twice, so that the second
    // ones meet the retries of the first.
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("silent"));
    let mut scene = Scene::default();
    let limited = format!("rate_limit = \"500/s\"\nburst = 50\n{PATIENT}");
    for id in ["silent", "fine"] {
        scene.add(id, Platform::Slack, Script::accept(), &limited).await;
    }
    let config = format!("{}{}", on(rabbit, &prefix, "keep_decisions = \"none\""), scene.channels());
    let mut worker = WorkerProcess::new(&config);
    let decisions: Vec<Bytes> = (0..60).map(|number| super::deny(&format!("falls-{number}"))).collect();
    let all = |until: usize| Scene::expected(&worker.config(), &decisions[..until]);
    let fine = |until: usize| all(until).into_iter().filter(|(id, _)| id.as_str() == "fine").collect::<Vec<_>>();
    let (before, whole, fine_40, fine_60) = (all(20), all(60), fine(40), fine(60));
    worker.start_ready().await;
    let mut publisher = Publisher::new(rabbit.url(), &prefix);
    publisher.publish_surely(&decisions[..20], PATIENCE).await;
    scene.until_told(&before, PATIENCE).await;

    let queue = format!("{prefix}.alerts.lane.silent");
    silence(rabbit, "suspend", &queue).await;
    publisher.publish_surely(&decisions[20..40], PATIENCE).await;
    scene.until_told(&fine_40, PATIENCE).await;
    publisher.publish_surely(&decisions[40..], PATIENCE).await;
    scene.until_told(&fine_60, PATIENCE).await;
    eventually("the trouble is told", PATIENCE, async || worker.logs().contains("could not hand over").then_some(()))
        .await;
    assert_eq!(scene.stand_in("silent").counters().taken, 20);
    silence(rabbit, "resume", &queue).await;
    scene.until_told(&whole, Duration::from_mins(1)).await;
    assert_eq!(worker.terminate().await.0, 0);
}
