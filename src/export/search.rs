//! Searching: the newest decisions that somebody wants, a page at a time, looked at from the end of the log backwards.
//!
//! The log is in the order in which decisions came in, and has no index. So pages follow that order too, and the offset at which one
//! ends is where the next one goes on: every record is looked at once, however far somebody turns the pages. Within a page the newest
//! comes first, by the decisions' own time.
//!
//! Bounded by number, bytes and time. A search that runs out of time says how far it has looked, and can go on from there.
//!
//! A decision may come in long after its time. Where `until` is past, the search begins with what came in when decisions of `until`
//! did and [`LATE`] more, by their own times, so that a queue that stood still is no trouble; one that came in later than all others of
//! its time is found by a search without `until`, and by an export.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};

use super::{ExportError, Exporter, SKEW_MAX, glance::Glance, query::Query};
use crate::{
    broker::{BrokerError, End, Log, Record, Start},
    model::Timestamp,
};

/// The most decisions of a page, and the most bytes of them.
pub const LIMIT_MAX: usize = 500;
const BYTES_MAX: usize = 4 << 20;

/// Records of the first look back, and of the largest one. A look that runs out of time has been in vain.
const STEP_MIN: u64 = 1_000;
const STEP_MAX: u64 = 64_000;
const STEP_GROWTH: u64 = 4;

/// Offsets have gaps, few and small.
const GAP_MAX: u64 = 16;

/// How long is looked, all looks together. The first one is always done.
const LOOK_MAX: Duration = Duration::from_secs(8);

/// How long the first look may take: a broker that is slow gives something by then, and one that is away never does.
const FIRST_MAX: Duration = Duration::from_secs(20);

/// How much later than `until` decisions must be, so many in a row, before it is taken that those of before have come in.
const LATE: Duration = Duration::from_mins(10);
const LATE_IN_A_ROW: u32 = 64;

/// A decision that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// When it was made.
    pub time: Timestamp,
    /// Its id.
    pub id: Box<str>,
    /// As it was published.
    pub body: Bytes,
}

/// A page of decisions.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The newest first.
    pub decisions: Vec<Found>,
    /// Where the search for older ones goes on; `None` where there are none.
    pub older: Option<u64>,
    /// Whether there are no others that should be among them: false where time ran out first.
    pub complete: bool,
    /// About when what was looked at last was decided; `None` where nothing was.
    pub looked_back_to: Option<Timestamp>,
}

/// What a look at some records found: the newest of them, in the order in which they came in.
#[derive(Debug, Default)]
struct Look {
    found: VecDeque<(u64, Found)>,
    bytes: usize,
    /// Older ones were left out.
    full: bool,
    records: u64,
    /// The first record, and its time.
    first: Option<u64>,
    oldest: Option<Timestamp>,
    /// How many in a row were later than `until`.
    late: u32,
}

impl Look {
    fn take(&mut self, record: Record, query: &Query, room: usize) {
        self.records += 1;
        self.first = self.first.or(Some(record.offset));
        let Some(glance) = Glance::read(&record.body) else { return };
        let time = glance.time();
        self.oldest = self.oldest.or(Some(time));
        let is_late = query.until().is_some_and(|until| time >= until.plus(LATE));
        self.late = if is_late { self.late + 1 } else { 0 };
        if !query.wants(&glance) {
            return;
        }
        let id = Box::from(&*glance.id);
        drop(glance);
        self.bytes += record.body.len();
        self.found.push_back((record.offset, Found { time, id, body: record.body }));
        while self.found.len() > room || (self.bytes > BYTES_MAX && self.found.len() > 1) {
            self.full = true;
            if let Some((_, oldest)) = self.found.pop_front() {
                self.bytes -= oldest.body.len();
            }
        }
    }
}

/// A page while it is gathered.
struct Gathered {
    limit: usize,
    found: Vec<Found>,
    seen: HashSet<(Timestamp, Box<str>)>,
    bytes: usize,
    /// The oldest that is in it.
    last: Option<u64>,
    looked_back_to: Option<Timestamp>,
}

impl Gathered {
    /// Adds what a look found; `all` says that nothing is left to look at. Where the search for older ones goes on, if the page is full.
    fn add(&mut self, look: Look, all: bool) -> Option<u64> {
        self.looked_back_to = look.oldest.or(self.looked_back_to);
        for (offset, found) in look.found.into_iter().rev() {
            if self.is_full(found.body.len()) {
                return self.last;
            }
            self.last = Some(offset);
            // The log is written at least once.
            if self.seen.insert((found.time, found.id.clone())) {
                self.bytes += found.body.len();
                self.found.push(found);
            }
        }
        if look.full || (self.is_full(0) && !all) { self.last } else { None }
    }

