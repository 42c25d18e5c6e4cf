//! `interven-alerts demo`: the whole program in half a minute, on one machine, with nothing to install.
//!
//! A real worker delivers a stream of decisions to stand-ins of five kinds while one of them asks for a rest, one is away for
//! a few seconds and one refuses a message. In the end every delivery must be accounted for, by the worker's own numbers and
//! by what the endpoints have: the exit code says whether it is.
//!
//! The story knows nothing of the worker but [`Backstage`]. Who calls it does three things in order: [`Cast::start`] for the
//! endpoints, start a worker with [`Cast::config`], then [`play`].

mod cast;
pub mod command;
#[cfg(test)]
mod rehearsal;
mod screen;
mod story;
mod summary;

use std::future::Future;

use bytes::Bytes;

use crate::{
    dead_letters::letter::{DeadLetter, LetterId},
    model::ChannelId,
};

pub use cast::{Cast, TELEGRAM};
pub use screen::{Screen, Style};
pub use story::{Pace, play};
pub use summary::{Line, Summary};

/// Why the demo could not go on, in words for people.
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// What the demo needs of a worker.
pub trait Backstage: Sync {
    /// Publishes one decision and returns once the broker has confirmed it.
    fn publish(&self, decision: Bytes) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// What the worker's metrics say about each channel at this moment.
    fn accounts(&self) -> impl Future<Output = Result<Vec<Account>, Trouble>> + Send;

    /// The dead letters in the store.
    fn dead_letters(&self) -> impl Future<Output = Result<Vec<DeadLetter>, Trouble>> + Send;

    /// Replays these letters; returns once each is confirmed by its lane and has left the store. Says how many.
    fn replay(&self, letters: &[LetterId]) -> impl Future<Output = Result<usize, Trouble>> + Send;
}

/// What the metrics say about one channel. All are totals since the start but `waiting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The channel.
    pub channel: ChannelId,
    /// `deliveries_matched_total`; a replayed delivery is not matched again.
    pub matched: u64,
    /// `deliveries_total{ending="delivered"}`.
    pub delivered: u64,
    /// `deliveries_total{ending="folded"}`.
    pub folded: u64,
    /// `deliveries_total{ending="dead"}`.
    pub dead: u64,
    /// `replayed_total`.
    pub replayed: u64,
    /// `deliveries_waiting`, in memory and in the lane queue.
    pub waiting: u64,
}

impl Account {
    /// Whether every delivery that began has an ending or waits.
    pub fn adds_up(&self) -> bool {
        self.matched + self.replayed == self.delivered + self.folded + self.dead + self.waiting
    }
}
