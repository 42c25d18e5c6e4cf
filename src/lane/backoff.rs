//! How long to wait before the next try: the `backoff` crate's exponential policy with jitter.
//!
//! Only the formula is used. The crate keeps its state in memory, but a delivery's attempt number travels with it through
//! queues and workers, so the interval is set from that number each time. The jitter is drawn here and not by the crate,
//! whose generator cannot be seeded.

use std::time::Duration;

use backoff::{ExponentialBackoffBuilder, backoff::Backoff as _};

use crate::model::RetryPlan;

/// Where waits come from. Randomness enters by this one door.
#[derive(Debug)]
pub struct Backoff {
    random: fastrand::Rng,
}

/// A wait is drawn from `interval * (1 - JITTER) ..= interval * (1 + JITTER)`.
const JITTER: f64 = 0.25;

/// At most this part of an asked wait is added to it. Source: platforms.md, 13.
const SLIVER: f64 = 0.1;

impl Backoff {
    /// Waits that differ from run to run.
    pub fn new() -> Self {
        Self { random: fastrand::Rng::new() }
    }

    /// Waits that repeat with `seed`, for tests.
    pub fn seeded(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed) }
    }

    /// The wait after the `round`th failure, counted from 1: `first`, doubled with each round up to `longest`, with jitter; never
    /// above `longest`.
    pub fn delay(&mut self, plan: &RetryPlan, round: u32) -> Duration {
        let interval = plan.first().saturating_mul(1_u32 << round.saturating_sub(1).min(30)).min(plan.longest());
        let mut policy = ExponentialBackoffBuilder::new()
            .with_initial_interval(interval)
            .with_max_interval(plan.longest())
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        let interval = policy.next_backoff().unwrap_or(plan.longest());
        let factor = 1.0 - JITTER + 2.0 * JITTER * self.random.f64();
        interval.mul_f64(factor).min(plan.longest())
    }

    /// A little extra on top of a wait that an endpoint asked for.
    pub fn sliver(&mut self, asked: Duration) -> Duration {
        asked.mul_f64(SLIVER * self.random.f64())
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}