    fn is_full(&self, bytes: usize) -> bool {
        self.found.len() >= self.limit || (!self.found.is_empty() && self.bytes + bytes > BYTES_MAX)
    }

    fn room(&self) -> usize {
        // One more, so that a page that is just full knows whether there are others; and some that are there twice.
        self.limit - self.found.len() + 1
    }

    fn page(mut self, older: Option<u64>, complete: bool) -> Page {
        self.found.sort_by(|a, b| (b.time, &b.id).cmp(&(a.time, &a.id)));
        Page { decisions: self.found, older, complete, looked_back_to: self.looked_back_to }
    }
}

impl Exporter {
    /// At most `limit` decisions that `query` wants, at most [`LIMIT_MAX`], the newest, or those that came in before `before`.
    pub async fn search(&self, query: &Query, before: Option<u64>, limit: usize) -> Result<Page, ExportError> {
        let _place = self.place_to_look()?;
        self.reachable().await?;
        let (limit, deadline) = (limit.clamp(1, LIMIT_MAX), Instant::now() + LOOK_MAX);
        let mut page =
            Gathered { limit, found: Vec::new(), seen: HashSet::new(), bytes: 0, last: None, looked_back_to: None };
        let mut step = STEP_MIN;
        let (mut top, whole);
        if let Some(offset) = before {
            // Nothing comes from a place that the log has not reached: a link that is older than the log, or made up.
            let Some(last) = in_time(self.last()).await? else { return Ok(page.page(None, true)) };
            (top, whole) = (offset.min(last.saturating_add(1)), true);
        } else {
            let look;
            (look, whole) = in_time(self.newest(query, page.room(), deadline)).await?;
            let Some(first) = look.first else { return Ok(page.page(None, whole)) };
            let all = first == 0 || (query.until().is_none() && look.records + step / 8 + GAP_MAX < step);
            let full = page.add(look, all);
            if full.is_some() || all {
                return Ok(page.page(full, whole));
            }
            (top, step) = (first, step * STEP_GROWTH);
        }
        let floor = match query.since() {
            Some(since) => in_time(self.first_since(since, top)).await?,
            None => Some(0),
        };
        let Some(floor) = floor.filter(|floor| *floor < top) else { return Ok(page.page(None, whole)) };
        let mut first = before.is_some();
        loop {
            let from = top.saturating_sub(step).max(floor);
            let looking = self.look(Start::Offset(from), top, query, page.room());
            let look = if std::mem::take(&mut first) {
                in_time(looking).await?
            } else {
                let Ok(look) = timeout_at(deadline, looking).await else { return Ok(page.page(Some(top), false)) };
                look?
            };
            let all = from <= floor || look.first.is_none_or(|first| first > from + GAP_MAX);
            let full = page.add(look, all);
            if full.is_some() || all {
                return Ok(page.page(full, whole));
            }
            (top, step) = (from, (step * STEP_GROWTH).min(STEP_MAX));
        }
    }

    /// The first look: at the end of the log, or where `until` is past at what came in then. Whether that was not cut short.
    async fn newest(&self, query: &Query, room: usize, deadline: Instant) -> Result<(Look, bool), ExportError> {
        let Some(until) = query.until() else {
            let mut log = self.broker().read(Log::Decisions, Start::Newest(STEP_MIN), End::Present);
            let mut look = Look::default();
            while let Some(record) = log.recv().await {
                look.take(record?, query, room);
            }
            self.goes_on()?;
            return Ok((look, true));
        };
        let mut log = self.broker().read(Log::Decisions, Start::At(until), End::Present);
        let mut look = Look::default();
        loop {
            let Ok(record) = timeout_at(deadline, log.recv()).await else {
                return if look.records == 0 { Err(nothing_within(LOOK_MAX)) } else { Ok((look, false)) };
            };
            let Some(record) = record else { break };
            look.take(record?, query, room);
            // Ids are of one decision each.
            if look.late >= LATE_IN_A_ROW || (query.ids() > 0 && look.found.len() >= query.ids()) {
                return Ok((look, true));
            }
        }
        self.goes_on()?;
        if look.first.is_some() {
            return Ok((look, true));
        }
        // Nothing has come in since: then the end of the log is where it begins.
        let mut log = self.broker().read(Log::Decisions, Start::Newest(STEP_MIN), End::Present);
        while let Some(record) = log.recv().await {
            look.take(record?, query, room);
        }
        self.goes_on()?;
        Ok((look, true))
    }

    /// The offset of the last decision; `None` where there is none.
    async fn last(&self) -> Result<Option<u64>, ExportError> {
        let mut log = self.broker().read(Log::Decisions, Start::Newest(1), End::Present);
        let mut last = None;
        while let Some(record) = log.recv().await {
            last = Some(record?.offset);
        }
        self.goes_on()?;
        Ok(last)
    }

