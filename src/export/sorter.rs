//! Sorting what does not fit into memory: chunks are sorted and written out as runs, and the runs are merged.
//!
//! Memory is one chunk and one buffer for each run that is merged. When there are [`Limits::fan_in`] runs of about the same size
//! they are merged into one of the next size, so the number of files grows with the logarithm of what is sorted. What fits into
//! one chunk never touches the disk.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use super::{
    chunk::{Chunk, Moment, Row},
    runs::{Run, RunReader, RunWriter, Spill, SpillError},
};

/// How much is sorted in memory, and how many runs are merged at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a chunk.
    pub chunk_bytes: usize,
    /// Runs of one size before they are merged into one of the next.
    pub fan_in: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { chunk_bytes: 8 << 20, fan_in: 64 }
    }
}

/// Takes decisions in any order, and gives them back by time, each once.
#[derive(Debug)]
pub(super) struct Sorter {
    limits: Limits,
    spill: Spill,
    chunk: Chunk,
    /// The runs by size, the smallest first; in each list the earliest first.
    levels: Vec<Vec<Run>>,
    duplicates: u64,
    spilled_bytes: u64,
}

/// What sorting took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effort {
    pub(super) duplicates: u64,
    pub(super) spilled_bytes: u64,
}

impl Sorter {
    pub(super) fn new(limits: Limits, spill: Spill) -> Self {
        let chunk = Chunk::new(limits.chunk_bytes);
        Self { limits, spill, chunk, levels: Vec::new(), duplicates: 0, spilled_bytes: 0 }
    }

    pub(super) fn push(&mut self, row: &Row<'_>) -> Result<(), SpillError> {
        if !self.chunk.has_room_for(row) {
            self.write_out()?;
        }
        self.chunk.push(row);
        Ok(())
    }

    /// Writes the chunk out as a run, and merges runs where there are enough of one size.
    fn write_out(&mut self) -> Result<(), SpillError> {
        self.duplicates += self.chunk.sort();
        let mut writer = RunWriter::new(&self.spill, self.chunk.bytes() as u64)?;
        let mut at = 0;
        while let Some(row) = self.chunk.row(at) {
            writer.put(&row)?;
            at += 1;
        }
        self.chunk.clear();
        let mut run = writer.finish()?;
        self.spilled_bytes += run.bytes;
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let runs = &mut self.levels[level];
            runs.push(run);
            if runs.len() < self.limits.fan_in.max(2) {
                break;
            }
            let runs = std::mem::take(runs);
            let mut writer = RunWriter::new(&self.spill, runs.iter().map(|run| run.bytes).sum())?;
            let sources = runs.into_iter().map(|run| Source::Run(run.open())).collect();
            self.duplicates += merge(sources, |row| writer.put(&row))?;
            run = writer.finish()?;
            self.spilled_bytes += run.bytes;
        }
        Ok(())
    }

    /// Hands every decision to `each`, in order, each once.
    pub(super) fn finish<E: From<SpillError>>(
        mut self,
        mut each: impl FnMut(Row<'_>) -> Result<(), E>,
    ) -> Result<Effort, E> {
        self.duplicates += self.chunk.sort();
        if self.levels.is_empty() {
            let mut at = 0;
            while let Some(row) = self.chunk.row(at) {
                each(row)?;
                at += 1;
            }
        } else {
            // The largest runs hold the earliest appended: they come first, so that the first of equals stays.
            let runs = self.levels.into_iter().rev().flatten().map(|run| Source::Run(run.open()));
            let sources = runs.chain([Source::Chunk(self.chunk, 0)]).collect();
            self.duplicates += merge(sources, each)?;
        }
        Ok(Effort { duplicates: self.duplicates, spilled_bytes: self.spilled_bytes })
    }
}

/// Something sorted.
#[derive(Debug)]
enum Source {
    Chunk(Chunk, usize),
    Run(RunReader),
}

impl Source {
    /// Reads the next decision into `head`; false at the end.
    fn next(&mut self, head: &mut Head) -> Result<bool, SpillError> {
        match self {
            Self::Chunk(chunk, at) => {
                let Some(row) = chunk.row(*at) else { return Ok(false) };
                *at += 1;
                head.moment = row.moment;
                head.id.clear();
                head.id.extend_from_slice(row.id);
                head.body.clear();
                head.body.extend_from_slice(row.body);
                Ok(true)
            }
            Self::Run(reader) => {
                let Some(moment) = reader.next(&mut head.id, &mut head.body)? else { return Ok(false) };
                head.moment = moment;
                Ok(true)
            }
        }
    }
}

