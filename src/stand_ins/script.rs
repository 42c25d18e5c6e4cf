//! What a stand-in does instead of answering as its platform would, request by request.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::wire::find;
use crate::model::Reply;

/// A limit's window is taken this much shorter than it is (in parts of 100), because two requests that left exactly one
/// second apart may arrive a little less than one second apart.
const WINDOW_PERCENT: u32 = 95;

/// What happens to one request.
///
/// `taken` says whether the message is posted all the same (if the platform would take it): an endpoint that fails after it
/// has accepted is the reason why delivery is "at least once".
#[derive(Clone, Debug)]
pub enum Step {
    /// What the platform would do.
    Accept,
    /// This reply.
    Reply {
        /// What is answered.
        reply: Reply,
        /// Whether the message is posted.
        taken: bool,
    },
    /// The platform's "too many", with this delay in all the places where the platform says it.
    RateLimited {
        /// How long the endpoint asks to be left alone; platforms that count whole seconds round it up.
        retry_after: Duration,
    },
    /// No answer ever; the connection stays open until the client has had enough.
    Hang {
        /// Whether the message is posted.
        taken: bool,
    },
    /// The connection is reset.
    Reset {
        /// Whether the message is posted.
        taken: bool,
    },
    /// What the platform would do, so much later. The message is posted at the end, whether or not the client still waits.
    Slow(Duration),
    /// Bytes that are not HTTP.
    Garbage {
        /// Whether the message is posted.
        taken: bool,
    },
}

/// The plan that a stand-in follows. Made with one of the constructors, refined with the methods; a stand-in takes a new one
/// at any time.
#[derive(Clone, Debug)]
pub struct Script {
    rules: Vec<(Vec<u8>, Step)>,
    plan: Plan,
    windows: Vec<Window>,
}

#[derive(Clone, Debug)]
enum Plan {
    Ordered { steps: VecDeque<Step>, then: Step },
    Weighted { choices: Vec<(u32, Step)>, dice: fastrand::Rng },
}

/// At most `count` requests in any `per`.
#[derive(Clone, Debug)]
struct Window {
    count: usize,
    per: Duration,
    passed: VecDeque<Instant>,
}

/// What a strict rate leaves: for headers such as `X-RateLimit-Remaining`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    pub(super) limit: usize,
    pub(super) remaining: usize,
    /// Until the window has room for one more.
    pub(super) reset_after: Duration,
}

impl Default for Script {
    fn default() -> Self {
        Self::accept()
    }
}

impl Script {
    /// As the platform would, every time.
    pub fn accept() -> Self {
        Self::always(Step::Accept)
    }

    /// The same every time.
    pub fn always(step: Step) -> Self {
        Self { rules: Vec::new(), plan: Plan::Ordered { steps: VecDeque::new(), then: step }, windows: Vec::new() }
    }

    /// One step per request, in this order; then as the platform would.
    pub fn ordered(steps: impl IntoIterator<Item = Step>) -> Self {
        let plan = Plan::Ordered { steps: steps.into_iter().collect(), then: Step::Accept };
        Self { rules: Vec::new(), plan, windows: Vec::new() }
    }

    /// A throw of dice per request: each step as often as its weight says. The same seed gives the same throws. All weights
    /// zero, or no choices: as the platform would.
    pub fn weighted(seed: u64, choices: impl IntoIterator<Item = (u32, Step)>) -> Self {
        let plan = Plan::Weighted { choices: choices.into_iter().collect(), dice: fastrand::Rng::with_seed(seed) };
        Self { rules: Vec::new(), plan, windows: Vec::new() }
    }

    /// A request whose body holds `needle` gets `step`, whatever the plan says, and uses up none of the plan.
    #[must_use]
    pub fn where_body_holds(mut self, needle: impl Into<Vec<u8>>, step: Step) -> Self {
        self.rules.push((needle.into(), step));
        self
    }

    /// Enforces the platform's limit: more than `count` requests within `per` are answered with the platform's "too many" and
    /// counted as violations. May be called several times: all limits hold.
    #[must_use]
    pub fn strict_rate(mut self, count: usize, per: Duration) -> Self {
        self.windows.push(Window { count: count.max(1), per: per * WINDOW_PERCENT / 100, passed: VecDeque::new() });
        self
    }

    /// The same without tolerance: of two accepted requests, the later one's head never arrives sooner after the earlier one's
    /// than the limit says. For workers on the same machine, where no network comes in between.
    #[must_use]
    pub fn exact_rate(mut self, count: usize, per: Duration) -> Self {
        self.windows.push(Window { count: count.max(1), per, passed: VecDeque::new() });
        self
    }

