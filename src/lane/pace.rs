//! Pace: how fast a lane may send. One token bucket per limit, all of which must agree.
//!
//! A bucket is kept as the moment at which it would be full again ("generic cell rate algorithm"): one `Instant` of state, no
//! task that refills it, and exact for every rate.
//!
//! A bucket that permits a burst also permits, after a rest, the burst and the regular sends in one period: up to twice the
//! count. Where the burst is within the count (`20/min`, all of them at once if need be), the platform means a window, and so
//! the last `count` sends are remembered and the window is held exactly.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::channels::Rate;

/// The limits of one lane.
#[derive(Debug)]
pub struct Pace {
    buckets: Vec<Bucket>,
    /// Not before this moment, whatever the buckets say: the endpoint wanted a rest.
    rest_until: Option<Instant>,
    /// How long the last requests took.
    took: VecDeque<Duration>,
}

/// Over how many requests the shortest way is looked for, and of how many it is not judged yet.
const TOOK_MAX: usize = 16;
const TOOK_MIN: usize = 4;

/// What the shortest way may differ from the next one, as a part of the interval: clocks and schedulers are not exact to the
/// millisecond. A fiftieth is 20 ms at one a second and costs at most 2 % of the rate; where a reply takes no longer than this, the
/// next request is a whole interval behind the reply, and so behind whatever the endpoint saw.
const GRAINS: u32 = 50;

/// The longest that a lane which begins leaves its endpoint alone.
const BEGIN_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Bucket {
    /// What one send costs.
    interval: Duration,
    /// How far `full_at` may lie ahead: a burst less the send itself.
    slack: Duration,
    /// When the bucket is full again; in the past when it is full now.
    full_at: Option<Instant>,
    /// The last sends of a limit that is a window.
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    count: usize,
    per: Duration,
    sent: VecDeque<Instant>,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        let interval = rate.per / rate.count.max(1);
        let window = (2..=rate.count).contains(&rate.burst).then(|| {
            let count = rate.count as usize;
            Window { count, per: rate.per, sent: VecDeque::new() }
        });
        // A window alone says when; the bucket in front of it is as deep as the burst.
        Self { interval, slack: interval * rate.burst.saturating_sub(1), full_at: None, window }
    }

    fn next(&self) -> Option<Instant> {
        let earned = self.full_at.and_then(|full| full.checked_sub(self.slack));
        let window = self.window.as_ref().and_then(|window| {
            let oldest = window.sent.front().filter(|_| window.sent.len() >= window.count)?;
            Some(*oldest + window.per)
        });
        earned.max(window)
    }

    /// The last send was seen up to `late` after it was made, and so no later than `now`.
    fn late(&mut self, now: Instant, late: Duration) {
        if let Some(last) = self.window.as_mut().and_then(|window| window.sent.back_mut()) {
            *last = (*last + late).min(now.max(*last));
        }
        // A bucket that is deeper than one send forgives what a single one lost on its way.
        if self.slack.is_zero() {
            self.full_at = self.full_at.map(|full| (full + late).min((now + self.interval).max(full)));
        }
    }

    fn take(&mut self, now: Instant) {
        self.full_at = Some(self.full_at.map_or(now, |full| full.max(now)) + self.interval);
        if let Some(window) = &mut self.window {
            if window.sent.len() >= window.count {
                window.sent.pop_front();
            }
            window.sent.push_back(now);
        }
    }
}

impl Pace {
    /// A pace that holds all of `rates`; none of them means as fast as can be.
    pub fn new(rates: &[Rate]) -> Self {
        Self { buckets: rates.iter().copied().map(Bucket::new).collect(), rest_until: None, took: VecDeque::new() }
    }

    /// Whether there is any limit.
    pub fn is_limited(&self) -> bool {
        !self.buckets.is_empty()
    }

    /// The first moment, `now` or later, at which a send is permitted.
    pub fn next(&self, now: Instant) -> Instant {
        self.buckets.iter().filter_map(Bucket::next).chain(self.rest_until).fold(now, Instant::max)
    }

