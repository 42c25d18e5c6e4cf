//! Opening: trust the checkpoint, read what came after it, and where anything is wrong, count and mend everything.
//!
//! The quick way reads the journal from the checkpoint's place on, counts its records in, and gives the index those that it
//! lacks (it remembers the number of the last record that it has). So opening a million letters reads a few megabytes.
//!
//! The thorough way is taken after damage only: a checkpoint that is gone, segments that are missing or cut, an index that
//! is behind the checkpoint or was set aside. It reads the whole journal, then the whole index, and counts anew.
//!
//! In both, the journal leads and the index follows; then the index gives back what damaged segments lost.

use std::{collections::BTreeSet, path::Path};

use uuid::Uuid;

use super::{
    LetterId,
    blobs::Blobs,
    checkpoint::Checkpoint,
    engine::Engine,
    error::{DeadLetterError, Fault},
    files,
    index::{self, Change, Entry, Go, Index, OpenFault},
    journal::{Journal, Place},
    record::{Head, Record},
    report::OpenReport,
    store::StoreOptions,
    tally::Tally,
};

/// Bytes of journal that are given to the index before it is synced once, so that memory stays bounded.
const REPLAY_BYTES: usize = 4 * 1024 * 1024;

/// What reading the journal found, on either way.
#[derive(Debug, Default)]
struct Read {
    /// The number of the last intact record.
    seq: u64,
    /// Segments with damage inside, cut short, or missing.
    damaged: BTreeSet<u64>,
    /// The newest segment: where its intact records end, and how many bytes follow.
    tip: Option<(u64, u64, u64)>,
}

impl Engine {
    /// Opens the store in `dir` and mends what is damaged; `report` says what that was.
    pub(super) fn open(dir: &Path, options: &StoreOptions, report: &mut OpenReport) -> Result<Self, Fault> {
        let disk = Fault::disk("open the dead-letter journal");
        let journal = Journal::open(dir.join("journal")).map_err(disk)?;
        let blobs = Blobs::open(dir.join("blobs")).map_err(Fault::disk("open the bodies of dead letters"))?;
        let path = dir.join("checkpoint");
        let there = path.try_exists().unwrap_or(true);
        let checkpoint = Checkpoint::read(&path).map_err(Fault::disk("read the dead-letter checkpoint"))?;
        // That there is none is no damage: a store that crashed before its first one has only a short journal.
        if checkpoint.is_none() && there {
            report.incidents.push("the checkpoint was damaged: everything was counted anew".to_owned());
        }
        let index = open_index(dir, options, report)?;
        let applied = index.applied()?;
        let tally = Tally::default();
        let (options, dir) = (options.clone(), dir.to_owned());
        let mut engine = Self { dir, options, index, journal, blobs, tally, seq: 0, dirty: false };
        engine.catch_up(checkpoint.as_ref(), applied, report)?;
        report.letters = engine.tally.letters();
        Ok(engine)
    }

