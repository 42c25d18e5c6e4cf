//! The journal: append-only segments of `mark | length | crc32c | bytes`, each append followed by `fdatasync`.
//!
//! The mark is eight random bytes of the segment, kept in its **file name**. It is what reading finds its way back by after
//! damage, and it is random because bodies are hostile: a decision that contains the bytes of a valid record must not
//! become one when the record around it is damaged.
//!
//! Segments are never edited. One whose records are all resolved is dropped, one that is damaged is renamed
//! ([`super::upkeep`]).

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::files;
use crate::model::Timestamp;

/// A segment that is longer is followed by a new one.
pub(super) const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// No record is longer: a letter without its body is some kilobytes, an inline body 64 KiB, a batch of stones 1 MiB.
const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;
const MARK: usize = 8;
const FRAME: usize = MARK + 4 + 4;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// With its frame.
    pub(super) bytes: u32,
}

/// What reading a segment found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Every intact record and its offset.
    pub(super) records: Vec<(Place, Bytes)>,
    /// Bytes that are no record, between records: damage, for appends are never partial in the middle.
    pub(super) gaps: Vec<Range<u64>>,
    /// Where the last intact record ends.
    pub(super) end: u64,
    /// Bytes after it: a write that a crash cut short, or damage.
    pub(super) torn: u64,
}

/// The journal's directory and its open end.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    /// The marks of all segments, by number.
    marks: BTreeMap<u64, [u8; MARK]>,
    tip: Option<Tip>,
}

#[derive(Debug)]
struct Tip {
    number: u64,
    file: File,
    len: u64,
}

