//! What the worker itself says: a channel in trouble is told through others, once; and a canary tests its channel, unseen.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use interven_alerts::{
    broker::Log,
    model::{Clock, Decision, Reply, Timestamp, own},
    stand_ins::{Platform, Received, Script, Step},
};

use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{ALL_EVENTS, FAST, PATIENT, Scene, on},
    unique_name,
    worker::{Metrics, PATIENCE, WorkerProcess},
};

/// A slot of the clock in which a channel is told of at most once. Source: issue 3, point 7.
const SILENCE: u64 = 15 * 60;

/// Keys of a channel that hears of others.
const NOTICES: &str = "notices = true\n";

/// A worker over `scene` that is ready, and a publisher to its broker.
async fn raise(prefix: &str, scene: &Scene) -> (WorkerProcess, Publisher) {
    let rabbit = tokio::task::block_in_place(Rabbit::shared);
    let mut worker = WorkerProcess::new(&format!("{}{}", on(rabbit, prefix, ""), scene.channels()));
    worker.start_ready().await;
    (worker, Publisher::new(rabbit.url(), prefix))
}

fn gone() -> Script {
    Script::always(Step::Reply { reply: Reply::new(404, "no_service"), taken: false })
}

/// The notices that a channel has taken, by id, with how often.
fn notices(scene: &Scene, channel: &str) -> Vec<(String, u32)> {
    let ids = scene.stand_in(channel).received_ids().into_iter();
    let mut notices: Vec<_> = ids.filter(|(id, _)| id.starts_with("notice-")).collect();
    notices.sort();
    notices
}

/// The bodies of the requests that tell this decision.
fn telling(scene: &Scene, channel: &str, id: &str) -> Vec<String> {
    let kept = scene.stand_in(channel).kept();
    let bodies = kept.iter().map(|one: &Arc<Received>| String::from_utf8_lossy(&one.body).into_owned());
    bodies.filter(|body| body.contains(id)).collect()
}

fn here(channel: &str) -> String {
    format!("channel=\"{channel}\"")
}

fn matched(metrics: &Metrics, channel: &str) -> u64 {
    metrics.sum("deliveries_matched_total", &[&here(channel)])
}

