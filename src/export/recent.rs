//! The newest decisions: what was appended last, looked at from the end of the log backwards in ever larger steps.
//!
//! Bounded by number, bytes and time, so it can be asked at every look at a page. The price: a backlog that is worked off just now
//! counts as new, and a filter that matches nearly nothing may find less than there is, and then says so.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{ExportError, Exporter, chunk::Moment, glance::Glance, query::Query};
use crate::broker::{End, Log, Start};

/// The most decisions, and the most bytes of them.
pub const LIMIT_MAX: usize = 500;
const BYTES_MAX: usize = 4 << 20;

/// Records of the first step back from the end, and how much larger each further one is.
const STEP_MIN: u64 = 1_000;
const STEP_GROWTH: u64 = 16;

/// How long is looked, all steps together. The first one is always done.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// The newest decisions.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// As they were published, the newest first.
    pub decisions: Vec<Bytes>,
    /// Whether there are no others that should be among them.
    pub complete: bool,
}

/// What one step found.
#[derive(Default)]
struct Step {
    found: BTreeMap<(Moment, Box<str>), Bytes>,
    bytes: usize,
    /// Some were left out, because there are newer ones.
    full: bool,
    records: u64,
}

impl Step {
    fn take(&mut self, body: Bytes, query: &Query, limit: usize) {
        self.records += 1;
        let Some(glance) = Glance::read(&body).filter(|glance| query.wants(glance)) else { return };
        let key = (Moment::from(glance.time()), Box::from(&*glance.id));
        drop(glance);
        self.bytes += body.len();
        if let Some(same) = self.found.insert(key, body) {
            self.bytes -= same.len();
        }
        while self.found.len() > limit || (self.bytes > BYTES_MAX && self.found.len() > 1) {
            self.full = true;
            if let Some((_, oldest)) = self.found.pop_first() {
                self.bytes -= oldest.len();
            }
        }
    }

    fn newest_first(self, complete: bool) -> Recent {
        Recent { decisions: self.found.into_values().rev().collect(), complete }
    }
}

impl Exporter {
    /// The newest `limit` decisions, at most [`LIMIT_MAX`], that `query` wants.
    pub async fn recent(&self, query: &Query, limit: usize) -> Result<Recent, ExportError> {
        let _place = self.place_to_look()?;
        let limit = limit.clamp(1, LIMIT_MAX);
        let deadline = Instant::now() + LOOK_MAX;
        let mut records = STEP_MIN;
        let mut step = self.step(records, query, limit).await?;
        loop {
            // Offsets have gaps, few and small: a step that found clearly less than it asked for has seen all there is.
            let whole = step.records + records / 8 + 16 < records;
            if step.full || step.found.len() >= limit || whole {
                return Ok(step.newest_first(true));
            }
            records = records.saturating_mul(STEP_GROWTH);
            match tokio::time::timeout_at(deadline, self.step(records, query, limit)).await {
                Ok(larger) => step = larger?,
                Err(_) => return Ok(step.newest_first(false)),
            }
        }
    }

    async fn step(&self, records: u64, query: &Query, limit: usize) -> Result<Step, ExportError> {
        let mut log = self.broker().read(Log::Decisions, Start::Newest(records), End::Present);
        let mut step = Step::default();
        while let Some(record) = log.recv().await {
            step.take(record?.body, query, limit);
        }
        if self.is_stopping() { Err(ExportError::Stopping) } else { Ok(step) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::Asked;

    fn body(second: u32, id: &str, padding: usize) -> Bytes {
        let text = format!(
            r#"{{"id":"{id}","time":"2026-06-01T12:00:{second:02}Z","decision":"DENY","severity":"LOW","agent":{{"id":"a"}},"tool":"t","x":"{}"}}"#,
            "x".repeat(padding)
        );
        Bytes::from(text)
    }

    #[test]
    fn the_newest_by_time_stay_each_once_within_number_and_bytes() {
        let query = Query::try_from(Asked::default()).unwrap();
        let mut step = Step::default();
        for second in [5, 1, 4, 4, 2, 3] {
            step.take(body(second, "a", 0), &query, 3);
        }
        step.take(Bytes::from("nonsense"), &query, 3);
        assert!(step.full && step.records == 7);
        let expected: Vec<Bytes> = [5, 4, 3].map(|second| body(second, "a", 0)).into();
        assert_eq!(step.newest_first(true).decisions, expected);
        let mut step = Step::default();
        for second in 0..30 {
            step.take(body(second, "a", 200 << 10), &query, 500);
        }
        assert!(step.bytes <= BYTES_MAX && step.found.len() == 20, "{} in {} bytes", step.found.len(), step.bytes);
    }
}
