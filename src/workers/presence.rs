//! Whether a peer is there, as it was seen of late: so that one that hangs is waited for once, and not by every page again.
//!
//! Only silence is remembered. A connection that is refused is known at once, and a worker that restarts should be back at once.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// For how long a peer that answered is asked without a look whether it is there.
const TRUSTED: Duration = Duration::from_secs(5);

/// For how long a peer that was silent is not asked.
const LEFT_ALONE: Duration = Duration::from_secs(15);

/// What was seen of a peer, by all who ask it.
#[derive(Debug, Default)]
pub(super) struct Presence(Mutex<Option<(Seen, Instant)>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Answering,
    Silent,
}

/// What is to be thought of it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thought {
    /// It is there.
    There,
    /// It was silent a moment ago.
    Silent,
    /// A short look will tell.
    Unknown,
}

impl Presence {
    pub(super) fn now(&self) -> Thought {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((Seen::Answering, at)) if at.elapsed() < TRUSTED => Thought::There,
            Some((Seen::Silent, at)) if at.elapsed() < LEFT_ALONE => Thought::Silent,
            Some(_) | None => Thought::Unknown,
        }
    }

    pub(super) fn answered(&self) {
        self.see(Seen::Answering);
    }

    pub(super) fn was_silent(&self) {
        self.see(Seen::Silent);
    }

    fn see(&self, seen: Seen) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((seen, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_trusted_for_a_moment_and_left_alone_for_a_while() {
        let presence = Presence::default();
        assert_eq!(presence.now(), Thought::Unknown);
        presence.answered();
        assert_eq!(presence.now(), Thought::There);
        tokio::time::advance(TRUSTED).await;
        assert_eq!(presence.now(), Thought::Unknown);
        presence.was_silent();
        let last = Duration::from_millis(1);
        tokio::time::advance(LEFT_ALONE.checked_sub(last).unwrap()).await;
        assert_eq!(presence.now(), Thought::Silent);
        tokio::time::advance(last).await;
        assert_eq!(presence.now(), Thought::Unknown);
    }
}
