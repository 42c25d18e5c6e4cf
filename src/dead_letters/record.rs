//! The bytes of a letter on disk: one encoding for the journal and for the index.
//!
//! A put is a **head** (all that filters, counts and causes need, so that a scan parses no JSON), the letter as JSON without
//! its body, and the body: inline, or a reference to a file in `blobs/`. Strings are length-prefixed, integers big-endian.
//!
//! A record that ends an earlier one carries what it ended ([`Gone`]). So the counts after a crash follow from the
//! checkpoint and the journal's tail alone, whatever part of the tail the index already has.

use bytes::Bytes;
use uuid::Uuid;

use super::{
    DeadLetter, LetterId,
    filter::cause_of,
    report::{Burial, Kept},
};
use crate::model::{ChannelId, DeathReason, Severity, Timestamp};

/// What a record ended: enough to take it out of the counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) reason: DeathReason,
    pub(super) channel: Option<ChannelId>,
    /// The segment that it was in.
    pub(super) segment: u64,
    /// Its size there.
    pub(super) bytes: u32,
}

/// What a scan needs to know of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The number of this record: greater than that of every earlier one.
    pub(super) seq: u64,
    /// The number of the record that buried it; moving the record to another segment leaves it.
    pub(super) burial: u64,
    pub(super) id: LetterId,
    pub(super) subject: Uuid,
    pub(super) reason: DeathReason,
    pub(super) severity: Option<Severity>,
    pub(super) channel: Option<ChannelId>,
    pub(super) decision_id: Option<Box<str>>,
    pub(super) died_at_ms: i64,
    pub(super) cause: Box<str>,
    pub(super) replaced: Option<Gone>,
}

/// Where the body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Inline(Bytes),
    Blob(BlobRef),
}

/// A file in `blobs/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlobRef {
    pub(super) number: u64,
    pub(super) bytes: u32,
    pub(super) crc: u32,
}

/// A letter, buried or moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) head: Head,
    /// The letter as JSON, its body empty.
    pub(super) text: Bytes,
    pub(super) body: Body,
}

/// A letter, removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stone {
    pub(super) id: LetterId,
    /// The last record of the letter: a later one with the same id (an import) is another life.
    pub(super) upto: u64,
    /// The oldest segment that may hold a record of it; `gone.segment` is the newest. The stone is needed while one is left.
    pub(super) first: u64,
    pub(super) gone: Gone,
    pub(super) blob: Option<u64>,
}

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Put(Put),
    Removed {
        seq: u64,
        stones: Vec<Stone>,
    },
    /// Stones that were moved here from a segment that is gone; they change no counts.
    Carried {
        seq: u64,
        stones: Vec<Stone>,
    },
}

impl Record {
    pub(super) fn seq(&self) -> u64 {
        match self {
            Self::Put(put) => put.head.seq,
            Self::Removed { seq, .. } | Self::Carried { seq, .. } => *seq,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(1024));
        match self {
            Self::Put(put) => put.write(&mut out),
            Self::Removed { seq, stones } => write_stones(&mut out, 2, *seq, stones),
            Self::Carried { seq, stones } => write_stones(&mut out, 3, *seq, stones),
        }
        out.0
    }

    /// Reads one; `None` when the bytes are no record of this version.
    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut from = Reader(bytes);
        match from.u8()? {
            1 => Put::decode(bytes).map(Self::Put),
            kind @ (2 | 3) => {
                let seq = from.u64()?;
                let count = from.u32()?;
                let stones = (0..count).map(|_| Stone::read(&mut from)).collect::<Option<Vec<_>>>()?;
                Some(if kind == 2 { Self::Removed { seq, stones } } else { Self::Carried { seq, stones } })
            }
            _ => None,
        }
    }
}

