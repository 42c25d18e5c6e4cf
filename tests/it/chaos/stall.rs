//! How long a channel that never failed stood still while something waited for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use interven_alerts::stand_ins::StandIn;
use tokio::{sync::broadcast::error::RecvError, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

type Sightings = Arc<Mutex<Vec<(Instant, String)>>>;

/// Notes when an endpoint was told what.
pub(super) struct Watch {
    sightings: Sightings,
    stop: CancellationToken,
}

/// A time in which a channel got nothing although it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stall {
    /// Since when.
    pub(super) from: Instant,
    /// How long.
    pub(super) lasted: Duration,
}

impl Watch {
    /// Watches one endpoint until it is dropped.
    pub(super) fn on(endpoint: &StandIn) -> Self {
        let (sightings, stop) = (Sightings::default(), CancellationToken::new());
        let (mut arrivals, seen, stopped) = (endpoint.subscribe(), Arc::clone(&sightings), stop.clone());
        let watching = async move {
            loop {
                match arrivals.recv().await {
                    Ok(received) => {
                        let ids = received.ids.iter().map(|id| (received.at, id.clone()));
                        seen.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
                    }
                    // What was missed makes a stall look longer than it was, and nothing else.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        };
        TaskTracker::new().spawn(async move { stopped.run_until_cancelled(watching).await });
        Self { sightings, stop }
    }

    /// The longest stall, given when the broker had confirmed what this endpoint was to get.
    pub(super) fn longest_stall(&self, wanted: &[(Instant, &str)]) -> Option<Stall> {
        longest(wanted, &self.sightings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What was never seen ended in another way, and nothing can be said of when.
fn longest(wanted: &[(Instant, &str)], seen: &[(Instant, String)]) -> Option<Stall> {
    let mut first: HashMap<&str, Instant> = HashMap::new();
    for (at, id) in seen {
        first.entry(id).and_modify(|known| *known = (*known).min(*at)).or_insert(*at);
    }
    let waits = wanted.iter().filter_map(|(from, id)| Some((*from, *first.get(id)?))).filter(|(from, to)| from < to);
    // Of two things at one moment, the arrival comes first: it ends a stall, and does not begin one.
    let mut events: Vec<(Instant, bool)> = waits.flat_map(|(from, to)| [(from, true), (to, false)]).collect();
    events.sort_unstable();
    let (mut waiting, mut since, mut worst) = (0_u32, None, None::<Stall>);
    for (at, begins) in events {
        if begins {
            waiting += 1;
            since = since.or(Some(at));
            continue;
        }
        waiting -= 1;
        let stall = since.map(|from| Stall { from, lasted: at - from });
        worst = stall.into_iter().chain(worst).max_by_key(|stall| stall.lasted);
        since = (waiting > 0).then_some(at);
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_the_longest_time_without_an_arrival_while_something_waits() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let wanted = [(at(0), "a"), (at(1), "b"), (at(20), "c"), (at(21), "never"), (at(30), "early")];
        let seen = [(at(2), "a"), (at(9), "b"), (at(23), "c"), (at(29), "early"), (at(60), "early"), (at(61), "?")];
        let seen = seen.map(|(at, id)| (at, id.to_owned()));
        // From `a` to `b`; between `b` and `c` nothing waited, and an arrival before its confirm is no wait.
        assert_eq!(longest(&wanted, &seen), Some(Stall { from: at(2), lasted: Duration::from_secs(7) }));
        assert_eq!(longest(&wanted, &[]), None);
    }
}
