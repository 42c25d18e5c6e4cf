//! What is sorted in memory: the bytes of many decisions in one piece of memory, and a small entry for each.
//!
//! Allocating every decision by itself would cost twice its size and never give the memory back.

use std::cmp::Ordering;

use crate::model::Timestamp;

/// One decision among others: its place in the order, and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row<'a> {
    pub(super) moment: Moment,
    pub(super) id: &'a [u8],
    pub(super) body: &'a [u8],
}

/// A time in a form that is small, and quick to compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        Self { seconds: time.unix_seconds(), nanos: time.date_time().nanosecond() }
    }
}

/// An entry: where in the piece of memory the id and then the body lie.
#[derive(Clone, Copy, Debug)]
struct Entry {
    seconds: i64,
    nanos: u32,
    at: u32,
    body_bytes: u32,
    id_bytes: u16,
}

/// Decisions in memory, at most so many bytes, entries included.
#[derive(Debug)]
pub(super) struct Chunk {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    bytes_max: usize,
}

impl Chunk {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { arena: Vec::new(), entries: Vec::new(), bytes_max }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of all ids and bodies.
    pub(super) fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// Whether `row` still fits in. One that is larger than the limit fits into an empty chunk.
    pub(super) fn has_room_for(&self, row: &Row<'_>) -> bool {
        let needed = self.arena.len() + row.id.len() + row.body.len() + (self.len() + 1) * size_of::<Entry>();
        self.is_empty() || needed <= self.bytes_max
    }

    pub(super) fn push(&mut self, row: &Row<'_>) {
        if self.arena.capacity() == 0 {
            // At once and not by doubling, which would hold two copies. What is never written to costs no memory.
            self.arena.reserve_exact(self.bytes_max);
        }
        self.entries.push(Entry {
            seconds: row.moment.seconds,
            nanos: row.moment.nanos,
            at: u32::try_from(self.arena.len()).expect("a chunk is a few megabytes"),
            body_bytes: u32::try_from(row.body.len()).expect("the broker takes no such message"),
            id_bytes: u16::try_from(row.id.len()).expect("the caller has checked the id's length"),
        });
        self.arena.extend_from_slice(row.id);
        self.arena.extend_from_slice(row.body);
    }

    /// Brings the decisions into order; of those with the same time and id, the first that was pushed stays. How many went.
    pub(super) fn sort(&mut self) -> u64 {
        let before = self.len();
        let arena = &self.arena;
        // A stable sort, so that the first that was pushed is the first of its equals.
        self.entries.sort_by(|a, b| compare(arena, a, b));
        self.entries.dedup_by(|later, earlier| compare(arena, later, earlier) == Ordering::Equal);
        (before - self.len()) as u64
    }

    /// The decision at this place.
    pub(super) fn row(&self, at: usize) -> Option<Row<'_>> {
        let entry = self.entries.get(at)?;
        let (start, id_bytes, body_bytes) = (entry.at as usize, usize::from(entry.id_bytes), entry.body_bytes as usize);
        let (id, body) = self.arena[start..start + id_bytes + body_bytes].split_at(id_bytes);
        Some(Row { moment: Moment { seconds: entry.seconds, nanos: entry.nanos }, id, body })
    }

    pub(super) fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
    }
}

fn compare(arena: &[u8], a: &Entry, b: &Entry) -> Ordering {
    let id = |entry: &Entry| &arena[entry.at as usize..][..usize::from(entry.id_bytes)];
    (a.seconds, a.nanos).cmp(&(b.seconds, b.nanos)).then_with(|| id(a).cmp(id(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(seconds: i64, id: &'a str, body: &'a str) -> Row<'a> {
        Row { moment: Moment { seconds, nanos: 0 }, id: id.as_bytes(), body: body.as_bytes() }
    }

    #[test]
    fn decisions_come_back_by_time_then_id_each_once_and_the_first_of_equals_stays() {
        let mut chunk = Chunk::new(1 << 20);
        for one in [row(2, "b", "x"), row(-1, "z", ""), row(2, "a", "y"), row(2, "b", "later"), row(3, "b", "x")] {
            chunk.push(&one);
        }
        assert_eq!(chunk.sort(), 1);
        let rows: Vec<Row<'_>> = (0..chunk.len()).filter_map(|at| chunk.row(at)).collect();
        assert_eq!(rows, [row(-1, "z", ""), row(2, "a", "y"), row(2, "b", "x"), row(3, "b", "x")]);
        assert_eq!(chunk.row(4), None);
    }

    #[test]
    fn a_chunk_says_when_it_is_full_and_one_that_is_empty_takes_anything() {
        let (mut chunk, large) = (Chunk::new(100), "x".repeat(500));
        assert!(chunk.has_room_for(&row(0, "a", &large)));
        chunk.push(&row(0, "a", "some"));
        assert!(chunk.has_room_for(&row(0, "b", "some")) && !chunk.has_room_for(&row(0, "b", &large)));
        chunk.clear();
        assert!(chunk.is_empty() && chunk.bytes() == 0);
    }
}