    /// Takes one token from every bucket. Call it when [`Self::next`] says `now`.
    pub fn take(&mut self, now: Instant) {
        for bucket in &mut self.buckets {
            bucket.take(now);
        }
    }

    /// A request has come back that `took` so long. The endpoint counts from when it *sees* a request, which can be as late as
    /// the reply less the shortest way there and back: what this one lost on its way (a handshake, a slow line, a busy endpoint)
    /// must not bring the next one too close behind it.
    pub fn seen(&mut self, now: Instant, took: Duration) {
        if !self.is_limited() {
            return;
        }
        if self.took.len() == TOOK_MAX {
            self.took.pop_front();
        }
        self.took.push_back(took);
        let shortest = self.took.iter().min().copied().filter(|_| self.took.len() >= TOOK_MIN).unwrap_or_default();
        let late = took.saturating_sub(shortest);
        for bucket in &mut self.buckets {
            bucket.late(now, late + bucket.interval / GRAINS);
        }
    }

    /// As if one had just gone: nobody knows yet whether another worker sent a moment ago. Limits of less than one in
    /// [`BEGIN_MAX`] are not waited for whole: the first alert after a start must not be an hour late.
    pub fn begin(&mut self, now: Instant) {
        let interval = self.buckets.iter().map(|bucket| bucket.interval).max().unwrap_or_default();
        self.rest(now, interval.min(BEGIN_MAX));
    }

    /// As if everything that may go at once had just gone: somebody else may have sent it.
    pub fn spend(&mut self, now: Instant) {
        for bucket in &mut self.buckets {
            bucket.full_at = Some(now + bucket.slack + bucket.interval);
        }
    }

    /// Leaves the endpoint alone for `wait`.
    pub fn rest(&mut self, now: Instant, wait: Duration) {
        if !wait.is_zero() {
            self.rest_until = self.rest_until.max(Some(now + wait));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends_within(pace: &mut Pace, seconds: u64) -> Vec<Duration> {
        let start = Instant::now();
        let (mut now, mut sent) = (start, Vec::new());
        loop {
            now = pace.next(now);
            if now >= start + Duration::from_secs(seconds) {
                return sent;
            }
            pace.take(now);
            sent.push(now - start);
        }
    }

    #[test]
    fn one_a_second_is_one_a_second() {
        let rate = Rate { count: 1, per: Duration::from_secs(1), burst: 1 };
        let sent = sends_within(&mut Pace::new(&[rate]), 5);
        assert_eq!(sent, (0..5).map(Duration::from_secs).collect::<Vec<_>>());
    }

    #[test]
    fn a_burst_goes_at_once_and_is_then_earned_back() {
        let rate = Rate { count: 2, per: Duration::from_secs(1), burst: 5 };
        let sent = sends_within(&mut Pace::new(&[rate]), 2);
        assert_eq!(sent.len(), 5 + 3);
        assert!(sent[4].is_zero() && sent[5] == Duration::from_millis(500));
    }

    #[test]
    fn two_limits_hold_both() {
        let rates = [
            Rate { count: 1, per: Duration::from_secs(1), burst: 1 },
            Rate { count: 20, per: Duration::from_mins(1), burst: 20 },
        ];
        let sent = sends_within(&mut Pace::new(&rates), 300);
        for (at, first) in sent.iter().enumerate() {
            let within = |span| sent[at..].iter().take_while(|one| **one < *first + span).count();
            assert!(within(Duration::from_secs(1)) <= 1, "from {first:?}");
            assert!(within(Duration::from_mins(1)) <= 20, "from {first:?}");
        }
        assert_eq!(sent.len(), 100);
    }

    #[test]
    fn no_limit_permits_now_but_a_rest_is_kept() {
        let mut pace = Pace::new(&[]);
        let now = Instant::now();
        assert_eq!(pace.next(now), now);
        pace.rest(now, Duration::from_secs(2));
        pace.rest(now, Duration::from_secs(1));
        assert_eq!(pace.next(now), now + Duration::from_secs(2));
    }
}
