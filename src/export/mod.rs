//! The decisions export: what was decided, out of the decisions log, by the decisions' own time.
//!
//! Every decision whose time is at or after `since` and before `until`, each exactly once, in the order of their times (of their ids
//! where the times are equal), whatever the order in which they were appended. The log holds some twice, because it is written at
//! least once: the same id and time counts once.
//!
//! A decision may be appended long after its time (it waited in the queue), so reading goes on to the present end of the log
//! whatever `until` is; and, where the firewall's clock is ahead of the broker's, somewhat before it, so reading begins
//! [`SKEW_MAX`] before `since`. What comes out is only known in order when everything was read; so it is sorted, in bounded memory
//! ([`sorter`]), and an export begins to be sent when the log was read to its end.
//!
//! Absent on purpose: who may export, HTTP and files. Whoever asks gets pieces of bytes, and the word that it is complete.
//!
//! Start with [`query`], then [`work`], then [`sorter`].

mod chunk;
mod error;
mod format;
mod glance;
mod query;
mod runs;
mod search;
mod sorter;
#[cfg(test)]
mod tests;
mod work;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::work::{BATCHES_WAITING, Feed, PARTS_WAITING, Part, Work};
pub use self::{
    error::ExportError,
    format::{Format, UnknownFormat},
    query::{Asked, KEYS, Query, QueryFault},
    runs::{Spill, SpillError},
    search::{Found, LIMIT_MAX, Page},
    sorter::Limits,
    work::Report,
};
use crate::{
    broker::{Broker, End, Log, Start},
    model::Timestamp,
};

/// How far the firewall's clock may be ahead of the broker's. What is decided further ahead of the moment at which it is appended may
/// be missed by an export that begins in between.
pub const SKEW_MAX: Duration = Duration::from_mins(15);

/// Exports at once. Each may take a processor and tens of megabytes, and the decisions must still flow.
const EXPORTS_MAX: usize = 2;

/// Looks at the newest decisions at once.
const LOOKS_MAX: usize = 4;

/// How long a broker that is away may take to come back. A reader of the log waits far longer before it says so.
const AWAY_MAX: Duration = Duration::from_secs(3);

/// What exports need.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Where the log is.
    pub broker: Arc<dyn Broker>,
    /// Whether decisions are kept at all.
    pub kept: bool,
    /// Where what does not fit into memory goes.
    pub spill: Spill,
    /// How much is sorted in memory.
    pub limits: Limits,
    /// How long whoever asked may take nothing; `None`: for ever.
    pub patience: Option<Duration>,
    /// Cancelled when the worker begins to stop.
    pub stop: CancellationToken,
}

/// Gives exports. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Exporter {
    terms: Arc<Terms>,
    exports: Arc<Semaphore>,
    looks: Arc<Semaphore>,
    tracker: TaskTracker,
}

impl Exporter {
    /// An exporter whose tasks are tracked by `tracker`.
    pub fn new(terms: Terms, tracker: &TaskTracker) -> Self {
        Self {
            terms: Arc::new(terms),
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            looks: Arc::new(Semaphore::new(LOOKS_MAX)),
            tracker: tracker.clone(),
        }
    }

    /// Begins an export. Dropping it ends it, whatever it does.
    pub fn export(&self, query: Query, format: Format) -> Result<Export, ExportError> {
        self.ready()?;
        let busy = |_| ExportError::Busy { under_way: EXPORTS_MAX };
        let place = Arc::clone(&self.exports).try_acquire_owned().map_err(busy)?;
        let start = query.since().map_or(Start::First, |since| Start::At(since.minus(SKEW_MAX)));
        let (parts, received) = mpsc::channel(PARTS_WAITING);
        let (into, looked_at) = mpsc::channel::<Feed>(BATCHES_WAITING);
        let records = self.terms.broker.read(Log::Decisions, start, End::Present);
        self.tracker.spawn(work::feed(records, into, parts.clone(), self.terms.stop.clone()));
        let terms = Terms::clone(&self.terms);
        let work = Work {
            query,
            format,
            limits: terms.limits,
            spill: terms.spill,
            patience: terms.patience,
            parts,
            runtime: Handle::current(),
        };
        self.tracker.spawn_blocking(move || {
            work.run(looked_at);
            drop(place);
        });
        Ok(Export { format, parts: received, fillers: 0, begun: false, report: None, over: false })
    }

