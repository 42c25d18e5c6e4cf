//! Rests: what a lane that is paused, held or slow does with what it has in hand.

use super::*;

fn per_hour(count: u32) -> LanePlan {
    LanePlan { pace: vec![Rate { count, per: secs(3_600), burst: 1 }], ..plan(Plainly { batch: None }) }
}

fn taking(seconds: &str, status: u16) -> Reply {
    Reply::new(status, "").with_header("takes", seconds)
}

#[tokio::test(start_paused = true)]
async fn a_probe_keeps_the_pace() {
    // Goal: the endpoint's own wait is over long before the operator's limit permits the next send, and the limit holds.
    let asked = Reply::new(429, "").with_header("retry-after", "1");
    let bench = Bench::with(ScriptedPost::new([Ok(asked)]), per_hour(60));
    bench.put_in_queue(&bench.delivery("a"), false);
    let posts = bench.posts(2).await;
    assert!(about(gaps(&posts)[0], secs(60)), "{posts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_does_not_keep_the_window_until_the_broker_loses_patience() {
    // Goal: probes that fail every few minutes must not make the lane forget how long it has held its window.
    let bench = Bench::new(ScriptedPost::new(std::iter::repeat_n(Err(Trouble::Refused), 100)));
    for id in ["a", "b", "c"] {
        bench.put_in_queue(&bench.delivery(id), false);
    }
    tokio::time::sleep(secs(25 * 60)).await;
    assert!(bench.consumed.load(Ordering::Relaxed) >= 2, "after 25 minutes the window was not given back");
}

#[tokio::test(start_paused = true)]
async fn a_limited_lane_keeps_its_place_as_the_one_consumer_while_it_waits() {
    // Goal: to cancel would make another worker, whose pace knows nothing, the consumer. So what is held too long goes back to
    // the queue as a message of its own, and its receipt is settled.
    let mut bench = Bench::with(ScriptedPost::new([]), per_hour(1));
    for id in ["a", "b"] {
        bench.put_in_queue(&bench.delivery(id), false);
    }
    assert_eq!(bench.posts(1).await[0].1, "a");
    let parked = bench.parked().await;
    assert_eq!(&*parked.decision.id, "b");
    assert!(bench.began.elapsed() < secs(25 * 60), "{:?}", bench.began.elapsed());
    assert_eq!(bench.consumed.load(Ordering::Relaxed), 1);
    bench.put_in_queue(&parked, false);
    while bench.post.seen().len() < 2 {
        // It makes the same way round until its time has come.
        let Ok(parked) = tokio::time::timeout(secs(16 * 60), bench.parked()).await else { continue };
        bench.put_in_queue(&parked, false);
    }
    let posts = bench.posts(2).await;
    assert!(about(gaps(&posts)[0], secs(3_600)), "{posts:?}");
    assert!(posts[0].0 < secs(3), "the first alert after a start is not an hour late: {posts:?}");
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_to_a_resting_lane_is_handed_to_the_broker() {
    // Goal: no decision stays unacknowledged behind a pause because its batch came back after the pause had begun.
    // Method: the second of two batches under way is refused in part, or is too large, while the lane already rests.
    for (second, parked_ids) in [
        (taking("2", 400).with_header("accepted", "0"), ["a", "b", "d"].as_slice()),
        (taking("2", 413), ["a", "b", "c", "d"].as_slice()),
    ] {
        let pause = taking("1", 429).with_header("retry-after", "3600");
        let two_at_once = LanePlan { concurrency: NonZeroU16::new(2).unwrap(), ..batched(2) };
        let mut bench = Bench::with(ScriptedPost::new([Ok(pause), Ok(second)]), two_at_once);
        for id in ["a", "b", "c", "d"] {
            bench.hand_over(id).await;
        }
        bench.posts(2).await;
        tokio::time::sleep(secs(5)).await;
        let mut parked = Vec::new();
        while let Ok(job) = bench.jobs.try_recv() {
            if let Job::Publish { message, receipt, .. } = job {
                parked.push(Delivery::from_bytes(&message.body).unwrap().decision.id.to_string());
                receipt.settle();
            }
        }
        parked.sort();
        assert_eq!(parked, parked_ids);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_rest_that_a_success_asks_for_is_waited_for_on_the_broker() {
    let mut bench = Bench::new(ScriptedPost::new([Ok(Reply::new(200, "").with_header("breathe", "60"))]));
    bench.hand_over("a").await;
    bench.posts(1).await;
    bench.hand_over("b").await;
    let parked = bench.parked().await;
    assert_eq!(&*parked.decision.id, "b");
    bench.put_in_queue(&parked, false);
    let posts = bench.posts(2).await;
    assert!(about(posts[1].0, secs(60)), "{posts:?}");
    assert_eq!((bench.delivered(), bench.handle.state()), (2, LaneState::Flowing));
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_fell_behind_and_then_rests_takes_its_probe_from_memory() {
    // Goal: its queue may be another worker's to consume, so a probe that came from nowhere else would never come.
    let mut bench = Bench::new(ScriptedPost::new([Ok(taking("1", 429))]));
    for id in ["a", "b", "c"] {
        bench.hand_over(id).await;
    }
    // While "a" hangs the lane falls behind; then "a" is throttled: the lane rests, and then probes.
    while !matches!(bench.handle.state(), LaneState::Probing { .. }) && bench.began.elapsed() < secs(600) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while bench.jobs.try_recv().is_ok() {}
    bench.hand_over("probe").await;
    assert_eq!(bench.posts(2).await[1].1, "probe");
    assert_eq!(bench.handle.state(), LaneState::Flowing);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_only_a_wrong_clock_can_have_written_is_no_wait() {
    let bench = Bench::new(ScriptedPost::new([]));
    let mut delivery = bench.delivery("a");
    delivery.not_before = Some("9999-01-01T00:00:00Z".parse().unwrap());
    bench.put_in_queue(&delivery, false);
    assert!(about(bench.posts(1).await[0].0, secs(0)));
}
