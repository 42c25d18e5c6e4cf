//! What is urgent on RabbitMQ: two queues, one owner, and markers between them that nobody may ever see.

use interven_alerts::{
    broker::{
        Broker, Destination,
        rabbitmq::{RabbitMq, RabbitSettings},
    },
    model::Secret,
};
use tokio_util::task::TaskTracker;

use super::{bench::*, removed, soc, urgent};
use crate::support::{eventually, rabbit::Rabbit};

/// A user of the shared broker, and its URL.
async fn user(name: &str, may_configure: &str) -> Secret {
    let rabbit = Rabbit::shared();
    rabbit.ctl(&["add_user", name, "secret"]).await;
    rabbit.ctl(&["set_permissions", name, may_configure, ".*", ".*"]).await;
    Secret::new(rabbit.url().expose().replace("guest:guest", &format!("{name}:secret")))
}

async fn opened(settings: RabbitSettings) -> RabbitMq {
    let broker = RabbitMq::connect(settings, &TaskTracker::new()).unwrap();
    broker.ready(PATIENCE).await.unwrap();
    broker
}

/// Waits until the broker counts so many ready and unacknowledged messages in a queue.
async fn counts(queue: &str, expected: (u64, u64)) {
    let look = async || (Rabbit::shared().counts(queue).await == expected).then_some(());
    eventually(&format!("{expected:?} in {queue}"), PATIENCE, look).await;
}

