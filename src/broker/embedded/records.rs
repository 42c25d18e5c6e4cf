//! How a message lies in the database: keys that sort by place, and values that know whether they are whole.
//!
//! A key is the shelf (a queue or a log), then the place as eight bytes, then the piece as two. A body is cut into pieces of at
//! most [`PIECE_BYTES`], because sled handles large values badly; all pieces go in with one batch, so they are there together
//! or not at all. The first piece begins with a head: version, time, length and a checksum of the whole body.

use bytes::{BufMut, Bytes, BytesMut};
use sled::Batch;

use crate::model::Timestamp;

/// The most bytes of a body in one value.
const PIECE_BYTES: usize = 48 << 10;

/// The version of this layout.
const VERSION: u8 = 1;

/// Version, time in milliseconds, length, checksum.
const HEAD_BYTES: usize = 1 + 8 + 4 + 4;

/// A queue or a log, as the beginning of its keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Shelf(Vec<u8>);

/// A message as it was found.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) place: u64,
    pub(super) at: Timestamp,
    /// The body, or `None` of a record that is damaged.
    pub(super) body: Option<Bytes>,
}

impl Shelf {
    /// The shelf of the queue or log called `name`; `kind` keeps the two apart.
    pub(super) fn new(kind: u8, name: &str) -> Self {
        let mut prefix = vec![kind];
        prefix.extend_from_slice(name.as_bytes());
        prefix.push(0);
        Self(prefix)
    }

