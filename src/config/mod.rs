//! The operator's file -> a [`Plan`], or every fault at once.
//!
//! Two pictures: the TOML mirrors what the operator wrote, the [`Plan`] is what the program can trust, and [`parse`] is the only
//! way from one to the other. Each section has a function that asks [`Settings`](crate::settings::Settings) for its keys;
//! nothing here stops at a fault, so that one run of `check` tells everything.
//!
//! Beyond the contract's letter, decided here:
//! - `[broker] url = "embedded"` names the embedded broker, so that its `keep_decisions` and `prefetch` can be set. A `[broker]`
//!   without any URL is a fault: a worker whose URL got lost must not quietly start on an empty store of its own.
//! - `[channel.digest] enabled = false` turns digests off.
//! - A channel that is made over the API is read by the same code ([`parse_channel`]), but may name neither variables nor files:
//!   who may change channels is less than who may read the machine's environment and disk.
//! - `[egress] deny` adds to the networks of cloud metadata, which are always denied.
//!
//! Absent on purpose: the environment (a function handed in by `main`), and starting anything.
//!
//! Start with [`parse`]; `channel.rs` is the largest section.

mod channel;
pub mod form;
mod glimpse;
mod plan;
mod rate;
mod sections;
mod view;

use std::{collections::BTreeMap, io::Read as _, path::Path};

use crate::{
    channels::Kind,
    model::{ChannelId, Egress, Filter},
    settings::{self, Fault, Outside, Reading, Settings},
};
pub use glimpse::Glimpse;
pub use plan::{AccessPlan, AccessToken, BrokerPlan, ChannelPlan, DigestPlan, HttpPlan, Plan};
pub use rate::show_pace;
pub use sections::is_token_name;
pub use view::{View, sample, view};

/// The largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The most channels. A lane each costs memory and, where it is limited, a queue on the broker; labels of metrics grow with it.
const CHANNELS_MAX: usize = 10_000;

/// A configuration that can be used.
#[derive(Debug)]
pub struct Sound {
    /// The configuration.
    pub plan: Plan,
    /// What looks wrong in it.
    pub warnings: Vec<Fault>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has {}", count(.faults.len()))]
pub struct Faulty {
    /// What is wrong, at least one, in the order of the file.
    pub faults: Vec<Fault>,
    /// What looks wrong.
    pub warnings: Vec<Fault>,
}

/// Why a configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("could not read the configuration")]
    Read(#[source] std::io::Error),
    /// The file is larger than 4 MiB.
    #[error("the configuration file is larger than 4 MiB")]
    TooLarge,
    /// The file was read and is faulty.
    #[error(transparent)]
    Faulty(#[from] Faulty),
}

impl LoadError {
    /// What the operator can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read(_) => {
                "give the path with `--config FILE` or INTERVEN_ALERTS_CONFIG, and let this user read the file"
            }
            Self::TooLarge => "this is probably another file: check the path",
            Self::Faulty(_) => "`interven-alerts check` shows every fault with its line",
        }
    }
}

/// `1 fault`, `2 faults`.
fn count(faults: usize) -> String {
    if faults == 1 { String::from("1 fault") } else { format!("{faults} faults") }
}

/// Reads the file at `path`. `${NAME}` comes from `env`, and relative paths in the file start at its directory.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>, kinds: &[&'static Kind]) -> Result<Sound, LoadError> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(LoadError::Read)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(LoadError::Read)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge);
    }
    let not_utf8 = |_| LoadError::Read(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8 text"));
    let text = String::from_utf8(bytes).map_err(not_utf8)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    Ok(parse(&text, &Outside::new(env, directory), kinds)?)
}

/// The configuration that `text` holds, or every fault in it. `kinds` are the kinds of channels that there are.
pub fn parse(text: &str, outside: &Outside<'_>, kinds: &[&'static Kind]) -> Result<Sound, Faulty> {
    // Editors on Windows put a byte order mark in front, which is no TOML.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let reading = settings::read(text, outside, |document| read_document(document, kinds));
    match reading.value.flatten() {
        Some(mut plan) if reading.faults.is_empty() => {
            plan.secrets = reading.secrets;
            Ok(Sound { plan, warnings: reading.warnings })
        }
        _ => {
            debug_assert!(!reading.faults.is_empty(), "a section gave up without a fault");
            Err(Faulty { faults: reading.faults, warnings: reading.warnings })
        }
    }
}

/// The channel `id` in `text`, which holds the keys of its `[[channel]]` and nothing else, and is not the operator's file: it may
/// name no variable and no file. Its URLs are guarded by `egress`.
pub fn parse_channel(
    text: &str,
    id: &ChannelId,
    egress: &Egress,
    kinds: &[&'static Kind],
) -> Reading<Option<ChannelPlan>> {
    settings::read(text, &Outside::closed(), |settings| {
        settings.guard(egress.clone());
        if settings.text("id").is_some_and(|written| written != id.as_str()) {
            let problem = format!("is not `{id}`, by which the channel is called");
            settings.fault("id", problem, "leave it out: a channel keeps its id");
        }
        channel::read_channel(settings, Some(id.clone()), kinds)
    })
}

/// The filter in `text`, which holds those keys of a `[[channel]]` and nothing else.
pub fn parse_filter(text: &str) -> Reading<Option<Filter>> {
    settings::read(text, &Outside::closed(), channel::read_filter)
}

fn read_document(document: &mut Settings<'_>, kinds: &[&'static Kind]) -> Option<Plan> {
    // First, because it guards every URL that is read after it.
    let egress = sections::egress(document);
    document.guard(egress.clone());
    let data_dir = document.text("data_dir").unwrap_or_else(|| String::from("/var/lib/interven-alerts")).into();
    let broker = sections::broker(document);
    let key = sections::key(document);
    let access = sections::access(document);
    let (http, peers, links) = sections::http(document, &access, key.is_some());
    let approvals = sections::approvals(document);
    let shutdown_grace = sections::shutdown_grace(document);
    let channels = read_channels(document, kinds);
    Some(Plan {
        data_dir,
        broker: broker?,
        http,
        peers,
        key,
        access,
        approvals,
        shutdown_grace,
        egress,
        links,
        channels: channels?,
        secrets: Vec::new(),
    })
}

fn read_channels(document: &mut Settings<'_>, kinds: &[&'static Kind]) -> Option<Vec<ChannelPlan>> {
    let mut seen: BTreeMap<ChannelId, usize> = BTreeMap::new();
    let channels = document.tables("channel", |settings| {
        let id = channel::read_id(settings);
        if let Some(id) = &id {
            let line = settings.line_of("id");
            if let Some(first) = seen.get(id) {
                let problem = format!("the id `{id}` is taken by the channel whose id is on line {first}");
                settings.fault("id", problem, "give each channel an id of its own");
            } else {
                seen.insert(id.clone(), line);
            }
        }
        channel::read_channel(settings, id, kinds)
    });
    if channels.is_empty() {
        let hint = "add a [[channel]]; until then every decision is acknowledged and told to nobody";
        document.warn("channel", String::from("there is no channel"), hint);
    }
    if channels.len() > CHANNELS_MAX {
        document.fault(
            "channel",
            format!("more than {CHANNELS_MAX} channels"),
            "spread them over several pools of workers",
        );
        return None;
    }
    channels.into_iter().collect()
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
