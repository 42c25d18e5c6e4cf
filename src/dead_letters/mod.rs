//! What could not be delivered, on disk, until somebody replays or purges it.
//!
//! Start with [`DeadLetter`], then [`store`] (the handle that every other room uses).

pub mod letter;

pub use letter::{DeadLetter, LastReply, LetterId};
