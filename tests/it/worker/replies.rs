//! What endpoints ask for is done, over real sockets: pace, waiting, plain text, and letting go.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use interven_alerts::{
    dead_letters::DeadLetter,
    model::{Clock, DeathReason, Reply},
    stand_ins::{Firewall, Platform, Received, Script, Step},
};

use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{FAST, PATIENT, Scene, on},
    unique_name,
    worker::{PATIENCE, WorkerProcess},
};

/// A worker over `scene` on the shared broker, ready, and a publisher to it.
async fn raise(what: &str, scene: &Scene) -> (WorkerProcess, Publisher) {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name(what));
    let config = format!("{}{}", on(rabbit, &prefix, "keep_decisions = \"none\""), scene.channels());
    let mut worker = WorkerProcess::new(&config);
    worker.start_ready().await;
    (worker, Publisher::new(rabbit.url(), &prefix))
}

/// Waits until nothing waits, and stops the worker; its dead letters.
async fn settle(worker: &mut WorkerProcess, publisher: &mut Publisher, scene: &Scene) -> Vec<DeadLetter> {
    let ids = scene.ids();
    let mut quiet = 0;
    eventually("nothing waits", PATIENCE, async || {
        let here = worker.metrics().await.sum("acks_waiting", &[]);
        let there = publisher.ready_in_all(&ids).await;
        quiet = if here == 0 && there == Some(0) { quiet + 1 } else { 0 };
        (quiet > 2).then_some(())
    })
    .await;
    assert_eq!(worker.terminate().await.0, 0);
    worker.dead_letters().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_channel_never_exceeds_its_rate_and_wastes_little_of_it() {
    // Goal: 5/s is what a strict endpoint lets pass, and is used to 95 %.
    // The median gap and not the whole time is looked at, because a loaded machine may stop anybody for a moment.
    let mut scene = Scene::default();
    let strict = Script::accept().strict_rate(5, Duration::from_secs(1));
    scene.add("slack", Platform::Slack, strict, &format!("rate_limit = \"5/s\"\n{PATIENT}")).await;
    let (mut worker, mut publisher) = raise("pace", &scene).await;
    let decisions: Vec<Bytes> = (0..40).map(|number| super::deny(&format!("pace-{number}"))).collect();
    let expected = Scene::expected(&worker.config(), &decisions);
    publisher.publish_surely(&decisions, PATIENCE).await;
    scene.until_told(&expected, PATIENCE).await;
    let counters = scene.stand_in("slack").counters();
    assert_eq!((counters.violations, counters.taken, counters.requests), (0, 40, 40), "{counters:?}");
    let times: Vec<_> = scene.stand_in("slack").kept().iter().map(|one| one.at).collect();
    let mut gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable();
    let (median, all) = (gaps[gaps.len() / 2], times[39] - times[0]);
    println!("40 at 5/s: median gap {median:?}, all {all:?}");
    assert!(median <= Duration::from_millis(200).div_f64(0.95), "{median:?} between sends");
    assert!(settle(&mut worker, &mut publisher, &scene).await.is_empty());
    assert_eq!(scene.duplicates(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_asks_to_be_left_alone_is_left_alone() {
    let wait = Duration::from_secs(1);
    let mut scene = Scene::default();
    let asks = || Script::ordered([Step::Accept, Step::RateLimited { retry_after: wait }]);
    let platforms = [
        ("slack", Platform::Slack),
        ("discord", Platform::Discord),
        ("telegram", Platform::Telegram),
        ("teams", Platform::Teams),
        ("sumo", Platform::Sumo),
    ];
    for (id, platform) in platforms {
        let one = format!("rate_limit = \"none\"\nconcurrency = 1\n{PATIENT}");
        scene.add(id, platform, asks(), &one).await;
    }
    // Not every endpoint says 429 when it wants a rest.
    let busy = Reply::new(503, "busy").with_header("retry-after", "1");
    let busy = Script::ordered([Step::Accept, Step::Reply { reply: busy, taken: false }]);
    scene.add("siem", Platform::Siem, busy, &format!("concurrency = 1\n{PATIENT}")).await;
    let (mut worker, mut publisher) = raise("rest", &scene).await;
    let decisions: Vec<Bytes> = (0..5).map(|number| super::deny(&format!("rest-{number}"))).collect();
    let expected = Scene::expected(&worker.config(), &decisions);
    publisher.publish_surely(&decisions, PATIENCE).await;
    scene.until_told(&expected, PATIENCE).await;
    for (id, _) in platforms {
        let stand_in = scene.stand_in(id);
        assert_eq!((stand_in.counters().impatient, stand_in.counters().requests), (0, 6), "{id}");
        let kept = stand_in.kept();
        assert!(kept[2].at - kept[1].at >= wait, "{id} was asked again after {:?}", kept[2].at - kept[1].at);
    }
    // A failure that is no 429 makes its own delivery wait, and nobody else.
    let siem = scene.stand_in("siem").kept();
    let refused = siem.iter().position(|one| one.status == Some(503)).unwrap();
    let same = |one: &&Arc<Received>| one.body == siem[refused].body && one.status != Some(503);
    let again = siem.iter().find(same).unwrap();
    assert!(again.at - siem[refused].at >= wait, "it was tried again after {:?}", again.at - siem[refused].at);
    assert!(settle(&mut worker, &mut publisher, &scene).await.is_empty());
    assert_eq!(scene.duplicates(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_card_arrives_as_plain_text_and_what_is_refused_twice_is_kept() {
    let mut scene = Scene::default();
    let refuse = |word: &'static str| Step::Reply { reply: Reply::new(400, word), taken: false };
    let slack = Script::accept()
        .where_body_holds("refuse-always", refuse("invalid_payload"))
        .where_body_holds("\"blocks\"", refuse("invalid_blocks"));
    scene.add("slack", Platform::Slack, slack, &format!("{FAST}{PATIENT}")).await;
    let (mut worker, mut publisher) = raise("plain", &scene).await;
    let decisions = [super::deny("plain-1"), super::deny("refuse-always"), super::deny("plain-2")];
    publisher.publish_surely(&decisions, PATIENCE).await;
    let letters = settle(&mut worker, &mut publisher, &scene).await;
    let slack = scene.stand_in("slack");
    for id in ["plain-1", "plain-2"] {
        assert_eq!(slack.times_received(id), 1);
    }
    let plain: Vec<_> = slack.kept().into_iter().filter(|one| one.status == Some(200)).collect();
    assert!(plain.iter().all(|one| !one.body.windows(8).any(|part| part == b"\"blocks\"")), "{plain:?}");
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((letter.reason, letter.decision_id.as_deref()), (DeathReason::Refused, Some("refuse-always")));
    assert!(letter.detail.contains("invalid_payload"), "{letter:?}");
    assert_eq!(letter.last_reply.as_ref().and_then(|reply| reply.status), Some(400));
    assert_eq!(letter.body, decisions[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_that_has_expired_is_told_to_machines_and_never_to_people() {
    let mut scene = Scene::default();
    let chats = [
        ("slack", Platform::Slack),
        ("discord", Platform::Discord),
        ("teams", Platform::Teams),
        ("telegram", Platform::Telegram),
    ];
    for (id, platform) in chats {
        scene.add(id, platform, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    }
    scene.add("siem", Platform::Siem, Script::accept(), &format!("format = \"ocsf\"\n{PATIENT}")).await;
    let (mut worker, mut publisher) = raise("expired", &scene).await;
    let mut firewall = Firewall::new(3, Clock::System);
    let approval = |at: interven_alerts::model::Timestamp, firewall: &mut Firewall| {
        let (kind, severity) =
            (interven_alerts::model::DecisionKind::RequireApproval, interven_alerts::model::Severity::High);
        let mut one = firewall.decide_as(kind, severity);
        one["approval"]["expires_at"] = serde_json::json!(at);
        (one["id"].as_str().unwrap().to_owned(), Bytes::from(one.to_string()))
    };
    let now = Clock::System.now();
    let (late, late_body) = approval(now.plus(Duration::ZERO), &mut firewall);
    let (fresh, fresh_body) = approval(now.plus(Duration::from_mins(10)), &mut firewall);
    publisher.publish_surely(&[late_body.clone(), fresh_body], PATIENCE).await;
    let letters = settle(&mut worker, &mut publisher, &scene).await;
    for (id, _) in chats {
        let stand_in = scene.stand_in(id);
        assert_eq!((stand_in.times_received(&late), stand_in.times_received(&fresh)), (0, 1), "{id}");
        let of_channel = |letter: &&DeadLetter| letter.channel.as_ref().is_some_and(|channel| channel.as_str() == id);
        let letter = letters.iter().find(of_channel).unwrap_or_else(|| panic!("{id}: {letters:?}"));
        assert_eq!((letter.reason, &letter.body), (DeathReason::ApprovalExpired, &late_body));
    }
    let siem = scene.stand_in("siem");
    assert_eq!((siem.times_received(&late), siem.times_received(&fresh), letters.len()), (1, 1, chats.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_kept_to_the_byte_wherever_it_was_found() {
    let mut scene = Scene::default();
    scene.add("slack", Platform::Slack, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    let (mut worker, mut publisher) = raise("bytes", &scene).await;
    let every_byte: Bytes = (0..=255_u8).collect();
    let bodies: Vec<Bytes> = vec![
        every_byte,
        Bytes::from_static(b"\xff\xfe{\"id\":\"x\"}"),
        Bytes::from_static(b"{\"id\":\"half\",\"time\":\"2026-"),
        Bytes::from_static(b" \n"),
        Bytes::new(),
        format!("{{\"id\":\"{}\"}}", "x".repeat(300_000)).into(),
        "[".repeat(200_000).into(),
        Bytes::from_static(br#"{"id":"d","time":"2026-06-01T12:00:00Z","decision":"MAYBE","severity":"HIGH","agent":{"id":"a"},"tool":"t"}"#),
        Bytes::from_static(br#"{"id":"d","time":"2026-06-01T12:00:00Z","decision":"DENY","severity":"HIGH","agent":{"id":"a"},"tool":"t","risk":7}"#),
    ];
    publisher.publish_surely(&bodies, PATIENCE).await;
    let lane = Bytes::from_static(b"\x80 no delivery, in the queue of a lane");
    let dead = Bytes::from_static(b"\x81 no letter, in the queue of the dead");
    publisher.put_into_ours("lane.slack", &lane).await;
    publisher.put_into_ours("dead", &dead).await;
    let letters = settle(&mut worker, &mut publisher, &scene).await;
    let mut kept: Vec<(DeathReason, Bytes)> = letters.into_iter().map(|letter| (letter.reason, letter.body)).collect();
    let malformed = bodies.into_iter().chain([lane]).map(|body| (DeathReason::Malformed, body));
    let mut wanted: Vec<_> = malformed.chain([(DeathReason::BrokerGaveUp, dead)]).collect();
    let order = |one: &(DeathReason, Bytes)| (one.0.as_str(), one.1.clone());
    kept.sort_by_key(order);
    wanted.sort_by_key(order);
    assert_eq!(kept.len(), wanted.len());
    assert!(kept == wanted, "the bytes are not the same");
    assert_eq!(scene.taken(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_destination_holds_its_lane_and_nobody_elses_until_somebody_mends_it() {
    let mut scene = Scene::default();
    let gone = Script::always(Step::Reply { reply: Reply::new(404, "no_service"), taken: false });
    scene.add("gone", Platform::Slack, gone, &format!("{FAST}{PATIENT}")).await;
    scene.add("fine", Platform::Discord, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    let (mut worker, mut publisher) = raise("held", &scene).await;
    let decisions: Vec<Bytes> = (0..30).map(|number| super::deny(&format!("held-{number}"))).collect();
    let expected = Scene::expected(&worker.config(), &decisions);
    publisher.publish_surely(&decisions, PATIENCE).await;
    let fine: Vec<_> = expected.iter().filter(|(id, _)| id.as_str() == "fine").cloned().collect();
    scene.until_told(&fine, PATIENCE).await;
    let (here, held) = ("channel=\"gone\"", "state=\"held\"");
    eventually("all of it waits on the broker and the lane says why", PATIENCE, async || {
        let metrics = worker.metrics().await;
        let waits = metrics.sum("deliveries_waiting", &[here, "where=\"lane_queue\""]);
        let in_memory = metrics.sum("deliveries_waiting", &[here, "where=\"memory\""]);
        (metrics.sum("lane_state", &[here, held]) == 1 && waits == 30 && in_memory == 0).then_some(())
    })
    .await;
    let metrics = worker.metrics().await;
    assert_eq!(metrics.sum("lane_state", &[here]), 1, "one state at a time");
    assert_eq!(metrics.sum("lane_state", &["channel=\"fine\"", "state=\"flowing\""]), 1);
    // A few may have been under way together; nothing is sent after that.
    assert!(scene.stand_in("gone").counters().requests <= 4, "{:?}", scene.stand_in("gone").counters());
    assert_eq!(worker.terminate().await.0, 0);
    scene.heal();
    worker.start_ready().await;
    scene.until_told(&expected, PATIENCE).await;
    assert!(settle(&mut worker, &mut publisher, &scene).await.is_empty());
    assert_eq!(scene.duplicates(), 0);
}
