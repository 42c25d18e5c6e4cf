//! A limit is the pool's: it holds however many workers there are and whatever becomes of them, and nearly all of it is used.

use std::time::Duration;

use bytes::Bytes;
use interven_alerts::stand_ins::{Platform, Script};
use tokio_util::task::TaskTracker;

use super::{NO_DIGESTS, SECOND, Stage, Usage, decision, denies};
use crate::support::{
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{ALL_EVENTS, Scene},
    turn_of_the_heavy,
};

/// Slack's limit, to the millisecond.
fn slack_at_its_strictest() -> Script {
    Script::accept().exact_rate(1, SECOND)
}

/// What happens midway.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The worker that sends is killed.
    OwnerDies,
    /// One more worker joins.
    OneJoins,
}

/// How a pool of `size` used the limit while all of `DECISIONS` waited, and `events` happened after a third and two thirds.
async fn strained(size: usize, events: [Event; 2]) {
    // At one a second more than a minute, with room for a machine that is busy with other tests.
    const DECISIONS: usize = 75;
    let mut stage = Stage::set("limit", size, slack_at_its_strictest(), NO_DIGESTS).await;
    let decisions = denies("limit", DECISIONS);
    let expected = Scene::expected(&stage.pool.workers()[0].config(), &decisions);
    stage.publisher.publish_surely(&decisions, Duration::from_secs(30)).await;
    stage.until_handed_on().await;
    let mut changes_of_owner = 0;
    for (event, after) in events.into_iter().zip([25, 50]) {
        stage.until_taken("soc", after).await;
        match event {
            Event::OwnerDies => {
                stage.pool.kill(stage.pool.owner("soc").await);
                changes_of_owner += 1;
            }
            Event::OneJoins => stage.pool.join().await,
        }
    }
    stage.scene.until_told(&expected, Duration::from_mins(2)).await;
    stage.until_quiet().await;
    let (usage, duplicates) = (Usage::of(stage.soc()), stage.scene.duplicates());
    let rate = usage.per_second();
    println!("{size} workers, {events:?}: {rate:.3}/s, {duplicates} duplicates, {usage:?}");
    assert!(stage.pool.end().await.is_empty(), "{size} workers: there are dead letters");
    assert!(usage.span >= Duration::from_mins(1), "{size} workers: {usage:?}");
    assert!(usage.violations <= changes_of_owner, "{size} workers: {usage:?}");
    assert!(rate >= 0.95, "{size} workers: {rate:.3}/s, {usage:?}");
    // What a worker had sent when it was killed was taken, but nobody acknowledged it any more.
    assert!(duplicates <= 1, "{size} workers: {duplicates} duplicates");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_two_and_four_workers_send_at_the_pace_of_one_whoever_dies_or_joins() {
    // Goal: over more than a minute the endpoint answers 429 at most once per change of owner, and at least 95 % of the limit
    // is used. Method: three pools at once, each with an endpoint of its own. A pool of one gets its second before its first is
    // killed, as an operator would do it. They mostly wait, so they need no turn of their own.
    tokio::join!(
        strained(1, [Event::OneJoins, Event::OwnerDies]),
        strained(2, [Event::OwnerDies, Event::OneJoins]),
        strained(4, [Event::OwnerDies, Event::OneJoins]),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_restart_under_load_loses_nothing_doubles_nothing_and_keeps_the_limit() {
    // Goal: workers join and leave while decisions flow, nothing is lost or told twice, and the endpoint never answers 429.
    // Method: a SIEM that takes everything, from
    // memory, and a strict Slack that always has a backlog; every worker is replaced, in turn, while both are busy.
    const SIZE: usize = 3;
    const EVERY: Duration = Duration::from_millis(20);
    let _turn = turn_of_the_heavy().await;
    let mut scene = Scene::default();
    let graver = format!("min_severity = \"CRITICAL\"\n{NO_DIGESTS}");
    scene.add("soc", Platform::Slack, slack_at_its_strictest(), &graver).await;
    scene.add("siem", Platform::Siem, Script::accept(), ALL_EVENTS).await;
    let mut stage = Stage::with("rolling", SIZE, scene).await;
    let severity = |number: usize| if number.is_multiple_of(60) { "CRITICAL" } else { "LOW" };
    let mut decisions: Vec<Bytes> =
        (0..15).map(|number| decision(&format!("first-{number}"), "DENY", "CRITICAL", "agt_42")).collect();
    stage.publisher.publish_surely(&decisions, Duration::from_secs(30)).await;

    // The load goes on until everybody has been replaced.
    let (done, tasks) = (tokio_util::sync::CancellationToken::new(), TaskTracker::new());
    let (until, mut publisher) = (done.clone(), Publisher::new(Rabbit::shared().url(), &stage.prefix));
    let load = tasks.spawn(async move {
        let (mut ticks, mut load) = (tokio::time::interval(EVERY), Vec::new());
        while !until.is_cancelled() {
            ticks.tick().await;
            let number = load.len();
            let one = decision(&format!("load-{number}"), "DENY", severity(number), "agt_7");
            publisher.publish_surely(std::slice::from_ref(&one), Duration::from_secs(30)).await;
            load.push(one);
        }
        load
    });
    stage.until_taken("siem", 100).await;
    for _ in 0..SIZE {
        let took = stage.pool.leave(0).await;
        stage.pool.join().await;
        println!("replaced a worker, which took {took:.1?} to leave");
        // Whoever sends now gets to send, so that the next one to leave may be in the middle of it.
        stage.until_taken("soc", stage.soc().counters().taken + 3).await;
    }
    // One that joins only to leave again at once, and everybody in a hurry.
    stage.pool.join().await;
    for at in [SIZE, 0, 0] {
        stage.pool.leave(at).await;
        stage.pool.join().await;
    }
    done.cancel();
    decisions.extend(load.await.unwrap());

    let expected = Scene::expected(&stage.pool.workers()[0].config(), &decisions);
    stage.scene.until_told(&expected, Duration::from_mins(2)).await;
    stage.until_quiet().await;
    let usage = Usage::of(stage.soc());
    println!("{} decisions, {:.3}/s, {usage:?}", decisions.len(), usage.per_second());
    assert!(stage.pool.end().await.is_empty(), "there are dead letters");
    assert_eq!(usage.violations, 0, "{usage:?}");
    assert_eq!(stage.scene.duplicates(), 0, "told twice");
}
