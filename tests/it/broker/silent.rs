//! A queue that takes what is sent and confirms nothing, beside others that work.

use std::time::Duration;

use interven_alerts::broker::{Broker, Destination, PublishError, Queue};

use super::bench::*;
use crate::support::{eventually, rabbit::Rabbit};

/// Makes the one replica of a quorum queue fall silent, or speak again.
async fn replica(call: &str, queue: &str) {
    let said = Rabbit::shared().ctl(&["eval", &format!("sys:{call}('%2F_{queue}').")]).await;
    assert!(said.contains("ok"), "{call}: {said}");
}

/// Stops or starts the one replica of a quorum queue.
async fn server(call: &str, queue: &str) {
    let said = Rabbit::shared().ctl(&["eval", &format!("ra:{call}(quorum_queues, {{'%2F_{queue}', node()}}).")]).await;
    assert!(said.contains("ok"), "{call}: {said}");
}

fn lane_queue(id: &str) -> Destination {
    Destination::Queue(Queue::Lane(lane(id)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_confirms_nothing_costs_the_others_one_failed_batch_and_no_more() {
    // Goal: what shared a batch with it passes at the second try, and nothing later meets it again; it is told apart from a broker
    // that confirms nothing at all; when it speaks again, it is one of the others again.
    // Method: rounds in which every lane is published to together, so that all of them share batches if they may.
    let prefix = unique_prefix();
    let broker = rabbit(Rabbit::shared().url(), &prefix);
    broker.ready(PATIENCE).await.unwrap();
    let fine = ["one", "two", "three"];
    broker.ensure_lanes(fine.iter().map(|id| lane(id)).collect()).await.unwrap();
    let silent = format!("{prefix}.alerts.lane.soc");
    let round = async |number: usize| {
        let to_fine = futures_util::future::join_all(fine.map(|id| broker.publish(message(lane_queue(id), number))));
        tokio::join!(broker.publish(message(lane_queue("soc"), number)), to_fine)
    };
    let (to_soc, to_fine) = round(0).await;
    assert!(to_soc.is_ok() && to_fine.iter().all(Result::is_ok), "{to_soc:?} {to_fine:?}");

    replica("suspend", &silent).await;
    let (to_soc, _) = round(1).await;
    assert!(matches!(to_soc, Err(PublishError::Timeout { .. })), "{to_soc:?}");
    // From here on, the fine ones pass at the first try, every time, while the silent one is tried over and over.
    for number in 2..5 {
        let (to_soc, to_fine) = round(number).await;
        assert!(to_soc.is_err(), "nothing was confirmed");
        assert!(to_fine.iter().all(Result::is_ok), "{to_fine:?}");
    }
    eventually("it is known to be the only one", PATIENCE, async || {
        let (to_soc, to_fine) = round(5).await;
        assert!(to_fine.iter().all(Result::is_ok), "{to_fine:?}");
        matches!(to_soc, Err(PublishError::Silent { .. })).then_some(())
    })
    .await;

    replica("resume", &silent).await;
    eventually("it speaks again", Duration::from_mins(1), async || {
        broker.publish(message(lane_queue("soc"), 6)).await.ok()
    })
    .await;
    let (to_soc, to_fine) = round(7).await;
    assert!(to_soc.is_ok() && to_fine.iter().all(Result::is_ok), "{to_soc:?} {to_fine:?}");
    // What was `Ok` is there.
    drain(&mut broker.consume(Queue::Lane(lane("soc")), window(100)), [0, 6, 7]).await;
    for id in fine {
        drain(&mut broker.consume(Queue::Lane(lane(id)), window(100)), [0, 2, 3, 4, 5, 7]).await;
    }
    broker.close().await;
}

/// A lane whose urgent queue is out of order from before a consumer comes until after it has drained the rest.
async fn drains_without_its_urgent_queue(prefix: &str, out_of_order: impl AsyncFn(bool)) {
    let broker = rabbit(Rabbit::shared().url(), prefix);
    broker.ready(PATIENCE).await.unwrap();
    let urgent = Destination::Queue(Queue::Urgent(lane("soc")));
    publish(&broker, &urgent, 50..51).await;
    publish(&broker, &lane_queue("soc"), 0..50).await;
    out_of_order(true).await;
    let mut arrivals = broker.consume(Queue::Lane(lane("soc")), window(10));
    drain(&mut arrivals, 0..50).await;
    out_of_order(false).await;
    // A consumer that was refused leaves the urgent queue alone for a while, so it is the next one that finds it.
    drop(arrivals);
    drain(&mut broker.consume(Queue::Lane(lane("soc")), window(10)), 50..51).await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_whose_urgent_queue_says_nothing_goes_on_without_it() {
    let prefix = unique_prefix();
    let queue = format!("{prefix}.alerts.lane.soc.urgent");
    let out_of_order = async |out| replica(if out { "suspend" } else { "resume" }, &queue).await;
    drains_without_its_urgent_queue(&prefix, out_of_order).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_whose_urgent_queue_has_no_leader_goes_on_without_it() {
    let prefix = unique_prefix();
    let queue = format!("{prefix}.alerts.lane.soc.urgent");
    let out_of_order = async |out| server(if out { "stop_server" } else { "restart_server" }, &queue).await;
    drains_without_its_urgent_queue(&prefix, out_of_order).await;
}
