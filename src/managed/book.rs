//! The channels of the log, opened: what this worker can run, and what it can only hold for others.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};
use tracing::{error, info};
use uuid::Uuid;

use super::{
    Complaint,
    draft::{self, Draft},
    locked,
};
use crate::{
    channel_log::{Content, Made},
    config::ChannelPlan,
    model::{ChannelId, Egress, Scrubber, Timestamp},
    sealing::Key,
};

/// What a channel is sealed for.
const PURPOSE: &str = "channels";

/// A channel of the log as it is here.
#[derive(Clone, Debug)]
pub struct Kept {
    version: Uuid,
    by: String,
    at: Timestamp,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Sound(Draft),
    /// It is only held, and why.
    Locked {
        plan: ChannelPlan,
        why: String,
    },
}

impl Kept {
    /// How it is run.
    pub fn plan(&self) -> &ChannelPlan {
        match &self.state {
            State::Sound(draft) => &draft.plan,
            State::Locked { plan, .. } => plan,
        }
    }

    /// Why it cannot be run here, where that is so.
    pub fn locked(&self) -> Option<&str> {
        match &self.state {
            State::Sound(_) => None,
            State::Locked { why, .. } => Some(why),
        }
    }

    /// Its version: the record that made it so.
    pub fn version(&self) -> Uuid {
        self.version
    }

    pub(super) fn draft(&self) -> Option<&Draft> {
        match &self.state {
            State::Sound(draft) => Some(draft),
            State::Locked { .. } => None,
        }
    }

    /// What the API tells of it beside what every channel has.
    pub fn told(&self) -> Map<String, Value> {
        let config = self.draft().map(Draft::masked);
        let told = json!({
            "source": "api", "changed_by": self.by, "changed_at": self.at, "version": self.version, "config": config,
        });
        match told {
            Value::Object(told) => told,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
        }
    }
}

/// The book of these channels. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Book {
    key: Option<Key>,
    channels: BTreeMap<ChannelId, Arc<Kept>>,
}

impl Book {
    /// An empty book of a worker with this key.
    pub fn new(key: Option<Key>) -> Self {
        Self { key, channels: BTreeMap::new() }
    }

    /// Whether this worker has a key at all.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Every channel, in the order of their ids.
    pub fn channels(&self) -> &BTreeMap<ChannelId, Arc<Kept>> {
        &self.channels
    }

    /// How many cannot be run here.
    pub fn locked(&self) -> usize {
        self.channels.values().filter(|kept| kept.locked().is_some()).count()
    }

    /// Takes over what the log now says of a channel. Its secrets are known to `scrubber` before anything else happens.
    pub fn take(&mut self, id: &ChannelId, made: Option<&Made>, egress: &Egress, scrubber: &Scrubber) {
        let Some(made) = made else {
            self.channels.remove(id);
            return;
        };
        let before = self.channels.get(id).and_then(|kept| kept.locked().map(str::to_owned));
        let state = match open(self.key.as_ref(), id, &made.content, egress) {
            Ok(draft) => {
                scrubber.learn(draft.secrets.iter().cloned());
                if before.is_some() {
                    info!(channel = %id, "a channel that could not be read can be read now");
                }
                State::Sound(draft)
            }
            Err((why, hint)) => {
                if before.as_ref() != Some(&why) {
                    error!(channel = %id, why, hint, "a channel made over the API cannot be read here and is not run by this worker: what it wants waits in its queue");
                }
                State::Locked { plan: locked::plan(id, &made.content.open, &made.version.to_string()), why }
            }
        };
        let kept = Kept { version: made.version, by: made.by.clone(), at: made.at, state };
        self.channels.insert(id.clone(), Arc::new(kept));
    }
}

/// A channel sealed, and what stays readable of it.
pub(super) fn seal(key: &Key, id: &ChannelId, draft: &Draft) -> std::io::Result<Content> {
    let config = &draft.config.0;
    let plain = zeroize::Zeroizing::new(Value::from(config.clone()).to_string());
    let sealed = key.seal(PURPOSE, id.as_str(), plain.as_bytes())?;
    let open = config.iter().filter(|(name, _)| locked::OPEN_KEYS.contains(&name.as_str()));
    let open: Map<_, _> = open.map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(Content { sealed: sealed.into(), open: Arc::new(open) })
}

