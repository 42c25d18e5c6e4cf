//! The main path without a RabbitMQ: events over HTTP, the embedded broker in between.

use std::time::Duration;

use bytes::Bytes;
use interven_alerts::{
    model::Clock,
    stand_ins::{Class, Firewall, Platform, Script, Step, every_reply},
};

use crate::support::{
    eventually,
    scene::{ALL_EVENTS, FAST, PATIENT, PUBLISHER, PUBLISHER_TOKEN, Scene},
    worker::{PATIENCE, WorkerProcess, post_events},
};

/// Fails in every way that time mends, and forgets nothing that it took.
fn moody(platform: Platform, seed: u64) -> Script {
    let replies = every_reply(platform).into_iter().filter(|entry| {
        entry.class == Class::Transient && entry.name != "400 migrated" && entry.reply.status.as_u16() != 429
    });
    let replies = replies.map(|entry| (2, Step::Reply { reply: entry.reply, taken: entry.taken }));
    let reset = [(4, Step::Reset { taken: false }), (4, Step::Reset { taken: true }), (100, Step::Accept)];
    Script::weighted(seed, replies.chain(reset))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_with_202_survives_kill_9_on_the_embedded_broker() {
    // Goal: no event whose request was answered with 202 is lost. Method: post, kill while posting and delivering, start
    // again, post again what was not answered; then look for every one.
    let mut scene = Scene::default();
    let platforms = [
        ("slack", Platform::Slack, ""),
        ("discord", Platform::Discord, ""),
        ("teams", Platform::Teams, ""),
        ("telegram", Platform::Telegram, ""),
        ("siem", Platform::Siem, "format = \"ocsf\"\n"),
    ];
    for (seed, (id, platform, more)) in (1..).zip(platforms) {
        scene.add(id, platform, moody(platform, seed), &format!("{FAST}{ALL_EVENTS}{more}{PATIENT}")).await;
    }
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{}", scene.channels()));
    let mut firewall = Firewall::new(11, Clock::System);
    let decisions: Vec<Bytes> = (0..400).map(|_| firewall.message()).collect();
    let expected = Scene::expected(&worker.config(), &decisions);
    worker.start_ready().await;
    for (number, batch) in decisions.chunks(40).enumerate() {
        let body = String::from_utf8(batch.join(&b"\n"[..])).unwrap();
        if number % 3 == 1 {
            let (server, before) = (worker.server(), scene.taken());
            let (answer, ()) = tokio::join!(post_events(&server, Some(PUBLISHER_TOKEN), body.clone()), async {
                eventually("some are delivered", PATIENCE, async || (scene.taken() > before + 5).then_some(())).await;
                worker.kill();
            });
            worker.start_ready().await;
            if matches!(answer, Some((202, _))) {
                continue;
            }
        }
        let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), body).await;
        assert!(matches!(answer, Some((202, _))), "{answer:?}");
    }
    scene.heal();
    scene.until_told(&expected, PATIENCE).await;
    eventually("nothing waits", PATIENCE, async || {
        (worker.metrics().await.sum("acks_waiting", &[]) == 0).then_some(())
    })
    .await;
    assert_eq!(worker.terminate().await.0, 0);
    let letters = worker.dead_letters().await;
    assert!(letters.is_empty(), "{letters:?}");
    println!(
        "{} deliveries, {} duplicates",
        expected.iter().map(|(_, ids)| ids.len()).sum::<usize>(),
        scene.duplicates()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_order_on_the_embedded_broker_tells_nothing_twice() {
    let mut scene = Scene::default();
    let slow = || Script::always(Step::Slow(Duration::from_millis(25)));
    scene.add("slack", Platform::Slack, slow(), &format!("{FAST}{ALL_EVENTS}{PATIENT}")).await;
    let limited = format!("rate_limit = \"50/s\"\nburst = 5\n{ALL_EVENTS}{PATIENT}");
    scene.add("teams", Platform::Teams, slow(), &limited).await;
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{}", scene.channels()));
    let mut firewall = Firewall::new(12, Clock::System);
    let decisions: Vec<Bytes> = (0..150).map(|_| firewall.message()).collect();
    let expected = Scene::expected(&worker.config(), &decisions);
    worker.start_ready().await;
    let body = String::from_utf8(decisions.join(&b"\n"[..])).unwrap();
    let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), body).await.unwrap();
    assert_eq!(answer.0, 202, "{answer:?}");
    for _ in 0..2 {
        let before = scene.taken();
        eventually("some are delivered", PATIENCE, async || (scene.taken() > before + 30).then_some(())).await;
        assert_eq!(worker.terminate().await.0, 0);
        worker.start_ready().await;
    }
    scene.until_told(&expected, PATIENCE).await;
    assert_eq!(worker.terminate().await.0, 0);
    assert_eq!(scene.duplicates(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_publisher_with_sound_events_gets_a_202() {
    let mut scene = Scene::default();
    scene.add("slack", Platform::Slack, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    // The token `auditor-token`.
    let auditor = "[[access.token]]\nname = \"auditor\"\nrole = \"auditor\"\n\
         sha256 = \"ba1315421b7c58d465abec0bd552af5ff314ed8f9c5c0a7b7a6a6ecbac9bcbe5\"\n";
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{auditor}{}", scene.channels()));
    worker.start_ready().await;
    let good = String::from_utf8(super::deny("good-1").to_vec()).unwrap();
    let server = worker.server();
    for (token, body, status, code) in [
        (None, good.clone(), 401, "unauthorised"),
        (Some("wrong"), good.clone(), 401, "unauthorised"),
        (Some("auditor-token"), good.clone(), 403, "forbidden"),
        (Some(PUBLISHER_TOKEN), format!("{good}\n{{\"id\":\"bad\"}}"), 400, "malformed"),
        (Some(PUBLISHER_TOKEN), String::new(), 400, "malformed"),
    ] {
        let (found, answer) = post_events(&server, token, body).await.unwrap();
        assert_eq!(found, status, "{answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["error"]["code"], code);
        assert!(answer["error"]["hint"].is_string() && answer["error"]["message"].is_string(), "{answer}");
    }
    let (status, answer) = post_events(&server, Some(PUBLISHER_TOKEN), good).await.unwrap();
    assert_eq!(status, 202, "{answer}");
    eventually("it is told", PATIENCE, async || (scene.taken() == 1).then_some(())).await;
    assert_eq!(scene.stand_in("slack").times_received("good-1"), 1);
}
