//! The wire format: a record is a batch of entries, as JSON.
//!
//! `{"v":1,"do":"deliveries","entries":[...]}`, and the entries are
//! - `{"routed":ID,"at":MILLIS,"to":[CHANNEL,...]}`,
//! - `{"ended":ID,"at":MILLIS,"in":CHANNEL,"as":ENDING,"tries":N,"why":REASON}`, the last one of dead ones alone,
//! - `{"again":ID,"at":MILLIS,"in":CHANNEL}`: its dead letter was sent again.
//!
//! Written by hand into the record that is open, because that is on the way of every decision: an entry costs no allocation.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Ended;
use crate::model::{ChannelId, DeathReason, Ending, Timestamp};

/// The version of this layout.
const VERSION: u32 = 1;

/// What the record does, in the form that the records of all logs have.
const KIND: &str = "deliveries";

/// How a record begins, and how it ends.
pub(super) const HEAD: &[u8] = br#"{"v":1,"do":"deliveries","entries":["#;
pub(super) const TAIL: &[u8] = b"]}";

/// The longest id that is written down, in bytes. A decision's has at most 128 characters.
const ID_BYTES_MAX: usize = 512;

/// One entry, as it is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    Routed { decision: Cow<'a, str>, at: Timestamp, channels: Vec<ChannelId> },
    Ended { decision: Cow<'a, str>, channel: ChannelId, ended: Ended },
    Again { decision: Cow<'a, str>, channel: ChannelId, at: Timestamp },
}

fn put(out: &mut Vec<u8>, key: &[u8], value: &(impl Serialize + ?Sized)) {
    out.extend_from_slice(key);
    serde_json::to_writer(out, value).expect("texts and numbers are always written into memory");
}

/// An id is that of a decision, so it is no longer; one that is would not be found again.
fn id(text: &str) -> &str {
    &text[..text.floor_char_boundary(ID_BYTES_MAX)]
}

pub(super) fn put_routed<'a>(
    out: &mut Vec<u8>,
    decision: &str,
    at: Timestamp,
    channels: impl Iterator<Item = &'a ChannelId>,
) {
    put(out, br#"{"routed":"#, id(decision));
    put(out, br#","at":"#, &at.unix_millis());
    out.extend_from_slice(br#","to":["#);
    for (place, channel) in channels.enumerate() {
        put(out, if place == 0 { b"" } else { b"," }, channel.as_str());
    }
    out.extend_from_slice(b"]}");
}

pub(super) fn put_ended(out: &mut Vec<u8>, decision: &str, channel: &ChannelId, ended: Ended) {
    put(out, br#"{"ended":"#, id(decision));
    put(out, br#","at":"#, &ended.at.unix_millis());
    put(out, br#","in":"#, channel.as_str());
    put(out, br#","as":"#, ended.ending.as_str());
    put(out, br#","tries":"#, &ended.tries);
    if let Some(reason) = ended.reason {
        put(out, br#","why":"#, reason.as_str());
    }
    out.push(b'}');
}

pub(super) fn put_again(out: &mut Vec<u8>, decision: &str, channel: &ChannelId, at: Timestamp) {
    put(out, br#"{"again":"#, id(decision));
    put(out, br#","at":"#, &at.unix_millis());
    put(out, br#","in":"#, channel.as_str());
    out.push(b'}');
}

/// A text that is borrowed inside of an `Option` too, which a bare `Cow` is not.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Batch<'a> {
    v: u32,
    #[serde(borrow)]
    r#do: Text<'a>,
    #[serde(borrow)]
    entries: Vec<Wire<'a>>,
}

/// An entry as it was written, by whatever version: what is not there or not known is no fault.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    routed: Option<Text<'a>>,
    #[serde(borrow, default)]
    ended: Option<Text<'a>>,
    #[serde(borrow, default)]
    again: Option<Text<'a>>,
    #[serde(default)]
    at: i64,
    #[serde(borrow, default)]
    to: Vec<Text<'a>>,
    #[serde(borrow, default, rename = "in")]
    channel: Option<Text<'a>>,
    #[serde(borrow, default, rename = "as")]
    ending: Option<Text<'a>>,
    #[serde(default)]
    tries: u32,
    #[serde(borrow, default)]
    why: Option<Text<'a>>,
}

/// The entries of a record; none of what is no record of ours: a mark, a stranger's, a newer worker's.
///
/// `wanted` says of which decisions; what it does not want is not looked at further.
pub(super) fn decode(bytes: &[u8], wanted: impl Fn(&str) -> bool) -> Vec<Entry<'_>> {
    let batch = serde_json::from_slice::<Batch<'_>>(bytes).ok();
    let batch = batch.filter(|batch| batch.v == VERSION && batch.r#do.0 == KIND);
    batch.into_iter().flat_map(|batch| batch.entries).filter_map(|wire| entry(wire, &wanted)).collect()
}

fn entry<'a>(wire: Wire<'a>, wanted: &impl Fn(&str) -> bool) -> Option<Entry<'a>> {
    let Wire { routed, ended, again, at, to, channel, ending, tries, why } = wire;
    let at = Timestamp::from_unix_millis(at);
    if let Some(Text(decision)) = routed {
        let known = |Text(channel): Text<'_>| channel.parse().ok();
        return wanted(&decision).then(|| Entry::Routed {
            channels: to.into_iter().filter_map(known).collect(),
            decision,
            at,
        });
    }
    let (of_ended, of_again) = (ended.as_ref(), again.as_ref());
    if !of_ended.or(of_again).is_some_and(|Text(decision)| wanted(decision)) {
        return None;
    }
    let channel = channel?.0.parse().ok()?;
    match (ended, again) {
        (Some(Text(decision)), _) => {
            let ending =
                Ending::ALL.into_iter().find(|one| ending.as_ref().is_some_and(|text| one.as_str() == text.0))?;
            let reason = why.and_then(|Text(why)| why.parse::<DeathReason>().ok());
            Some(Entry::Ended { decision, channel, ended: Ended { ending, at, tries, reason } })
        }
        (None, Some(Text(decision))) => Some(Entry::Again { decision, channel, at }),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::hostile;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    fn record(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = HEAD.to_vec();
        put(&mut bytes);
        bytes.extend_from_slice(TAIL);
        bytes
    }

    proptest! {
        #[test]
        fn every_entry_reads_back_as_it_was_written(
            decision in hostile::text(),
            millis in 0_i64..4_000_000_000_000,
            tries in any::<u32>(),
            ending in prop::sample::select(&Ending::ALL[..]),
            reason in prop::option::of(prop::sample::select(&DeathReason::ALL[..])),
            count in 0_usize..5,
        ) {
            let decision = id(&decision);
            let channels: Vec<ChannelId> = (0..count).map(|n| format!("c-{n}").parse().unwrap()).collect();
            let channel: ChannelId = "soc".parse().unwrap();
            let ended = Ended { ending, at: at(millis), tries, reason };
            let bytes = record(|out| {
                put_routed(out, decision, at(millis), channels.iter());
                out.push(b',');
                put_ended(out, decision, &channel, ended);
                out.push(b',');
                put_again(out, decision, &channel, at(millis));
            });
            let found: Vec<Entry<'_>> = decode(&bytes, |_| true);
            let decision = Cow::Borrowed(decision);
            prop_assert_eq!(found, vec![
                Entry::Routed { decision: decision.clone(), at: at(millis), channels },
                Entry::Ended { decision: decision.clone(), channel: channel.clone(), ended },
                Entry::Again { decision, channel, at: at(millis) },
            ]);
            prop_assert_eq!(decode(&bytes, |_| false).len(), 0);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
            prop_assert_eq!(decode(&bytes, |_| true).len(), 0);
            let whole = record(|out| put_routed(out, "a", at(1), [].iter()));
            let cut = cut.min(whole.len() - 1);
            prop_assert_eq!(decode(&whole[..cut], |_| true).len(), 0);
        }
    }

    #[test]
    fn what_a_newer_worker_writes_is_passed_over_and_hides_nothing_else() {
        let of = |bytes: &'static str| decode(bytes.as_bytes(), |_| true).len();
        assert_eq!(of(r#"{"v":2,"do":"deliveries","entries":[{"routed":"a","at":1,"to":[]}]}"#), 0);
        assert_eq!(of(r#"{"v":1,"do":"mark","id":"018f0000-0000-7000-8000-000000000000"}"#), 0);
        assert_eq!(
            of(r#"{"v":1,"do":"deliveries","more":{},"entries":[
                {"seen":"a","at":1,"by":["x"]},
                {"ended":"a","at":1,"in":"soc","as":"evaporated","tries":1},
                {"ended":"a","at":1,"in":"NO CHANNEL","as":"dead","tries":1},
                {"ended":"a","at":1,"in":"soc","as":"dead","tries":1,"why":"boredom"},
                {"routed":"a","at":1,"to":["soc","NO CHANNEL"],"how":"well"}]}"#),
            2
        );
    }
}