impl Journal {
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        files::make_dir(&dir)?;
        let mut marks = BTreeMap::new();
        for entry in fs::read_dir(&dir)? {
            if let Some((number, mark)) = entry?.file_name().to_str().and_then(parse_name) {
                marks.insert(number, mark);
            }
        }
        Ok(Self { dir, marks, tip: None })
    }

    /// The numbers of all segments, in order.
    pub(super) fn segments(&self) -> Vec<u64> {
        self.marks.keys().copied().collect()
    }

    /// Whether a segment with a number of `range` is left.
    pub(super) fn any_in(&self, range: Range<u64>) -> bool {
        self.marks.range(range).next().is_some()
    }

    pub(super) fn len_of(&self, segment: u64) -> io::Result<u64> {
        fs::metadata(self.path(segment)).map(|metadata| metadata.len())
    }

    /// Where the next record goes.
    pub(super) fn position(&self) -> (u64, u64) {
        self.tip.as_ref().map_or((self.next_number(), 0), |tip| (tip.number, tip.len))
    }

    /// Goes on at the end of `segment`, which is `len` long; what is behind it was never acknowledged and is cut off.
    pub(super) fn resume(&mut self, segment: u64, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().read(true).append(true).open(self.path(segment))?;
        if file.metadata()?.len() != len {
            file.set_len(len)?;
            file.sync_all()?;
        }
        self.tip = Some(Tip { number: segment, file, len });
        Ok(())
    }

    /// Starts a new segment. `at_least` keeps numbers growing when the newest segments were lost.
    pub(super) fn roll(&mut self, at_least: u64) -> io::Result<()> {
        let number = self.next_number().max(at_least);
        let mark = loop {
            // Zeros are what a file system leaves behind after a crash: they must not read as marks.
            let mark = fastrand::u64(1..).to_be_bytes();
            if !mark.contains(&0) {
                break mark;
            }
        };
        let file = files::create(&self.dir.join(name(number, mark)))?;
        files::sync_dir(&self.dir)?;
        self.marks.insert(number, mark);
        self.tip = Some(Tip { number, file, len: 0 });
        Ok(())
    }

    /// Appends records and waits until they are on the platter. After an error none of them counts: the segment is cut back
    /// to where it was, and where even that fails, the next append starts a new one.
    pub(super) fn append(&mut self, records: &[Vec<u8>]) -> io::Result<Vec<Place>> {
        if self.tip.as_ref().is_none_or(|tip| tip.len >= SEGMENT_BYTES) {
            self.roll(0)?;
        }
        let Some(mut tip) = self.tip.take() else {
            return Err(io::Error::other("the journal has no open segment"));
        };
        let mark = self.marks.get(&tip.number).copied().unwrap_or_default();
        let mut bytes = Vec::with_capacity(records.iter().map(|record| record.len() + FRAME).sum());
        let mut places = Vec::with_capacity(records.len());
        for record in records {
            let len = u32::try_from(record.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let framed = u32::try_from(record.len() + FRAME).map_err(|_| io::ErrorKind::FileTooLarge)?;
            places.push(Place { segment: tip.number, offset: tip.len + bytes.len() as u64, bytes: framed });
            bytes.extend_from_slice(&mark);
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(&crc_of(len, record).to_be_bytes());
            bytes.extend_from_slice(record);
        }
        if let Err(error) = tip.file.write_all(&bytes).and_then(|()| tip.file.sync_data()) {
            // After a failed sync the kernel may call pages clean that are not, so this file is not written to again.
            tip.file.set_len(tip.len).and_then(|()| tip.file.sync_all()).unwrap_or_else(|second| {
                tracing::warn!(error = %second, "could not cut an unfinished write from the dead-letter journal");
            });
            return Err(error);
        }
        tip.len += bytes.len() as u64;
        self.tip = Some(tip);
        Ok(places)
    }

    /// The record at `place`, if it is intact.
    pub(super) fn read(&self, place: Place) -> Option<Bytes> {
        let mark = *self.marks.get(&place.segment)?;
        let len = usize::try_from(place.bytes).ok().filter(|len| (FRAME..=RECORD_BYTES_MAX).contains(len))?;
        let mut bytes = vec![0; len];
        File::open(self.path(place.segment)).ok()?.read_exact_at(&mut bytes, place.offset).ok()?;
        let bytes = Bytes::from(bytes);
        frame_at(&bytes, mark, 0).filter(|record| record.len() + FRAME == bytes.len())
    }

    /// Reads `segment` from offset `from` to its end, past whatever is damaged in it. A missing file reads as empty.
    pub(super) fn scan(&self, segment: u64, from: u64) -> io::Result<Scan> {
        let mut scan = Scan { end: from, ..Scan::default() };
        let Some(&mark) = self.marks.get(&segment) else { return Ok(scan) };
        let bytes = Bytes::from(fs::read(self.path(segment))?);
        let start = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
        let (mut at, mut lost_at) = (start, None);
        while at < bytes.len() {
            if let Some(record) = frame_at(&bytes, mark, at) {
                if let Some(lost_at) = lost_at.take() {
                    scan.gaps.push(lost_at..at as u64);
                }
                let framed = u32::try_from(record.len() + FRAME).unwrap_or(u32::MAX);
                scan.records.push((Place { segment, offset: at as u64, bytes: framed }, record));
                at += framed as usize;
                scan.end = at as u64;
            } else {
                lost_at.get_or_insert(at as u64);
                at = find(&bytes, mark, at + 1).unwrap_or(bytes.len());
            }
        }
        scan.torn = (bytes.len() as u64).saturating_sub(scan.end);
        Ok(scan)
    }

    /// Deletes a segment that nothing needs any more.
    pub(super) fn drop_segment(&mut self, segment: u64) -> io::Result<()> {
        let path = self.path(segment);
        self.forget(segment);
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Renames a damaged segment, so that it is kept and never read again. `None` when its file is gone.
    pub(super) fn set_aside(&mut self, segment: u64, now: Timestamp) -> io::Result<Option<PathBuf>> {
        let path = self.path(segment);
        let known = self.marks.contains_key(&segment);
        self.forget(segment);
        if known && path.try_exists()? { files::set_aside(&path, "damaged", now).map(Some) } else { Ok(None) }
    }

    fn forget(&mut self, segment: u64) {
        self.marks.remove(&segment);
        self.tip.take_if(|tip| tip.number == segment);
    }

    fn next_number(&self) -> u64 {
        self.marks.last_key_value().map_or(1, |(number, _)| number + 1)
    }

    fn path(&self, segment: u64) -> PathBuf {
        let mark = self.marks.get(&segment).copied().unwrap_or_default();
        self.dir.join(name(segment, mark))
    }
}

fn name(number: u64, mark: [u8; MARK]) -> String {
    format!("{number:016x}-{:016x}.log", u64::from_be_bytes(mark))
}

fn parse_name(name: &str) -> Option<(u64, [u8; MARK])> {
    let (number, mark) = Path::new(name.strip_suffix(".log")?).to_str()?.split_once('-')?;
    if number.len() != 16 || mark.len() != 16 {
        return None;
    }
    Some((u64::from_str_radix(number, 16).ok()?, u64::from_str_radix(mark, 16).ok()?.to_be_bytes()))
}

/// The checksum covers the length too: a flipped length must not point into the middle of the next record.
fn crc_of(len: u32, record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len.to_be_bytes()), record)
}

