//! What only RabbitMQ can do to us: crash, lose connections and queues, time out, refuse.

use std::time::Duration;

use interven_alerts::{
    broker::{
        Broker, Destination, Log, Message, PublishError, Queue, Start,
        rabbitmq::{RabbitMq, RabbitSettings},
    },
    model::Secret,
};
use tokio_util::task::TaskTracker;

use super::{bench::*, soc};
use crate::support::{eventually, rabbit::Rabbit};

async fn until_connected(broker: &dyn Broker, connected: bool) {
    let mut health = broker.health();
    let change = health.wait_for(|health| health.connected == connected);
    tokio::time::timeout(PATIENCE, change).await.expect("the connections change in time").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_confirmed_survives_a_broker_that_is_killed_while_publishing() {
    // Goal: no `Ok` is lost, to a queue or to a log, and consumers and readers go on by themselves.
    // Method: publish to a queue and a log without pause, stop and kill -9 the broker meanwhile, then look for every `Ok`.
    let rabbit_server = Rabbit::start("", "[].");
    let broker = rabbit(rabbit_server.url(), "interven");
    broker.ready(PATIENCE).await.unwrap();
    let (log, queue) = (Destination::Log(Log::Approvals), Destination::DecisionsExchange);
    let mut follower = broker.read(Log::Approvals, Start::First, interven_alerts::broker::End::Follow);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let publishing = async {
        let (mut confirmed, mut next) = (Vec::new(), 0);
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let ids = next..next + 100;
            next = ids.end;
            let (to_queue, to_log) =
                tokio::join!(try_publish(&broker, &queue, ids.clone()), try_publish(&broker, &log, ids.clone()));
            for ((id, in_queue), in_log) in ids.zip(to_queue).zip(to_log) {
                confirmed.push((id, in_queue.is_ok(), in_log.is_ok()));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        confirmed
    };
    let killing = async {
        for round in 0..2 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            // The clean stop comes first: RabbitMQ 3.10 loses sight of streams for good when it is killed within seconds of
            // declaring its very first one (it has not yet written down that it has a stream coordinator).
            if round == 0 {
                rabbit_server.terminate();
            } else {
                rabbit_server.crash();
            }
            until_connected(&broker, false).await;
            tokio::task::block_in_place(|| rabbit_server.boot());
            until_connected(&broker, true).await;
            // At least one publish to each must pass after each return.
            eventually("publishes pass again", PATIENCE, async || {
                let (a, b) = tokio::join!(
                    broker.publish(message(queue.clone(), 1_000_000)),
                    broker.publish(message(log.clone(), 1_000_000))
                );
                (a.is_ok() && b.is_ok()).then_some(())
            })
            .await;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (confirmed, ()) = tokio::join!(publishing, killing);
    let in_queue = confirmed.iter().filter(|(_, queue, _)| *queue).map(|(id, ..)| *id);
    drain(&mut broker.consume(Queue::Decisions, window(500)), in_queue).await;
    let present: std::collections::HashSet<_> =
        read(&broker, Log::Approvals, Start::First).await.iter().map(|record| id(&record.body)).collect();
    let lost: Vec<_> = confirmed.iter().filter(|(id, _, log)| *log && !present.contains(id)).collect();
    assert!(lost.is_empty(), "{} confirmed records are not in the log", lost.len());
    // The follower, who was there all the time, has seen them too.
    let mut seen_by_follower = std::collections::HashSet::new();
    while seen_by_follower.len() < present.len() {
        let record = tokio::time::timeout(PATIENCE, follower.recv()).await.expect("the follower goes on").unwrap();
        seen_by_follower.insert(id(&record.unwrap().body));
    }
    assert!(broker.health().borrow().reconnects >= 2);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_goes_on_after_its_time_at_the_broker_ran_out_and_after_its_connection_was_closed() {
    // Goal: whatever the broker closes, the same `Arrivals` goes on, and only what was not settled comes again.
    let rabbit_server = Rabbit::start("consumer_timeout = 2000\n", "[{rabbit,[{channel_tick_interval,500}]}].");
    let broker = rabbit(rabbit_server.url(), "interven");
    broker.ready(PATIENCE).await.unwrap();
    let mut arrivals = broker.consume(Queue::Decisions, window(10));
    publish(&broker, &Destination::DecisionsExchange, 0..2).await;
    let mut taken = take(&mut arrivals, 2).await;
    let (settled, held) = (taken.remove(0), taken.remove(0));
    settled.receipt.settle();
    let again = next(&mut arrivals).await;
    assert_eq!((id(&again.body), again.redelivered), (1, true));
    assert!(held.receipt.is_void());
    // Settled too late: it must change nothing for the delivery that is out now.
    held.receipt.settle();
    again.receipt.settle();
    waits(&broker, &Queue::Decisions, 0).await;

    publish(&broker, &Destination::DecisionsExchange, 2..4).await;
    let held = take(&mut arrivals, 2).await;
    rabbit_server.ctl(&["close_all_connections", "test"]).await;
    let again = take(&mut arrivals, 2).await;
    assert_eq!(ids(&again), [2, 3]);
    drop(held);
    for arrival in again {
        arrival.receipt.settle();
    }
    waits(&broker, &Queue::Decisions, 0).await;
    publish(&broker, &Destination::DecisionsExchange, 4..5).await;
    drain(&mut arrivals, 4..5).await;
    assert!(broker.health().borrow().reconnects >= 2);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_counted_whole_after_a_reconnect_of_a_consumer_that_takes_nothing() {
    // Goal: a lane that is held keeps what it was handed out where it is. When that is void and comes again, it must not be stuck
    // behind itself, uncounted.
    let rabbit_server = Rabbit::start("", "[].");
    let broker = rabbit(rabbit_server.url(), "interven");
    broker.ready(PATIENCE).await.unwrap();
    let mut arrivals = broker.consume(Queue::Decisions, window(10));
    publish(&broker, &Destination::DecisionsExchange, 0..30).await;
    waits(&broker, &Queue::Decisions, 30).await;
    for reconnects in 1..=2 {
        rabbit_server.ctl(&["close_all_connections", "test"]).await;
        eventually("it has connected again", PATIENCE, async || {
            (broker.health().borrow().reconnects >= 2 * reconnects && broker.health().borrow().connected).then_some(())
        })
        .await;
        waits(&broker, &Queue::Decisions, 30).await;
    }
    drain(&mut arrivals, 0..30).await;
    waits(&broker, &Queue::Decisions, 0).await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_was_deleted_is_made_again_and_consumed() {
    let prefix = unique_prefix();
    let broker = rabbit(Rabbit::shared().url(), &prefix);
    broker.ready(PATIENCE).await.unwrap();
    let mut arrivals = broker.consume(Queue::Decisions, window(10));
    publish(&broker, &Destination::DecisionsExchange, 0..1).await;
    drain(&mut arrivals, 0..1).await;
    Rabbit::shared().ctl(&["delete_queue", &format!("{prefix}.alerts.decisions")]).await;
    eventually("publishes find the queue again", PATIENCE, async || {
        broker.publish(message(Destination::DecisionsExchange, 1)).await.ok()
    })
    .await;
    drain(&mut arrivals, 1..2).await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topology_is_told_at_once_when_nothing_may_be_declared() {
    let settings = RabbitSettings { declare: false, ..settings(Rabbit::shared().url(), &unique_prefix()) };
    let exchange = format!("{}.decisions", settings.prefix);
    let broker = RabbitMq::connect(settings, &TaskTracker::new()).unwrap();
    let error = broker.ready(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains(&exchange), "{error}");
    assert!(error.hint.contains("declare = true"), "{}", error.hint);
    assert!(!broker.health().borrow().connected);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_may_not_publish_to_queues_is_told_so_with_the_rights_that_it_needs() {
    let (rabbit, prefix) = (Rabbit::shared(), unique_prefix());
    let own = format!("{}.*", prefix.replace('.', "\\."));
    rabbit.ctl(&["add_user", &prefix, "secret"]).await;
    let may_write = async |what: &str| rabbit.ctl(&["set_permissions", &prefix, &own, what, &own]).await;
    let enough = format!("({own}|amq\\.default)");
    may_write(&enough).await;
    let url = Secret::new(rabbit.url().expose().replace("guest:guest", &format!("{prefix}:secret")));
    // Queues that are there already: to make them asks for that right too, and says so.
    let first = RabbitMq::connect(settings(url.clone(), &prefix), &TaskTracker::new()).unwrap();
    first.ready(PATIENCE).await.unwrap();
    first.close().await;
    may_write(&own).await;
    let broker = RabbitMq::connect(settings(url, &prefix), &TaskTracker::new()).unwrap();
    broker.ready(PATIENCE).await.unwrap();
    let message = |id: &str| Message { to: Destination::Queue(soc()), id: id.to_owned(), body: "{}".into() };
    let error = broker.publish(message("a")).await.unwrap_err();
    assert!(matches!(error, PublishError::Forbidden { .. }), "{error}");
    assert!(error.hint().contains(r"(interven\..*|amq\.default)"), "{}", error.hint());
    // What the hint says is enough.
    may_write(&enough).await;
    eventually("it may publish", PATIENCE, async || broker.publish(message("b")).await.ok()).await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_topology_is_enough_when_nothing_may_be_declared() {
    let prefix = unique_prefix();
    let first = rabbit(Rabbit::shared().url(), &prefix);
    first.ready(PATIENCE).await.unwrap();
    first.close().await;
    let settings = RabbitSettings { declare: false, ..settings(Rabbit::shared().url(), &prefix) };
    let broker = RabbitMq::connect(settings, &TaskTracker::new()).unwrap();
    broker.ready(PATIENCE).await.unwrap();
    publish(&broker, &Destination::DecisionsExchange, 0..1).await;
    drain(&mut broker.consume(Queue::Decisions, window(1)), 0..1).await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topology_without_the_log_of_the_deliveries_is_enough_too() {
    // Goal: what contract 4 lists is all that an operator has to make.
    let prefix = unique_prefix();
    let first = rabbit(Rabbit::shared().url(), &prefix);
    first.ready(PATIENCE).await.unwrap();
    first.close().await;
    let log = format!("{prefix}.alerts.log.deliveries");
    Rabbit::shared().ctl(&["delete_queue", &log]).await;
    let settings = RabbitSettings { declare: false, ..settings(Rabbit::shared().url(), &prefix) };
    let broker = RabbitMq::connect(settings, &TaskTracker::new()).unwrap();
    broker.ready(PATIENCE).await.unwrap();
    assert_eq!(broker.lacking(), [log]);
    let lost = try_publish(&broker, &Destination::Log(Log::Deliveries), 0..2).await;
    assert!(lost.iter().all(|outcome| matches!(outcome, Err(PublishError::Unroutable { .. }))), "{lost:?}");
    let mut records = broker.read(Log::Deliveries, Start::First, interven_alerts::broker::End::Present);
    assert!(records.recv().await.is_some_and(|record| record.is_err()), "an empty log it is not");
    publish(&broker, &Destination::Log(Log::Decisions), 0..1).await;
    publish(&broker, &Destination::DecisionsExchange, 0..1).await;
    drain(&mut broker.consume(Queue::Decisions, window(1)), 0..1).await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_an_operator_with_other_arguments_is_used_as_it_is() {
    let prefix = unique_prefix();
    // Two workers that disagree in an argument: the first one's stands.
    let first = rabbit(Rabbit::shared().url(), &prefix);
    first.ready(PATIENCE).await.unwrap();
    first.close().await;
    let other = Some(Duration::from_hours(2));
    let settings = RabbitSettings { keep_decisions: other, ..settings(Rabbit::shared().url(), &prefix) };
    let broker = RabbitMq::connect(settings, &TaskTracker::new()).unwrap();
    broker.ready(PATIENCE).await.unwrap();
    publish(&broker, &Destination::Log(Log::Decisions), 0..1).await;
    assert_eq!(read(&broker, Log::Decisions, Start::First).await.len(), 1);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_and_an_absent_broker_are_told_precisely_and_without_the_password() {
    let url = Rabbit::shared().url().expose().replace("guest:guest", "guest:hunter22");
    let broker = rabbit(Secret::new(url), &unique_prefix());
    let error = broker.ready(PATIENCE).await.unwrap_err();
    let text = format!("{error} {error:?} {}", error.hint);
    assert!(text.contains("user and password") && !text.contains("hunter22"), "{text}");
    broker.close().await;

    let broker = rabbit(Secret::new("amqp://guest:hunter22@127.0.0.1:1/%2f"), &unique_prefix());
    let error = broker.ready(Duration::from_millis(500)).await.unwrap_err();
    let text = format!("{error} {error:?} {}", error.hint);
    assert!(text.contains("127.0.0.1:1") && !text.contains("hunter22"), "{text}");
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decisions_log_that_is_not_kept_takes_everything_and_holds_nothing() {
    let settings = RabbitSettings { keep_decisions: None, ..settings(Rabbit::shared().url(), &unique_prefix()) };
    let broker = RabbitMq::connect(settings, &TaskTracker::new()).unwrap();
    broker.ready(PATIENCE).await.unwrap();
    for log in [Log::Decisions, Log::Deliveries] {
        publish(&broker, &Destination::Log(log), 0..3).await;
        assert!(read(&broker, log, Start::First).await.is_empty());
    }
    broker.close().await;
}