/// Whether there is a queue.
async fn exists(queue: &str) -> bool {
    let names = Rabbit::shared().ctl(&["-q", "list_queues", "--no-table-headers", "name"]).await;
    names.lines().any(|name| name.trim() == queue)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_gets_nothing_urgent_while_the_owner_lives() {
    let prefix = unique_prefix();
    let (owner, standby) = (
        opened(settings(Rabbit::shared().url(), &prefix)).await,
        opened(settings(Rabbit::shared().url(), &prefix)).await,
    );
    let mut first = owner.consume(soc(), window(10));
    publish(&owner, &Destination::Queue(soc()), 0..1).await;
    drain(&mut first, 0..1).await;
    let mut second = standby.consume(soc(), window(10));
    // More than the owner's share of urgent ones: the rest waits, and is not for the standby.
    publish(&standby, &urgent(), 0..100).await;
    let held = take(&mut first, 64).await;
    assert!(is_quiet(&mut first).await && is_quiet(&mut second).await, "more than the window, or two owners");
    settle_all(held);
    settle_all(take(&mut first, 36).await);
    waits(&owner, &soc(), 0).await;
    drop(first);
    publish(&owner, &urgent(), 100..101).await;
    drain(&mut second, 100..101).await;
    owner.close().await;
    standby.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_owner_had_comes_to_the_next_one_although_the_lane_is_empty_otherwise() {
    // Goal: the marker that the owner holds tells its successor. Method: an owner of its own user, whose connections are cut.
    let (prefix, rabbit) = (unique_prefix(), tokio::task::block_in_place(Rabbit::shared));
    let name = format!("owner-{prefix}");
    let mortal = opened(settings(user(&name, ".*").await, &prefix)).await;
    let heir = opened(settings(rabbit.url(), &prefix)).await;
    let lane_queue = format!("{prefix}.alerts.lane.soc");
    let mut first = mortal.consume(soc(), window(10));
    publish(&heir, &Destination::Queue(soc()), 0..1).await;
    drain(&mut first, 0..1).await;
    counts(&lane_queue, (0, 0)).await;
    let mut second = heir.consume(soc(), window(10));

    publish(&heir, &urgent(), 1..3).await;
    // One is handed out and not settled, the other is not handed out.
    let held = next(&mut first).await;
    counts(&lane_queue, (0, 1)).await;
    counts(&format!("{lane_queue}.urgent"), (0, 2)).await;
    assert!(is_quiet(&mut second).await);
    // The dead one does not come back before the other has taken over.
    rabbit.ctl(&["clear_permissions", &name]).await;
    rabbit.ctl(&["close_all_user_connections", &name, "test"]).await;
    let taken = take(&mut second, 2).await;
    assert_eq!(ids(&taken), [1, 2]);
    assert!(taken.iter().all(|arrival| arrival.redelivered));
    assert!(held.receipt.is_void());
    settle_all(taken);
    waits(&heir, &soc(), 0).await;
    // The marker goes too, when nothing is left that it stands for.
    counts(&lane_queue, (0, 0)).await;
    mortal.close().await;
    heir.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_urgent_is_kept_where_everybody_can_find_it_while_nobody_consumes() {
    let prefix = unique_prefix();
    let broker = opened(settings(Rabbit::shared().url(), &prefix)).await;
    let lane_queue = format!("{prefix}.alerts.lane.soc");
    publish(&broker, &urgent(), 0..3).await;
    publish(&broker, &Destination::Queue(soc()), 3..5).await;
    counts(&format!("{lane_queue}.urgent"), (3, 0)).await;
    counts(&lane_queue, (5, 0)).await;
    waits(&broker, &soc(), 5).await;
    assert_eq!(broker.remove_lane(lane("soc")).await.unwrap(), 5);
    drain(&mut broker.consume(soc(), window(10)), 0..5).await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_urgent_without_a_marker_is_found_all_the_same() {
    // Goal: whatever happened to the marker (a purged queue, a publisher that died), an idle owner finds what waits.
    let prefix = unique_prefix();
    let broker = opened(settings(Rabbit::shared().url(), &prefix)).await;
    publish(&broker, &urgent(), 0..1).await;
    Rabbit::shared().ctl(&["purge_queue", &format!("{prefix}.alerts.lane.soc")]).await;
    drain(&mut broker.consume(soc(), window(10)), 0..1).await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_in_which_only_markers_are_left_is_empty() {
    let prefix = unique_prefix();
    let broker = opened(settings(Rabbit::shared().url(), &prefix)).await;
    publish(&broker, &urgent(), 0..70).await;
    // The urgent queue loses its messages behind our back, and their markers stay.
    let lane_queue = format!("{prefix}.alerts.lane.soc");
    Rabbit::shared().ctl(&["purge_queue", &format!("{lane_queue}.urgent")]).await;
    counts(&lane_queue, (70, 0)).await;
    removed(&broker).await;
    assert!(!exists(&lane_queue).await && !exists(&format!("{lane_queue}.urgent")).await);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_without_an_urgent_queue_takes_what_is_urgent_as_the_rest() {
    // Goal: an operator who made no more than the contract's queues loses nothing but the overtaking.
    let prefix = unique_prefix();
    opened(settings(Rabbit::shared().url(), &prefix)).await.close().await;
    let lane_queue = format!("{prefix}.alerts.lane.soc");
    Rabbit::shared().ctl(&["delete_queue", &format!("{lane_queue}.urgent")]).await;
    let broker = opened(RabbitSettings { declare: false, ..settings(Rabbit::shared().url(), &prefix) }).await;
    publish(&broker, &Destination::Queue(soc()), 0..1).await;
    publish(&broker, &urgent(), 1..3).await;
    waits(&broker, &soc(), 3).await;
    drain(&mut broker.consume(soc(), window(10)), 0..3).await;
    waits(&broker, &soc(), 0).await;
    assert!(!exists(&format!("{lane_queue}.urgent")).await, "nothing may be declared");
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_may_not_make_the_urgent_queue_does_without_it() {
    let prefix = unique_prefix();
    let url = user(&format!("bound-{prefix}"), r"^(?!.*\.urgent$).*$").await;
    let broker = opened(settings(url, &prefix)).await;
    let mut arrivals = broker.consume(soc(), window(10));
    publish(&broker, &urgent(), 0..2).await;
    drain(&mut arrivals, 0..2).await;
    waits(&broker, &soc(), 0).await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_urgent_queue_that_was_deleted_is_made_again() {
    let prefix = unique_prefix();
    let broker = opened(settings(Rabbit::shared().url(), &prefix)).await;
    let urgent_queue = format!("{prefix}.alerts.lane.soc.urgent");
    let mut arrivals = broker.consume(soc(), window(10));
    publish(&broker, &urgent(), 0..1).await;
    drain(&mut arrivals, 0..1).await;
    Rabbit::shared().ctl(&["delete_queue", &urgent_queue]).await;
    for number in 1..4 {
        // In the very moment of the deletion the broker may say no.
        let look = async || broker.publish(message(urgent(), number)).await.ok();
        eventually("something urgent is taken", PATIENCE, look).await;
    }
    drain(&mut arrivals, 1..4).await;
    eventually("it is there again", PATIENCE, async || exists(&urgent_queue).await.then_some(())).await;
    // And consumed: nothing of the lane can come while its window is full.
    publish(&broker, &Destination::Queue(soc()), 4..14).await;
    let out = take(&mut arrivals, 10).await;
    publish(&broker, &urgent(), 14..15).await;
    drain(&mut arrivals, 14..15).await;
    settle_all(out);
    waits(&broker, &soc(), 0).await;
    broker.close().await;
}