fn write_stones(out: &mut Writer, kind: u8, seq: u64, stones: &[Stone]) {
    out.u8(kind);
    out.u64(seq);
    out.u32(u32::try_from(stones.len()).unwrap_or(u32::MAX));
    for stone in stones {
        out.uuid(stone.id.0);
        out.u64(stone.upto);
        out.u64(stone.first);
        stone.gone.write(out);
        out.u64(stone.blob.unwrap_or(0));
    }
}

impl Stone {
    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            id: LetterId(from.uuid()?),
            upto: from.u64()?,
            first: from.u64()?,
            gone: Gone::read(from)?,
            blob: Some(from.u64()?).filter(|number| *number != 0),
        })
    }
}

impl Gone {
    fn write(&self, out: &mut Writer) {
        out.text(self.reason.as_str());
        out.text(self.channel.as_ref().map_or("", ChannelId::as_str));
        out.u64(self.segment);
        out.u32(self.bytes);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            reason: from.text()?.parse().ok()?,
            channel: from.channel()?,
            segment: from.u64()?,
            bytes: from.u32()?,
        })
    }
}

impl Put {
    /// The record of `letter`. The body goes where `body` says; the numbers come from the engine.
    pub(super) fn new(letter: &DeadLetter, seq: u64, replaced: Option<Gone>, body: Body) -> Self {
        let bodiless = DeadLetter { body: Bytes::new(), ..letter.clone() };
        let text = serde_json::to_vec(&bodiless).unwrap_or_default();
        let head = Head {
            seq,
            burial: seq,
            id: letter.id,
            subject: letter.subject,
            reason: letter.reason,
            severity: letter.severity,
            channel: letter.channel.clone(),
            decision_id: letter.decision_id.as_deref().map(Into::into),
            died_at_ms: letter.died_at.unix_millis(),
            cause: cause_of(&letter.detail).into(),
            replaced,
        };
        Self { head, text: text.into(), body }
    }

    /// The letter, once its body is at hand.
    pub(super) fn letter(&self, body: Bytes) -> Option<Kept> {
        let letter: DeadLetter = serde_json::from_slice(&self.text).ok()?;
        Some(Kept { letter: DeadLetter { body, ..letter }, burial: Burial(self.head.burial) })
    }

    pub(super) fn blob(&self) -> Option<BlobRef> {
        match &self.body {
            Body::Inline(_) => None,
            Body::Blob(blob) => Some(*blob),
        }
    }

    fn write(&self, out: &mut Writer) {
        let Head { seq, burial, id, subject, reason, severity, channel, decision_id, died_at_ms, cause, replaced } =
            &self.head;
        out.u8(1);
        out.u64(*seq);
        out.u64(*burial);
        out.uuid(id.0);
        out.uuid(*subject);
        out.text(reason.as_str());
        out.text(severity.map_or("", Severity::as_str));
        out.text(channel.as_ref().map_or("", ChannelId::as_str));
        out.text(decision_id.as_deref().unwrap_or(""));
        out.u64(died_at_ms.cast_unsigned());
        out.text(cause);
        out.u8(u8::from(replaced.is_some()));
        if let Some(gone) = replaced {
            gone.write(out);
        }
        out.u32(u32::try_from(self.text.len()).unwrap_or(u32::MAX));
        out.0.extend_from_slice(&self.text);
        match &self.body {
            Body::Inline(body) => {
                out.u8(0);
                out.0.extend_from_slice(body);
            }
            Body::Blob(BlobRef { number, bytes, crc }) => {
                out.u8(1);
                out.u64(*number);
                out.u32(*bytes);
                out.u32(*crc);
            }
        }
    }

    /// Reads what [`Record::encode`] wrote of a put.
    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut from = Reader(bytes);
        let head = Head::read(&mut from)?;
        let len = usize::try_from(from.u32()?).ok()?;
        let text = bytes.slice_ref(from.take(len)?);
        let body = match from.u8()? {
            0 => Body::Inline(bytes.slice_ref(from.0)),
            1 => Body::Blob(BlobRef { number: from.u64()?, bytes: from.u32()?, crc: from.u32()? }),
            _ => return None,
        };
        Some(Self { head, text, body })
    }
}

