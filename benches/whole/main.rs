//! The whole path, beside its bare floor: decisions preloaded in a real RabbitMQ, drained to a local HTTP endpoint.
//!
//! The floor is what lapin and reqwest cost with nothing in between: consume, post, acknowledge in coalesced batches, with the
//! worker's own concurrency. Floor and worker run in turn, each in a process of its own, on the same broker and the same sink, so
//! that their ratio says something on a machine that is shared and noisy. Nothing is asserted.
//!
//! `cargo bench --bench whole` runs all of it in about three minutes; `-- drain`, `-- batch`, `-- paced` or `-- idle` one part,
//! `--rounds N` and `--decisions N` change its size.

mod floor;
mod processes;
#[path = "../../tests/it/support/rabbit.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the tests use the rest of it, and panic where they cannot go on")]
mod rabbit;

use std::{collections::HashMap, num::NonZeroU16, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use interven_alerts::{
    broker::{
        Broker as _, Destination, Message,
        rabbitmq::{RabbitMq, RabbitSettings},
    },
    model::Secret,
    stand_ins::Sink,
};
use processes::Side;
use rabbit::Rabbit;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Sends under way at once, of floor and worker alike: the default of the siem kind.
const CONCURRENCY: u16 = 16;

/// Unsettled decisions of floor and worker alike: the default of `[broker] prefetch`.
const PREFETCH: u16 = 1000;

/// Channels of the worker, of which one matches.
const CHANNELS: u32 = 10;

/// The part of a drain that is not measured: processes start, connections open.
const WARM_UP: f64 = 0.1;

struct Arguments {
    part: Option<String>,
    rounds: usize,
    decisions: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == "floor-process") {
        return floor::main(&arguments[1..]);
    }
    let after = |name: &str| arguments.iter().position(|one| one == name).and_then(|at| arguments.get(at + 1));
    let number = |name: &str, otherwise: u64| after(name).map_or(otherwise, |text| text.parse().expect("a number"));
    let arguments = Arguments {
        part: arguments.first().filter(|first| !first.starts_with("--")).cloned(),
        rounds: usize::try_from(number("--rounds", 5)).expect("a small number"),
        decisions: number("--decisions", 100_000),
    };
    interven_alerts::tls::install();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(run(&arguments));
}

async fn run(arguments: &Arguments) {
    let rabbit = Rabbit::start("", "[].");
    let wanted = |part: &str| arguments.part.as_deref().is_none_or(|one| one == part);
    println!(
        "{} rounds, {} decisions a drain, {CHANNELS} channels, one matched",
        arguments.rounds, arguments.decisions
    );
    if wanted("drain") {
        drain(&rabbit, arguments, 1).await;
    }
    if wanted("batch") {
        drain(&rabbit, arguments, 100).await;
    }
    if wanted("paced") {
        paced(&rabbit, arguments).await;
    }
    if wanted("idle") {
        idle(&rabbit).await;
    }
}

/// A broker handle of ours, for topology and for publishing.
async fn connect(rabbit: &Rabbit, prefix: &str) -> RabbitMq {
    let settings = RabbitSettings {
        urls: vec![rabbit.url()],
        prefix: prefix.to_owned(),
        declare: true,
        keep_decisions: None,
        lanes: Vec::new(),
    };
    let broker = RabbitMq::connect(settings, &TaskTracker::new()).expect("the URL is sound");
    broker.ready(Duration::from_mins(1)).await.expect("the broker is there");
    broker
}

fn decision(number: u64) -> Bytes {
    let json = format!(
        r#"{{"id":"{number:08}-5b6a-4788-99aa-bbccddeeff00","time":"2026-06-01T12:00:00.123Z","decision":"DENY","severity":"HIGH","risk":0.71,"title":"Secret egress blocked","agent":{{"id":"agt_42","name":"production-langgraph"}},"tool":"slack","operation":"post_message","reasons":["PII_EGRESS","SENSITIVE_DATA_EGRESS"],"src":"10.0.0.42"}}"#
    );
    Bytes::from(json)
}

async fn preload(broker: &RabbitMq, count: u64) {
    let publish = |number: u64| {
        let message = Message { to: Destination::DecisionsExchange, id: number.to_string(), body: decision(number) };
        broker.publish(message)
    };
    let mut confirms = stream::iter(0..count).map(publish).buffer_unordered(2_000);
    while let Some(confirm) = confirms.next().await {
        confirm.expect("the broker takes the preload");
    }
}

/// What one drain cost.
#[derive(Clone, Copy, Debug)]
struct Drained {
    per_second: f64,
    cpu_seconds_per_10_000: f64,
}

async fn drain(rabbit: &Rabbit, arguments: &Arguments, batch: u64) {
    println!(
        "\n== drain, {} a request",
        if batch == 1 { String::from("one decision") } else { format!("{batch} decisions") }
    );
    let mut results: HashMap<Side, Vec<Drained>> = HashMap::new();
    for round in 0..arguments.rounds {
        // Whoever goes first finds the machine as the other left it: they take turns.
        let order = if round % 2 == 0 { [Side::Floor, Side::Worker] } else { [Side::Worker, Side::Floor] };
        for side in order {
            let drained = drain_once(rabbit, side, round, arguments.decisions, batch).await;
            println!("  {side:?}: {:.0}/s, {:.3} CPU s per 10,000", drained.per_second, drained.cpu_seconds_per_10_000);
            results.entry(side).or_default().push(drained);
        }
    }
    let middle = |side, of: fn(&Drained) -> f64| median(results[&side].iter().map(of).collect());
    let (floor, worker) = (middle(Side::Floor, |one| one.per_second), middle(Side::Worker, |one| one.per_second));
    let cpu = |one: &Drained| one.cpu_seconds_per_10_000;
    println!(
        "  median: floor {floor:.0}/s at {:.3}, worker {worker:.0}/s at {:.3}",
        middle(Side::Floor, cpu),
        middle(Side::Worker, cpu)
    );
    let pairs = results[&Side::Worker].iter().zip(&results[&Side::Floor]);
    let ratio = median(pairs.map(|(worker, floor)| worker.per_second / floor.per_second).collect());
    println!("  ratio worker/floor: {ratio:.3} (median of the pairs)");
}

