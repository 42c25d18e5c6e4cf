//! What happened in a run, by the clock of the run: for people, when something was lost or stood still.

use std::{
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// The note that nothing fails any more.
pub(super) const HEALED: &str = "all is healed";

/// Notes of one run.
#[derive(Debug)]
pub(super) struct Journal {
    began: Instant,
    notes: Mutex<Vec<(Duration, String)>>,
}

impl Journal {
    /// A run that begins now.
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), notes: Mutex::default() }
    }

    /// When the run began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Waits for a moment of the run.
    pub(super) async fn reaches(&self, at: Duration) {
        sleep_until(self.began + at).await;
    }

    /// Notes something that happens now.
    pub(super) fn note(&self, text: impl Into<String>) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push((self.began.elapsed(), text.into()));
    }

    /// Everything that was noted between two moments of the run, a line each.
    pub(super) fn between(&self, from: Duration, to: Duration) -> String {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = String::new();
        for (at, text) in notes.iter().filter(|(at, _)| (from..=to).contains(at)) {
            writeln!(lines, "  {:7.2} s  {text}", at.as_secs_f64()).unwrap();
        }
        lines
    }

    /// Everything from the last note that says `text` on.
    pub(super) fn since(&self, text: &str) -> String {
        let from = {
            let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            notes.iter().rev().find(|(_, noted)| noted == text).map_or(Duration::MAX, |(at, _)| *at)
        };
        self.between(from, Duration::MAX)
    }

    /// Everything that was noted.
    pub(super) fn whole(&self) -> String {
        self.between(Duration::ZERO, Duration::MAX)
    }
}
