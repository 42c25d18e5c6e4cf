//! The work of one export: from the log, through the sorter, to whoever asked.
//!
//! Two tasks. [`feed`] reads the log and waits for the network; [`Work::run`] looks at every decision, sorts, and writes, on a
//! thread that may be busy. Between them, and after them, are short queues: whoever is slow slows down the one before, to the broker.
//!
//! The end is told, never guessed: a queue that was closed without a word is an export that was cut short, so that a panic or a
//! stop can never look like a complete one.

use std::time::Duration;

use bytes::Bytes;
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    ExportError,
    chunk::Row,
    format::{Format, Writer},
    glance::Glance,
    query::Query,
    runs::Spill,
    sorter::{Limits, Sorter},
};
use crate::broker::{BrokerError, Record};

/// Records that go from one task to the other at once, and how often that much may wait.
pub(super) const BATCH: usize = 256;
pub(super) const BATCHES_WAITING: usize = 2;

/// Bytes that are handed on at once, and how often that much may wait to be taken.
const PART_BYTES: usize = 64 << 10;
pub(super) const PARTS_WAITING: usize = 4;

/// The longest id. A decision's has at most 128 characters.
const ID_BYTES_MAX: usize = 512;

/// What was exported, and what that took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Decisions in the export.
    pub decisions: u64,
    /// Records of the log that were looked at.
    pub scanned: u64,
    /// Decisions that were in the log more than once, and are in the export once.
    pub duplicates: u64,
    /// Records that are no decisions: nothing of ours appends such.
    pub unreadable: u64,
    /// Bytes that were written to the disk for sorting.
    pub spilled_bytes: u64,
}

/// From the reader to the sorter.
pub(super) enum Feed {
    Records(Vec<Record>),
    /// The end of the log.
    End,
    Failed(ExportError),
}

/// From the sorter to whoever asked.
#[derive(Debug)]
pub(super) enum Part {
    Bytes(Bytes),
    /// It is complete.
    Done(Report),
}

pub(super) type Parts = mpsc::Sender<Result<Part, ExportError>>;

/// Reads the log to its end, for as long as somebody wants it.
pub(super) async fn feed(
    mut records: mpsc::Receiver<Result<Record, BrokerError>>,
    into: mpsc::Sender<Feed>,
    parts: Parts,
    stop: CancellationToken,
) {
    let mut taken = Vec::with_capacity(BATCH);
    loop {
        let count = tokio::select! {
            biased;
            () = parts.closed() => return,
            // A closed sorter has told its trouble itself.
            () = into.closed() => return,
            () = stop.cancelled() => {
                drop(into.send(Feed::Failed(ExportError::Stopping)).await);
                return;
            }
            count = records.recv_many(&mut taken, BATCH) => count,
        };
        let mut batch = Vec::with_capacity(count);
        let mut failed = None;
        for record in taken.drain(..) {
            match record {
                Ok(record) => batch.push(record),
                Err(error) => failed = Some(error),
            }
        }
        let last = match failed {
            Some(error) => Some(Feed::Failed(error.into())),
            // A broker that is being closed ends its logs without a word.
            None if count == 0 && stop.is_cancelled() => Some(Feed::Failed(ExportError::Stopping)),
            None => (count == 0).then_some(Feed::End),
        };
        let over = last.is_some();
        for feed in [(!batch.is_empty()).then_some(Feed::Records(batch)), last].into_iter().flatten() {
            let handed_over = tokio::select! {
                biased;
                () = parts.closed() => return,
                sent = into.send(feed) => sent,
            };
            if handed_over.is_err() {
                return;
            }
        }
        if over {
            return;
        }
    }
}

/// One export on its thread.
pub(super) struct Work {
    pub(super) query: Query,
    pub(super) format: Format,
    pub(super) limits: Limits,
    pub(super) spill: Spill,
    /// How long whoever asked may take nothing.
    pub(super) patience: Option<Duration>,
    pub(super) parts: Parts,
    pub(super) runtime: Handle,
}

impl Work {
    /// Does it all, and tells how it ended.
    pub(super) fn run(self, records: mpsc::Receiver<Feed>) {
        let end = self.export(records).map(Part::Done);
        // Nobody there, or nobody who takes anything: then nobody needs to know.
        drop(self.hand_over(end));
    }

    fn export(&self, mut records: mpsc::Receiver<Feed>) -> Result<Report, ExportError> {
        let mut report = Report::default();
        let mut sorter = Sorter::new(self.limits, self.spill.clone());
        loop {
            match records.blocking_recv() {
                Some(Feed::Records(batch)) => {
                    for record in &batch {
                        self.look_at(&record.body, &mut sorter, &mut report)?;
                    }
                }
                Some(Feed::End) => break,
                Some(Feed::Failed(error)) => return Err(error),
                None => return Err(ExportError::Gone),
            }
        }
        let mut writer = Writer::new(self.format);
        let mut out = Vec::with_capacity(PART_BYTES * 2);
        writer.begin(&mut out);
        let effort = sorter.finish(|row| {
            if !writer.row(&mut out, row.body) {
                report.unreadable += 1;
            }
            if out.len() < PART_BYTES {
                return Ok(());
            }
            let part = std::mem::replace(&mut out, Vec::with_capacity(PART_BYTES * 2));
            self.hand_over(Ok(Part::Bytes(part.into())))
        })?;
        writer.end(&mut out);
        if !out.is_empty() {
            self.hand_over(Ok(Part::Bytes(out.into())))?;
        }
        let (duplicates, spilled_bytes) = (effort.duplicates, effort.spilled_bytes);
        Ok(Report { decisions: writer.written(), duplicates, spilled_bytes, ..report })
    }

    fn look_at(&self, body: &[u8], sorter: &mut Sorter, report: &mut Report) -> Result<(), ExportError> {
        report.scanned += 1;
        match Glance::read(body).filter(|glance| glance.id.len() <= ID_BYTES_MAX) {
            Some(glance) if self.query.wants(&glance) => {
                sorter.push(&Row { moment: glance.time().into(), id: glance.id.as_bytes(), body })?;
            }
            Some(_) => {}
            None => report.unreadable += 1,
        }
        Ok(())
    }

    fn hand_over(&self, part: Result<Part, ExportError>) -> Result<(), ExportError> {
        let sending = self.parts.send(part);
        let sent = match self.patience {
            Some(limit) => {
                self.runtime.block_on(tokio::time::timeout(limit, sending)).map_err(|_| ExportError::Stuck(limit))?
            }
            None => self.runtime.block_on(sending),
        };
        sent.map_err(|_| ExportError::Gone)
    }
}
