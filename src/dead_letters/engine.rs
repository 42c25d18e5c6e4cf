//! Writing: the one order of steps that makes "it is on the platter" true.
//!
//! Bodies to files, records to the journal, changes to the index, then memory; a sync after each of the first three. A crash
//! between any two leaves a journal that is ahead of the index, never behind it, and opening catches up
//! ([`super::recovery`]). Whatever fails here is a [`Fault`]: the owner drops this engine and opens a new one.
//!
//! Everything in this room runs on the owner's thread, so there is one writer and no lock.

use std::{collections::HashSet, path::PathBuf};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    DeadLetter, DeadLetterError, LetterId,
    blobs::Blobs,
    checkpoint::Checkpoint,
    error::Fault,
    index::{Change, Entry, Index},
    journal::{Journal, SEGMENT_BYTES},
    reading::Lookup,
    record::{Body, Put, Record, Stone},
    report::Burial,
    store::StoreOptions,
    tally::Tally,
};

/// A larger body goes to a file of its own. Source: measured, `broker.md` section 7.
const INLINE_BYTES_MAX: usize = 64 * 1024;
/// RabbitMQ takes no larger message by default, and what a broker carried must be kept, malformed or not.
const BODY_BYTES_MAX: usize = 128 * 1024 * 1024;
/// All of a letter but its body: texts of 2,000 characters, and room for whatever an import brings.
const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Stones in one record.
const STONES_MAX: usize = 4_096;

/// What the owner wants written.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it waits and travels in a box")]
pub(super) enum Work {
    /// Keep this letter. `import`: unless its subject or id is there already.
    Bury { letter: DeadLetter, import: bool },
    /// Remove these, each only if it is still this burial.
    Remove(Vec<(LetterId, Option<Burial>)>),
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Outcome {
    Buried { id: LetterId, fresh: bool },
    Removed(usize),
    Refused(DeadLetterError),
}

/// The open store.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) dir: PathBuf,
    pub(super) options: StoreOptions,
    pub(super) index: Index,
    pub(super) journal: Journal,
    pub(super) blobs: Blobs,
    pub(super) tally: Tally,
    /// The number of the last record.
    pub(super) seq: u64,
    /// Whether records were written since the last checkpoint.
    pub(super) dirty: bool,
}

/// What a batch will write, before it is written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Records, and for puts the oldest segment that may hold a record of the letter, where it is not this one.
    pub(super) records: Vec<(Record, Option<u64>)>,
    /// Subjects of removed letters, in the order of their stones.
    subjects: Vec<Uuid>,
    /// Letters without a whole record, which leave the index and need no stone: rebuilding would not find them.
    wrecks: Vec<LetterId>,
    blobs_new: Vec<u64>,
    blobs_old: Vec<u64>,
    /// Ids and subjects that are touched: each at most once in a batch, so that looking things up needs no overlay.
    touched: HashSet<Uuid>,
}

impl Batch {
    /// A batch of records that refer to nothing older than themselves.
    pub(super) fn of(records: Vec<Record>) -> Self {
        Self { records: records.into_iter().map(|record| (record, None)).collect(), ..Self::default() }
    }
}

impl Engine {
    /// Does the work, in order; when this returns, all of it is durable.
    pub(super) fn write(&mut self, works: Vec<Work>) -> Result<Vec<Outcome>, Fault> {
        let mut outcomes = Vec::with_capacity(works.len());
        let mut batch = Batch::default();
        for work in works {
            let touches: Vec<Uuid> = match &work {
                Work::Bury { letter, .. } => vec![letter.subject, letter.id.0],
                // The subject of what is removed is not known yet: removals stand alone between burials.
                Work::Remove(_) => Vec::new(),
            };
            let alone = matches!(work, Work::Remove(_));
            if alone || touches.iter().any(|touched| batch.touched.contains(touched)) {
                self.commit(&std::mem::take(&mut batch))?;
            }
            let outcome = match work {
                Work::Bury { letter, import } => self.plan_burial(letter, import, &mut batch)?,
                Work::Remove(items) => Outcome::Removed(self.plan_removal(&items, &mut batch)?),
            };
            outcomes.push(outcome);
            batch.touched.extend(touches);
            if alone {
                self.commit(&std::mem::take(&mut batch))?;
            }
        }
        self.commit(&batch)?;
        Ok(outcomes)
    }