/// The channel again; or why not, and what to do about it.
fn open(
    key: Option<&Key>,
    id: &ChannelId,
    content: &Content,
    egress: &Egress,
) -> Result<Draft, (String, &'static str)> {
    let key = key.ok_or_else(|| {
        let hint = "give every worker of the pool the same INTERVEN_ALERTS_KEY, and restart this one";
        (String::from("this worker has no key to read it with"), hint)
    })?;
    let plain = key.open(PURPOSE, id.as_str(), &content.sealed).ok_or_else(|| {
        let hint = "give this worker the INTERVEN_ALERTS_KEY of the pool; if that is lost, PUT the channel again, or DELETE it";
        (String::from("it was sealed with another key than this worker has"), hint)
    })?;
    let config: Map<String, Value> = serde_json::from_slice(&plain)
        .map_err(|_| (String::from("what was sealed is no channel"), "PUT the channel again, or DELETE it"))?;
    draft::read(id, &config, egress, None).map_err(|complaints| {
        let tell = |Complaint { key, problem, .. }: &Complaint| format!("`{key}` {problem}");
        let why = complaints.iter().map(tell).collect::<Vec<_>>().join("; ");
        (why, "look at [egress] in the file of this worker, and whether another version has made the channel")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel_log::{Entry, Standing};

    const HOOK: &str = "https://hooks.slack.com/services/T/B/abcdefghijklmnop";

    fn key(text: &str) -> Key {
        Key::from_text(text).unwrap()
    }

    fn standing(id: &ChannelId) -> Standing {
        let config = json!({"kind": "slack", "webhook_url": HOOK, "events": ["INCIDENT"], "tools": ["a"]});
        let draft = draft::read(id, config.as_object().unwrap(), &Egress::default(), None).unwrap();
        let content = seal(&key("0123456789abcdef"), id, &draft).unwrap();
        let entry = Entry::put(id.clone(), content, "soc-lead", Timestamp::UNIX_EPOCH);
        let bytes = entry.to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(!text.contains("hooks") && !text.contains("abcdefgh") && text.contains("INCIDENT"), "{text}");
        let mut standing = Standing::default();
        standing.apply(Entry::decode(&bytes).unwrap().unwrap());
        standing
    }

    #[test]
    fn a_channel_is_read_with_its_key_and_held_without_and_its_secrets_are_scrubbed_from_then_on() {
        let id: ChannelId = "soc".parse().unwrap();
        let standing = standing(&id);
        let read = |key: Option<Key>, egress: &Egress| {
            let (mut book, scrubber) = (Book::new(key), Scrubber::default());
            book.take(&id, standing.channel(&id), egress, &scrubber);
            assert_eq!(book.channels().len(), 1);
            (book, scrubber)
        };
        let (book, scrubber) = read(Some(key("0123456789abcdef")), &Egress::default());
        let kept = &book.channels()[&id];
        assert_eq!((kept.locked(), book.locked(), kept.plan().kind.name), (None, 0, "slack"));
        assert_eq!(scrubber.scrub(&format!("no hook {HOOK}")), "no hook [secret]");
        let told = Value::from(kept.told());
        assert_eq!((&told["changed_by"], &told["source"]), (&json!("soc-lead"), &json!("api")));
        assert_eq!(told["config"]["webhook_url"], "https://hooks.slack.com/...mnop");

        let wanted = kept.plan().filter.clone();
        for (key, says) in [(None, "no key"), (Some(key("0123456789abcdeX")), "another key")] {
            let (mut book, _) = read(key, &Egress::default());
            let kept = Arc::clone(&book.channels()[&id]);
            assert!(kept.locked().is_some_and(|why| why.contains(says)), "{kept:?}");
            assert_eq!((book.locked(), &kept.plan().filter, kept.plan().kind.name), (1, &wanted, "slack"));
            assert_eq!(kept.told()["config"], Value::Null);
            book.take(&id, None, &Egress::default(), &Scrubber::default());
            assert!(book.channels().is_empty());
        }
    }
}