impl Head {
    /// Reads the head of a put and leaves the rest alone: what a scan does for every letter that it passes.
    pub(super) fn peek(bytes: &[u8]) -> Option<Self> {
        Self::read(&mut Reader(bytes))
    }

    pub(super) fn died_at(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.died_at_ms)
    }

    /// What a record that ends this one says of it.
    pub(super) fn gone(&self, segment: u64, bytes: u32) -> Gone {
        Gone { reason: self.reason, channel: self.channel.clone(), segment, bytes }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        if from.u8()? != 1 {
            return None;
        }
        Some(Self {
            seq: from.u64()?,
            burial: from.u64()?,
            id: LetterId(from.uuid()?),
            subject: from.uuid()?,
            reason: from.text()?.parse().ok()?,
            severity: match from.text()? {
                "" => None,
                text => Some(text.parse().ok()?),
            },
            channel: from.channel()?,
            decision_id: Some(from.text()?).filter(|text| !text.is_empty()).map(Into::into),
            died_at_ms: from.u64()?.cast_signed(),
            cause: from.text()?.into(),
            replaced: match from.u8()? {
                0 => None,
                _ => Some(Gone::read(from)?),
            },
        })
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn uuid(&mut self, value: Uuid) {
        self.0.extend_from_slice(value.as_bytes());
    }

    /// At most 65,535 bytes: longer ones (an imported file's, at worst) are cut at a character boundary.
    fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
        self.0.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn uuid(&mut self) -> Option<Uuid> {
        self.array().map(Uuid::from_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = self.array().map(u16::from_be_bytes)?;
        std::str::from_utf8(self.take(usize::from(len))?).ok()
    }

    #[expect(
        clippy::option_option,
        reason = "outer: whether the bytes could be read; inner: whether there is a channel"
    )]
    fn channel(&mut self) -> Option<Option<ChannelId>> {
        match self.text()? {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(body: &[u8]) -> DeadLetter {
        let mut letter = DeadLetter::of_message(
            Bytes::copy_from_slice(body),
            DeathReason::Exhausted,
            "HTTP 503 (try 7)",
            Timestamp::from_unix_millis(1_780_000_000_123),
        );
        letter.channel = Some("soc".parse().unwrap());
        letter.severity = Some(Severity::High);
        letter.decision_id = Some("d-1".to_owned());
        letter
    }

    #[test]
    fn every_record_reads_back_as_it_was_written() {
        let letter = letter(b"\xff\x00{}");
        let gone = Gone { reason: DeathReason::Poison, channel: None, segment: 3, bytes: 9 };
        let put = Put::new(&letter, 7, Some(gone.clone()), Body::Inline(letter.body.clone()));
        let blob = Put::new(&letter, 8, None, Body::Blob(BlobRef { number: 8, bytes: 70_000, crc: 5 }));
        let stones = vec![Stone { id: letter.id, upto: 8, first: 1, gone, blob: Some(8) }];
        for record in [
            Record::Put(put.clone()),
            Record::Put(blob),
            Record::Removed { seq: 9, stones: stones.clone() },
            Record::Carried { seq: 10, stones },
        ] {
            let bytes = Bytes::from(record.encode());
            assert_eq!(Record::decode(&bytes), Some(record.clone()));
            for cut in 0..bytes.len() {
                // A body has no length of its own (the frame has one), so a cut there reads as a shorter body.
                if let Some(read) = Record::decode(&bytes.slice(..cut)) {
                    assert!(matches!(read, Record::Put(_)), "cut at {cut} of {record:?}");
                }
            }
        }
        let kept = put.letter(letter.body.clone()).unwrap();
        assert_eq!((kept.letter, kept.burial), (letter, Burial(7)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            drop(Record::decode(&Bytes::from(bytes.clone())));
            drop(Head::peek(&bytes));
        }
    }
}