    fn catch_up(
        &mut self,
        checkpoint: Option<&Checkpoint>,
        applied: u64,
        report: &mut OpenReport,
    ) -> Result<(), Fault> {
        let mut read = Read::default();
        let quick = match checkpoint {
            Some(checkpoint) => {
                read.damaged = self.cut_or_missing(checkpoint, report)?;
                read.damaged.is_empty() && applied >= checkpoint.seq
            }
            None => self.journal.segments().is_empty() && applied == 0,
        };
        let (from_segment, from_offset) = match checkpoint {
            Some(checkpoint) if quick => (checkpoint.segment, checkpoint.offset),
            Some(_) | None => (0, 0),
        };
        if quick && let Some(checkpoint) = checkpoint {
            self.tally.clone_from(&checkpoint.tally);
            self.drop_leftovers(checkpoint);
        }
        self.read_journal((from_segment, from_offset), applied, quick, &mut read, report)?;
        let ahead = applied > read.seq.max(checkpoint.map_or(0, |checkpoint| checkpoint.seq));
        self.seq = read.seq.max(applied).max(checkpoint.map_or(0, |checkpoint| checkpoint.seq));
        if let Some((tip, end, torn)) = read.tip {
            if ahead {
                // The index has records that the journal lost at its end: whatever is there is evidence, not a torn write.
                report.incidents.push(format!("the end of journal segment {tip} is damaged"));
                read.damaged.insert(tip);
            } else if torn > 0 && !report.incidents.is_empty() {
                // Beside other damage a torn end may be damage too: it is kept.
                read.damaged.insert(tip);
            } else if !read.damaged.contains(&tip) {
                report.torn_bytes = torn;
                self.journal.resume(tip, end).map_err(Fault::disk("open the dead-letter journal"))?;
            }
        }
        let thorough = !quick || !read.damaged.is_empty() || ahead;
        let mut unplaced = Vec::new();
        if thorough {
            unplaced = self.count_anew(report)?;
        }
        for segment in read.damaged {
            report.rejournaled += self.salvage(segment, report)?;
        }
        if !unplaced.is_empty() {
            report.rejournaled += self.rejournal(&unplaced)?;
        }
        if thorough || report.replayed > 0 {
            self.drop_orphaned_blobs(checkpoint.map(|checkpoint| checkpoint.seq), report);
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Segments of the checkpoint that are shorter than they were, or gone.
    fn cut_or_missing(&self, checkpoint: &Checkpoint, report: &mut OpenReport) -> Result<BTreeSet<u64>, Fault> {
        let there: BTreeSet<u64> = self.journal.segments().into_iter().collect();
        let mut damaged = BTreeSet::new();
        for (number, segment) in &checkpoint.tally.segments {
            if !there.contains(number) {
                report.incidents.push(format!("journal segment {number} is missing"));
                damaged.insert(*number);
                continue;
            }
            let len = self.journal.len_of(*number).map_err(Fault::disk("read the dead-letter journal"))?;
            if len < segment.bytes {
                report
                    .incidents
                    .push(format!("journal segment {number} was cut from {} to {len} bytes", segment.bytes));
                damaged.insert(*number);
            }
        }
        Ok(damaged)
    }

    /// Segments that a collection had emptied when a crash kept it from deleting them: older than the checkpoint's place and
    /// unknown to it.
    fn drop_leftovers(&mut self, checkpoint: &Checkpoint) {
        for segment in self.journal.segments() {
            if segment < checkpoint.segment && !checkpoint.tally.segments.contains_key(&segment) {
                self.journal.drop_segment(segment).unwrap_or_else(|error| {
                    tracing::warn!(%error, segment, "could not delete a resolved segment of the dead-letter journal");
                });
            }
        }
    }

    /// Reads the journal from `from` on; gives the index what it lacks, and counts when `count` says so.
    fn read_journal(
        &mut self,
        from: (u64, u64),
        applied: u64,
        count: bool,
        read: &mut Read,
        report: &mut OpenReport,
    ) -> Result<(), Fault> {
        let mut pending = Vec::new();
        let mut pending_bytes = 0;
        let segments: Vec<u64> = self.journal.segments().into_iter().filter(|segment| *segment >= from.0).collect();
        for segment in &segments {
            let offset = if *segment == from.0 { from.1 } else { 0 };
            let scan = self.journal.scan(*segment, offset).map_err(Fault::disk("read the dead-letter journal"))?;
            let last = segments.last() == Some(segment);
            let damage =
                scan.gaps.iter().map(|gap| gap.end - gap.start).sum::<u64>() + if last { 0 } else { scan.torn };
            if damage > 0 {
                report.incidents.push(format!("journal segment {segment} has {damage} damaged bytes"));
                read.damaged.insert(*segment);
            }
            if last {
                read.tip = Some((*segment, scan.end, scan.torn));
            }
            for (place, bytes) in scan.records {
                let Some(record) = Record::decode(&bytes) else {
                    report.incidents.push(format!("journal segment {segment} has a record of an unknown version"));
                    read.damaged.insert(*segment);
                    continue;
                };
                read.seq = read.seq.max(record.seq());
                if count {
                    report.replayed += 1;
                    self.tally.apply(place, &record);
                }
                if record.seq() > applied {
                    pending_bytes += bytes.len();
                    pending.push((place, record, bytes.to_vec()));
                }
                if pending_bytes >= REPLAY_BYTES {
                    report.recovered += self.give_index(std::mem::take(&mut pending))?;
                    pending_bytes = 0;
                }
            }
        }
        report.recovered += self.give_index(pending)?;
        Ok(())
    }

    /// Applies journal records to the index, in order; doing it again changes nothing. Returns how many were letters.
    fn give_index(&mut self, records: Vec<(Place, Record, Vec<u8>)>) -> Result<u64, Fault> {
        let mut letters = 0;
        let Some(seq) = records.iter().map(|(_, record, _)| record.seq()).max() else { return Ok(0) };
        // Changes are made together until one concerns a letter or subject that waits among them: looking it up in the index
        // would miss it.
        let (mut changes, mut touched) = (Vec::new(), BTreeSet::new());
        for (place, record, bytes) in records {
            let concerned: Vec<Uuid> = match &record {
                Record::Put(put) => vec![put.head.id.0, put.head.subject],
                Record::Removed { stones, .. } | Record::Carried { stones, .. } => {
                    stones.iter().map(|stone| stone.id.0).collect()
                }
            };
            if concerned.iter().any(|id| touched.contains(id)) {
                self.index.apply(&std::mem::take(&mut changes), None)?;
                touched.clear();
            }
            touched.extend(concerned);
            match record {
                Record::Put(put) => {
                    letters += 1;
                    let first = match self.index.get(put.head.id)? {
                        Some(Ok(earlier)) => earlier.first.min(place.segment),
                        Some(Err(_)) | None => place.segment,
                    };
                    let (id, subject) = (put.head.id, put.head.subject);
                    changes.push(Change::Put { place, first, id, subject, record: bytes });
                }
                Record::Removed { stones, .. } | Record::Carried { stones, .. } => {
                    for stone in stones {
                        let Some(Ok(entry)) = self.index.get(stone.id)? else { continue };
                        let head = Head::peek(&entry.record).filter(|head| head.seq <= stone.upto);
                        let Some(head) = head else { continue };
                        // A later letter of the same subject keeps its place in the list of subjects; one that waits among
                        // the changes comes after this one in time, so it must not be overtaken either.
                        let own = self.index.of_subject(head.subject)? == Some(stone.id);
                        let subject = Some(head.subject).filter(|subject| own && !touched.contains(subject));
                        changes.push(Change::Remove { id: stone.id, subject });
                    }
                }
            }
        }
        // Last: a crash before this does all of it again.
        self.index.apply(&changes, Some(seq))?;
        self.index.sync()?;
        Ok(letters)
    }

    /// Counts every letter of the index; returns those whose segment is not there.
    fn count_anew(&mut self, report: &mut OpenReport) -> Result<Vec<LetterId>, Fault> {
        let mut tally = Tally::default();
        for segment in self.journal.segments() {
            let bytes = self.journal.len_of(segment).map_err(Fault::disk("read the dead-letter journal"))?;
            tally.segments.entry(segment).or_default().bytes = bytes;
        }
        let known: BTreeSet<u64> = tally.segments.keys().copied().collect();
        let (mut unplaced, mut wrecks) = (Vec::new(), Vec::new());
        self.index.visit(None, |id, entry| {
            match entry.ok().and_then(|entry| Some((Head::peek(&entry.record)?, entry.place))) {
                Some((head, place)) => {
                    if !known.contains(&place.segment) {
                        unplaced.push(id);
                    }
                    tally.begin(&head, place);
                }
                None => wrecks.push(id),
            }
            Go::On
        })?;
        for id in wrecks {
            match self.entry(id)?.whole().and_then(|entry| Some((entry.put()?, entry))) {
                Some((put, entry)) => tally.begin(&put.head, entry.place),
                None => report.damaged += 1,
            }
        }
        self.tally = tally;
        Ok(unplaced)
    }

    /// Writes letters to the journal again whose segments are gone.
    fn rejournal(&mut self, ids: &[LetterId]) -> Result<u64, Fault> {
        // A number that letters still name must not be given to a new segment.
        let newest = self.tally.segments.last_key_value().map_or(0, |(segment, _)| *segment);
        if self.journal.position().0 <= newest {
            self.journal.roll(newest + 1).map_err(Fault::disk("start a segment of the dead-letter journal"))?;
        }
        let mut letters = 0;
        for ids in ids.chunks(256) {
            letters += self.move_letters(ids)?;
        }
        // Segments that are only known from letters that left them are no segments.
        let there: BTreeSet<u64> = self.journal.segments().into_iter().collect();
        self.tally.segments.retain(|segment, _| there.contains(segment));
        Ok(letters)
    }

    /// Bodies that a crash left behind: written, and their record never was. They can only be newer than the checkpoint.
    fn drop_orphaned_blobs(&mut self, since: Option<u64>, report: &OpenReport) {
        // Where anything was damaged, nothing is deleted: a record that names the body may yet be found.
        let Some(since) = since.filter(|_| report.incidents.is_empty()) else { return };
        let numbers = self.blobs.numbers().unwrap_or_default();
        let suspects: BTreeSet<u64> = numbers.into_iter().filter(|number| *number > since).collect();
        if suspects.is_empty() {
            return;
        }
        let mut needed = BTreeSet::new();
        let seen = self.index.visit(None, |_, entry| {
            needed.extend(entry.ok().as_ref().and_then(Entry::put).and_then(|put| put.blob()).map(|blob| blob.number));
            Go::On
        });
        if seen.is_ok() {
            suspects.difference(&needed).for_each(|number| self.blobs.remove(*number));
        }
    }
}

/// Opens the index; one that is damaged is set aside and an empty one takes its place.
fn open_index(dir: &Path, options: &StoreOptions, report: &mut OpenReport) -> Result<Index, Fault> {
    let path = index::dir_in(dir);
    for attempt in 0..2 {
        match Index::open(&path, options.cache_bytes, options.open_limit) {
            Ok(index) => return Ok(index),
            Err(OpenFault::Fault(Fault::Index { why })) if attempt == 0 => {
                let incident = set_index_aside(dir, options, &why)?;
                report.incidents.push(incident);
            }
            Err(OpenFault::Fault(fault)) => return Err(fault),
            Err(OpenFault::InUse) => {
                let why = DeadLetterError::InUse { path: path.clone() }.to_string();
                return Err(Fault::Disk { what: "open the dead-letter index", source: std::io::Error::other(why) });
            }
        }
    }
    Err(Fault::Index { why: "a new index was damaged at once".to_owned() })
}

/// Renames a damaged index; the next opening rebuilds it from the journal.
pub(super) fn set_index_aside(dir: &Path, options: &StoreOptions, why: &str) -> Result<String, Fault> {
    let aside = files::set_aside(&index::dir_in(dir), "corrupt", options.clock.now())
        .map_err(Fault::disk("set the damaged dead-letter index aside"))?;
    tracing::error!(%why, kept = %aside.display(), "the dead-letter index is damaged: rebuilding it from the journal");
    Ok(format!("the index was damaged ({why}); it is kept at `{}` and was rebuilt from the journal", aside.display()))
}
