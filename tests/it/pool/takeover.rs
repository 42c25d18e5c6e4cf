//! When the worker that sends dies, another goes on: soon, and where the first one stopped.

use std::time::Duration;

use interven_alerts::{
    model::{Clock, DeathReason, Reply},
    stand_ins::{Script, Step},
};
use tokio::time::Instant;

use super::{NO_DIGESTS, SECOND, Stage, Usage, denies};
use crate::support::{eventually, scene::Scene, turn_of_the_heavy, worker::PATIENCE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_worker_sends_within_a_second_when_the_one_that_sent_is_killed() {
    // Goal: a second, from when the broker notices. It notices at once when a process dies, because the system closes its socket.
    // Method: four workers, of which three die in turn; at five a second, so that the pace hides nothing. The middle one of the
    // three times counts: this machine may be busy with other tests.
    const RATE: u32 = 5;
    let _turn = turn_of_the_heavy().await;
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
    // Method: an endpoint that fails, but for the second try, which it never answers: its worker is killed in the middle of it, so
    // it does not count. The second worker leaves after its first attempt, the third one buries.
    let _turn = turn_of_the_heavy().await;
    let fails = || Step::Reply { reply: Reply::new(500, "down"), taken: false };
    let failing = Script::ordered([fails(), Step::Hang { taken: false }, fails(), fails(), fails()]);
    let keys = format!("[channel.retry]\nattempts = 3\nfirst = \"3s\"\nlongest = \"3s\"\n{NO_DIGESTS}");
    let mut stage = Stage::set("attempts", 3, failing, &keys).await;
    let began = Clock::System.now();
    stage.publisher.publish_surely(&denies("attempts", 1), PATIENCE).await;
    stage.until_asked(1).await;
    let first_tried = Clock::System.now();
    stage.until_asked(2).await;
    stage.pool.kill(stage.who_tried().await);
    stage.until_asked(3).await;
    let second = stage.who_tried().await;
    stage.pool.leave(second).await;
    eventually("it is dead", PATIENCE, async || {
        (stage.pool.sum("deliveries_total", &["channel=\"soc\"", "ending=\"dead\""]).await == 1).then_some(())
    })
    .await;
    let letters = stage.pool.end().await;
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    let answered = stage.soc().kept().iter().filter(|one| one.status == Some(500)).count();
    assert_eq!((letter.reason, letter.attempts, answered), (DeathReason::Exhausted, 3, 3), "{letter:?}");
    assert!(began <= letter.first_at && letter.first_at <= first_tried, "{letter:?}");
}

impl Stage {
    /// Waits until `soc` was asked so often.
    async fn until_asked(&self, times: u64) {
        let asked = async || (self.soc().counters().requests >= times).then_some(());
        eventually(&format!("try number {times}"), PATIENCE, asked).await;
    }

    /// The one of the running workers that has tried once.
    async fn who_tried(&self) -> usize {
        eventually("somebody has tried", PATIENCE, async || {
            self.pool.each("attempts_total", &["channel=\"soc\""]).await.iter().position(|tries| *tries == 1)
        })
        .await
    }
}
