//! Several deliveries in one request: forming a batch, packing it, and halving one that was refused.

use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Forming, Lane};
use crate::{
    channels::{BatchLimits, Occasion, Parcel},
    lane::{Errand, LaneState},
};

impl Lane {
    pub(super) async fn next_batch(
        &mut self,
        now: Instant,
        limits: BatchLimits,
        probe: bool,
    ) -> Option<(Vec<Errand>, Parcel)> {
        loop {
            let batch = self.next_due_batch(now, limits, probe).await?;
            // Where all of a batch was poison, the next one may be due as well.
            if let Some(ready) = self.pack(batch).await {
                return Some(ready);
            }
        }
    }

    pub(super) async fn next_due_batch(&mut self, now: Instant, limits: BatchLimits, probe: bool) -> Option<Forming> {
        loop {
            let forming_full = self.forming.as_ref().is_some_and(|forming| {
                probe || forming.errands.len() >= limits.events || forming.bytes >= limits.bytes || forming.due <= now
            });
            if forming_full {
                break;
            }
            let Some(errand) = self.next_in_time().await else { break };
            // What was refused once goes alone, so that it cannot drag others down again.
            let alone = errand.delivery.plain;
            if alone && self.forming.is_some() {
                self.ready.push_front(errand);
                break;
            }
            let occasion = Occasion { now: self.tools.clock.now(), links: &self.plan.links, detour: None };
            let batcher = self.plan.channel.batcher()?;
            let record = std::panic::catch_unwind(AssertUnwindSafe(|| batcher.record(&errand.delivery, &occasion)));
            let Ok(record) = record else {
                self.bury_poison(errand).await;
                continue;
            };
            let due = if alone { now } else { now + limits.wait };
            let forming =
                self.forming.get_or_insert_with(|| Forming { errands: Vec::new(), records: Vec::new(), bytes: 0, due });
            if !forming.records.is_empty() && forming.bytes + record.len() > limits.bytes {
                // It would not fit: this batch goes now, and the delivery is first in the next one.
                self.ready.push_front(errand);
                break;
            }
            forming.bytes += record.len();
            forming.records.push(record);
            forming.errands.push(errand);
        }
        let forming = self.forming.as_ref()?;
        let would_overflow = !self.ready.is_empty();
        let due =
            probe || forming.errands.len() >= limits.events || forming.bytes >= limits.bytes || forming.due <= now;
        if !due && !would_overflow {
            return None;
        }
        self.forming.take()
    }

    pub(super) async fn pack(&mut self, mut forming: Forming) -> Option<(Vec<Errand>, Parcel)> {
        loop {
            let occasion = Occasion { now: self.tools.clock.now(), links: &self.plan.links, detour: None };
            let batcher = self.plan.channel.batcher()?;
            let packed = std::panic::catch_unwind(AssertUnwindSafe(|| batcher.pack(&forming.records, &occasion)));
            if let Ok(parcel) = packed {
                return Some((forming.errands, parcel));
            }
            // Halves find out whose fault it is; the loop ends at one.
            if forming.errands.len() > 1 {
                let half = forming.errands.len().div_ceil(2);
                self.split(std::mem::take(&mut forming.errands), half).await;
            } else if let Some(errand) = forming.errands.pop() {
                self.bury_poison(errand).await;
            }
            forming = self.forming.take()?;
        }
    }

    /// Sends the first half as soon as it may go, as one batch; the second half forms the next.
    pub(super) async fn split(&mut self, mut errands: Vec<Errand>, half: usize) {
        if matches!(self.state, LaneState::Paused { .. } | LaneState::Held { .. } | LaneState::Stopped) {
            // It was sent before the lane came to rest: the next batch after it is made of whatever is there by then.
            for errand in errands {
                self.keep(errand).await;
            }
            return;
        }
        let rest = errands.split_off(half);
        let now = Instant::now();
        if let Some(forming) = self.forming.take() {
            self.ready.put_back(forming.errands);
        }
        self.ready.put_back(rest);
        let occasion = Occasion { now: self.tools.clock.now(), links: &self.plan.links, detour: None };
        let Some(batcher) = self.plan.channel.batcher().filter(|_| self.batching.is_some()) else {
            // A new configuration tells each by itself.
            self.ready.put_back(errands);
            return;
        };
        let records: Vec<Bytes> = errands.iter().map(|errand| batcher.record(&errand.delivery, &occasion)).collect();
        let bytes = records.iter().map(Bytes::len).sum();
        self.forming = Some(Forming { errands, records, bytes, due: now });
    }
}