    /// The offset from which on there are decisions of `since`; `None` where there are none before `top`.
    async fn first_since(&self, since: Timestamp, top: u64) -> Result<Option<u64>, ExportError> {
        let mut log = self.broker().read(Log::Decisions, Start::At(since.minus(SKEW_MAX)), End::Before(top));
        let first = log.recv().await.transpose()?;
        self.goes_on()?;
        Ok(first.map(|record| record.offset))
    }

    /// Looks at the records from `start` to before `top`.
    async fn look(&self, start: Start, top: u64, query: &Query, room: usize) -> Result<Look, ExportError> {
        let mut log = self.broker().read(Log::Decisions, start, End::Before(top));
        let mut look = Look::default();
        while let Some(record) = log.recv().await {
            let record = record?;
            if record.offset < top {
                look.take(record, query, room);
            }
        }
        self.goes_on()?;
        Ok(look)
    }

    fn goes_on(&self) -> Result<(), ExportError> {
        // A broker that is being closed ends its logs without a word.
        if self.is_stopping() { Err(ExportError::Stopping) } else { Ok(()) }
    }
}

/// What a first look gives, if that is within [`FIRST_MAX`].
async fn in_time<T>(look: impl Future<Output = Result<T, ExportError>>) -> Result<T, ExportError> {
    timeout(FIRST_MAX, look).await.map_err(|_| nothing_within(FIRST_MAX))?
}

fn nothing_within(limit: Duration) -> ExportError {
    let error = BrokerError {
        what: format!("the decisions log gives nothing within {} s", limit.as_secs()),
        hint: "check that the broker runs, and look at its log",
        source: None,
    };
    error.into()
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

    fn query() -> Query {
        Query::try_from(Asked::default()).unwrap()
    }

    fn gathered(limit: usize) -> Gathered {
        Gathered { limit, found: Vec::new(), seen: HashSet::new(), bytes: 0, last: None, looked_back_to: None }
    }

    fn look(seconds: &[u32], room: usize) -> Look {
        let mut look = Look::default();
        for (offset, second) in (10..).zip(seconds) {
            look.take(Record { offset, body: body(*second, "a", 0) }, &query(), room);
        }
        look
    }

    #[test]
    fn a_page_holds_the_last_that_came_in_each_once_and_says_where_the_next_one_begins() {
        let mut page = gathered(3);
        let room = page.room();
        let look = look(&[5, 1, 4, 4, 2, 3], room);
        assert_eq!((look.records, look.first, look.found.len(), look.full), (6, Some(10), 4, true));
        // The offsets are 10 to 15: of those from 12 on, 13 is 12 once more.
        assert_eq!(page.add(look, false), Some(13));
        let page = page.page(Some(13), true);
        let expected: Vec<Bytes> = [4, 3, 2].map(|second| body(second, "a", 0)).into();
        assert_eq!(page.decisions.into_iter().map(|found| found.body).collect::<Vec<_>>(), expected);
        assert_eq!(page.looked_back_to, Some("2026-06-01T12:00:05Z".parse().unwrap()));
    }

    #[test]
    fn a_page_that_is_just_full_has_others_only_where_not_all_was_looked_at() {
        for (all, older) in [(true, None), (false, Some(10))] {
            let mut page = gathered(2);
            let look = look(&[1, 2], page.room());
            assert_eq!(page.add(look, all), older);
        }
        let mut page = gathered(2);
        let room = page.room();
        assert_eq!(page.add(look(&[1, 2, 3], room), true), Some(11));
    }

    #[test]
    fn bytes_are_bounded_too_and_what_is_no_decision_is_passed_over() {
        let mut look = Look::default();
        look.take(Record { offset: 1, body: Bytes::from("nonsense") }, &query(), 500);
        for offset in 2..32 {
            let body = body(u32::try_from(offset).unwrap(), "a", 200 << 10);
            look.take(Record { offset, body }, &query(), 500);
        }
        assert!(look.bytes <= BYTES_MAX && look.found.len() == 20, "{} in {} bytes", look.found.len(), look.bytes);
        let mut page = gathered(500);
        assert_eq!(page.add(look, true), Some(12));
    }

    #[test]
    fn decisions_later_than_until_count_only_in_a_row() {
        let until = Asked { until: Some("2026-06-01T11:50:05Z".parse().unwrap()), ..Asked::default() };
        let query = Query::try_from(until).unwrap();
        let mut look = Look::default();
        for (offset, second, late) in [(1, 4, 0), (2, 5, 1), (3, 6, 2), (4, 4, 0), (5, 9, 1)] {
            look.take(Record { offset, body: body(second, "a", 0) }, &query, 9);
            assert_eq!(look.late, late, "{offset}");
        }
        assert!(look.found.is_empty());
    }
}