/// The first decision of a source that was not taken yet. The greatest is the one that comes first.
#[derive(Debug, Default)]
struct Head {
    moment: Moment,
    id: Vec<u8>,
    body: Vec<u8>,
    source: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.moment, &other.id, other.source).cmp(&(self.moment, &self.id, self.source))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// Hands the decisions of all sources to `each`, in order, each once; how many were there more than once.
fn merge<E: From<SpillError>>(
    mut sources: Vec<Source>,
    mut each: impl FnMut(Row<'_>) -> Result<(), E>,
) -> Result<u64, E> {
    let mut queue = BinaryHeap::with_capacity(sources.len());
    for (at, source) in sources.iter_mut().enumerate() {
        let mut head = Head { source: at, ..Head::default() };
        if source.next(&mut head)? {
            queue.push(head);
        }
    }
    let mut duplicates = 0;
    let mut last: Option<(Moment, Vec<u8>)> = None;
    while let Some(mut head) = queue.peek_mut() {
        let seen = last.as_ref().is_some_and(|(moment, id)| *moment == head.moment && *id == head.id);
        if seen {
            duplicates += 1;
        } else {
            each(Row { moment: head.moment, id: &head.id, body: &head.body })?;
            let (moment, id) = last.get_or_insert_default();
            *moment = head.moment;
            id.clone_from(&head.id);
        }
        // In place, so that its memory is used again; it finds its new rank when it is let go.
        let source = &mut sources[head.source];
        if !source.next(&mut head)? {
            PeekMut::pop(head);
        }
    }
    Ok(duplicates)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn sorted(rows: &[(i64, String, String)], limits: Limits, spill: Spill) -> (Vec<(i64, String, String)>, Effort) {
        let mut sorter = Sorter::new(limits, spill);
        for (seconds, id, body) in rows {
            let moment = Moment { seconds: *seconds, nanos: 0 };
            sorter.push(&Row { moment, id: id.as_bytes(), body: body.as_bytes() }).unwrap();
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut found = Vec::new();
        let effort = sorter.finish(|row| {
            found.push((row.moment.seconds, text(row.id), text(row.body)));
            Ok::<(), SpillError>(())
        });
        (found, effort.unwrap())
    }

    proptest! {
        #[test]
        fn whatever_the_sizes_everything_comes_back_in_order_and_once(
            rows in prop::collection::vec((-3_i64..9, "[ab]{1,2}", "[a-z]{0,30}"), 0..200),
            chunk_bytes in 1_usize..2_000,
            fan_in in 2_usize..6,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (found, effort) = sorted(&rows, Limits { chunk_bytes, fan_in }, Spill::to(vec![dir.path().to_owned()]));
            let mut expected = BTreeMap::new();
            for (seconds, id, body) in &rows {
                expected.entry((*seconds, id.clone())).or_insert_with(|| body.clone());
            }
            prop_assert_eq!(effort.duplicates, (rows.len() - expected.len()) as u64);
            let expected: Vec<_> = expected.into_iter().map(|((seconds, id), body)| (seconds, id, body)).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn what_fits_into_memory_needs_no_disk_and_what_does_not_says_where_there_was_no_room() {
        let rows: Vec<_> = (0..100).map(|n| (n, format!("{n}"), "x".repeat(100))).collect();
        let nowhere = || Spill::to(vec!["/nowhere/at/all".into()]);
        let (found, effort) = sorted(&rows, Limits::default(), nowhere());
        assert_eq!((found.len(), effort), (100, Effort::default()));
        let push = |spill| {
            let mut sorter = Sorter::new(Limits { chunk_bytes: 1_000, fan_in: 4 }, spill);
            let row = |n| Row { moment: Moment { seconds: n, nanos: 0 }, id: b"a", body: &[b'x'; 100] };
            (0..100).try_for_each(|n| sorter.push(&row(n)))
        };
        let error = push(nowhere()).unwrap_err();
        assert!(matches!(error, SpillError::Io { .. }) && error.to_string().contains("/nowhere/at/all"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let greedy = Spill { leave_free: u64::MAX, ..Spill::to(vec![dir.path().to_owned()]) };
        assert!(matches!(push(greedy), Err(SpillError::Full { .. })));
        let second = Spill::to(vec!["/nowhere/at/all".into(), dir.path().to_owned()]);
        push(second).unwrap();
    }
}
