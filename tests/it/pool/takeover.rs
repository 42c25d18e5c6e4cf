//! When the worker that sends dies, another goes on: soon, and where the first one stopped.

use std::{sync::Arc, time::Duration};

use interven_alerts::{
    model::{Clock, DeathReason, Decision, Delivery, Reply},
    stand_ins::{Script, Step},
};
use tokio::time::Instant;

use super::{NO_DIGESTS, SECOND, Stage, Usage, denies};
use crate::support::{eventually, rabbit::Rabbit, scene::Scene, worker::PATIENCE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_worker_sends_within_a_second_when_the_one_that_sent_is_killed() {
    // Goal: a second, from when the broker notices. It notices at once when a process dies, because the system closes its socket.
    // Method: four workers, of which three die in turn; at five a second, so that the pace hides nothing. The middle one of the
    // three times counts: this machine may be busy with other tests.
    const RATE: u32 = 5;
    let script = Script::accept().exact_rate(1, SECOND / RATE);
    let keys = format!("rate_limit = \"{RATE}/s\"\nburst = 1\n{NO_DIGESTS}");
    let mut stage = Stage::set("takeover", 4, script, &keys).await;
    let decisions = denies("takeover", 100);
    let expected = Scene::expected(&stage.pool.workers()[0].config(), &decisions);
    stage.publisher.publish_surely(&decisions, PATIENCE).await;
    stage.until_handed_on().await;
    let mut times = Vec::new();
    for _ in 0..3 {
        stage.pool.kill(stage.pool.owner("soc").await);
        let killed = Instant::now();
        let sent = eventually("another worker sends", PATIENCE, async || {
            stage.soc().kept().iter().map(|one| one.at).find(|at| *at > killed)
        })
        .await;
        times.push(sent - killed);
    }
    stage.scene.until_told(&expected, Duration::from_mins(1)).await;
    stage.until_quiet().await;
    let (usage, duplicates) = (Usage::of(stage.soc()), stage.scene.duplicates());
    println!("after {times:.2?}; {duplicates} duplicates, {usage:?}");
    assert!(stage.pool.end().await.is_empty(), "there are dead letters");
    times.sort();
    assert!(times[1] <= SECOND, "another worker sent only after {times:?}");
    // What a worker had sent when it was killed was taken, but nobody acknowledged it any more.
    assert!(usage.violations <= 3 && duplicates <= 3, "{duplicates} duplicates, {usage:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_keeps_its_attempts_and_its_first_time_whoever_has_it() {
    // Goal: three attempts are three, over three workers, and the letter says when the first of them began.
    // Method: an endpoint that always fails; the first worker is killed once the broker knows of its attempt (killed before, it
    // would be as if it had never tried), the second one leaves, the third one buries.
    let failing = Script::always(Step::Reply { reply: Reply::new(500, "down"), taken: false });
    let keys = format!("[channel.retry]\nattempts = 3\nfirst = \"8s\"\nlongest = \"8s\"\n{NO_DIGESTS}");
    let mut stage = Stage::set("attempts", 3, failing, &keys).await;
    let (here, began) = (["channel=\"soc\""], Clock::System.now());
    let decision = denies("attempts", 1);
    stage.publisher.publish_surely(&decision, PATIENCE).await;
    let requests = |stage: &Stage| stage.soc().counters().requests;

    eventually("the first attempt", PATIENCE, async || (requests(&stage) == 1).then_some(())).await;
    let first_tried = Clock::System.now();
    let untried =
        Delivery::new(Arc::new(Decision::decode(decision[0].clone()).unwrap()), "soc".parse().unwrap(), began);
    let untried = u64::try_from(untried.to_bytes().len()).unwrap();
    eventually("what waits has a time to wait for, which makes it longer", PATIENCE, async || {
        let (messages, bytes) = Rabbit::shared().weight(&stage.lane_queue("soc")).await;
        (messages == 1 && bytes >= untried + 10).then_some(())
    })
    .await;
    let tried = stage.pool.each("attempts_total", &here).await;
    stage.pool.kill(tried.iter().position(|tries| *tries == 1).expect("one of them tried"));

    eventually("the second attempt", PATIENCE, async || (requests(&stage) == 2).then_some(())).await;
    let second = eventually("it is counted", PATIENCE, async || {
        stage.pool.each("attempts_total", &here).await.iter().position(|tries| *tries == 1)
    })
    .await;
    stage.pool.leave(second).await;

    eventually("it is dead", PATIENCE, async || {
        (stage.pool.sum("deliveries_total", &["channel=\"soc\"", "ending=\"dead\""]).await == 1).then_some(())
    })
    .await;
    let letters = stage.pool.end().await;
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((letter.reason, letter.attempts, requests(&stage)), (DeathReason::Exhausted, 3, 3), "{letter:?}");
    assert!(began <= letter.first_at && letter.first_at <= first_tried, "{letter:?}");
}
