//! Channels that are made over the API: how one is read, kept, shown, changed and tried.
//!
//! **What is sent** is the `[[channel]]` of the operator's file as JSON, key by key, and it is read by the same code, so every fault
//! is told at once. Two things are the file's alone: `${NAME}` and `KEY_file`. Whoever may change channels is less than whoever may
//! read the environment and the disk of the worker's machine.
//!
//! **Where it is kept**: in the log of the channels on the broker, sealed with the pool's key; see `channel_log`. A channel of the
//! file is only read here, and where both have one id, the file's is run and the other one waits, which is said loudly.
//!
//! **Secrets on an update** (`masks.rs`): a `PUT` replaces the whole channel, so the same body always makes the same channel. What
//! `GET` shows as `config` can be sent back: a secret's mask in its place keeps the secret, as long as every URL stays as it is. A
//! secret that is left out, or `null`, is gone.
//!
//! **Two who change one channel**: `GET` tells a version in `ETag`; a `PUT` or `DELETE` with it in `If-Match` (or with
//! `If-None-Match: *`) counts only upon that version. The log decides, so it holds for the whole pool.
//!
//! **A channel that cannot be read here** (no key, another key, a key of the configuration that only a newer worker knows, a URL
//! that `[egress]` has come to forbid) is not run, and loses nothing: its kind and filter stand unsealed beside it, so its decisions
//! are routed to it, and wait in its queue for a worker that can read it. The price is that who can read the log sees which
//! decisions a channel wants; auditors see that anyhow.
//!
//! **What a change does not promise**: a moment. The worker that was asked has done it when it answers; the others follow the log,
//! and what they take in before they have read it, within a second as a rule, goes by what was before. Only at its start does a
//! worker take nothing in before it knows the log (`app/steward.rs`).
//!
//! **By hand** (`form.rs`): a form is filled in with the fields that the kinds declare, becomes what is sent, and goes the same way.
//!
//! Absent on purpose: HTTP (`http`), and the running of channels (`app`).
//!
//! Start with `draft.rs`, then [`Desk`].

mod book;
mod desk;
mod draft;
mod form;
mod locked;
mod masks;
mod trial;
mod writing;

pub use book::{Book, Kept};
pub use desk::{Condition, Desk, Present, Put, Refusal, Subject};
pub use form::{Entry, Filled, Held, Hush, kind_of};
pub use trial::{Report, try_channel};

pub use crate::channels::{
    KINDS, Kind,
    form::{Field, Form, Input},
};

/// What is wrong with a key of a channel that somebody sent.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Complaint {
    /// The key, as a path from the channel: `retry.attempts`. Empty for the channel as a whole.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub hint: String,
}

impl Complaint {
    fn new(key: &str, problem: String, hint: &str) -> Self {
        Self { key: key.to_owned(), problem, hint: hint.to_owned() }
    }
}
