//! The firewall of a run: it publishes all the time, whatever goes wrong, and notes what the broker has confirmed.

use std::time::Duration;

use bytes::Bytes;
use interven_alerts::{
    model::{Clock, Decision},
    stand_ins::Firewall,
};
use tokio::time::Instant;

use super::journal::Journal;
use crate::support::{firewall::Publisher, rabbit::Rabbit, worker::WorkerProcess};

/// The pause between two batches.
const PAUSE: Duration = Duration::from_millis(100);

/// The largest batch.
const BATCH_MAX: usize = 12;

/// Every so many batches, one has a message that is no decision.
const MALFORMED_EVERY: usize = 10;

/// How often in a row nothing may be found waiting before it counts as quiet: what one look misses is on its way to the next.
const QUIET_LOOKS: u32 = 4;

/// How often it is noted what still waits.
const NOTE_EVERY: Duration = Duration::from_secs(5);

/// What was published.
#[derive(Default)]
pub(super) struct Ledger {
    /// What the broker has confirmed, and when: nothing of it may be lost.
    pub(super) confirmed: Vec<(Instant, Decision)>,
    /// The same of what is no decision.
    pub(super) malformed: Vec<Bytes>,
    /// What the broker may have or not: it may be told.
    pub(super) unconfirmed: Vec<Decision>,
}

/// Publishes for as long as the run is to last.
pub(super) async fn publish(publisher: &mut Publisher, seed: u64, length: Duration, journal: &Journal) -> Ledger {
    let mut firewall = Firewall::new(seed, Clock::System).hostile_every(10);
    let mut dice = fastrand::Rng::with_seed(seed);
    let (mut ledger, mut away) = (Ledger::default(), false);
    for batch in 1.. {
        if journal.began().elapsed() >= length {
            break;
        }
        let decisions: Vec<Bytes> = (0..dice.usize(1..=BATCH_MAX)).map(|_| firewall.message()).collect();
        let malformed = (batch % MALFORMED_EVERY == 0).then(|| Bytes::from(format!("\u{1}{{ no decision, {batch}")));
        let bodies: Vec<Bytes> = decisions.iter().cloned().chain(malformed.clone()).collect();
        let confirmed = publisher.publish(&bodies).await;
        let now = Instant::now();
        let decoded = decisions.into_iter().map(|body| Decision::decode(body).expect("the firewall makes decisions"));
        if confirmed {
            ledger.confirmed.extend(decoded.map(|decision| (now, decision)));
            ledger.malformed.extend(malformed);
        } else {
            ledger.unconfirmed.extend(decoded);
        }
        if away == confirmed {
            journal.note(if confirmed { "the firewall publishes again" } else { "the firewall cannot publish" });
            away = !confirmed;
        }
        tokio::time::sleep(PAUSE).await;
    }
    ledger
}

/// Waits until nothing waits anywhere: not on the broker, not in a worker. Whether it came to that within `limit`.
pub(super) async fn is_quiet_within(
    limit: Duration,
    workers: &[WorkerProcess],
    publisher: &mut Publisher,
    (rabbit, prefix): (&Rabbit, &str),
    journal: &Journal,
) -> bool {
    let deadline = Instant::now() + limit;
    let (mut looks, mut noted) = (0, Instant::now());
    let mut queues = rabbit.queues(prefix).await;
    while looks < QUIET_LOOKS {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
        let mut here = 0;
        for worker in workers {
            here += worker.metrics().await.sum("acks_waiting", &[]);
        }
        let there = publisher.ready_in_each(&queues).await;
        looks = if here == 0 && there.as_ref().is_some_and(Vec::is_empty) { looks + 1 } else { 0 };
        if noted.elapsed() >= NOTE_EVERY {
            journal.note(format!("the workers hold {here}, and on the broker wait {there:?}"));
            // Queues come and go with the configuration.
            (queues, noted) = (rabbit.queues(prefix).await, Instant::now());
        }
    }
    true
}
