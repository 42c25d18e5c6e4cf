//! Canaries: quiet test decisions that travel broker, rules and channel, so that a dead webhook is found before a decision needs it.
//!
//! For every channel with `canary = "1h"`, one decision is published in each period, to the exchange that the firewall publishes to.
//! The intake knows it by its structure (`model::own`) and hands it to the channel that it tests, whatever the filters say. It is
//! delivered like anything else, and counted as nothing: what shows is `last_success_timestamp_seconds{channel}`, and a silence
//! there is the message. So nothing here is tried twice either.
//!
//! A period is a slot of the clock, the same for every worker of a pool: each publishes a canary with the same delivery id in the
//! same slot, and the lane delivers the first. [`Rounds::due`] is the whole schedule, pure but for the dice it is given.
//!
//! Absent on purpose: what becomes of a canary. It is sent and forgotten.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    broker::{Broker, Destination, Message},
    intake::Routing,
    model::{ChannelId, Clock, Timestamp, own},
};

/// How often the schedule is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many canaries are published at once, and how long one may take.
const PUBLISH_AT_ONCE: usize = 16;
const PUBLISH_MAX: Duration = Duration::from_secs(10);

/// The first canary comes this part of its period after the start at the latest, and no later than [`FIRST_MAX`]: soon, because a
/// changed configuration is what breaks most, and not in the same moment for all channels and workers.
const FIRST_PART: f64 = 0.1;
const FIRST_MAX: Duration = Duration::from_mins(1);

/// The others come in the middle of their slot, give or take this part of it.
const JITTER: f64 = 0.1;

/// Sends canaries until `stop`. Between two looks nothing of the router is held: a lane's handle would keep the settler from ending.
pub async fn send(routing: Routing, broker: Arc<dyn Broker>, clock: Clock, stop: CancellationToken) {
    let sending = async move {
        let mut rounds = Rounds::new(fastrand::Rng::new());
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let now = clock.now();
            let wanted: Vec<(ChannelId, Duration)> = {
                let router = routing.borrow();
                router.own().filter_map(|(lane, terms)| Some((lane.id().clone(), terms.canary?))).collect()
            };
            let due = stream::iter(rounds.due(wanted, now));
            due.for_each_concurrent(PUBLISH_AT_ONCE, |(channel, slot)| publish(&*broker, channel, slot, now)).await;
        }
    };
    stop.run_until_cancelled(sending).await;
}

async fn publish(broker: &dyn Broker, channel: ChannelId, slot: u64, now: Timestamp) {
    let canary = own::canary(&channel, slot, now);
    let message = Message { to: Destination::DecisionsExchange, id: canary.id.to_string(), body: canary.raw().clone() };
    match tokio::time::timeout(PUBLISH_MAX, broker.publish(message)).await {
        Ok(Ok(())) => debug!(%channel, canary = %canary.id, "a canary was sent"),
        Ok(Err(error)) => debug!(%channel, canary = %canary.id, %error, "a canary could not be sent"),
        Err(_elapsed) => debug!(%channel, canary = %canary.id, "a canary was not confirmed in time"),
    }
}

/// When the next canary of each channel is due.
#[derive(Debug)]
struct Rounds {
    next: HashMap<ChannelId, Next>,
    random: fastrand::Rng,
}

#[derive(Clone, Copy, Debug)]
struct Next {
    period: Duration,
    at: Timestamp,
}

impl Rounds {
    fn new(random: fastrand::Rng) -> Self {
        Self { next: HashMap::new(), random }
    }

    /// The canaries that are due now, with the numbers of their slots. `wanted` are the channels that have one, with its period; a
    /// channel that is not there any more is forgotten.
    fn due(&mut self, wanted: Vec<(ChannelId, Duration)>, now: Timestamp) -> Vec<(ChannelId, u64)> {
        let mut due = Vec::new();
        let mut known = std::mem::take(&mut self.next);
        for (channel, period) in wanted {
            let known = known.remove(&channel).filter(|next| next.period == period);
            // A clock that was set back would make the channel wait for the old time.
            let known = known.filter(|next| next.at.since(now) <= period.saturating_mul(2));
            let mut next = known.unwrap_or_else(|| Next { period, at: now.plus(self.first(period)) });
            if next.at <= now {
                let slot = own::slot(now, period);
                next.at = self.within(slot + 1, period);
                due.push((channel.clone(), slot));
            }
            self.next.insert(channel, next);
        }
        due
    }

    fn first(&mut self, period: Duration) -> Duration {
        period.mul_f64(FIRST_PART).min(FIRST_MAX).mul_f64(self.random.f64())
    }

    /// The moment for the canary of this slot.
    fn within(&mut self, slot: u64, period: Duration) -> Timestamp {
        let middle = 0.5 - JITTER + 2.0 * JITTER * self.random.f64();
        own::slot_start(slot, period).plus(period.mul_f64(middle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_hours(1);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis((1_800_000_000 + seconds) * 1_000)
    }

    fn id(text: &str) -> ChannelId {
        text.parse().unwrap()
    }

    fn rounds(seed: u64) -> Rounds {
        Rounds::new(fastrand::Rng::with_seed(seed))
    }

    #[test]
    fn the_first_comes_soon_and_then_one_in_every_slot_whoever_sends_it() {
        for seed in 0..20 {
            let mut rounds = rounds(seed);
            let mut sent = Vec::new();
            for seconds in 0..36_000 {
                for (channel, slot) in rounds.due(vec![(id("soc"), PERIOD)], at(seconds)) {
                    assert_eq!(channel, id("soc"));
                    sent.push((seconds, slot));
                }
            }
            assert!(sent[0].0 <= 60, "the first at {} s", sent[0].0);
            let slots: Vec<u64> = sent.iter().map(|(_, slot)| *slot).collect();
            let first = own::slot(at(0), PERIOD);
            assert_eq!(slots, (first..first + 10).collect::<Vec<_>>());
            for pair in sent[1..].windows(2) {
                let gap = pair[1].0 - pair[0].0;
                assert!((2_880..=4_321).contains(&gap), "a gap of {gap} s");
            }
        }
    }

    #[test]
    fn a_changed_period_begins_anew_and_a_channel_without_one_is_left_alone() {
        let mut rounds = rounds(1);
        let mut until = |wanted: Vec<(ChannelId, Duration)>, from: i64, to: i64| {
            (from..to).flat_map(|seconds| rounds.due(wanted.clone(), at(seconds))).count()
        };
        assert_eq!(until(vec![(id("soc"), PERIOD)], 0, 100), 1);
        assert_eq!(until(vec![(id("soc"), PERIOD / 2)], 100, 200), 1);
        assert_eq!(until(Vec::new(), 200, 90_000), 0);
    }

    #[test]
    fn a_clock_that_jumps_silences_no_canary() {
        let mut rounds = rounds(2);
        let wanted = || vec![(id("soc"), PERIOD)];
        assert_eq!((0..100).flat_map(|seconds| rounds.due(wanted(), at(seconds))).count(), 1);
        assert_eq!(
            rounds.due(wanted(), at(1_000_000)).len(),
            1,
            "days were slept through: one, and not one for each slot"
        );
        assert_eq!(rounds.due(wanted(), at(1_000_001)), []);
        let back = (200..300).flat_map(|seconds| rounds.due(wanted(), at(seconds))).count();
        assert_eq!(back, 1, "the clock was set back");
    }
}