    /// Waits a little for a broker that is away, so that whoever asks hears of it at once, and not when all tries have failed.
    pub async fn reachable(&self) -> Result<(), ExportError> {
        self.ready()?;
        let mut health = self.terms.broker.health();
        let back = tokio::time::timeout(AWAY_MAX, health.wait_for(|health| health.connected)).await;
        if back.is_ok_and(|back| back.is_ok()) { Ok(()) } else { Err(ExportError::Away) }
    }

    fn ready(&self) -> Result<(), ExportError> {
        if !self.terms.kept {
            return Err(ExportError::NotKept);
        }
        if self.is_stopping() { Err(ExportError::Stopping) } else { Ok(()) }
    }

    fn place_to_look(&self) -> Result<OwnedSemaphorePermit, ExportError> {
        self.ready()?;
        let busy = |_| ExportError::Busy { under_way: LOOKS_MAX };
        Arc::clone(&self.looks).try_acquire_owned().map_err(busy)
    }

    fn is_stopping(&self) -> bool {
        self.terms.stop.is_cancelled()
    }

    fn broker(&self) -> &Arc<dyn Broker> {
        &self.terms.broker
    }
}

/// An export under way.
#[derive(Debug)]
pub struct Export {
    format: Format,
    parts: mpsc::Receiver<Result<Part, ExportError>>,
    /// How many fillers were sent.
    fillers: usize,
    begun: bool,
    report: Option<Report>,
    over: bool,
}

impl Export {
    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What was exported, once it is complete.
    pub fn report(&self) -> Option<Report> {
        self.report
    }

    /// The next piece; `None` when it is complete, and only then. After an error there is nothing more. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Bytes, ExportError>> {
        if self.over {
            return None;
        }
        match self.parts.recv().await {
            Some(Ok(Part::Bytes(mut bytes))) => {
                if !self.begun && self.format.filler_is_content() {
                    // The first piece holds the whole of what fillers are taken from.
                    drop(bytes.split_to(self.fillers.min(bytes.len())));
                }
                self.begun = true;
                Some(Ok(bytes))
            }
            Some(Ok(Part::Done(report))) => {
                (self.over, self.report) = (true, Some(report));
                None
            }
            Some(Err(error)) => {
                self.over = true;
                Some(Err(error))
            }
            None => {
                self.over = true;
                Some(Err(ExportError::Died))
            }
        }
    }

    /// The same; but where nothing has been sent yet and nothing comes for `every`, a byte that means nothing, so that the one
    /// who waits, and everybody in between, sees that work is being done.
    pub async fn next_or_filler(&mut self, every: Duration) -> Option<Result<Bytes, ExportError>> {
        while !self.begun {
            if let Ok(next) = tokio::time::timeout(every, self.next()).await {
                return next;
            }
            if let Some(byte) = self.format.filler(self.fillers) {
                self.fillers += 1;
                return Some(Ok(Bytes::copy_from_slice(&[byte])));
            }
        }
        self.next().await
    }
}

/// How an export is called as a file: `decisions_20260601T000000Z_20260602T000000Z.csv`.
pub fn file_name(query: &Query, format: Format) -> String {
    let part = |time: Option<Timestamp>| {
        let text = time.map(Timestamp::to_rfc3339_millis).unwrap_or_default();
        let short: String = text.replace(".000Z", "Z").chars().filter(|c| !matches!(c, '-' | ':')).collect();
        if short.is_empty() { short } else { format!("_{short}") }
    };
    let until = if query.since().is_none() && query.until().is_some() { "_until" } else { "" };
    format!("decisions{}{until}{}.{}", part(query.since()), part(query.until()), format.extension())
}
