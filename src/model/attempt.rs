//! A try that failed, as it is told to people.

use serde::{Deserialize, Serialize};

use super::{Timestamp, verdict::Outcome};

/// How many of its last failures a delivery remembers. With texts at their longest they take 5 KB.
pub const KEPT_MAX: usize = 10;

/// The longest text, in characters.
const TEXT_CHARS_MAX: usize = 400;

/// A try that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it came back.
    pub at: Timestamp,
    /// What it meant, by the name of its [`Outcome`].
    pub outcome: String,
    /// The HTTP status; none where no reply came.
    pub status: Option<u16>,
    /// What the endpoint said or what went wrong, free of secrets.
    pub text: String,
}

impl Attempt {
    /// A try of this moment. `text` is free of secrets.
    pub fn new(at: Timestamp, outcome: Outcome, status: Option<u16>, text: &str) -> Self {
        Self { at, outcome: outcome.as_str().to_owned(), status, text: text.chars().take(TEXT_CHARS_MAX).collect() }
    }

    /// Adds it to others, of which the oldest are forgotten.
    pub fn remember(self, history: &mut Vec<Self>) {
        let surplus = (history.len() + 1).saturating_sub(KEPT_MAX);
        history.drain(..surplus.min(history.len()));
        history.push(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failures_are_remembered_and_no_more_of_them_than_fit() {
        let mut history = Vec::new();
        for number in 0..25 {
            let at = Timestamp::from_unix_millis(number);
            Attempt::new(at, Outcome::TryLater, Some(503), &"x".repeat(1_000)).remember(&mut history);
        }
        let times: Vec<i64> = history.iter().map(|attempt| attempt.at.unix_millis()).collect();
        assert_eq!(times, (15..25).collect::<Vec<_>>());
        assert!(history.iter().all(|attempt| attempt.text.len() == TEXT_CHARS_MAX && attempt.outcome == "try_later"));
    }
}
