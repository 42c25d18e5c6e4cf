//! The window of the lane's queue: how many deliveries are held unacknowledged, and for how long.
//!
//! A broker loses patience with a consumer that holds on for 30 minutes, and what is held here is held from other workers.

use std::{num::NonZeroU16, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::debug;

use super::{HOLD_MAX, Lane};
use crate::{
    channels::BatchLimits,
    lane::{LanePlan, LaneState, Origin},
};

/// The window of a lane that folds is the most that one digest can tell: ten thousand waiting take five digests, and of ordinary
/// decisions (about 1 KB) so many are 4 MB in memory. An operator who wants more than that to wait before anything is folded gets
/// a larger window, up to a bound; above it the lane never folds.
const FOLDED_MIN: u16 = 2_000;
const FOLDED_MAX: u16 = 10_000;
const FOLDED_MORE: u32 = 1_000;

impl Lane {
    /// When the window of the lane's queue must be given back, if anything of it may be held for long.
    pub(super) fn hold_ends(&self) -> Option<Instant> {
        if matches!(self.state, LaneState::Stopped) {
            // It holds nothing, and consumes nothing.
            return None;
        }
        if !self.flows() {
            return Some(self.consuming_since + HOLD_MAX);
        }
        let held = self.ready.iter().chain(self.later.values()).filter(|errand| errand.origin == Origin::LaneQueue);
        held.map(|errand| errand.taken_at + HOLD_MAX).min()
    }

    /// Gives back what was taken from the lane's queue and is not under way: it comes again at once.
    ///
    /// To consume anew is the cheap way, and makes another worker the queue's one consumer. Where the lane is limited that
    /// worker's pace would know nothing of what was sent here, so each delivery goes back as a message of its own instead.
    pub(super) async fn renew_window(&mut self, now: Instant) {
        if self.pace.is_limited() {
            self.consuming_since = now;
            self.requeue_window().await;
            return;
        }
        let given_back = self.consume_anew();
        debug!(channel = %self.plan.id, given_back, "gave the lane queue's window back");
    }

    pub(super) async fn requeue_window(&mut self) {
        // What the consumer has buffered is held as well. No more than a window, or what goes back would be taken again.
        for _ in 0..self.window.get() {
            let Some(Some(arrival)) = self.arrivals.recv().now_or_never() else { break };
            self.take_arrival(arrival).await;
        }
        let (now, ready) = (Instant::now(), self.ready.take());
        let later = std::mem::take(&mut self.later);
        let all = ready.map(|errand| (None, errand));
        let all: Vec<_> = all.chain(later.into_iter().map(|(key, errand)| (Some(key), errand))).collect();
        debug!(channel = %self.plan.id, held = all.len(), "gives the lane queue's window back, one message each");
        for (key, mut errand) in all {
            match (errand.origin, key) {
                (Origin::Memory, None) => self.ready.push_back(errand),
                (Origin::Memory, Some(key)) => {
                    self.later.insert(key, errand);
                }
                (Origin::LaneQueue, key) => {
                    let wait = key.map(|(due, _)| due.saturating_duration_since(now));
                    errand.delivery.not_before = wait.map(|wait| self.tools.clock.now().plus(wait));
                    self.park(errand).await;
                }
            }
        }
    }
}

/// How many deliveries of the lane's queue are held at once: enough to keep the sends busy, few enough that at the lane's pace
/// the last of them is sent long before the broker loses patience.
pub(super) fn window(plan: &LanePlan, batching: Option<BatchLimits>) -> NonZeroU16 {
    // The broker takes most of a tenth of a second to send more after acknowledgements (measured: quorum queue, 3.10): a backlog
    // is drained at a window in that time.
    let busy = u32::from(plan.concurrency.get()) * 32;
    let busy =
        busy.max(batching.map_or(1, |limits| u32::try_from(limits.events * 2).unwrap_or(u32::MAX))).clamp(64, 2_000);
    if let Some(over) = plan.digest {
        // What it cannot send in time it folds, and the more of it at once the better.
        let window = over.get().saturating_add(FOLDED_MORE).clamp(FOLDED_MIN.into(), FOLDED_MAX.into());
        return u16::try_from(window).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN);
    }
    let by_pace = plan.pace.iter().map(|rate| {
        let in_ten_minutes =
            Duration::from_mins(10).as_secs_f64() / rate.per.as_secs_f64().max(1e-9) * f64::from(rate.count);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range first")]
        let deliveries = in_ten_minutes.clamp(1.0, 2_000.0) as u32;
        deliveries
    });
    let window = by_pace.fold(busy, u32::min);
    u16::try_from(window).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN)
}
