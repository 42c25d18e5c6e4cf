//! What could not be delivered, on disk, until somebody replays or purges it.
//!
//! Every letter is written twice before its burial counts: first to an append-only **journal** ([`journal`]), then to a sled
//! **index** ([`index`]), each followed by `fdatasync`. The index answers questions; the journal is what it is rebuilt from,
//! because one flipped bit can cost a whole sled store. What the journal lost, the index gives back, and a **checkpoint**
//! keeps the counts, so that opening reads only what came after it. One thread owns all of it ([`owner`]).
//!
//! Promises, each with a test: a letter whose burial returned `Ok` is there after `kill -9`; one whose removal returned `Ok`
//! is not; one subject has one letter; nothing damaged is ever deleted, it is set aside beside the store.
//!
//! Absent on purpose: when something is dead (the lanes decide that), and any use of two processes: sled locks its files, so
//! a running worker is asked over HTTP instead.
//!
//! Start with [`DeadLetter`], then [`store`] (the handle that every other room uses) and [`keeper`] (what lanes call).

pub mod error;
pub mod filter;
pub mod keeper;
pub mod letter;
pub mod replay;
pub mod report;
pub mod store;

mod blobs;
mod checkpoint;
mod engine;
mod files;
mod index;
mod journal;
mod owner;
mod reading;
mod record;
mod recovery;
mod tally;
mod transfer;
mod upkeep;

#[cfg(test)]
mod tests;

pub use error::DeadLetterError;
pub use filter::LetterFilter;
pub use keeper::{Keeper, Resting};
pub use letter::{DeadLetter, LastReply, LetterId};
pub use replay::{Replay, ReplayReport};
pub use report::{Burial, Cause, Causes, ImportReport, Kept, OpenReport, Page, VerifyReport};
pub use store::{Store, StoreOptions};
