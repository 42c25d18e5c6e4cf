//! What a lane is told while it runs.

use super::*;

fn paced(count: u32) -> LanePlan {
    LanePlan { pace: vec![Rate { count, per: secs(60), burst: 1 }], ..plan(Plainly { batch: None }) }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_lane_sends_nothing_and_consumes_nothing_until_it_is_resumed() {
    let mut bench = Bench::new(ScriptedPost::new([]));
    bench.handle.stop_sending().await;
    tokio::time::sleep(secs(1)).await;
    assert_eq!(bench.handle.state(), LaneState::Stopped);
    bench.hand_over("a").await;
    assert_eq!(&*bench.parked().await.decision.id, "a");
    assert!(bench.queue.lock().unwrap().is_closed(), "a stopped lane has no consumer");
    tokio::time::sleep(secs(3600)).await;
    assert!(bench.post.seen().is_empty());
    bench.handle.resume().await;
    tokio::time::sleep(secs(1)).await;
    bench.put_in_queue(&bench.delivery("a"), true);
    assert_eq!(bench.posts(1).await[0].1, "a");
    assert_eq!(bench.handle.state(), LaneState::Flowing);
}

#[tokio::test(start_paused = true)]
async fn what_a_stop_finds_in_hand_goes_back_to_the_broker() {
    let bench = Bench::with(ScriptedPost::new([]), paced(1));
    for id in ["a", "b", "c"] {
        bench.put_in_queue(&bench.delivery(id), false);
    }
    bench.posts(1).await;
    bench.handle.stop_sending().await;
    tokio::time::sleep(secs(3600)).await;
    assert_eq!(bench.post.seen().len(), 1);
    assert_eq!((bench.settled(), bench.receipts.dropped.load(Ordering::Relaxed)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn resuming_and_a_new_configuration_end_a_hold_and_a_pause() {
    for renewed in [false, true] {
        for reply in [404, 429] {
            let bench = Bench::new(ScriptedPost::new([status(reply)]));
            bench.put_in_queue(&bench.delivery("a"), false);
            bench.posts(1).await;
            assert_ne!(bench.handle.state(), LaneState::Flowing);
            if renewed {
                bench.handle.renew(plan(Plainly { batch: None }), bench.tools.clone()).await;
            } else {
                bench.handle.resume().await;
            }
            let posts = bench.posts(2).await;
            assert!(posts[1].0 < Duration::from_millis(100), "{posts:?}");
            assert_eq!(bench.handle.state(), LaneState::Flowing);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_does_not_start_what_an_operator_stopped() {
    let bench = Bench::new(ScriptedPost::new([]));
    bench.handle.stop_sending().await;
    bench.handle.renew(paced(1), bench.tools.clone()).await;
    tokio::time::sleep(secs(1)).await;
    assert_eq!(bench.handle.state(), LaneState::Stopped);
    assert!(bench.queue.lock().unwrap().is_closed());
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_told_by_the_new_configuration_at_its_pace() {
    let bench = Bench::with(ScriptedPost::new([]), paced(1));
    for id in ["a", "b", "c"] {
        bench.put_in_queue(&bench.delivery(id), false);
    }
    bench.posts(1).await;
    bench.handle.renew(paced(60), bench.tools.clone()).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    // A faster lane takes a larger window: what it had comes again.
    assert_eq!(bench.receipts.dropped.load(Ordering::Relaxed), 2);
    for id in ["b", "c"] {
        bench.put_in_queue(&bench.delivery(id), true);
    }
    let posts = bench.posts(3).await;
    assert!(gaps(&posts).iter().all(|gap| about(*gap, secs(1))), "{posts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_retires_finishes_what_is_under_way_and_gives_back_the_rest() {
    let post = Arc::new(ScriptedPost { takes: secs(5), ..ScriptedPost::default() });
    let mut bench = Bench::with(post, LanePlan { pace: Vec::new(), ..paced(1) });
    for id in ["a", "b"] {
        bench.hand_over(id).await;
    }
    bench.posts(1).await;
    bench.put_in_queue(&bench.delivery("c"), false);
    bench.handle.retire().await;
    assert!(bench.began.elapsed() >= secs(5), "the send under way was finished");
    assert_eq!(bench.delivered(), 1);
    assert_eq!(&*bench.parked().await.decision.id, "b");
    assert!(bench.queue.lock().unwrap().is_closed());
    bench.hand_over("d").await;
    assert_eq!(&*bench.parked().await.decision.id, "d", "what comes afterwards goes to the queue");
    bench.handle.retire().await;
    assert_eq!(bench.post.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_taken_over_begins_as_if_its_pace_had_just_been_used_up() {
    let bench = Bench::with(ScriptedPost::new([]), paced(60));
    for id in ["a", "b"] {
        bench.put_in_queue(&bench.delivery(id), true);
    }
    let posts = bench.posts(2).await;
    assert!(about(posts[0].0, secs(1)) && about(posts[1].0, secs(2)), "{posts:?}");
}

#[tokio::test(start_paused = true)]
async fn the_pace_is_counted_from_when_the_endpoint_can_have_seen_a_request() {
    // A reply that took three seconds: the request may have been seen at the very end of them.
    let post = ScriptedPost::new([Ok(Reply::new(200, "").with_header("takes", "3"))]);
    let bench = Bench::with(post, paced(60));
    for id in ["a", "b"] {
        bench.put_in_queue(&bench.delivery(id), false);
    }
    let posts = bench.posts(2).await;
    assert!(about(gaps(&posts)[0], secs(4)), "{posts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_send_that_is_under_way_when_an_operator_pauses_does_not_start_the_lane_again() {
    for pace in [Vec::new(), paced(60).pace] {
        for status in [200, 429, 404] {
            let reply = Reply::new(status, "").with_header("takes", "5");
            let bench = Bench::with(ScriptedPost::new([Ok(reply)]), LanePlan { pace: pace.clone(), ..paced(60) });
            for id in ["a", "b"] {
                bench.put_in_queue(&bench.delivery(id), false);
            }
            bench.posts(1).await;
            bench.handle.stop_sending().await;
            tokio::time::sleep(secs(3_600)).await;
            assert_eq!((bench.handle.state(), bench.post.seen().len()), (LaneState::Stopped, 1));
            assert!(bench.queue.lock().unwrap().is_closed(), "an hour later it consumes nothing either");
            bench.handle.resume().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            bench.put_in_queue(&bench.delivery("b"), true);
            assert_eq!(bench.posts(2).await[1].1, "b");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_old_destination_says_after_a_change_does_not_hold_the_new_one() {
    let gone = Reply::new(404, "").with_header("takes", "5");
    let bench = Bench::new(ScriptedPost::new([Ok(gone)]));
    bench.put_in_queue(&bench.delivery("a"), false);
    bench.posts(1).await;
    bench.handle.renew(plan(Plainly { batch: None }), bench.tools.clone()).await;
    let posts = bench.posts(2).await;
    assert!(about(posts[1].0, secs(5)), "{posts:?}");
    assert_eq!((bench.handle.state(), bench.delivered()), (LaneState::Flowing, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_sends_hang_lets_what_comes_wait_on_the_broker() {
    let post = Arc::new(ScriptedPost { takes: secs(60), ..ScriptedPost::default() });
    let mut bench = Bench::with(post, plan(Plainly { batch: None }));
    for id in ["a", "b", "c"] {
        bench.hand_over(id).await;
    }
    assert_eq!([&*bench.parked().await.decision.id, &*bench.parked().await.decision.id], ["b", "c"]);
    assert!(bench.began.elapsed() < secs(2), "{:?}", bench.began.elapsed());
    bench.hand_over("d").await;
    assert_eq!(&*bench.parked().await.decision.id, "d", "and so does what comes afterwards");
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_does_not_shorten_a_rest_that_the_endpoint_asked_for_and_an_operator_may() {
    for (renewed, earliest, latest) in [(true, 30, 34), (false, 0, 1)] {
        let asked = Reply::new(429, "").with_header("retry-after", "30");
        let bench = Bench::new(ScriptedPost::new([Ok(asked)]));
        bench.put_in_queue(&bench.delivery("a"), false);
        bench.posts(1).await;
        if renewed {
            bench.handle.renew(plan(Plainly { batch: None }), bench.tools.clone()).await;
        } else {
            bench.handle.resume().await;
        }
        let posts = bench.posts(2).await;
        assert!((secs(earliest)..secs(latest)).contains(&posts[1].0), "{posts:?}");
        assert_eq!(bench.handle.state(), LaneState::Flowing);
    }
}