    /// What happens to a request with this body.
    pub(super) fn next(&mut self, body: &[u8]) -> Step {
        let rule = self.rules.iter().find(|(needle, _)| !needle.is_empty() && find(body, needle).is_some());
        if let Some((_, step)) = rule {
            return step.clone();
        }
        match &mut self.plan {
            Plan::Ordered { steps, then } => steps.pop_front().unwrap_or_else(|| then.clone()),
            Plan::Weighted { choices, dice } => {
                let total: u64 = choices.iter().map(|(weight, _)| u64::from(*weight)).sum();
                let mut throw = if total == 0 { return Step::Accept } else { dice.u64(0..total) };
                for (weight, step) in choices.iter() {
                    let weight = u64::from(*weight);
                    if throw < weight {
                        return step.clone();
                    }
                    throw -= weight;
                }
                Step::Accept
            }
        }
    }

    /// Counts a request against the limits. `Err`: it is one too many, and this long must pass before the next.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Option<Allowance>, Duration> {
        let full = self.windows.iter_mut().filter_map(|window| window.full_for(now)).max();
        if let Some(wait) = full {
            return Err(wait);
        }
        for window in &mut self.windows {
            window.passed.push_back(now);
        }
        let tightest = self.windows.iter().min_by_key(|window| window.count - window.passed.len());
        Ok(tightest.map(|window| Allowance {
            limit: window.count,
            remaining: window.count - window.passed.len(),
            reset_after: window.passed.front().map_or(Duration::ZERO, |&first| (first + window.per) - now),
        }))
    }
}

impl Window {
    /// How long the window stays full; `None` when it has room.
    fn full_for(&mut self, now: Instant) -> Option<Duration> {
        while self.passed.front().is_some_and(|&passed| now.duration_since(passed) >= self.per) {
            self.passed.pop_front();
        }
        let first = self.passed.front()?;
        (self.passed.len() >= self.count).then(|| (*first + self.per).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_strict_rate_lets_pass_what_the_limit_allows_and_says_how_long_to_wait_otherwise() {
        let mut script = Script::accept().strict_rate(2, SECOND);
        let start = Instant::now();
        assert_eq!(script.admit(start).unwrap().unwrap().remaining, 1);
        assert_eq!(script.admit(start).unwrap().unwrap().remaining, 0);
        let wait = script.admit(start + SECOND / 2).unwrap_err();
        assert_eq!(wait, Duration::from_millis(450));
        assert!(script.admit(start + SECOND).is_ok(), "a refused request uses up nothing");
    }

    #[test]
    fn an_exact_rate_turns_down_what_comes_a_millisecond_early_and_nothing_else() {
        let mut script = Script::accept().exact_rate(1, SECOND);
        let start = Instant::now();
        let early = start + Duration::from_millis(999);
        assert!(script.admit(start).is_ok());
        assert_eq!(script.admit(early).unwrap_err(), Duration::from_millis(1));
        assert!(script.admit(start + SECOND).is_ok(), "a refused request uses up nothing");
        assert!(script.admit(early + SECOND).is_err(), "the limit counts from the last that was accepted");
    }

    #[test]
    fn the_same_seed_throws_the_same_dice_and_weights_are_kept() {
        let script = Script::weighted(7, [(3, Step::Accept), (1, Step::Hang { taken: false })]);
        let throw = |mut script: Script| -> Vec<bool> {
            (0..4_000).map(|_| matches!(script.next(b""), Step::Hang { .. })).collect()
        };
        let (first, second) = (throw(script.clone()), throw(script));
        assert_eq!(first, second);
        let hangs = first.iter().filter(|hang| **hang).count();
        assert!((900..1_100).contains(&hangs), "{hangs} of 4000");
        assert!(matches!(Script::weighted(1, []).next(b""), Step::Accept));
    }

    #[test]
    fn a_rule_about_a_body_goes_before_the_plan_and_leaves_it_untouched() {
        let mut script =
            Script::ordered([Step::Hang { taken: false }]).where_body_holds("poison", Step::Reset { taken: false });
        assert!(matches!(script.next(b"some poison here"), Step::Reset { .. }));
        assert!(matches!(script.next(b"fine"), Step::Hang { .. }));
        assert!(matches!(script.next(b"fine"), Step::Accept));
    }
}
