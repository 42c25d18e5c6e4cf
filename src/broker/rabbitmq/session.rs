//! The desk of one AMQP channel: where receipts come back, from any thread, and what wakes the consumer's task.
//!
//! Closing a receipt is the hot path: one short lock, and a wake-up only when there is news (the first to settle, a batch that
//! is full, a loss, or the last one that somebody waits for). The task then does the talking.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use lapin::{Channel, options::BasicAckOptions};
use tokio::{sync::Notify, time::Instant};

use super::{
    failure::{Failure, limited},
    ledger::Ledger,
};
use crate::broker::{Receipt, receipt::Desk};

/// How long settled receipts are collected before the broker is told.
const COLLECT: Duration = Duration::from_millis(5);

/// How long the settled prefix may stand still before what is settled behind it is acknowledged singly, while the window
/// is filling up; and however full it is.
const STALL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// How often a standing prefix is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The longest that an acknowledgement may take to be written.
const ACK_LIMIT: Duration = Duration::from_secs(10);

/// One AMQP channel's deliveries and their receipts.
#[derive(Debug)]
pub(super) struct Session {
    ledger: Mutex<Ledger>,
    /// Wakes the consumer's task.
    pub(super) news: Notify,
    window: usize,
    /// How many urgent receipts are out.
    urgent_out: AtomicUsize,
    /// Whether this channel has the urgent queue too: then nobody else has anything of the lane.
    pub(super) has_urgent: AtomicBool,
    /// The channel is gone: closing receipts has no effect any more.
    ended: AtomicBool,
    /// Receipts that were settled too late: their messages come again.
    late: AtomicU64,
    /// Until when the broker may be busy with acknowledgements that it has.
    busy_until: Mutex<Option<Instant>>,
}

/// So many acknowledgements at a time a channel of the broker passes on at once; what is more it keeps until the queue has caught up,
/// and forgets when it is closed before that. Source: RabbitMQ, `quorum_commands_soft_limit`, 32 (measured with 3.10: of 998 single
/// ones that were sent right before the close, 33 counted); a margin for others on the same channel.
const ACKS_AT_ONCE: usize = 16;

/// How long the queue may take to catch up, and how much longer for each lot that the channel passes on: it writes each to its disk,
/// which a loaded machine lets wait. Nothing tells when it has.
const CATCH_UP: Duration = Duration::from_secs(1);
const CATCH_UP_EACH: Duration = Duration::from_millis(50);

/// When the broker is told next, and since when the prefix stands still.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// When to call [`Session::flush`] next.
    pub(super) at: Option<Instant>,
    standing_since: Option<Instant>,
}