async fn drain_once(rabbit: &Rabbit, side: Side, round: usize, decisions: u64, batch: u64) -> Drained {
    let prefix = format!("{side:?}-{batch}-{round}").to_lowercase();
    let broker = connect(rabbit, &prefix).await;
    preload(&broker, decisions).await;
    broker.close().await;
    let sink = Sink::start(0).await.expect("a port");
    let process = processes::start(side, rabbit, &prefix, &sink.url(), batch);
    let requests = decisions / batch;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small numbers"
    )]
    let warm = (requests as f64 * WARM_UP) as u64;
    wait_for(|| sink.requests() >= warm, "the drain begins").await;
    let (began, cpu_before, done_before) = (Instant::now(), process.cpu_seconds(), sink.requests());
    wait_for(|| sink.requests() >= requests, "the drain ends").await;
    let (took, cpu) = (began.elapsed().as_secs_f64(), process.cpu_seconds() - cpu_before);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let done = ((sink.requests() - done_before) * batch) as f64;
    Drained { per_second: done / took, cpu_seconds_per_10_000: cpu / done * 10_000.0 }
}

async fn wait_for(mut holds: impl FnMut() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !holds() {
        assert!(Instant::now() < deadline, "not within two minutes: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Latency from publish to the endpoint at a steady pace that neither side has trouble with: 500 a second, open loop.
async fn paced(rabbit: &Rabbit, arguments: &Arguments) {
    const PER_SECOND: u64 = 500;
    const SECONDS: u64 = 8;
    println!("\n== {PER_SECOND} a second, open loop, {SECONDS} s");
    let mut results: HashMap<Side, Vec<(f64, f64)>> = HashMap::new();
    for round in 0..arguments.rounds.min(3) {
        let order = if round % 2 == 0 { [Side::Floor, Side::Worker] } else { [Side::Worker, Side::Floor] };
        for side in order {
            let (p50, p99) = paced_once(rabbit, side, round, PER_SECOND, PER_SECOND * SECONDS).await;
            println!("  {side:?}: p50 {:.2} ms, p99 {:.2} ms", p50 * 1e3, p99 * 1e3);
            results.entry(side).or_default().push((p50, p99));
        }
    }
    let ratio = |of: fn(&(f64, f64)) -> f64| {
        median(results[&Side::Worker].iter().zip(&results[&Side::Floor]).map(|(w, f)| of(w) / of(f)).collect())
    };
    println!(
        "  ratio worker/floor: p50 {:.2}, p99 {:.2} (medians of the pairs)",
        ratio(|one| one.0),
        ratio(|one| one.1)
    );
}

async fn paced_once(rabbit: &Rabbit, side: Side, round: usize, per_second: u64, count: u64) -> (f64, f64) {
    const WARM_UP: u64 = 500;
    let prefix = format!("paced-{side:?}-{round}").to_lowercase();
    let broker = connect(rabbit, &prefix).await;
    let total = usize::try_from(count + WARM_UP).expect("a small number");
    let sink = Sink::start(total).await.expect("a port");
    let _process = processes::start(side, rabbit, &prefix, &sink.url(), 1);
    let mut published = HashMap::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(per_second).expect("a small number"));
    let tracker = TaskTracker::new();
    for number in 0..count + WARM_UP {
        ticks.tick().await;
        let body = decision(number);
        let id = format!("{number:08}-5b6a-4788-99aa-bbccddeeff00");
        if number >= WARM_UP {
            published.insert(id, Instant::now());
        }
        let message = Message { to: Destination::DecisionsExchange, id: number.to_string(), body };
        let publish = broker.publish(message);
        tracker.spawn(async move { publish.await.expect("confirmed") });
    }
    wait_for(|| sink.requests() >= count + WARM_UP, "everything has arrived").await;
    broker.close().await;
    let mut waits: Vec<f64> = sink
        .take_stamps()
        .iter()
        .filter_map(|stamp| Some(stamp.at.saturating_duration_since(*published.get(&*stamp.id)?).as_secs_f64()))
        .collect();
    assert_eq!(waits.len() as u64, count, "every decision was stamped once");
    waits.sort_by(f64::total_cmp);
    (waits[waits.len() / 2], waits[waits.len() * 99 / 100])
}

/// The memory of a worker with nothing to do.
async fn idle(rabbit: &Rabbit) {
    println!("\n== idle, {CHANNELS} channels");
    let sink = Sink::start(0).await.expect("a port");
    let process = processes::start(Side::Worker, rabbit, "idle", &sink.url(), 1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("  resident memory {:.1} MB, CPU {:.2} s in 10 s", process.resident_megabytes(), process.cpu_seconds());
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// The broker's URL as text, for the processes.
fn url_text(url: &Secret) -> String {
    url.expose().to_owned()
}

/// The prefetch as AMQP wants it.
fn prefetch() -> NonZeroU16 {
    NonZeroU16::new(PREFETCH).expect("above zero")
}
