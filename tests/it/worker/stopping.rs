//! Stopping in order: nothing is lost, and nothing that an endpoint has confirmed is told again.

use std::time::Duration;

use bytes::Bytes;
use interven_alerts::{
    model::Clock,
    stand_ins::{Firewall, Platform, Script, Step},
};

use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{ALL_EVENTS, FAST, PATIENT, Scene, on},
    unique_name,
    worker::{PATIENCE, WorkerProcess},
};

/// Endpoints that do as they should, a little slowly, so that at any moment something is under way everywhere.
async fn slow_but_good() -> Scene {
    let slow = || Script::always(Step::Slow(Duration::from_millis(25)));
    let mut scene = Scene::default();
    for (id, platform) in [("slack", Platform::Slack), ("teams", Platform::Teams), ("telegram", Platform::Telegram)] {
        scene.add(id, platform, slow(), &format!("{FAST}{PATIENT}")).await;
    }
    // From its queue on the broker alone.
    scene.add("limited", Platform::Discord, slow(), &format!("rate_limit = \"60/s\"\nburst = 5\n{PATIENT}")).await;
    let batch = "format = \"ocsf\"\nbatch = { events = 10, bytes = \"900KB\", wait = \"100ms\" }\n";
    scene.add("splunk", Platform::Splunk, slow(), &format!("{batch}{ALL_EVENTS}{PATIENT}")).await;
    scene
        .add("siem", Platform::Siem, slow(), &format!("format = \"cef\"\n{ALL_EVENTS}concurrency = 2\n{PATIENT}"))
        .await;
    scene
}

async fn until_taken(scene: &Scene, count: u64) {
    eventually("the endpoints are busy", PATIENCE, async || (scene.taken() >= count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_loses_nothing_and_tells_nothing_twice() {
    // Goal: as the sentence says, with one worker that another follows, and in a pool where one goes and one stays.
    // Method: stop in the middle of the work, three times; well-behaved endpoints then know every duplicate.
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("stop"));
    let scene = slow_but_good().await;
    let config = format!("{}[shutdown]\ngrace = \"10s\"\n{}", on(rabbit, &prefix, ""), scene.channels());
    let mut first = WorkerProcess::new(&config);
    let mut second = WorkerProcess::new(&config);
    let mut firewall = Firewall::new(7, Clock::System);
    let decisions: Vec<Bytes> = (0..400).map(|_| firewall.message()).collect();
    let expected = Scene::expected(&first.config(), &decisions);
    let mut publisher = Publisher::new(rabbit.url(), &prefix);

    first.start_ready().await;
    publisher.publish_surely(&decisions[..200], PATIENCE).await;
    for round in 1..=2 {
        until_taken(&scene, scene.taken() + 80).await;
        let (code, took) = first.terminate().await;
        assert_eq!(code, 0, "round {round}");
        assert!(took < Duration::from_secs(10), "round {round} took {took:?}");
        first.start_ready().await;
    }
    second.start_ready().await;
    publisher.publish_surely(&decisions[200..], PATIENCE).await;
    until_taken(&scene, scene.taken() + 80).await;
    assert_eq!(first.terminate().await.0, 0);
    scene.until_told(&expected, PATIENCE).await;
    assert_eq!(second.terminate().await.0, 0);

    assert_eq!(scene.duplicates(), 0, "{:?}", twice(&scene));
    assert_eq!(publisher.ready_in_all(&scene.ids()).await, Some(0));
    assert!(first.dead_letters().await.is_empty() && second.dead_letters().await.is_empty());
}

fn twice(scene: &Scene) -> Vec<(&'static str, usize)> {
    let of = |actor: &crate::support::scene::Actor| {
        (actor.id, actor.stand_in.received_ids().values().filter(|count| **count > 1).count())
    };
    scene.actors.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_takes_longer_than_the_grace_is_given_back_and_the_worker_ends_in_time() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("grace"));
    let mut scene = Scene::default();
    let hang = Script::ordered([Step::Hang { taken: false }]);
    scene.add("slack", Platform::Slack, hang, &format!("{FAST}timeout = \"30s\"\n{PATIENT}")).await;
    let config = format!("{}[shutdown]\ngrace = \"1s\"\n{}", on(rabbit, &prefix, ""), scene.channels());
    let mut worker = WorkerProcess::new(&config);
    let decision = super::deny("late-1");
    let expected = Scene::expected(&worker.config(), std::slice::from_ref(&decision));
    worker.start_ready().await;
    Publisher::new(rabbit.url(), &prefix).publish_surely(&[decision], PATIENCE).await;
    eventually("the send is under way", PATIENCE, async || {
        (scene.stand_in("slack").counters().requests > 0).then_some(())
    })
    .await;
    let (code, took) = worker.terminate().await;
    assert!(code == 0 && took < Duration::from_secs(8), "{code} after {took:?}");
    worker.start_ready().await;
    scene.until_told(&expected, PATIENCE).await;
    assert_eq!(scene.duplicates(), 0);
}
