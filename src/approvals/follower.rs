//! Following the log: what it tells becomes the table, and whoever waits for a click hears of it.
//!
//! When it is read again from its beginning, that is into a new table. Until that has caught up, the old one stays, which was true
//! when the connection was lost.
//!
//! Nothing here waits for anything but the log: publishing and changing cards are other tasks' work.

use std::{
    mem,
    ops::ControlFlow,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use tracing::{error, warn};
use uuid::Uuid;

use super::{Answered, Approvals, Deed, Entry, Fate, Inner, News, Table, healing};
use crate::{
    broker::{
        Log, Record,
        following::{Follower, follow, known},
    },
    channels::button::Name,
};

impl Approvals {
    /// Follows the log, until the broker is closed.
    pub async fn follow(self) {
        let mut reader = Reader { inner: Arc::clone(&self.0), beginning: None };
        follow(&*self.0.broker, Log::Approvals, "approvals", &mut reader).await;
    }
}

/// Who takes in what the log tells.
struct Reader {
    inner: Arc<Inner>,
    /// The table that the beginning of the log is read into, and after how many reconnects.
    beginning: Option<(Table, u64)>,
}

impl Follower for Reader {
    fn begin(&mut self, reconnects: u64) {
        self.beginning = Some((Table::default(), reconnects));
    }

    async fn take(&mut self, record: Record) -> ControlFlow<()> {
        if let Some(entry) = known("approvals", &record, Entry::decode(&record.body)) {
            match &mut self.beginning {
                Some((table, _)) => drop(table.apply(entry)),
                None => self.inner.take_in(entry),
            }
        }
        ControlFlow::Continue(())
    }

    async fn is_whole(&mut self) -> ControlFlow<()> {
        if let Some((table, reconnects)) = self.beginning.take() {
            self.inner.replace(table);
            self.inner.read_after.store(reconnects, Ordering::Relaxed);
            // An error says that nobody listens.
            drop(self.inner.news.send(News::Whole));
            // Last, so that whoever waits for it finds all the rest done.
            self.inner.known.send_replace(true);
        }
        ControlFlow::Continue(())
    }
}

impl Inner {
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
}

fn tell_forgotten(before: u64, now: u64) {
    if now > before {
        error!(
            approvals = now - before,
            "more approvals wait or are granted than a worker can remember: the oldest cannot be answered any more"
        );
    }
}
