//! Asking other workers over their API, and making one answer of theirs: for the command line, and for a console that shows the
//! whole pool whichever worker it was opened on.
//!
//! Each worker answers for itself alone, and that is how the whole pool can be asked without a loop: whoever wants to know asks every
//! one and puts the answers together. `merge.rs` makes one list of theirs, `letters.rs` the causes, `channels.rs` the lanes. A worker
//! that is silent, or refuses, takes nothing from what the others say; it is named, with the reason.
//!
//! What it guards: a credential goes where it was meant for and nowhere else (no redirect is followed, no proxy taken from the
//! environment) and does not print; every wait and every body has a bound; what a worker answers is shown without control characters.
//!
//! Absent on purpose: flags and printing (`cli`), who may ask (`http`), and what one's own worker says: it needs no socket for that.
//!
//! Start with `server.rs`.

pub mod channels;
pub mod credential;
pub mod errands;
pub mod knock;
pub mod letters;
pub mod merge;
mod names;
pub mod peers;
mod presence;
pub mod server;
#[cfg(test)]
mod tests;
pub mod trouble;

pub use credential::Credential;
pub use knock::knock;
pub use merge::{Merge, Source};
pub use peers::{Patience, Peers};
pub use server::{AT_ONCE_MAX, Download, Server, Servers};
pub use trouble::{Trouble, Unheard, refused, understand};
