//! Everything goes wrong at once, and nothing is lost: workers, brokers, endpoints, wires, disks and configurations fail as a seed
//! says, and an oracle asks afterwards for every confirmed decision and every channel that it matched.
//!
//! The safety sentence has four answers for a delivery: an endpoint has it, a digest that an endpoint took has counted it, a
//! dead-letter store has it, or it still waits on the broker. A fifth one is a loss, and a loss is a bug.
//!
//! The plan of faults comes from the seed alone, so the same seed breaks the same things at the same moments; what the machine
//! makes of it differs. `CHAOS_SECONDS=300` runs longer and with a seed of its own, which is printed; `CHAOS_SEED=7` chooses it.
//!
//! Start with `plan.rs`, what can happen; `stage.rs` is to whom, `suffer.rs` how, `oracle.rs` what must hold all the same.

mod cluster;
mod files;
mod journal;
mod oracle;
mod plan;
mod press;
mod stage;
mod stall;
mod suffer;

use std::time::Duration;

use self::{plan::Plan, stage::Stage};
use crate::support::turn_of_the_heavy;

/// How long things go wrong when nobody asks for more.
const LENGTH: Duration = Duration::from_secs(20);

/// The seed when nobody asks for another: its plan holds every kind of fault (`plan.rs` has a test for that).
const SEED: u64 = 25;

/// How long, and with which seed.
fn wishes() -> (Duration, u64) {
    #[expect(
        clippy::disallowed_methods,
        reason = "how whoever runs the tests asks for a longer run, or for the same again"
    )]
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
    let length = number("CHAOS_SECONDS").map(Duration::from_secs);
    let seed = number("CHAOS_SEED");
    (length.unwrap_or(LENGTH), seed.unwrap_or_else(|| if length.is_some() { fastrand::u64(..) } else { SEED }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_dies_fills_up_or_is_cut_off_every_confirmed_decision_is_told_or_kept() {
    let _turn = turn_of_the_heavy().await;
    let (length, seed) = wishes();
    println!("chaos for {length:?}: CHAOS_SECONDS={} CHAOS_SEED={seed}", length.as_secs());
    let plan = Plan::of(seed, length);
    let mut stage = Stage::raise(seed).await;
    let told = stage.run(&plan).await;
    let findings = stage.judge(told).await;
    findings.assert_nothing_is_lost();
}