impl Session {
    pub(super) fn new(window: u16) -> Self {
        Self {
            ledger: Mutex::default(),
            news: Notify::new(),
            window: usize::from(window),
            urgent_out: AtomicUsize::new(0),
            has_urgent: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            late: AtomicU64::new(0),
            busy_until: Mutex::default(),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many settled receipts make a full batch.
    fn batch(&self) -> usize {
        (self.window / 8).max(1)
    }

    /// A message came: its receipt.
    pub(super) fn delivered(self: &Arc<Self>, tag: u64) -> Receipt {
        self.ledger().delivered(tag);
        Receipt::new(tag, Arc::clone(self) as _)
    }

    /// An urgent message came: its receipt.
    pub(super) fn delivered_urgent(self: &Arc<Self>, tag: u64) -> Receipt {
        self.ledger().delivered(tag);
        self.urgent_out.fetch_add(1, Ordering::Relaxed);
        Receipt::new(tag, Arc::new(UrgentDesk(Arc::clone(self))))
    }

    /// Whether this channel consumes the urgent queue, and still does anything.
    pub(super) fn has_urgent(&self) -> bool {
        self.has_urgent.load(Ordering::Relaxed) && !self.ended.load(Ordering::Relaxed)
    }

    /// How many urgent receipts are out.
    pub(super) fn urgent_out(&self) -> usize {
        self.urgent_out.load(Ordering::Relaxed)
    }

    /// Keeps a delivery that nobody gets a receipt for, until it is released.
    pub(super) fn hold(&self, tag: u64) {
        self.ledger().hold(tag);
    }

    /// What was held is to be acknowledged.
    pub(super) fn release(&self, tag: u64) {
        self.ledger().release(tag);
        self.news.notify_one();
    }

    /// What was held went back to its queue.
    pub(super) fn gave_back(&self, tag: u64) {
        self.ledger().gave_back(tag);
    }

    /// How much is remembered of deliveries that are done with, in deliveries.
    pub(super) fn length(&self) -> usize {
        self.ledger().length()
    }

    /// How many deliveries the broker still counts as ours.
    pub(super) fn unacknowledged(&self) -> usize {
        if self.ended.load(Ordering::Relaxed) { 0 } else { self.ledger().unacknowledged() }
    }

    /// How many receipts are out.
    pub(super) fn out(&self) -> usize {
        self.ledger().out()
    }

    /// Whether a receipt was dropped unsettled.
    pub(super) fn has_lost(&self) -> bool {
        self.ledger().lost() > 0
    }

    /// The channel is gone.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// After news: says when to tell the broker, if it is not planned yet. What stands behind an unfinished sibling is no
    /// reason to keep the prefix waiting: with sends that finish out of order, something always stands there.
    pub(super) fn plan(&self, schedule: &mut Schedule) {
        let (prefix, settled) = {
            let ledger = self.ledger();
            (ledger.prefix(), ledger.settled())
        };
        let wait = match prefix {
            0 if settled == 0 => return,
            0 => LOOK,
            prefix if prefix >= self.batch() => Duration::ZERO,
            _ => COLLECT,
        };
        let at = Instant::now() + wait;
        schedule.at = Some(schedule.at.map_or(at, |planned| planned.min(at)));
    }

    /// Tells the broker of what is settled: the prefix together, the rest singly when its time has come or `all` is wanted.
    pub(super) async fn flush(&self, channel: &Channel, schedule: &mut Schedule, all: bool) -> Result<(), Failure> {
        let now = Instant::now();
        let (prefix, stragglers, standing) = {
            let mut ledger = self.ledger();
            let prefix = ledger.take_prefix();
            if prefix.is_some() {
                schedule.standing_since = None;
            }
            let mut stragglers = Vec::new();
            if ledger.settled() > 0 {
                let stood = now - *schedule.standing_since.get_or_insert(now);
                let filling = ledger.settled() >= (self.window / 4).max(1);
                if all || ledger.is_held_up() || stood >= STALL.1 || (stood >= STALL.0 && filling) {
                    stragglers = ledger.take_stragglers();
                }
            }
            (prefix, stragglers, ledger.settled() > 0)
        };
        if standing {
            schedule.at = Some(now + LOOK);
        } else {
            *schedule = Schedule::default();
        }
        if let Some(tag) = prefix {
            let call = channel.basic_ack(tag, BasicAckOptions { multiple: true });
            limited("could not acknowledge", "", ACK_LIMIT, call).await?;
        }
        if stragglers.len() > ACKS_AT_ONCE {
            let lots = u32::try_from(stragglers.len() / ACKS_AT_ONCE).unwrap_or(u32::MAX);
            let until = now + CATCH_UP + CATCH_UP_EACH.saturating_mul(lots);
            *self.busy_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        }
        if !stragglers.is_empty() {
            let acks = stragglers.into_iter().map(|tag| channel.basic_ack(tag, BasicAckOptions::default()));
            let call = async { join_all(acks).await.into_iter().collect::<lapin::Result<()>>() };
            limited("could not acknowledge", "", ACK_LIMIT, call).await?;
        }
        Ok(())
    }

    /// Waits, where the broker may still be busy with our acknowledgements: the channel must not be closed before.
    pub(super) async fn caught_up(&self) {
        let until = *self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// How many receipts were settled after the channel was gone.
    pub(super) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }
}

/// Where urgent receipts come back.
struct UrgentDesk(Arc<Session>);

impl Desk for UrgentDesk {
    fn close(&self, tag: u64, settled: bool) {
        self.0.urgent_out.fetch_sub(1, Ordering::Relaxed);
        self.0.close(tag, settled);
    }

    fn is_void(&self) -> bool {
        self.0.is_void()
    }
}

impl Desk for Session {
    fn close(&self, tag: u64, settled: bool) {
        if self.ended.load(Ordering::Relaxed) {
            self.late.fetch_add(u64::from(settled), Ordering::Relaxed);
            return;
        }
        let news = {
            let mut ledger = self.ledger();
            let (before, batch) = (ledger.prefix(), self.batch());
            ledger.close(tag, settled);
            let prefix = ledger.prefix();
            let grown = (before == 0 && prefix > 0) || (before < batch && prefix >= batch);
            !settled || grown || ledger.settled() == 1 || ledger.out() == 0
        };
        if news {
            self.news.notify_one();
        }
    }

    fn is_void(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}
