//! Upkeep of the journal: segments that are mostly resolved are collected, damaged ones are set aside, and `verify` reads
//! every byte.
//!
//! Collecting moves the few live records of a segment to the journal's end, with the stones that are still needed, and then
//! deletes it. So the journal is never longer than about three times its live letters, plus one segment.

use std::collections::BTreeSet;

use super::{
    LetterId,
    engine::{Batch, Engine},
    error::Fault,
    index::{Entry, Go},
    record::{Record, Stone},
    report::{OpenReport, VerifyReport},
};

/// Letters that are moved in one batch.
const MOVED_MAX: usize = 256;

impl Engine {
    /// Collects one segment, if one is worth it; returns whether it did.
    pub(super) fn collect(&mut self) -> Result<bool, Fault> {
        let tip = self.journal.position().0;
        let Some(segment) = self.tally.worth_collecting(tip) else { return Ok(false) };
        let scan = self.journal.scan(segment, 0).map_err(Fault::disk("read the dead-letter journal"))?;
        if !scan.gaps.is_empty() || scan.torn > 0 {
            let mut report = OpenReport::default();
            self.salvage(segment, &mut report)?;
            return Ok(true);
        }
        let mut live = Vec::new();
        for (place, bytes) in &scan.records {
            let Some(Record::Put(put)) = Record::decode(bytes) else { continue };
            if self.entry(put.head.id)?.whole().is_some_and(|entry| entry.place == *place) {
                live.push(put.head.id);
            }
        }
        for ids in live.chunks(MOVED_MAX) {
            self.move_letters(ids)?;
        }
        self.carry_stones(segment, &scan.records)?;
        self.tally.segments.remove(&segment);
        // First the checkpoint forgets the segment, then the segment goes: the other way round it would read as missing.
        self.checkpoint()?;
        self.journal.drop_segment(segment).map_err(Fault::disk("delete a segment of the dead-letter journal"))?;
        Ok(true)
    }

    /// Sets a damaged (or missing) segment aside after its letters, which the index still has, were written again.
    pub(super) fn salvage(&mut self, segment: u64, report: &mut OpenReport) -> Result<u64, Fault> {
        // Never append to what is damaged.
        if self.journal.position().0 <= segment {
            self.journal.roll(segment + 1).map_err(Fault::disk("start a segment of the dead-letter journal"))?;
        }
        let scan = self.journal.scan(segment, 0).unwrap_or_default();
        let mut ids = Vec::new();
        self.index.visit(None, |id, entry| {
            if entry.is_ok_and(|entry| entry.place.segment == segment) {
                ids.push(id);
            }
            Go::On
        })?;
        let mut letters = 0;
        for ids in ids.chunks(MOVED_MAX) {
            letters += self.move_letters(ids)?;
        }
        self.carry_stones(segment, &scan.records)?;
        self.tally.segments.remove(&segment);
        self.checkpoint()?;
        let aside = self
            .journal
            .set_aside(segment, self.options.clock.now())
            .map_err(Fault::disk("set a damaged segment of the dead-letter journal aside"))?;
        let kept = aside.map_or_else(String::new, |path| format!("; it is kept at `{}`", path.display()));
        tracing::error!(
            segment,
            letters,
            "a segment of the dead-letter journal is damaged: its letters were written again{kept}"
        );
        report.incidents.push(format!("{letters} letters of journal segment {segment} were written again{kept}"));
        Ok(letters)
    }

    /// Writes letters to the journal's end again, as the index has them.
    pub(super) fn move_letters(&mut self, ids: &[LetterId]) -> Result<u64, Fault> {
        let mut batch = Batch::default();
        for id in ids {
            let Some(entry) = self.entry(*id)?.whole() else { continue };
            let Some(mut put) = entry.put() else { continue };
            put.head.replaced = Some(put.head.gone(entry.place.segment, entry.place.bytes));
            put.head.seq = self.next_seq();
            // Its oldest record may be older than the segment that it leaves.
            let first = Some(entry.first).filter(|first| *first < entry.place.segment);
            batch.records.push((Record::Put(put), first));
        }
        let moved = batch.records.len() as u64;
        self.commit(&batch)?;
        Ok(moved)
    }