    fn plan_burial(&mut self, letter: DeadLetter, import: bool, batch: &mut Batch) -> Result<Outcome, Fault> {
        if letter.body.len() > BODY_BYTES_MAX {
            return Ok(Outcome::Refused(DeadLetterError::TooLarge { bytes: letter.body.len() }));
        }
        let earlier = match self.index.of_subject(letter.subject)? {
            Some(id) => match self.entry(id)? {
                Lookup::Absent => None,
                Lookup::Wreck => Some((id, None)),
                Lookup::Whole(entry) => Some((id, Some(entry))),
            },
            None => None,
        };
        let earlier = earlier.and_then(|(id, entry)| {
            let put = entry.as_ref().and_then(Entry::put);
            // A subject that points to another letter is a leftover; a wreck keeps its id and is written anew.
            put.as_ref().is_none_or(|put| put.head.subject == letter.subject).then_some((id, entry, put))
        });
        let mut letter = letter;
        let (mut replaced, mut first, fresh) = (None, None, earlier.is_none());
        if let Some((id, entry, put)) = earlier {
            if import {
                return Ok(Outcome::Buried { id, fresh: false });
            }
            letter.id = id;
            if let (Some(entry), Some(put)) = (entry, put) {
                replaced = Some(put.head.gone(entry.place.segment, entry.place.bytes));
                first = Some(entry.first);
                batch.blobs_old.extend(put.blob().map(|blob| blob.number));
            }
        } else if self.index.get(letter.id)?.is_some() || batch.touched.contains(&letter.id.0) {
            // Ids come from imports and from the broker too, so one may be taken.
            letter.id = LetterId(Uuid::now_v7());
        }
        let seq = self.next_seq();
        let body = if letter.body.len() > INLINE_BYTES_MAX {
            batch.blobs_new.push(seq);
            Body::Blob(self.blobs.write(seq, &letter.body).map_err(Fault::disk("write a dead letter's body"))?)
        } else {
            Body::Inline(Bytes::clone(&letter.body))
        };
        let put = Put::new(&letter, seq, replaced, body);
        if put.text.len() > TEXT_BYTES_MAX {
            return Ok(Outcome::Refused(DeadLetterError::TooLarge { bytes: put.text.len() }));
        }
        batch.touched.insert(letter.id.0);
        batch.records.push((Record::Put(put), first));
        Ok(Outcome::Buried { id: letter.id, fresh })
    }

    fn plan_removal(&mut self, items: &[(LetterId, Option<Burial>)], batch: &mut Batch) -> Result<usize, Fault> {
        let (mut stones, mut removed) = (Vec::new(), 0);
        for (id, burial) in items {
            if !batch.touched.insert(id.0) {
                continue;
            }
            match self.entry(*id)? {
                Lookup::Absent => continue,
                Lookup::Wreck if burial.is_some() => continue,
                Lookup::Wreck => batch.wrecks.push(*id),
                Lookup::Whole(entry) => {
                    let Some(put) = entry.put() else { continue };
                    if burial.is_some_and(|burial| burial.0 != put.head.burial) {
                        continue;
                    }
                    batch.subjects.push(put.head.subject);
                    batch.blobs_old.extend(put.blob().map(|blob| blob.number));
                    stones.push(Stone {
                        id: *id,
                        upto: put.head.seq,
                        first: entry.first,
                        gone: put.head.gone(entry.place.segment, entry.place.bytes),
                        blob: put.blob().map(|blob| blob.number),
                    });
                }
            }
            removed += 1;
        }
        for stones in stones.chunks(STONES_MAX) {
            let seq = self.next_seq();
            batch.records.push((Record::Removed { seq, stones: stones.to_vec() }, None));
        }
        Ok(removed)
    }

    /// Makes a batch durable: journal, index, memory, and then forgets the bodies that it made useless.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<(), Fault> {
        if batch.records.is_empty() && batch.wrecks.is_empty() {
            return Ok(());
        }
        let encoded: Vec<Vec<u8>> = batch.records.iter().map(|(record, _)| record.encode()).collect();
        let synced = if batch.blobs_new.is_empty() { Ok(()) } else { self.blobs.sync() };
        let places = match synced.and_then(|()| self.journal.append(&encoded)) {
            Ok(places) => places,
            Err(source) => {
                batch.blobs_new.iter().for_each(|number| self.blobs.remove(*number));
                return Err(Fault::Disk { what: "write the dead-letter journal", source });
            }
        };
        self.dirty = true;
        let mut changes: Vec<Change> =
            batch.wrecks.iter().map(|id| Change::Remove { id: *id, subject: None }).collect();
        let mut subjects = batch.subjects.iter();
        for (((record, first), place), record_bytes) in batch.records.iter().zip(&places).zip(encoded) {
            match record {
                Record::Put(put) => changes.push(Change::Put {
                    place: *place,
                    first: first.unwrap_or(place.segment),
                    id: put.head.id,
                    subject: put.head.subject,
                    record: record_bytes,
                }),
                Record::Removed { stones, .. } => changes.extend(
                    stones.iter().map(|stone| Change::Remove { id: stone.id, subject: subjects.next().copied() }),
                ),
                Record::Carried { .. } => {}
            }
        }
        self.index.apply(&changes, Some(self.seq))?;
        self.index.sync()?;
        for ((record, _), place) in batch.records.iter().zip(&places) {
            self.tally.apply(*place, record);
        }
        batch.blobs_old.iter().for_each(|number| self.blobs.remove(*number));
        if self.journal.position().1 >= SEGMENT_BYTES {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Writes down the counts, so that opening need not read the journal up to here.
    pub(super) fn checkpoint(&mut self) -> Result<(), Fault> {
        let (segment, offset) = self.journal.position();
        let checkpoint = Checkpoint { seq: self.seq, segment, offset, tally: self.tally.clone() };
        checkpoint.write(&self.dir.join("checkpoint")).map_err(Fault::disk("write the dead-letter checkpoint"))?;
        self.dirty = false;
        Ok(())
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Free bytes on the disk; unknown reads as plenty.
    pub(super) fn free_bytes(dir: &std::path::Path) -> u64 {
        rustix::fs::statvfs(dir).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
