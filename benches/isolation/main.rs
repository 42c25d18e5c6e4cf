//! Isolation: what eight healthy channels notice of four sick ones beside them. Nothing, if all is well.
//!
//! The sick ones: one that never answers, one that always answers 503, one whose destination is gone (held), and one that is
//! limited to one a second with ten thousand waiting. Two sides run in turn (ABAB...) on the same broker, each with a worker
//! process of its own: the healthy channels *alone*, and the same *beside* the sick ones. Each run has three parts:
//!
//! - latency, from when a decision is due to be published until it is at a healthy endpoint: open loop, at a moderate rate, with
//!   decisions that all channels want, the sick ones too;
//! - throughput with decisions that only the healthy channels want, while the sick ones are as sick as before;
//! - throughput with decisions that all channels want. Beside, that is half as many deliveries again, each of which has to come
//!   to rest in its lane's queue: here the sick ones cost what any four channels more would cost, at least.
//!
//! The worker's resident memory is read all along. Nothing is asserted; the goals are a p99 within 1.1 times and a memory that
//! does not grow with what waits.
//!
//! `cargo bench --bench isolation` takes about three minutes; `--rounds N`, `--seconds N` and `--rate N` (decisions a second in
//! the latency part) change its size.

mod load;
#[path = "../../tests/it/support/rabbit.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the tests use the rest of it, and panic where they cannot go on")]
mod rabbit;
mod worker;

use std::time::Duration;

use interven_alerts::stand_ins::Sink;
use rabbit::Rabbit;

use self::{
    load::Load,
    worker::{Sick, Worker},
};

/// Channels that are well.
const HEALTHY: u32 = 8;

/// What waits in the limited lane before anything is measured.
const BACKLOG: u64 = 10_000;

/// How long the sick lanes have to find out that they are sick: longer than the hanging endpoint's five timeouts.
const SETTLE: Duration = Duration::from_secs(4);

/// Decisions of the two throughput parts.
const DRAINED: u64 = 4_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Alone,
    Beside,
}

struct Arguments {
    rounds: u64,
    seconds: u64,
    rate: u64,
}

/// What one run measured.
#[derive(Clone, Debug)]
struct Measured {
    p50: f64,
    p99: f64,
    /// Deliveries a second at the healthy endpoints: of decisions that only they want, and of those that all want.
    calm: f64,
    noisy: f64,
    /// Resident memory in megabytes: before the latency part, after it, and the most that was ever seen.
    memory: [f64; 3],
}

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| given.iter().position(|one| one == name).and_then(|at| given.get(at + 1));
    let number = |name: &str, otherwise: u64| after(name).map_or(otherwise, |text| text.parse().expect("a number"));
    let arguments =
        Arguments { rounds: number("--rounds", 3), seconds: number("--seconds", 12), rate: number("--rate", 100) };
    interven_alerts::tls::install();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(run(&arguments));
}

