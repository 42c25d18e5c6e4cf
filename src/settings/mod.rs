//! Reading configuration: a table of the operator's file, read key by key, with every fault noted and none fatal.
//!
//! A room that can be configured takes a [`Settings`], asks for the keys it knows, and returns what it builds or `None`. Each
//! fault carries its place in the file and a hint, and reading goes on, so that one run reports them all. A key that nobody
//! asked for is a fault too ([`Settings::finish`]).
//!
//! Every string may hold `${NAME}`, taken from the environment, or be given as `KEY_file = "path"`, whose content is the
//! value (one trailing newline removed).
//!
//! This room is low on purpose: `channels` reads its own keys with it, and `config` on top puts the plan together.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use crate::model::Secret;

/// A table of the configuration that is being read.
#[derive(Debug)]
pub struct Settings<'a> {
    _todo: std::marker::PhantomData<&'a ()>,
}

#[expect(
    unused_variables,
    clippy::unimplemented,
    reason = "signatures for the other rooms; the config room fills them in"
)]
impl Settings<'_> {
    /// The text at `key`, if it is there.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        unimplemented!()
    }

    /// The text at `key`; its absence is a fault with this hint.
    pub fn require_text(&mut self, key: &'static str, hint: &str) -> Option<String> {
        unimplemented!()
    }

    /// The secret text at `key`, if it is there.
    pub fn secret(&mut self, key: &'static str) -> Option<Secret> {
        unimplemented!()
    }

    /// The secret text at `key`; its absence is a fault with this hint.
    pub fn require_secret(&mut self, key: &'static str, hint: &str) -> Option<Secret> {
        unimplemented!()
    }

    /// The secret texts at `key`: one string or a list of them. Empty when it is not there.
    pub fn secrets(&mut self, key: &'static str) -> Vec<Secret> {
        unimplemented!()
    }

    /// The list of texts at `key`, if it is there.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        unimplemented!()
    }

    /// The whole number at `key`, if it is there; outside `range` it is a fault.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        unimplemented!()
    }

    /// The truth value at `key`, if it is there.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        unimplemented!()
    }

    /// The duration at `key` (`250ms`, `10s`, `5m`, `24h`, `30d`), if it is there; outside `range` it is a fault.
    pub fn duration(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        unimplemented!()
    }

    /// The number of bytes at `key` (`900KB`, `1MiB`, or a whole number of bytes), if it is there; outside `range` it is a fault.
    pub fn size(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        unimplemented!()
    }

    /// The text at `key`, if it is there; anything but one of `choices` is a fault that lists them. Returns its index.
    pub fn choice(&mut self, key: &'static str, choices: &[&'static str]) -> Option<usize> {
        unimplemented!()
    }

    /// The http or https URL at `key`, if it is there. Plain http is a fault but to a loopback host or where `[egress]`
    /// `allow_http` is set. User names and passwords in the URL are kept; a fragment is a fault.
    pub fn url(&mut self, key: &'static str) -> Option<url::Url> {
        unimplemented!()
    }

    /// The URL at `key`; its absence is a fault with this hint.
    pub fn require_url(&mut self, key: &'static str, hint: &str) -> Option<url::Url> {
        unimplemented!()
    }

    /// The table of texts at `key` (HTTP headers, for example), values secret. Empty when it is not there.
    pub fn secret_map(&mut self, key: &'static str) -> BTreeMap<String, Secret> {
        unimplemented!()
    }

    /// The value at `key` as JSON, of any shape, `${NAME}` replaced in its strings, if it is there.
    pub fn json(&mut self, key: &'static str) -> Option<serde_json::Value> {
        unimplemented!()
    }

    /// The table at `key`, if it is there, read by `read`; keys that `read` did not ask for are faults.
    pub fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Settings<'_>) -> T) -> Option<T> {
        unimplemented!()
    }

    /// Whether `key` was written at all (also as `KEY_file`).
    pub fn has(&self, key: &str) -> bool {
        unimplemented!()
    }

    /// Notes a fault at `key` (or, if it was not written, at the table): what is wrong, and what to do.
    pub fn fault(&mut self, key: &str, problem: String, hint: &str) {
        unimplemented!()
    }
}
