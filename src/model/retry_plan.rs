//! How often a delivery is tried, and how long to wait between tries.

use std::{num::NonZeroU32, time::Duration};

/// How often a delivery is tried, how long to wait between tries, and when it is too old to be worth one.
///
/// Every `RetryPlan` in existence has `1 <= attempts`, `0 < first <= longest` and `0 < max_age`. `TryFrom` is the only door,
/// so nothing downstream checks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPlan {
    attempts: NonZeroU32,
    first: Duration,
    longest: Duration,
    max_age: Duration,
}

/// The numbers of a retry plan, as somebody wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryNumbers {
    /// Tries that the endpoint answers with a failure of its own.
    pub attempts: u32,
    /// The wait after the first failure.
    pub first: Duration,
    /// The wait that growth stops at.
    pub longest: Duration,
    /// The age, since a worker first routed it, at which a delivery is given up.
    pub max_age: Duration,
}

impl Default for RetryNumbers {
    /// Source: contract 3, `[channel.retry]`.
    fn default() -> Self {
        Self {
            attempts: 10,
            first: Duration::from_secs(1),
            longest: Duration::from_mins(5),
            max_age: Duration::from_hours(24),
        }
    }
}

/// Why numbers are not a retry plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetryPlanError {
    /// No attempt at all.
    #[error("at least one attempt is needed")]
    NoAttempt,
    /// A wait or an age of nothing.
    #[error("waits and the largest age must be above zero")]
    Zero,
    /// The first wait is the longer one.
    #[error("the first wait is longer than the longest one")]
    FirstAboveLongest,
}

impl RetryPlanError {
    /// What the operator can do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::NoAttempt => "set `attempts` to 1 or more",
            Self::Zero => "set `first`, `longest` and `max_age` to durations such as 1s",
            Self::FirstAboveLongest => "lower `first` or raise `longest`",
        }
    }
}

impl TryFrom<RetryNumbers> for RetryPlan {
    type Error = RetryPlanError;

    fn try_from(numbers: RetryNumbers) -> Result<Self, RetryPlanError> {
        let RetryNumbers { attempts, first, longest, max_age } = numbers;
        let attempts = NonZeroU32::new(attempts).ok_or(RetryPlanError::NoAttempt)?;
        if [first, longest, max_age].iter().any(Duration::is_zero) {
            return Err(RetryPlanError::Zero);
        }
        if first > longest {
            return Err(RetryPlanError::FirstAboveLongest);
        }
        Ok(Self { attempts, first, longest, max_age })
    }
}

impl RetryPlan {
    /// Tries that the endpoint answers with a failure of its own, before the delivery is dead.
    pub const fn attempts(&self) -> NonZeroU32 {
        self.attempts
    }

    /// The wait after the first failure.
    pub const fn first(&self) -> Duration {
        self.first
    }

    /// The wait that growth stops at.
    pub const fn longest(&self) -> Duration {
        self.longest
    }

    /// The age, since a worker first routed it, at which a delivery is given up.
    pub const fn max_age(&self) -> Duration {
        self.max_age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_that_make_sense_become_a_plan() {
        let good = RetryNumbers::default();
        assert!(RetryPlan::try_from(good).is_ok());
        let zero = Duration::ZERO;
        let cases = [
            (RetryNumbers { attempts: 0, ..good }, RetryPlanError::NoAttempt),
            (RetryNumbers { first: zero, ..good }, RetryPlanError::Zero),
            (RetryNumbers { longest: zero, ..good }, RetryPlanError::Zero),
            (RetryNumbers { max_age: zero, ..good }, RetryPlanError::Zero),
            (RetryNumbers { first: good.longest * 2, ..good }, RetryPlanError::FirstAboveLongest),
        ];
        for (numbers, expected) in cases {
            assert_eq!(RetryPlan::try_from(numbers), Err(expected), "{numbers:?}");
        }
    }
}
