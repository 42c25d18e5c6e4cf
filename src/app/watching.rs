//! What is looked at from time to time, and shown in the metrics: the broker's health, and how much waits on it.

use std::{sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{Broker, Queue},
    intake::Routing,
    telemetry::Metrics,
};

/// How often the depth of the queues is asked for.
const DEPTH_EVERY: Duration = Duration::from_secs(5);

/// Shows what the broker says of itself.
pub(super) fn watch_health(broker: Arc<dyn Broker>, metrics: Metrics, tracker: &TaskTracker, stop: CancellationToken) {
    tracker.spawn(async move {
        let mut health = broker.health();
        loop {
            let now = *health.borrow_and_update();
            metrics.broker_connected.set(i64::from(now.connected));
            metrics.broker_reconnects.inc_by(now.reconnects.saturating_sub(metrics.broker_reconnects.get()));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = health.changed() => if changed.is_err() { return },
            }
        }
    });
}

/// Asks now and then how much waits on the broker. A broker that is away leaves the last numbers as they were.
pub(super) fn watch_depths(
    broker: Arc<dyn Broker>,
    routing: Routing,
    metrics: Metrics,
    tracker: &TaskTracker,
    stop: CancellationToken,
) {
    let asking = async move {
        let mut ticks = tokio::time::interval(DEPTH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !broker.health().borrow().connected {
                continue;
            }
            // Ids and gauges, and not the lanes themselves: a handle of a lane would keep the settler from ending.
            let lanes: Vec<_> = {
                let router = routing.borrow();
                router.lanes().iter().map(|lane| (lane.id().clone(), lane.metrics().in_lane_queue.clone())).collect()
            };
            for (id, gauge) in lanes {
                if let Ok(depth) = broker.waiting(Queue::Lane(id)).await {
                    gauge.set(i64::try_from(depth).unwrap_or(i64::MAX));
                }
            }
            for (queue, gauge) in
                [(Queue::Dead, &metrics.dead_letters_waiting), (Queue::Decisions, &metrics.decisions_waiting)]
            {
                if let Ok(depth) = broker.waiting(queue).await {
                    gauge.set(i64::try_from(depth).unwrap_or(i64::MAX));
                }
            }
        }
    };
    // A stop must not wait for the answers of a thousand queues.
    tracker.spawn(async move { stop.run_until_cancelled(asking).await });
}