/// Waits until the worker says that the channel's lane is held.
async fn until_held(worker: &WorkerProcess, channel: &str) {
    eventually("the lane is held", PATIENCE, async || {
        let held = worker.metrics().await.sum("lane_state", &[&here(channel), "state=\"held\""]);
        (held == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_channel_is_told_once_through_the_others_that_asked_for_it() {
    let mut scene = Scene::default();
    scene.add("gone", Platform::Slack, gone(), &format!("{FAST}{NOTICES}{PATIENT}")).await;
    // It hears of others although its filter wants nothing.
    let deaf = format!("{FAST}{NOTICES}agents = [\"nobody\"]\n{PATIENT}");
    scene.add("ops", Platform::Discord, Script::accept(), &deaf).await;
    scene.add("plain", Platform::Teams, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    let (mut worker, mut publisher) = raise(&unique_name("told"), &scene).await;
    publisher.publish_surely(&[super::deny("told-1")], PATIENCE).await;
    eventually("it is told", PATIENCE, async || (!notices(&scene, "ops").is_empty()).then_some(())).await;
    // More of the same is no news.
    let more: Vec<Bytes> = (2..20).map(|number| super::deny(&format!("told-{number}"))).collect();
    publisher.publish_surely(&more, PATIENCE).await;
    eventually("the others go on", PATIENCE, async || {
        let metrics = worker.metrics().await;
        let delivered = |channel: &str| metrics.sum("deliveries_total", &[&here(channel), "ending=\"delivered\""]);
        (delivered("plain") == 19 && delivered("ops") == 1).then_some(())
    })
    .await;
    let [(id, 1)] = &notices(&scene, "ops")[..] else { panic!("{:?}", notices(&scene, "ops")) };
    assert!(id.starts_with("notice-held-gone-"), "{id}");
    let [card] = &telling(&scene, "ops", id)[..] else { panic!("{:?}", telling(&scene, "ops", id)) };
    for part in ["Channel gone is held", "404", "CHANNEL", "INCIDENT", "https://console.example.com/decisions/"] {
        assert!(card.contains(part), "{part} is missing in {card}");
    }
    // Nobody else was handed one: not the channel itself, and nobody who had not asked.
    let metrics = worker.metrics().await;
    assert_eq!(["gone", "ops", "plain"].map(|channel| matched(&metrics, channel)), [19, 1, 19]);
    assert_eq!(worker.terminate().await.0, 0);
    assert!(worker.dead_letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_told_with_their_counts_and_a_notice_that_dies_is_no_new_reason() {
    let mut scene = Scene::default();
    let refuse = Script::always(Step::Reply { reply: Reply::new(400, "invalid_payload"), taken: false });
    scene.add("refuses", Platform::Slack, refuse, &format!("{FAST}{NOTICES}{PATIENT}")).await;
    let deaf = format!("{FAST}{NOTICES}agents = [\"nobody\"]\n{PATIENT}");
    scene.add("ops", Platform::Telegram, Script::accept(), &deaf).await;
    let (mut worker, mut publisher) = raise(&unique_name("deaths"), &scene).await;
    let mut bodies: Vec<Bytes> = (0..6).map(|number| super::deny(&format!("deaths-{number}"))).collect();
    bodies.push(Bytes::from_static(b"no decision"));
    publisher.publish_surely(&bodies, PATIENCE).await;
    eventually("all of it is told, and the notice to the one that refuses is dead", PATIENCE, async || {
        let letters = worker.metrics().await.sum("dead_letters_total", &[]);
        (notices(&scene, "ops").len() == 2 && letters == 8).then_some(())
    })
    .await;
    let notices = notices(&scene, "ops");
    let [(of_none, 1), (of_channel, 1)] = &notices[..] else { panic!("{notices:?}") };
    assert!(of_none.starts_with("notice-dead-letters--"), "{of_none}");
    assert!(of_channel.starts_with("notice-dead-letters-refuses-"), "{of_channel}");
    assert!(telling(&scene, "ops", of_none)[0].contains("1 new dead letter (malformed 1) for no channel"));
    // How many had gathered by then depends on the machine, and what was told is what there was.
    let card = &telling(&scene, "ops", of_channel)[0];
    assert!((1..=6).any(|count| card.contains(&format!("(refused {count}) for refuses"))), "{card}");
    let metrics = worker.metrics().await;
    assert_eq!(["refuses", "ops"].map(|channel| matched(&metrics, channel)), [7, 2]);
    assert_eq!(metrics.sum("deliveries_total", &[&here("refuses"), "ending=\"dead\""]), 7);
    assert_eq!(worker.terminate().await.0, 0);
    let letters = worker.dead_letters().await;
    let of_notices = letters.iter().filter_map(|letter| letter.decision_id.as_deref()).filter(|id| *id == of_none);
    assert_eq!((letters.len(), of_notices.count()), (8, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_that_notice_the_same_tell_it_once() {
    // Both must notice it in the same slot: near its end, the next one is waited for.
    let left = SILENCE - Clock::System.now().unix_seconds().unsigned_abs() % SILENCE;
    if left < 60 {
        tokio::time::sleep(Duration::from_secs(left)).await;
    }
    let (prefix, mut scene) = (unique_name("pool"), Scene::default());
    scene.add("gone", Platform::Slack, gone(), &format!("{FAST}{PATIENT}")).await;
    let limited = format!("rate_limit = \"5/s\"\n{NOTICES}agents = [\"nobody\"]\n{PATIENT}");
    scene.add("ops", Platform::Discord, Script::accept(), &limited).await;
    let (one, mut publisher) = raise(&prefix, &scene).await;
    let (two, _) = raise(&prefix, &scene).await;
    let workers = [one, two];
    let mut number = 0;
    // Each reads some of the decisions, and finds out for itself.
    for worker in &workers {
        eventually("this worker has told it", PATIENCE, async || {
            number += 1;
            publisher.publish_surely(&[super::deny(&format!("pool-{number}"))], PATIENCE).await;
            (matched(&worker.metrics().await, "ops") == 1).then_some(())
        })
        .await;
    }
    eventually("both are told or known", PATIENCE, async || {
        let mut delivered = 0;
        for worker in &workers {
            let metrics = worker.metrics().await;
            delivered += metrics.sum("deliveries_total", &[&here("ops"), "ending=\"delivered\""]);
        }
        (delivered == 2).then_some(())
    })
    .await;
    let notices = notices(&scene, "ops");
    assert!(matches!(&notices[..], [(_, 1)]), "{notices:?}");
    assert_eq!(scene.stand_in("ops").counters().requests, 1);
    for mut worker in workers {
        assert_eq!(worker.terminate().await.0, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_travels_through_the_broker_to_its_channel_alone_and_leaves_no_other_trace() {
    let (prefix, mut scene) = (unique_name("canary"), Scene::default());
    // Its filter wants none, and it comes all the same.
    let tested = format!("{FAST}canary = \"1m\"\nmin_severity = \"CRITICAL\"\n{PATIENT}");
    scene.add("soc", Platform::Slack, Script::accept(), &tested).await;
    scene.add("siem", Platform::Siem, Script::accept(), &format!("format = \"ocsf\"\n{ALL_EVENTS}{PATIENT}")).await;
    let before = Clock::System.now().unix_seconds().unsigned_abs();
    let (mut worker, mut publisher) = raise(&prefix, &scene).await;
    assert_eq!(worker.metrics().await.sum("last_success_timestamp_seconds", &[&here("siem")]), 0);
    eventually("the canary has arrived", PATIENCE, async || {
        let last = worker.metrics().await.sum("last_success_timestamp_seconds", &[&here("soc")]);
        (last >= before).then_some(())
    })
    .await;
    let kept = scene.stand_in("soc").kept();
    assert!(kept.len() == 1 && String::from_utf8_lossy(&kept[0].body).contains("Test of channel soc: nothing to do"));
    // Those that nobody waits for: of a channel that is no more, and one that comes far too late.
    let now = Clock::System.now();
    let late = Timestamp::from_unix_millis(now.unix_millis() - 300_000);
    let nobody = own::canary(&"nobody".parse().unwrap(), 1, now);
    let late = own::canary(&"soc".parse().unwrap(), 1, late);
    let [nobody, late] = [nobody, late].map(|canary| canary.raw().clone());
    publisher.publish_surely(&[nobody, late, super::deny("canary-1")], PATIENCE).await;
    eventually("nothing waits", PATIENCE, async || {
        let told = scene.stand_in("siem").times_received("canary-1") == 1;
        let metrics = worker.metrics().await;
        let waiting = publisher.ready_in_all(&["soc", "siem"]).await;
        (told && metrics.sum("acks_waiting", &[]) == 0 && waiting == Some(0)).then_some(())
    })
    .await;
    let metrics = worker.metrics().await;
    assert_eq!((metrics.sum("decisions_total", &[]), metrics.sum("decisions_unrouted_total", &[])), (1, 0));
    assert_eq!((matched(&metrics, "soc"), matched(&metrics, "siem")), (0, 1));
    assert_eq!(metrics.sum("deliveries_total", &[]), 1);
    assert_eq!(scene.stand_in("soc").times_received("canary-soc-1"), 0, "it was five minutes old");
    assert_eq!(worker.terminate().await.0, 0);
    assert!(worker.dead_letters().await.is_empty());
    assert_eq!(logged(&prefix).await, ["canary-1"]);
    assert_eq!(scene.stand_in("siem").different_ids(), 1);
}

/// The ids of the decisions in the log.
async fn logged(prefix: &str) -> Vec<String> {
    let records = tokio::task::block_in_place(Rabbit::shared).records(prefix, Log::Decisions).await;
    records.into_iter().map(|record| Decision::decode(record).unwrap().id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_finds_a_dead_webhook_before_a_decision_does_and_leaves_nothing_behind() {
    let mut scene = Scene::default();
    scene.add("gone", Platform::Slack, gone(), &format!("{FAST}canary = \"1m\"\n{PATIENT}")).await;
    scene.add("ops", Platform::Discord, Script::accept(), &format!("{FAST}{NOTICES}{PATIENT}")).await;
    let (mut worker, mut publisher) = raise(&unique_name("webhook"), &scene).await;
    until_held(&worker, "gone").await;
    eventually("it is told", PATIENCE, async || (notices(&scene, "ops").len() == 1).then_some(())).await;
    // The next one finds the lane at rest.
    let next = own::canary(&"gone".parse().unwrap(), 1, Clock::System.now());
    publisher.publish_surely(&[next.raw().clone()], PATIENCE).await;
    eventually("nothing waits", PATIENCE, async || {
        let acks = worker.metrics().await.sum("acks_waiting", &[]);
        (acks == 0 && publisher.ready_in_all(&["gone", "ops"]).await == Some(0)).then_some(())
    })
    .await;
    let metrics = worker.metrics().await;
    assert_eq!((matched(&metrics, "gone"), metrics.sum("dead_letters_total", &[])), (0, 0));
    assert_eq!(metrics.sum("last_success_timestamp_seconds", &[&here("gone")]), 0);
    assert_eq!(scene.stand_in("gone").counters().requests, 1);
    assert_eq!(worker.terminate().await.0, 0);
    assert!(worker.dead_letters().await.is_empty());
    assert_eq!(publisher.ready_in_all(&["gone", "ops"]).await, Some(0));
}
