//! What became of every delivery: the log `...log.deliveries`, which every worker appends to and any worker reads.
//!
//! Somebody asks weeks later whether the SOC was told of a decision, where and when. The intake says where a decision was routed
//! to, whoever counts an ending says how the delivery ended, and both are one entry each in a record that is written at most a
//! second later, many at once ([`writer`]). A reader gathers the entries of the few decisions that it wants to know of ([`reading`]).
//!
//! **Nothing waits for this log.** Noting an entry is a copy into memory; a broker that is away, or a log that is not there, costs
//! entries (`delivery_records_lost_total`) and never a delivery, an acknowledgement or a moment of either. So an entry that is not
//! there proves nothing, and whoever shows what became of a delivery says "not recorded" and does not guess. Some are there twice,
//! because decisions come twice.
//!
//! Absent on purpose: what a decision says (that is the decisions log's), and any place that asks this log what to do.
//!
//! Start with [`DeliveryLog`], then `record.rs`, which is the wire format.

mod reading;
mod record;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use self::writer::{Gathering, Writer};
use crate::{
    broker::Broker,
    model::{ChannelId, DeathReason, Ending, Timestamp},
    telemetry::Metrics,
};

pub use reading::{Account, Accounts, Became, Reader};

/// How often it is said at most that the log cannot be written, and that it cannot be read.
const TELL_EVERY: Duration = Duration::from_mins(10);

/// Where entries are noted. Cheap to clone; with [`Self::none`], nothing is.
#[derive(Clone, Debug, Default)]
pub struct DeliveryLog(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    gathering: Mutex<Gathering>,
    /// Somebody has begun a record, or filled one.
    wake: Notify,
    metrics: Metrics,
    /// The last entries were noted: what is there is written, and then no more.
    finish: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    fn gathering(&self) -> MutexGuard<'_, Gathering> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, entries: u64) {
        self.metrics.delivery_records_lost.inc_by(entries);
    }

    /// How many entries this worker has lost since it started.
    fn lost(&self) -> u64 {
        self.metrics.delivery_records_lost.get()
    }
}

/// Keeps trouble that lasts from being told of again and again.
#[derive(Debug, Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    /// Whether it is to be told of now; then not for [`TELL_EVERY`].
    fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|told_at| told_at.elapsed() >= TELL_EVERY);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub ending: Ending,
    /// When.
    pub at: Timestamp,
    /// Which try it was; of a dead one, how often it was tried.
    pub tries: u32,
    /// Why it died, if it did.
    pub reason: Option<DeathReason>,
}

impl DeliveryLog {
    /// A log that nobody writes.
    pub fn none() -> Self {
        Self(None)
    }

    /// Starts what writes the log. Entries that could not be written are counted.
    pub fn start(broker: Arc<dyn Broker>, metrics: Metrics) -> Self {
        let (finish, tasks) = (CancellationToken::new(), TaskTracker::new());
        let shared = Arc::new(Shared { gathering: Mutex::default(), wake: Notify::new(), metrics, finish, tasks });
        shared.tasks.spawn(Writer { shared: Arc::clone(&shared), broker }.run());
        Self(Some(shared))
    }

    /// The decision was routed to these channels, or to none.
    pub fn routed<'a>(&self, decision: &str, at: Timestamp, channels: impl Iterator<Item = &'a ChannelId>) {
        self.note(|record| record::put_routed(record, decision, at, channels));
    }

    /// Its delivery to the channel has ended.
    pub fn ended(&self, decision: &str, channel: &ChannelId, ended: Ended) {
        self.note(|record| record::put_ended(record, decision, channel, ended));
    }

    /// Its dead delivery was sent again.
    pub fn sent_again(&self, decision: &str, channel: &ChannelId, at: Timestamp) {
        self.note(|record| record::put_again(record, decision, channel, at));
    }

    fn note(&self, put: impl FnOnce(&mut Vec<u8>)) {
        let Some(shared) = &self.0 else { return };
        let noted = shared.gathering().note(put);
        if noted.lost > 0 {
            shared.lose(noted.lost);
        }
        if noted.wakes {
            shared.wake.notify_one();
        }
    }

    /// Writes what was noted, as far as that goes within `limit`, and ends the writing.
    pub async fn finish(&self, limit: Duration) {
        let Some(shared) = &self.0 else { return };
        shared.finish.cancel();
        shared.tasks.close();
        drop(tokio::time::timeout(limit, shared.tasks.wait()).await);
        let lost = shared.gathering().clear();
        if lost > 0 {
            shared.lose(lost);
            warn!(lost, "stopping before all records of what became of deliveries were written: they are not recorded");
        }
    }
}
