//! Hands: what a lane holds is counted, kept or given up, and never in two places.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_to_the_broker_still_waits_in_memory() {
    // Goal: while the broker is away, matched = delivered + folded + dead + waiting all the same.
    let rate = Rate { count: 1, per: secs(1), burst: 1 };
    let mut bench = Bench::with(ScriptedPost::new([]), LanePlan { pace: vec![rate], ..plan(Plainly { batch: None }) });
    bench.hand_over("a").await;
    assert_eq!((bench.handle.metrics.matched.get(), bench.handle.metrics.in_memory.get()), (1, 1));
    bench.parked().await;
    assert_eq!(bench.handle.metrics.in_memory.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_to_the_store_still_waits_in_memory() {
    let mut bench = Bench::new(ScriptedPost::new([]));
    bench.hand_over("panic").await;
    let Job::Bury { receipt, stake, .. } = bench.jobs.recv().await.unwrap() else { panic!("not buried") };
    assert_eq!((bench.handle.metrics.endings(Ending::Dead), bench.handle.metrics.in_memory.get()), (0, 1));
    stake.unwrap().died();
    receipt.settle();
    assert_eq!((bench.handle.metrics.endings(Ending::Dead), bench.handle.metrics.in_memory.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_hands_out_again_is_not_sent_from_the_old_copy_too() {
    // Goal: after a lost connection, what the lane had set aside comes again, and is delivered once.
    let bench = Bench::new(ScriptedPost::new([Err(Trouble::Timeout)]));
    bench.put_in_queue(&bench.delivery("a"), false);
    bench.posts(1).await;
    bench.receipts.void.store(true, Ordering::Relaxed);
    let fresh = Arc::new(Counts::default());
    let arrival = Arrival {
        body: bench.delivery("a").to_bytes(),
        redelivered: true,
        receipt: Receipt::new(1, Arc::clone(&fresh) as Arc<dyn Desk>),
    };
    bench.queue.lock().unwrap().try_send(arrival).unwrap();
    tokio::time::sleep(secs(10)).await;
    assert_eq!(bench.post.seen().len(), 2, "{:?}", bench.post.seen());
    assert_eq!((bench.delivered(), fresh.settled.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_packing_a_batch_costs_the_one_that_caused_it_alone() {
    let mut bench = Bench::with(ScriptedPost::new([]), batched(4));
    for id in ["a", "unpackable", "c", "d"] {
        bench.hand_over(id).await;
    }
    let letter = bench.buried().await;
    assert_eq!((letter.reason, letter.decision_id.as_deref()), (DeathReason::Poison, Some("unpackable")));
    tokio::time::sleep(secs(5)).await;
    assert_eq!(bench.delivered(), 3);
    assert!(!bench.tracker.is_closed() && bench.tracker.len() == 1, "the lane is still there");
}

#[tokio::test(start_paused = true)]
async fn where_an_approval_card_was_posted_is_told_and_nobody_waits_for_whoever_hears_it() {
    let reply = |ts: &str| Ok(Reply::new(200, "").with_header("ts", ts));
    let script = [status(200), status(503), reply("1"), reply("panic"), reply("2"), reply("3"), reply("4")];
    let mut bench = Bench::new(ScriptedPost::new(script));
    // The second one is sent twice, and where it was posted is told once.
    for (id, posts) in [("no-name", 1), ("again", 3), ("panics", 4), ("b", 5), ("c", 6)] {
        bench.hand_over(id).await;
        bench.posts(posts).await;
    }
    // What asks nobody for anything is no approval's card.
    let mut plain = bench.delivery("denied");
    let json = String::from_utf8(plain.decision.raw().to_vec()).unwrap().replace("REQUIRE_APPROVAL", "DENY");
    plain.decision = Arc::new(Decision::decode(json.into()).unwrap());
    bench.handle.hand_over(plain, bench.receipt(), false).await;
    bench.posts(7).await;
    assert_eq!((bench.delivered(), bench.settled()), (6, 6));
    let mut told = Vec::new();
    while let Ok(CardPosted { approval, channel, card }) = bench.cards.try_recv() {
        assert_eq!((&*approval, channel, card.conversation.as_str()), ("apr", bench.handle.id.clone(), "C1"));
        told.push(card.ts);
    }
    assert_eq!(told, ["1", "2"], "there is room for two, and the third found none");
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_consumer_ended_ends_too_so_that_somebody_notices() {
    let Bench { queue, tracker, post, .. } = Bench::new(ScriptedPost::new([]));
    drop(post);
    tokio::time::sleep(secs(1)).await;
    *queue.lock().unwrap() = mpsc::channel(1).0;
    tracker.close();
    tokio::time::timeout(secs(1), tracker.wait()).await.expect("a lane without its queue waits for ever, unseen");
}