    fn carry_stones(&mut self, leaving: u64, records: &[(super::journal::Place, bytes::Bytes)]) -> Result<(), Fault> {
        let mut needed: Vec<Stone> = Vec::new();
        for (_, bytes) in records {
            let Some(Record::Removed { stones, .. } | Record::Carried { stones, .. }) = Record::decode(bytes) else {
                continue;
            };
            needed.extend(stones.into_iter().filter(|stone| {
                let (first, end) = (stone.first, stone.gone.segment + 1);
                // A range that turned around is of a letter whose oldest record is its last.
                let first = first.min(stone.gone.segment);
                self.journal.any_in(first..leaving.min(end).max(first))
                    || self.journal.any_in((leaving + 1).max(first)..end.max((leaving + 1).max(first)))
            }));
        }
        for stones in needed.chunks(4_096) {
            let seq = self.next_seq();
            let record = Record::Carried { seq, stones: stones.to_vec() };
            self.commit(&Batch::of(vec![record]))?;
        }
        Ok(())
    }

    /// Reads one segment through; one that is damaged is mended.
    pub(super) fn verify_segment(&mut self, segment: u64, report: &mut VerifyReport) -> Result<(), Fault> {
        if !self.journal.any_in(segment..segment + 1) {
            return Ok(());
        }
        let scan = self.journal.scan(segment, 0).unwrap_or_default();
        let cut = self.tally.segments.get(&segment).is_some_and(|known| scan.end < known.bytes);
        report.segments += 1;
        if scan.gaps.is_empty() && scan.torn == 0 && !cut {
            return Ok(());
        }
        let mut opened = OpenReport::default();
        report.rejournaled += self.salvage(segment, &mut opened)?;
        report.segments_mended += 1;
        report.incidents.append(&mut opened.incidents);
        Ok(())
    }

    /// Reads some letters through, in the index, the journal and `blobs/`; returns where to go on.
    pub(super) fn verify_letters(
        &mut self,
        before: Option<LetterId>,
        needed: &mut BTreeSet<u64>,
        report: &mut VerifyReport,
    ) -> Result<Option<LetterId>, Fault> {
        let (mut entries, mut wrecks, mut last): (Vec<(LetterId, Entry)>, _, _) = (Vec::new(), Vec::new(), None);
        let ended = self.index.visit(before, |id, entry| {
            last = Some(id);
            match entry {
                Ok(entry) => entries.push((id, entry)),
                Err(_) => wrecks.push(id),
            }
            if entries.len() + wrecks.len() >= 1_000 { Go::Stop } else { Go::On }
        })?;
        let mut unplaced = Vec::new();
        for (id, entry) in entries {
            report.letters += 1;
            let put = entry.put();
            needed.extend(put.as_ref().and_then(super::record::Put::blob).map(|blob| blob.number));
            if put.is_none_or(|put| self.whole(&put).is_none()) {
                report.damaged.push(id);
            }
            if self.journal.read(entry.place).is_none_or(|record| record != entry.record) {
                unplaced.push(id);
            }
        }
        for id in wrecks {
            report.letters += 1;
            match self.entry(id)?.whole().and_then(|entry| entry.put()).map(|put| (self.whole(&put), put)) {
                Some((Some(_), put)) => {
                    needed.extend(put.blob().map(|blob| blob.number));
                    report.mended += 1;
                }
                Some((None, _)) | None => report.damaged.push(id),
            }
        }
        if !unplaced.is_empty() {
            report.incidents.push(format!("{} letters were not in the journal where they belong", unplaced.len()));
            for ids in unplaced.chunks(MOVED_MAX) {
                report.rejournaled += self.move_letters(ids)?;
            }
        }
        Ok(last.filter(|_| !ended))
    }
}
