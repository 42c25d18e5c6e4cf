//! What the worker itself says: told once by the whole pool, and a canary is nothing but a test.

use super::*;
use crate::{lane::step::CANARY_AGE_MAX, model::own};

impl Bench {
    fn canary(&self, slot: u64) -> Delivery {
        let decision = own::canary(&self.handle.id, slot, self.clock.now());
        Delivery::new(Arc::new(decision), self.handle.id.clone(), self.clock.now())
    }

    fn notice(&self) -> Delivery {
        let about = "gone".parse().unwrap();
        let decision =
            own::notice("held", Some(&about), 7, self.clock.now(), "Channel gone is held", &["CHANNEL_HELD"]);
        Delivery::new(Arc::new(decision), self.handle.id.clone(), self.clock.now())
    }

    /// What is counted of deliveries: matched, ended in any way, in memory.
    fn counted(&self) -> (u64, u64, i64) {
        let metrics = &self.handle.metrics;
        let ended = Ending::ALL.map(|ending| metrics.endings(ending)).iter().sum();
        (metrics.matched.get(), ended, metrics.in_memory.get())
    }

    /// Waits until so many receipts are settled.
    async fn until_settled(&self, count: u64) {
        let deadline = Instant::now() + secs(20 * 60);
        while self.settled() < count {
            assert!(Instant::now() < deadline, "{} settled, not {count}", self.settled());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_canary_goes_by_the_lane_queue_shows_in_the_last_success_and_is_counted_as_nothing() {
    let mut bench = Bench::new(ScriptedPost::new([]));
    bench.handle.hand_over(bench.canary(1), bench.receipt(), false).await;
    let canary = bench.parked().await;
    assert!(canary.is_canary() && !canary.may_be_folded());
    assert_eq!(bench.handle.metrics.last_success.get(), 0);
    bench.put_in_queue(&canary, false);
    let posts = bench.posts(1).await;
    assert_eq!(posts[0].1, "canary-soc-1");
    bench.until_settled(2).await;
    assert_eq!(bench.handle.metrics.last_success.get(), bench.clock.now().unix_seconds());
    assert_eq!(bench.handle.metrics.delivery_latency.get_sample_count(), 0);
    assert_eq!(bench.counted(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_several_workers_say_is_told_once_and_every_one_of_them_has_its_ending() {
    let bench = Bench::new(ScriptedPost::new([]));
    for _ in 0..3 {
        bench.put_in_queue(&bench.notice(), false);
        bench.put_in_queue(&bench.canary(1), false);
    }
    bench.put_in_queue(&bench.canary(2), false);
    bench.until_settled(7).await;
    let posts: Vec<String> = bench.posts(3).await.into_iter().map(|(_, body)| body).collect();
    assert_eq!(posts, ["notice-held-gone-7", "canary-soc-1", "canary-soc-2"]);
    assert_eq!(bench.delivered(), 3, "three workers have matched the notice");
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_comes_again_was_counted_the_first_time() {
    let bench = Bench::new(ScriptedPost::new([]));
    bench.put_in_queue(&bench.notice(), false);
    bench.until_settled(1).await;
    bench.put_in_queue(&bench.notice(), true);
    bench.until_settled(2).await;
    assert_eq!((bench.post.seen().len(), bench.delivered()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_fails_is_let_go_and_moves_the_lane_as_any_try_does() {
    for (answers, tries, state) in [
        (vec![status(404)], 1, "held"),
        (vec![status(503)], 1, "flowing"),
        (vec![Err(Trouble::Timeout)], 1, "flowing"),
        // The rich form, then the plain one.
        (vec![status(400), status(400)], 2, "flowing"),
    ] {
        let mut bench = Bench::new(ScriptedPost::new(answers));
        bench.put_in_queue(&bench.canary(1), false);
        bench.until_settled(1).await;
        tokio::time::sleep(secs(3_600)).await;
        assert_eq!(bench.post.seen().len(), tries);
        assert!(bench.jobs.try_recv().is_err(), "something was parked or buried");
        // An hour later a held lane would probe, and has nothing to probe with: it is held still, and is seen to be.
        assert_eq!((bench.handle.state().as_str(), bench.counted()), (state, (0, 0, 0)));
        assert_eq!(bench.handle.metrics.last_success.get(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_has_waited_too_long_is_not_sent() {
    let mut bench = Bench::new(ScriptedPost::new([]));
    let canary = bench.canary(1);
    tokio::time::sleep(CANARY_AGE_MAX + secs(1)).await;
    bench.put_in_queue(&canary, false);
    bench.until_settled(1).await;
    assert!(bench.post.seen().is_empty() && bench.jobs.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lane_at_rest_keeps_notices_and_no_canaries() {
    let mut bench = Bench::new(ScriptedPost::new([status(404)]));
    bench.put_in_queue(&bench.canary(1), false);
    bench.until_settled(1).await;
    assert_eq!(bench.handle.state().as_str(), "held");
    bench.handle.hand_over(bench.canary(2), bench.receipt(), false).await;
    assert_eq!(bench.settled(), 2);
    bench.handle.hand_over(bench.notice(), Receipt::of_nobody(), false).await;
    assert_eq!(bench.counted(), (1, 0, 1));
    assert_eq!(bench.parked().await.id(), bench.notice().id());
    // When it probes, a canary is as good a try as any.
    tokio::time::sleep(secs(301)).await;
    assert!(matches!(bench.handle.state(), LaneState::Probing { held: true, trying: false, .. }));
    assert_eq!(bench.handle.state().as_str(), "held");
    bench.handle.hand_over(bench.canary(3), bench.receipt(), false).await;
    let canary = bench.parked().await;
    bench.put_in_queue(&canary, false);
    bench.until_settled(4).await;
    assert_eq!(bench.handle.state().as_str(), "flowing");
}
