//! Following the log: from its first record, for ever, through every trouble of the broker.
//!
//! After a lost connection it is read again from its beginning, into a new table: a broker that was made anew may number its records
//! from the beginning. Until that has caught up, the old table stays, which was true when the connection was lost.
//!
//! Nothing here waits for anything but the log: publishing and changing cards are other tasks' work.

use std::{
    mem,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::{Answered, Approvals, Deed, Entry, Fate, Inner, News, Table, healing, record};
use crate::{
    broker::{BrokerError, Destination, End, Health, Log, Message, Record, Start},
    channels::button::Name,
};

/// Waits between tries to read the log.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LONGEST: Duration = Duration::from_secs(30);

/// How long appending a mark may take, and how long a log that holds one may give nothing.
const MARK_MAX: Duration = Duration::from_secs(3);
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Where the log ends at present.
#[derive(Clone, Copy, Debug)]
enum Present {
    /// There is nothing in it.
    Empty,
    /// With the mark with this id.
    Mark(Uuid),
    /// With the record at this place.
    At(u64),
}

impl Approvals {
    /// Follows the log, until the broker is closed.
    pub async fn follow(self) {
        let inner = &self.0;
        let mut health = inner.broker.health();
        let mut wait = AGAIN_FIRST;
        loop {
            if health.wait_for(|health| health.connected).await.is_err() {
                return;
            }
            let since = health.borrow_and_update().reconnects;
            let outcome = tokio::select! {
                outcome = inner.read(since, &mut wait) => outcome,
                anew = made_anew(&mut health, since) => {
                    if anew {
                        continue;
                    }
                    return;
                }
            };
            if let Err(error) = outcome {
                warn!(%error, hint = error.hint, retry_in = ?wait, "the log of the approvals could not be read");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN_LONGEST);
        }
    }
}

impl Inner {
    /// Reads the whole log into a new table, puts it in the old one's place, then takes each record in as it comes.
    async fn read(self: &Arc<Self>, since: u64, wait: &mut Duration) -> Result<(), BrokerError> {
        let present = self.find_present().await?;
        let mut records = self.broker.read(Log::Approvals, Start::First, End::Follow);
        let mut table = Table::default();
        let mut is_whole = matches!(present, Present::Empty);
        while !is_whole {
            let late = || BrokerError {
                what: String::from("the log of the approvals gives nothing"),
                hint: "look at the broker's log: the stream may be without a majority of its nodes",
                source: None,
            };
            let Some(record) = timeout(SILENCE_MAX, records.recv()).await.map_err(|_| late())? else { return Ok(()) };
            let record = record?;
            if let Some(entry) = decode(&record) {
                table.apply(entry);
            }
            is_whole = match present {
                Present::Empty => true,
                Present::Mark(id) => record::is_mark(&record.body, id),
                Present::At(last) => record.offset >= last,
            };
        }
        *wait = AGAIN_FIRST;
        self.replace(table);
        self.read_after.store(since, Ordering::Relaxed);
        // An error says that nobody listens.
        drop(self.news.send(News::Whole));
        while let Some(record) = records.recv().await {
            if let Some(entry) = decode(&record?) {
                self.take_in(entry);
            }
        }
        Ok(())
    }

    fn replace(self: &Arc<Self>, table: Table) {
        let forgotten = table.live_forgotten();
        let before = mem::replace(&mut *self.table.write().unwrap_or_else(PoisonError::into_inner), table);
        tell_forgotten(before.live_forgotten(), forgotten);
        self.heal(healing::lost(&before, &self.table(), self.clock.now()));
        let waiting: Vec<(Uuid, Name)> = self.mine().iter().map(|(id, mine)| (*id, mine.approval.clone())).collect();
        for (click, approval) in waiting {
            let fate = self.table().fate(click);
            if let Some(fate) = fate {
                self.heard(&approval, click, fate);
            }
        }
        self.known.send_replace(true);
    }

    /// Appends again what the log has lost, beside the following.
    fn heal(self: &Arc<Self>, lost: Vec<Entry>) {
        if lost.is_empty() {
            return;
        }
        let (records, inner) = (lost.len(), Arc::clone(self));
        warn!(records, "the log of the approvals has lost what this worker had read in it; it is appended again");
        self.tasks.spawn(async move {
            for entry in lost {
                if let Err(error) = inner.append(&entry).await {
                    // The connection is lost again, and after the next one it is looked again.
                    warn!(%error, hint = error.hint(), "what the log of the approvals has lost could not be appended again");
                    return;
                }
            }
        });
    }

    fn take_in(&self, entry: Entry) {
        let click = match &entry.deed {
            Deed::Click(click) => Some((click.id, click.approval.clone())),
            Deed::Asked(_) | Deed::Published(_) | Deed::Posted(..) | Deed::Updated(..) => None,
        };
        let (change, fate, forgotten) = {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            let before = table.live_forgotten();
            let change = table.apply(entry);
            let fate = click.as_ref().and_then(|(click, _)| table.fate(*click));
            (change, fate, (before, table.live_forgotten()))
        };
        tell_forgotten(forgotten.0, forgotten.1);
        if let (Some((click, approval)), Some(fate)) = (click, fate) {
            self.heard(&approval, click, fate);
        }
        if let Some(change) = change {
            drop(self.news.send(News::Changed(change)));
        }
    }

    /// The log has told what a click came to.
    fn heard(&self, name: &Name, click: Uuid, fate: Fate) {
        if self.tell(click, fate) && fate == Fate::Won {
            self.won(name);
        }
    }

    /// An answer that was given here is the first.
    fn won(&self, name: &Name) {
        self.won_here().insert(name.clone());
        let Some(Answered { approval, click }) = self.table().get(name).and_then(Answered::of) else { return };
        self.metrics.approvals.with_label_values(&[click.answer.as_str(), click.via.as_str()]).inc();
        if let Some(decision) = &approval.decision {
            self.metrics.approval_latency.observe(click.at.since(decision.time).as_secs_f64());
        }
    }

    /// Finds out where the log ends at present. A stream cannot be asked for its end, and finding it by waiting for silence takes
    /// long, so a mark is appended: all that was there before stands before it. Where nothing can be written (a broker with a
    /// full disk still reads), it is waited for all the same.
    async fn find_present(&self) -> Result<Present, BrokerError> {
        let id = Uuid::now_v7();
        let message = Message { to: Destination::Log(Log::Approvals), id: id.to_string(), body: record::mark(id) };
        if let Ok(Ok(())) = timeout(MARK_MAX, self.broker.publish(message)).await {
            return Ok(Present::Mark(id));
        }
        let mut last = Present::Empty;
        let mut records = self.broker.read(Log::Approvals, Start::First, End::Present);
        while let Some(record) = records.recv().await {
            last = Present::At(record?.offset);
        }
        Ok(last)
    }
}

fn tell_forgotten(before: u64, now: u64) {
    if now > before {
        error!(
            approvals = now - before,
            "more approvals wait or are granted than a worker can remember: the oldest cannot be answered any more"
        );
    }
}

/// Waits until the connection was made again since `since`; false when it never will be.
async fn made_anew(health: &mut watch::Receiver<Health>, since: u64) -> bool {
    health.wait_for(|health| health.reconnects != since).await.is_ok()
}

fn decode(record: &Record) -> Option<Entry> {
    match Entry::decode(&record.body) {
        Ok(Some(entry)) => Some(entry),
        Ok(None) => {
            debug!(offset = record.offset, "a mark, or a record that only a newer worker knows");
            None
        }
        Err(error) => {
            debug!(offset = record.offset, %error, "a record of the log of the approvals is none, and is passed over");
            None
        }
    }
}
