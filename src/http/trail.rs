//! The audit line of a deed that takes its time.
//!
//! A caller may hang up in the middle, and its handler is dropped then; what it had begun may be done all the same. Whoever
//! could leave no trace by that would do so. So the line is written when the [`Trail`] goes, however it goes.

use super::guard::{Caller, audit};

/// What is said of a deed whose caller did not wait for its end.
const LEFT: &str = "in doubt: the caller had gone before it was done";

/// What is said of a record that may have been written.
pub(super) const UNCONFIRMED: &str = "in doubt: the broker did not confirm it";

/// One deed, from before its first effect.
pub(super) struct Trail {
    caller: Caller,
    what: &'static str,
    subject: String,
    /// `None` where there is nothing to tell.
    outcome: Option<String>,
}

impl Trail {
    /// From here on the deed is told of.
    pub(super) fn begin(caller: &Caller, what: &'static str, subject: &str) -> Self {
        Self { caller: caller.clone(), what, subject: subject.to_owned(), outcome: Some(LEFT.to_owned()) }
    }

    /// What it came to. Of what was refused, and so surely not done, nothing is told: `None`.
    pub(super) fn end(mut self, outcome: Option<&str>) {
        self.outcome = outcome.map(str::to_owned);
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if let Some(outcome) = &self.outcome {
            audit(&self.caller, self.what, &self.subject, outcome);
        }
    }
}