/// The record whose frame starts at `at`, if it is intact.
fn frame_at(bytes: &Bytes, mark: [u8; MARK], at: usize) -> Option<Bytes> {
    let frame = bytes.get(at..at.checked_add(FRAME)?)?;
    let (found, rest) = frame.split_at(MARK);
    let (len, crc) = rest.split_at(4);
    let len = u32::from_be_bytes(len.try_into().ok()?);
    let size = usize::try_from(len).ok()?;
    if found != mark || size > RECORD_BYTES_MAX {
        return None;
    }
    let start = at + FRAME;
    let record = bytes.get(start..start.checked_add(size)?)?;
    (crc_of(len, record).to_be_bytes() == crc).then(|| bytes.slice_ref(record))
}

/// Where `mark` is next, from `from` on.
fn find(bytes: &[u8], mark: [u8; MARK], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(step) = bytes.get(at..)?.iter().position(|byte| *byte == mark[0]) {
        at += step;
        if bytes[at..].starts_with(&mark) {
            return Some(at);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal_of(records: &[Vec<u8>]) -> (tempfile::TempDir, Journal, Vec<Place>) {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path().join("journal")).unwrap();
        let places = journal.append(records).unwrap();
        (dir, journal, places)
    }

    #[test]
    fn a_flip_or_a_cut_anywhere_costs_only_the_records_that_it_touches() {
        let records: Vec<Vec<u8>> = (0_u8..5).map(|n| vec![n; 20 + usize::from(n)]).collect();
        let (_dir, journal, places) = journal_of(&records);
        let whole = fs::read(journal.path(1)).unwrap();
        for at in 0..whole.len() {
            let touched = places.iter().rposition(|place| place.offset <= at as u64).unwrap();
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            fs::write(journal.path(1), &flipped).unwrap();
            let scan = journal.scan(1, 0).unwrap();
            let read: Vec<_> = scan.records.iter().map(|(place, _)| *place).collect();
            let expected: Vec<_> = places.iter().filter(|place| **place != places[touched]).copied().collect();
            assert_eq!(read, expected, "flip at {at}");
            assert_eq!(scan.gaps.len(), usize::from(touched != 4), "flip at {at}");
            assert!(journal.read(places[touched]).is_none(), "flip at {at}");

            fs::write(journal.path(1), &whole[..at]).unwrap();
            let scan = journal.scan(1, 0).unwrap();
            assert_eq!(scan.records.len(), touched, "cut at {at}");
            assert_eq!(scan.torn, at as u64 - places[touched].offset, "cut at {at}");
        }
    }

    #[test]
    fn a_body_that_imitates_a_record_never_becomes_one() {
        // Goal: a hostile decision cannot plant a letter, even when the record around it is damaged.
        // Method: the same frame under another segment's mark, inside a record whose own mark is then destroyed.
        let mut planted = [7_u8; MARK].to_vec();
        planted.extend_from_slice(&3_u32.to_be_bytes());
        planted.extend_from_slice(&crc_of(3, b"bad").to_be_bytes());
        planted.extend_from_slice(b"bad");
        let (_dir, journal, _places) = journal_of(&[planted, b"good".to_vec()]);
        let mut bytes = fs::read(journal.path(1)).unwrap();
        bytes[0] ^= 1;
        fs::write(journal.path(1), bytes).unwrap();
        let scan = journal.scan(1, 0).unwrap();
        assert_eq!(scan.records.iter().map(|(_, record)| &record[..]).collect::<Vec<_>>(), [b"good"]);
    }

    #[test]
    fn a_torn_end_is_cut_and_the_segment_goes_on() {
        let (dir, journal, places) = journal_of(&[b"one".to_vec(), b"two".to_vec()]);
        let path = journal.path(1);
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 1);
        fs::write(&path, bytes).unwrap();
        drop(journal);
        let mut journal = Journal::open(dir.path().join("journal")).unwrap();
        let scan = journal.scan(1, 0).unwrap();
        journal.resume(1, scan.end).unwrap();
        let third = journal.append(&[b"three".to_vec()]).unwrap();
        assert_eq!(third[0].offset, places[1].offset);
        assert_eq!(journal.scan(1, 0).unwrap().records.len(), 2);
        assert_eq!(journal.read(third[0]).as_deref(), Some(&b"three"[..]));
    }
}
