//! Reading: the index answers; where its copy is damaged, the journal does, and the index is mended.

use super::{
    DeadLetterError, LetterFilter, LetterId,
    engine::Engine,
    error::Fault,
    index::{Change, Entry, Go},
    record::{Body, Head, Put, Record},
    report::Kept,
};

/// Letters that one step of a scan passes, so that burials never wait long behind a listing.
const PASSED_MAX: usize = 5_000;
/// Bytes of letters that one step of a scan returns, give or take one letter.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a scan should bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Heads,
    Letters,
}

/// One letter of a scan.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) head: Head,
    /// The letter, where it was wanted; `None` also when its bytes are damaged.
    pub(super) kept: Option<Kept>,
}

/// One step of a scan.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) found: Vec<Found>,
    /// Letters whose head cannot be read, so that no filter can say whether they are meant.
    pub(super) damaged: Vec<LetterId>,
    /// The last letter that was passed; none when the end was reached.
    pub(super) next: Option<LetterId>,
}

/// What looking a letter up brought.
#[derive(Debug)]
pub(super) enum Lookup {
    /// There is none.
    Absent,
    /// It is there, and no copy of it is whole.
    Wreck,
    Whole(Entry),
}

impl Lookup {
    pub(super) fn whole(self) -> Option<Entry> {
        match self {
            Self::Whole(entry) => Some(entry),
            Self::Absent | Self::Wreck => None,
        }
    }
}

impl Engine {
    /// A letter's entry, mended where that is needed and possible.
    pub(super) fn entry(&mut self, id: LetterId) -> Result<Lookup, Fault> {
        match self.index.get(id)? {
            None => Ok(Lookup::Absent),
            Some(Ok(entry)) => Ok(Lookup::Whole(entry)),
            Some(Err(_)) => Ok(self.mend(id)?.map_or(Lookup::Wreck, Lookup::Whole)),
        }
    }

    /// One letter, whole.
    pub(super) fn fetch(&mut self, id: LetterId) -> Result<Result<Kept, DeadLetterError>, Fault> {
        Ok(match self.entry(id)? {
            Lookup::Absent => Err(DeadLetterError::NotFound { id }),
            Lookup::Wreck => Err(DeadLetterError::Damaged { id }),
            Lookup::Whole(entry) => {
                let kept = entry.put().and_then(|put| self.whole(&put));
                kept.ok_or(DeadLetterError::Damaged { id })
            }
        })
    }

    /// Up to `limit` letters that `filter` means, from the newest before `before` on.
    pub(super) fn scan(
        &mut self,
        before: Option<LetterId>,
        filter: &LetterFilter,
        want: Want,
        limit: usize,
    ) -> Result<Step, Fault> {
        let mut step = Step::default();
        let (mut passed, mut bytes, mut wrecks, mut last) = (0, 0, Vec::new(), None);
        let blobs = &self.blobs;
        let ended = self.index.visit(before, |id, entry| {
            passed += 1;
            last = Some(id);
            match entry.ok().and_then(|entry| Some((Head::peek(&entry.record)?, entry))) {
                None => wrecks.push(id),
                Some((head, entry)) if filter.matches(&head) => {
                    let kept = (want == Want::Letters)
                        .then(|| {
                            let put = entry.put()?;
                            let body = match &put.body {
                                Body::Inline(body) => body.clone(),
                                Body::Blob(blob) => blobs.read(*blob)?,
                            };
                            bytes += entry.record.len() + body.len();
                            put.letter(body)
                        })
                        .flatten();
                    step.found.push(Found { head, kept });
                }
                Some(_) => {}
            }
            let full = step.found.len() >= limit || passed >= PASSED_MAX || bytes >= BYTES_MAX;
            if full { Go::Stop } else { Go::On }
        })?;
        step.next = last.filter(|_| !ended);
        for id in wrecks {
            match self.mend(id)?.and_then(|entry| entry.put()) {
                Some(put) if filter.matches(&put.head) => {
                    let kept = (want == Want::Letters).then(|| self.whole(&put)).flatten();
                    step.found.push(Found { head: put.head, kept });
                }
                Some(_) => {}
                None => step.damaged.push(id),
            }
        }
        step.found.sort_by_key(|found| std::cmp::Reverse(found.head.id));
        Ok(step)
    }

    /// The letter of a record, if its body is whole.
    pub(super) fn whole(&self, put: &Put) -> Option<Kept> {
        let body = match &put.body {
            Body::Inline(body) => body.clone(),
            Body::Blob(blob) => self.blobs.read(*blob)?,
        };
        put.letter(body)
    }

    /// Restores a letter whose value in the index is damaged from the journal: its newest intact record, unless that was
    /// removed. The place in the damaged value cannot be trusted, so this reads the journal through, newest segment first.
    fn mend(&mut self, id: LetterId) -> Result<Option<Entry>, Fault> {
        for segment in self.journal.segments().into_iter().rev() {
            let scan = self.journal.scan(segment, 0).map_err(Fault::disk("read the dead-letter journal"))?;
            for (place, bytes) in scan.records.iter().rev() {
                let Some(Record::Put(put)) = Record::decode(bytes).filter(|record| concerns(record, id)) else {
                    continue;
                };
                let entry = Entry { place: *place, first: segment, record: bytes.clone() };
                let subject = put.head.subject;
                let change = Change::Put { place: *place, first: 0, id, subject, record: bytes.to_vec() };
                self.index.apply(&[change], None)?;
                self.index.sync()?;
                tracing::warn!(letter = %id, "a dead letter was damaged in the index and restored from the journal");
                return Ok(Some(entry));
            }
        }
        tracing::error!(letter = %id, "a dead letter is damaged in the index and not in the journal");
        Ok(None)
    }
}

fn concerns(record: &Record, id: LetterId) -> bool {
    match record {
        Record::Put(put) => put.head.id == id,
        Record::Removed { .. } | Record::Carried { .. } => false,
    }
}

impl Found {
    /// A letter that was asked for by its id.
    pub(super) fn of(kept: Kept, want: Want) -> Self {
        let put = Put::new(&kept.letter, kept.burial.0, None, Body::Inline(bytes::Bytes::new()));
        Self { head: put.head, kept: (want == Want::Letters).then_some(kept) }
    }
}
