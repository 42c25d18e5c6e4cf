//! How old what waits is, as the lane shows it.

use super::*;

impl Bench {
    fn oldest(&self) -> i64 {
        self.handle.metrics.oldest_waiting.get()
    }

    /// Waits until the lane shows this.
    async fn until_oldest(&self, wanted: i64) {
        let deadline = Instant::now() + secs(60);
        while self.oldest() != wanted {
            assert!(Instant::now() < deadline, "{} is shown, not {wanted}", self.oldest());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_is_shown_while_it_is_under_way_and_taken_back_when_nothing_waits() {
    let bench = Bench::new(ScriptedPost::new([Ok(Reply::new(200, "").with_header("takes", "30"))]));
    let routed = bench.clock.now().unix_seconds();
    bench.hand_over("a").await;
    bench.until_oldest(routed).await;
    assert_eq!(bench.delivered(), 0);
    bench.until_oldest(0).await;
    assert_eq!(bench.delivered(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_held_lane_shows_how_old_the_next_one_in_its_queue_is_and_sends_it_all_the_same() {
    // Goal: what waits in the queue of a lane that takes nothing is seen, and to look at it takes nothing away.
    let bench = Bench::new(ScriptedPost::new([Ok(Reply::new(404, "no_service"))]));
    let mut first = bench.delivery("a");
    first.first_at = Timestamp::from_unix_millis(bench.clock.now().unix_millis() - 90_000);
    let oldest = first.first_at.unix_seconds();
    bench.put_in_queue(&first, false);
    bench.posts(1).await;
    assert!(matches!(bench.handle.state(), LaneState::Held { .. }), "{:?}", bench.handle.state());
    bench.put_in_queue(&bench.delivery("b"), false);
    bench.until_oldest(oldest).await;
    bench.handle.resume().await;
    let posts: Vec<_> = bench.posts(3).await.into_iter().map(|(_, body)| body).collect();
    assert_eq!(posts, ["a", "a", "b"]);
    bench.until_oldest(0).await;
    assert_eq!(bench.receipts.dropped.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_paused_lane_that_holds_nothing_itself_shows_what_its_queue_hands_out_next() {
    let asked = Reply::new(429, "").with_header("retry-after", "120");
    let mut bench = Bench::new(ScriptedPost::new([Ok(asked)]));
    bench.hand_over("a").await;
    // It came from memory, so the broker keeps it meanwhile.
    let parked = bench.parked().await;
    bench.until_oldest(0).await;
    let routed = parked.first_at.unix_seconds();
    bench.put_in_queue(&parked, false);
    bench.put_in_queue(&bench.delivery("b"), false);
    bench.until_oldest(routed).await;
    bench.posts(3).await;
    bench.until_oldest(0).await;
}
