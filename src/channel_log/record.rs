//! One record of the log: JSON, `{"v":1,"id":...,"at":...,"by":...,"channel":"soc","do":"pause","why":...}`.
//!
//! The names are API between versions of workers that share a broker. A reader passes over what it does not know, so that a newer
//! worker may write more while older ones still run.
//!
//! A `put` carries a whole channel: `sealed` with the pool's key, and beside it, `open`, what a worker without the key must know so
//! that it loses nothing: the kind, and which decisions the channel wants. A `put` or `delete` with `after` counts only if the
//! record with that id is the channel's last one (the nil id: if there is none): since all workers read one order, all agree
//! on it, and whoever wrote upon an older state finds that nothing has happened.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{ChannelId, Timestamp};

/// The version of the layout that this worker writes and reads.
const VERSION: u32 = 1;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// An operator paused the channel.
    Pause,
    /// An operator resumed it.
    Resume,
    /// A worker has a lane for it, and so there is a queue on the broker.
    Lane,
    /// The queue is gone.
    LaneRemoved,
    /// An operator made the channel, or made it anew.
    Put,
    /// An operator removed the channel.
    Delete,
}

impl Deed {
    const ALL: [Self; 6] = [Self::Pause, Self::Resume, Self::Lane, Self::LaneRemoved, Self::Put, Self::Delete];

    /// The name in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Lane => "lane",
            Self::LaneRemoved => "lane_removed",
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }
}

/// A channel as the log holds it. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its whole configuration, sealed.
    pub sealed: Arc<str>,
    /// Its kind and the keys of its filter, readable without the key.
    #[serde(default)]
    pub open: Arc<serde_json::Map<String, serde_json::Value>>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({} bytes sealed)", self.sealed.len())
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its own id, by which whoever wrote it knows it again.
    pub id: Uuid,
    /// When it was written.
    pub at: Timestamp,
    /// Who: the name of a token, or `worker`.
    pub by: String,
    /// Which channel.
    pub channel: ChannelId,
    /// What was done.
    pub deed: Deed,
    /// Why, in the operator's words.
    pub why: Option<String>,
    /// What is put; there with [`Deed::Put`] and with nothing else.
    pub content: Option<Content>,
    /// Only if this is the id of the channel's last put; nil: only if the channel is not there.
    pub after: Option<Uuid>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: u32,
    #[serde(default)]
    id: Uuid,
    at: Timestamp,
    by: String,
    channel: ChannelId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Content>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Uuid>,
}

#[derive(Serialize, Deserialize)]
struct Named<T> {
    #[serde(rename = "do")]
    deed: T,
    #[serde(flatten)]
    rest: Wire,
}

/// Only what decides whether this reader knows the record at all.
#[derive(Deserialize)]
struct Kind {
    v: u32,
    #[serde(rename = "do")]
    deed: String,
}

impl Entry {
    /// A record of this moment.
    pub fn new(channel: ChannelId, deed: Deed, by: &str, why: Option<String>, at: Timestamp) -> Self {
        Self { id: Uuid::now_v7(), at, by: by.to_owned(), channel, deed, why, content: None, after: None }
    }

    /// The record that puts a channel, at this moment.
    pub fn put(channel: ChannelId, content: Content, by: &str, at: Timestamp) -> Self {
        Self { content: Some(content), ..Self::new(channel, Deed::Put, by, None, at) }
    }

    /// The same, but only upon the state in which `after` is the channel's last put (nil: in which there is none).
    #[must_use]
    pub fn only_after(self, after: Option<Uuid>) -> Self {
        Self { after, ..self }
    }

    /// The record as it is appended.
    #[expect(clippy::missing_panics_doc, reason = "it never does: numbers and plain text are always JSON")]
    pub fn to_bytes(&self) -> Bytes {
        let Self { id, at, by, channel, deed, why, content, after } = self.clone();
        let rest = Wire { v: VERSION, id, at, by, channel, why, content, after };
        serde_json::to_vec(&Named { deed: deed.as_str(), rest }).expect("plain text is always JSON").into()
    }

    /// Reads a record; `None` where a newer worker wrote what this one does not know.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        let kind: Kind = serde_json::from_slice(bytes)?;
        let known = Deed::ALL.into_iter().find(|deed| deed.as_str() == kind.deed && kind.v == VERSION);
        let Some(deed) = known else { return Ok(None) };
        let Wire { id, at, by, channel, why, content, after, .. } = serde_json::from_slice(bytes)?;
        if deed == Deed::Put && content.is_none() {
            return Err(serde::de::Error::custom("a put without what is put"));
        }
        Ok(Some(Self { id, at, by, channel, deed, why, content, after }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::following::{is_mark, mark};

    #[test]
    fn a_record_reads_back_and_looks_as_it_is_documented() {
        let content = || {
            let open = serde_json::json!({"kind": "slack", "events": ["DENY"]}).as_object().unwrap().clone();
            Content { sealed: "v1.AAAA".into(), open: open.into() }
        };
        for deed in Deed::ALL {
            let why = (deed == Deed::Pause).then(|| String::from("a \"quiet\" night"));
            let mut entry = Entry::new("soc".parse().unwrap(), deed, "soc-lead", why, Timestamp::UNIX_EPOCH);
            if deed == Deed::Put {
                entry = Entry { content: Some(content()), ..entry }.only_after(Some(Uuid::nil()));
            }
            assert_eq!(Entry::decode(&entry.to_bytes()).unwrap(), Some(entry));
        }
        let text = r#"{"v":1,"at":"2026-06-01T12:00:00Z","by":"x","channel":"soc","do":"pause","later":[1]}"#;
        let entry = Entry::decode(text.as_bytes()).unwrap().unwrap();
        assert_eq!((entry.deed, entry.channel.as_str(), entry.id), (Deed::Pause, "soc", Uuid::nil()));
    }

    #[test]
    fn what_a_newer_worker_writes_is_passed_over_and_what_is_no_record_is_an_error() {
        for newer in [r#"{"v":1,"do":"rename","to":"..."}"#, r#"{"v":2,"do":"pause","lanes":["soc"]}"#] {
            assert_eq!(Entry::decode(newer.as_bytes()).unwrap(), None, "{newer}");
        }
        let id = Uuid::now_v7();
        assert_eq!(Entry::decode(&mark(id)).unwrap(), None, "a mark does nothing");
        assert!(is_mark(&mark(id), id) && !is_mark(&mark(id), Uuid::nil()));
        let empty = r#"{"v":1,"do":"put","channel":"soc","at":"2026-06-01T12:00:00Z","by":"x"}"#;
        let pause = r#"{"v":1,"do":"pause","channel":"A","at":"x","by":""}"#;
        for bad in ["", "{}", r#"{"v":1,"do":"pause"}"#, pause, empty] {
            assert!(Entry::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