async fn run(arguments: &Arguments) {
    let rabbit = Rabbit::start("", "[].");
    let Arguments { rounds, seconds, rate } = *arguments;
    println!("{rounds} rounds, {HEALTHY} healthy channels; latency at {rate} decisions a second for {seconds} s");
    let mut pairs = Vec::new();
    for round in 0..rounds {
        // Whoever goes first finds the machine as the other left it: they take turns.
        let order = if round % 2 == 0 { [Side::Alone, Side::Beside] } else { [Side::Beside, Side::Alone] };
        let mut of_round = Vec::new();
        for side in order {
            let measured = run_once(&rabbit, side, round, arguments).await;
            println!(
                "  {side:?}: p50 {:.2} ms, p99 {:.2} ms; {:.0}/s calm, {:.0}/s noisy; memory {:.1} MB, then {:.1}, at most {:.1}",
                measured.p50 * 1e3,
                measured.p99 * 1e3,
                measured.calm,
                measured.noisy,
                measured.memory[0],
                measured.memory[1],
                measured.memory[2],
            );
            of_round.push((side, measured));
        }
        of_round.sort_by_key(|(side, _)| *side == Side::Beside);
        let mut in_order = of_round.into_iter().map(|(_, measured)| measured);
        pairs.push((in_order.next().expect("two sides"), in_order.next().expect("two sides")));
    }
    let ratio = |of: fn(&Measured) -> f64| median(pairs.iter().map(|(alone, beside)| of(beside) / of(alone)).collect());
    println!("beside/alone, medians of the pairs:");
    println!("  latency p50 {:.2}, p99 {:.2} (goal: 1.10)", ratio(|one| one.p50), ratio(|one| one.p99));
    println!("  throughput calm {:.2}, noisy {:.2}", ratio(|one| one.calm), ratio(|one| one.noisy));
    // What else happens on the machine only ever adds, so the quietest rounds are the nearest to the truth.
    let quietest = |of: fn(&Measured) -> f64| {
        let least =
            |side: Side| pairs.iter().map(move |(alone, beside)| of(if side == Side::Alone { alone } else { beside }));
        [Side::Alone, Side::Beside].map(|side| least(side).fold(f64::INFINITY, f64::min) * 1e3)
    };
    let ([p50_alone, p50_beside], [p99_alone, p99_beside]) = (quietest(|one| one.p50), quietest(|one| one.p99));
    println!(
        "  quietest rounds: p50 {p50_beside:.2} ms beside {p50_alone:.2}, p99 {p99_beside:.2} ms beside {p99_alone:.2} alone"
    );
    let grown = |one: &Measured| one.memory[1] - one.memory[0];
    let middle = |of: &dyn Fn(&(Measured, Measured)) -> f64| median(pairs.iter().map(of).collect());
    println!(
        "  memory grew in the latency part by {:.1} MB alone, {:.1} MB beside; most of all {:.1} MB alone, {:.1} MB beside",
        middle(&|pair| grown(&pair.0)),
        middle(&|pair| grown(&pair.1)),
        middle(&|pair| pair.0.memory[2]),
        middle(&|pair| pair.1.memory[2]),
    );
}

async fn run_once(rabbit: &Rabbit, side: Side, round: u64, arguments: &Arguments) -> Measured {
    let prefix = format!("{side:?}-{round}").to_lowercase();
    let decisions = arguments.seconds * arguments.rate;
    let sink = Sink::start(usize::MAX).await.expect("a port");
    let ill = match side {
        Side::Alone => None,
        Side::Beside => Some(Sick::start().await),
    };
    let worker = Worker::start(rabbit, &prefix, &sink.url(), ill.as_ref());
    let load = Load::connect(rabbit, &prefix).await;

    // Ready when it delivers; and sick where it is to be.
    load.drain("calm", 200, || sink.requests() >= 200 * u64::from(HEALTHY)).await;
    if let Some(sick) = &ill {
        load.drain("backlog", BACKLOG, || sick.has_begun()).await;
        load.until_taken_in().await;
    }
    load.paced("noisy", arguments.rate, SETTLE.as_secs() * arguments.rate).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let before = worker.resident_megabytes();
    sink.take_stamps();
    let published = load.paced("noisy", arguments.rate, decisions).await;
    let expected = decisions * u64::from(HEALTHY);
    let mut stamps = Vec::new();
    let (p50, p99) = {
        load::wait_for("every healthy channel has every decision", || {
            stamps.extend(sink.take_stamps());
            stamps.len() as u64 >= expected
        })
        .await;
        load::quantiles(&stamps, &published)
    };
    let after = worker.resident_megabytes();

    let throughput = async |agent: &str| {
        let (began, done) = (tokio::time::Instant::now(), sink.requests());
        let total = DRAINED * u64::from(HEALTHY);
        load.drain(agent, DRAINED, || sink.requests() >= done + total).await;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let total = total as f64;
        total / began.elapsed().as_secs_f64()
    };
    let calm = throughput("calm").await;
    let noisy = throughput("noisy").await;
    let memory = [before, after, worker.peak_megabytes()];
    drop(worker);
    load.clear(rabbit).await;
    Measured { p50, p99, calm, noisy, memory }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
