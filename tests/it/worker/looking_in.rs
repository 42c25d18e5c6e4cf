//! What scrapers and orchestrators see: every metric of the contract, numbers that add up, and probes that tell the truth.

use std::time::Duration;

use bytes::Bytes;
use interven_alerts::{
    model::{Clock, Reply},
    stand_ins::{Firewall, Platform, Script, Step},
};

use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{ALL_EVENTS, FAST, IMPATIENT, PATIENT, Scene, on, token_of},
    unique_name,
    worker::{PATIENCE, WorkerProcess},
};

/// Source: contract 8.
const NAMES: [&str; 23] = [
    "decisions_total",
    "decisions_unrouted_total",
    "malformed_total",
    "deliveries_matched_total",
    "deliveries_total",
    "deliveries_waiting",
    "attempts_total",
    "attempt_duration_seconds_bucket",
    "delivery_latency_seconds_bucket",
    "lane_state",
    "lane_wait_seconds_total",
    "dead_letters",
    "dead_letters_total",
    "replayed_total",
    "broker_connected",
    "broker_reconnects_total",
    "acks_waiting",
    "approvals_total",
    "approval_latency_seconds_bucket",
    "config_reload_success_timestamp_seconds",
    "config_last_reload_successful",
    "build_info",
    "last_success_timestamp_seconds",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_there_and_the_numbers_add_up_at_rest() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("metrics"));
    let mut scene = Scene::default();
    let reply = |status| Step::Reply { reply: Reply::new(status, "no"), taken: false };
    let moody = |seed| Script::weighted(seed, [(6, Step::Accept), (3, reply(503)), (1, reply(400))]);
    scene.add("slack", Platform::Slack, moody(1), &format!("{FAST}{IMPATIENT}")).await;
    scene.add("limited", Platform::Discord, moody(2), &format!("rate_limit = \"200/s\"\n{IMPATIENT}")).await;
    scene.add("siem", Platform::Siem, moody(3), &format!("format = \"cef\"\n{ALL_EVENTS}{IMPATIENT}")).await;
    let batch = "batch = { events = 5, bytes = \"900KB\", wait = \"20ms\" }\n";
    scene.add("sumo", Platform::Sumo, moody(4), &format!("{batch}{ALL_EVENTS}{IMPATIENT}")).await;
    scene.add("none", Platform::Teams, Script::accept(), &format!("agents = [\"nobody\"]\n{PATIENT}")).await;
    let config = format!("{}{}", on(rabbit, &prefix, ""), scene.channels());
    let mut worker = WorkerProcess::new(&config);
    worker.start_ready().await;
    let metrics = worker.metrics().await;
    for name in NAMES {
        assert!(metrics.has(name), "{name} is missing");
    }
    assert!(metrics.has("process_resident_memory_bytes") && metrics.has("process_cpu_seconds_total"));

    let mut firewall = Firewall::new(5, Clock::System);
    let mut messages: Vec<Bytes> = (0..200).map(|_| firewall.message()).collect();
    let expected = Scene::expected(&worker.config(), &messages);
    messages.extend((0..3).map(|number| Bytes::from(format!("malformed {number}"))));
    Publisher::new(rabbit.url(), &prefix).publish_surely(&messages, PATIENCE).await;
    let metrics = eventually("nothing waits", PATIENCE, async || {
        let metrics = worker.metrics().await;
        let decisions = metrics.sum("decisions_total", &[]) + metrics.sum("malformed_total", &[]);
        let rest = metrics.sum("acks_waiting", &[]) + metrics.sum("deliveries_waiting", &[]);
        let of = |channel: &str| {
            metrics.sum("deliveries_total", &[channel]) == metrics.sum("deliveries_matched_total", &[channel])
        };
        let done = scene.ids().iter().all(|id| of(&format!("channel=\"{id}\"")));
        (decisions >= 203 && rest == 0 && done).then_some(metrics)
    })
    .await;
    assert_eq!((metrics.sum("decisions_total", &[]), metrics.sum("malformed_total", &[])), (200, 3));
    for (channel, ids) in &expected {
        let here = format!("channel=\"{channel}\"");
        let here = here.as_str();
        let wanted = ids.len() as u64;
        assert_eq!(metrics.sum("deliveries_matched_total", &[here]), wanted, "{channel}");
        let delivered = metrics.sum("deliveries_total", &[here, "ending=\"delivered\""]);
        let dead = metrics.sum("deliveries_total", &[here, "ending=\"dead\""]);
        let told = scene.stand_in(channel.as_str()).different_ids();
        assert_eq!(delivered, told as u64, "{channel}");
        assert_eq!(delivered + dead, wanted, "{channel}");
        assert_eq!(dead, metrics.sum("dead_letters", &[here]), "{channel}");
        assert_eq!(dead, metrics.sum("dead_letters_total", &[here]), "{channel}");
        let requests = scene.stand_in(channel.as_str()).counters().requests;
        let attempts = metrics.sum("attempts_total", &[here]);
        assert_eq!(attempts, requests, "{channel}");
        assert_eq!(attempts, metrics.sum("attempt_duration_seconds_count", &[here]), "{channel}");
        assert_eq!(delivered, metrics.sum("delivery_latency_seconds_count", &[here]), "{channel}");
    }
    assert!(metrics.sum("deliveries_total", &["ending=\"dead\""]) > 0, "nothing died: the test shows nothing");
    assert_eq!(metrics.sum("dead_letters", &["reason=\"malformed\""]), 3);
    assert_eq!(worker.terminate().await.0, 0);
    let dead = metrics.sum("dead_letters", &[]);
    assert_eq!(worker.dead_letters().await.len() as u64, dead);
    // What was counted is on disk, so it is counted again.
    worker.start_ready().await;
    assert_eq!(worker.metrics().await.sum("dead_letters", &[]), dead);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_follows_the_broker_and_liveness_does_not() {
    let rabbit = tokio::task::block_in_place(|| Rabbit::start("", "[]."));
    let mut scene = Scene::default();
    scene.add("slack", Platform::Slack, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    let config = format!("{}{}{}", on(&rabbit, "interven", ""), token_of("auditor"), scene.channels());
    let mut worker = WorkerProcess::new(&config);
    worker.start_ready().await;
    let server = worker.server();
    let auditor = [("INTERVEN_ALERTS_TOKEN", "token-of-auditor"), ("INTERVEN_ALERTS_SERVER", server.as_str())];
    let said = worker.command_with(&["channels", "list"], "", &auditor).await;
    assert!(said.code == 0 && said.err.is_empty(), "{said:?}");
    rabbit.remember_queues().await;
    rabbit.crash();
    let (_, says) = eventually("not ready without a broker", PATIENCE, async || {
        worker.probe("/readyz").await.filter(|(status, _)| *status == 503)
    })
    .await;
    assert!(says.contains("broker"), "{says}");
    assert_eq!(worker.metrics().await.sum("broker_connected", &[]), 0);
    // Operators hear of it, too, instead of what was well some time ago, or of nothing at all.
    let said = worker.command_with(&["channels", "list"], "", &auditor).await;
    let warning = format!("warning: {server}: the broker is not connected: ");
    assert!(said.code == 1 && said.out.contains("slack") && said.err.starts_with(&warning), "{said:?}");
    let said = worker.command_with(&["decisions", "export"], "", &auditor).await;
    assert!(said.code == 1 && said.out.is_empty(), "{said:?}");
    assert!(said.err.contains("the decisions log could not be read: the broker is not connected\nhint: "), "{said:?}");
    assert_eq!(worker.probe("/livez").await.map(|(status, _)| status), Some(200));
    // A worker that is started meanwhile says the same, and goes on trying.
    worker.kill();
    worker.start().await;
    assert_eq!(worker.probe("/readyz").await.map(|(status, _)| status), Some(503));
    assert_eq!(worker.probe("/livez").await.map(|(status, _)| status), Some(200));
    tokio::task::block_in_place(|| rabbit.boot());
    worker.until_ready(Duration::from_mins(1)).await;
    assert_eq!(worker.metrics().await.sum("broker_connected", &[]), 1);
    // And it works.
    let decision = super::deny("back-1");
    let expected = Scene::expected(&worker.config(), std::slice::from_ref(&decision));
    Publisher::new(rabbit.url(), "interven").publish_surely(&[decision], PATIENCE).await;
    scene.until_told(&expected, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_drains_is_alive_and_not_ready() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("drain"));
    let mut scene = Scene::default();
    let slow = Script::always(Step::Slow(Duration::from_secs(2)));
    scene.add("slack", Platform::Slack, slow, &format!("{FAST}{PATIENT}")).await;
    let mut worker = WorkerProcess::new(&format!("{}{}", on(rabbit, &prefix, ""), scene.channels()));
    worker.start_ready().await;
    Publisher::new(rabbit.url(), &prefix).publish_surely(&[super::deny("drain-1")], PATIENCE).await;
    eventually("the send is under way", PATIENCE, async || {
        (scene.stand_in("slack").counters().requests > 0).then_some(())
    })
    .await;
    worker.ask_to_stop();
    let (_, says) = eventually("it says that it drains", PATIENCE, async || {
        worker.probe("/readyz").await.filter(|(status, _)| *status == 503)
    })
    .await;
    assert!(says.contains("draining"), "{says}");
    assert_eq!(worker.probe("/livez").await.map(|(status, _)| status), Some(200));
    assert!(worker.probe("/metrics").await.is_some_and(|(status, _)| status == 200));
    assert_eq!(worker.ended(PATIENCE).await, 0);
    assert_eq!(scene.stand_in("slack").times_received("drain-1"), 1);
}