    fn key(&self, place: u64, piece: u16) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.0.len() + 10);
        key.extend_from_slice(&self.0);
        key.extend_from_slice(&place.to_be_bytes());
        key.extend_from_slice(&piece.to_be_bytes());
        key
    }

    fn place_of(&self, key: &[u8]) -> Option<(u64, u16)> {
        let rest = key.strip_prefix(self.0.as_slice())?;
        let (place, piece) = rest.split_at_checked(8)?;
        Some((u64::from_be_bytes(place.try_into().ok()?), u16::from_be_bytes(piece.try_into().ok()?)))
    }

    /// Adds a message to `batch`.
    pub(super) fn put(&self, batch: &mut Batch, place: u64, at: Timestamp, body: &[u8]) {
        let mut head = BytesMut::with_capacity(HEAD_BYTES + body.len().min(PIECE_BYTES));
        head.put_u8(VERSION);
        head.put_i64(at.unix_millis());
        head.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
        head.put_u32(crc32c::crc32c(body));
        let (first, rest) = body.split_at(body.len().min(PIECE_BYTES));
        head.put_slice(first);
        batch.insert(self.key(place, 0), head.as_ref());
        for (piece, bytes) in (1..).zip(rest.chunks(PIECE_BYTES)) {
            batch.insert(self.key(place, piece), bytes);
        }
    }

    /// How many pieces a body of this length has.
    pub(super) fn pieces(bytes: usize) -> u16 {
        u16::try_from(bytes.div_ceil(PIECE_BYTES).max(1)).unwrap_or(u16::MAX)
    }

    /// Adds the removal of a message to `batch`.
    pub(super) fn remove(&self, batch: &mut Batch, place: u64, pieces: u16) {
        (0..pieces).for_each(|piece| batch.remove(self.key(place, piece)));
    }

    /// The first message at `place` or after it.
    pub(super) fn first_from(&self, db: &sled::Db, place: u64) -> sled::Result<Option<Stored>> {
        let Some(entry) = db.range(self.key(place, 0)..).next() else { return Ok(None) };
        let (key, head) = entry?;
        let Some((place, piece)) = self.place_of(&key) else { return Ok(None) };
        self.stored(db, place, piece, &head).map(Some)
    }

    /// At least one message at `place` or after it where there is one, and then as many as there are until there are `most`, or
    /// more than `bytes` of them.
    pub(super) fn page(&self, db: &sled::Db, place: u64, most: usize, bytes: usize) -> sled::Result<Vec<Stored>> {
        let (mut page, mut size) = (Vec::new(), 0);
        for entry in db.range(self.key(place, 0)..) {
            let (key, head) = entry?;
            let Some((place, piece)) = self.place_of(&key) else { break };
            // The further pieces of a message are read with its first one.
            if page.last().is_some_and(|last: &Stored| last.place == place) {
                continue;
            }
            if page.len() >= most || size >= bytes {
                break;
            }
            let stored = self.stored(db, place, piece, &head)?;
            size += stored.body.as_ref().map_or(0, Bytes::len);
            page.push(stored);
        }
        Ok(page)
    }

    /// The message whose first value this should be.
    fn stored(&self, db: &sled::Db, place: u64, piece: u16, head: &[u8]) -> sled::Result<Stored> {
        let damaged = Stored { place, at: Timestamp::UNIX_EPOCH, body: None };
        if piece != 0 || head.len() < HEAD_BYTES || head[0] != VERSION {
            return Ok(damaged);
        }
        let number = |from: usize| u32::from_be_bytes(head[from..from + 4].try_into().unwrap_or_default());
        let at = Timestamp::from_unix_millis(i64::from_be_bytes(head[1..9].try_into().unwrap_or_default()));
        let (length, checksum) = (number(9) as usize, number(13));
        let mut body = BytesMut::with_capacity(length.min(1 << 20));
        body.put_slice(&head[HEAD_BYTES..]);
        for piece in 1..Self::pieces(length) {
            match db.get(self.key(place, piece))? {
                Some(bytes) => body.put_slice(&bytes),
                None => return Ok(damaged),
            }
        }
        let whole = body.len() == length && crc32c::crc32c(&body) == checksum;
        Ok(Stored { place, at, body: whole.then(|| body.freeze()) })
    }

    /// The place after the last message.
    pub(super) fn end(&self, db: &sled::Db) -> sled::Result<u64> {
        match db.range(self.key(0, 0)..=self.key(u64::MAX, u16::MAX)).next_back() {
            Some(entry) => Ok(self.place_of(&entry?.0).map_or(0, |(place, _)| place + 1)),
            None => Ok(0),
        }
    }

    /// The places of all messages.
    pub(super) fn places<'a>(&'a self, db: &sled::Db) -> impl Iterator<Item = sled::Result<u64>> + use<'a> {
        db.scan_prefix(&self.0).keys().filter_map(|key| match key {
            Ok(key) => self.place_of(&key).filter(|(_, piece)| *piece == 0).map(|(place, _)| Ok(place)),
            Err(error) => Some(Err(error)),
        })
    }

    /// The place of the first message that came at `time` or later, or one somewhat before it: clocks may jump.
    pub(super) fn find(&self, db: &sled::Db, time: Timestamp) -> sled::Result<u64> {
        let (mut low, mut high) = (0, self.end(db)?);
        while low < high {
            let middle = low.midpoint(high);
            match self.first_from(db, middle)? {
                Some(found) if found.place < high && found.at < time => low = found.place + 1,
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db() -> sled::Db {
        sled::Config::new().temporary(true).flush_every_ms(None).open().unwrap()
    }

    #[test]
    fn bodies_of_any_size_come_back_as_they_went_in_and_leave_nothing_behind() {
        let (db, shelf) = (db(), Shelf::new(b'q', "a"));
        for (place, size) in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 300 << 10].into_iter().enumerate() {
            let place = place as u64;
            let body: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let mut batch = Batch::default();
            shelf.put(&mut batch, place, Timestamp::from_unix_millis(5), &body);
            db.apply_batch(batch).unwrap();
            let stored = shelf.first_from(&db, place).unwrap().unwrap();
            assert_eq!((stored.place, stored.at.unix_millis()), (place, 5));
            assert!(stored.body.as_ref().is_some_and(|found| *found == body), "{size}");
            let page = shelf.page(&db, place, 9, 9).unwrap();
            assert!(page.len() == 1 && page[0].body.as_ref().is_some_and(|found| *found == body), "{size}");
            let mut batch = Batch::default();
            shelf.remove(&mut batch, place, Shelf::pieces(size));
            db.apply_batch(batch).unwrap();
            assert_eq!(db.len(), 0, "{size}");
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let (db, shelf) = (db(), Shelf::new(b'q', "a"));
        let mut batch = Batch::default();
        shelf.put(&mut batch, 3, Timestamp::UNIX_EPOCH, b"body");
        db.apply_batch(batch).unwrap();
        let key = shelf.key(3, 0);
        let mut value = db.get(&key).unwrap().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 1;
        db.insert(key, value).unwrap();
        assert!(shelf.first_from(&db, 0).unwrap().unwrap().body.is_none());
    }

    #[test]
    fn shelves_do_not_see_each_other_and_times_are_found() {
        let (db, shelf) = (db(), Shelf::new(b'l', "a"));
        let mut batch = Batch::default();
        for place in 0..100_u32 {
            shelf.put(&mut batch, u64::from(place) * 3, Timestamp::from_unix_millis(i64::from(place) * 10), b"x");
            Shelf::new(b'l', "aa").put(&mut batch, u64::from(place), Timestamp::UNIX_EPOCH, b"y");
        }
        db.apply_batch(batch).unwrap();
        assert_eq!(shelf.places(&db).count(), 100);
        let places = |place, most, bytes| -> Vec<u64> {
            shelf.page(&db, place, most, bytes).unwrap().iter().map(|stored| stored.place).collect()
        };
        assert_eq!(places(4, 3, 1 << 20), [6, 9, 12]);
        assert_eq!(places(290, 9, 1 << 20), [291, 294, 297]);
        assert_eq!(places(0, 9, 2), [0, 3], "one byte each");
        assert!(places(298, 9, 1 << 20).is_empty());
        assert_eq!(shelf.end(&db).unwrap(), 298);
        for (time, place) in [(0, 0), (495, 150), (500, 150), (501, 153), (5000, 298)] {
            let found = shelf.find(&db, Timestamp::from_unix_millis(time)).unwrap();
            let first = shelf.first_from(&db, found).unwrap().map(|stored| stored.place);
            assert_eq!(first, (place < 298).then_some(place), "{time} gave {found}");
        }
    }
}
