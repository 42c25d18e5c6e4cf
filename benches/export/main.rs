//! The decisions export of a worker process: how fast, and with how much memory over idle.
//!
//! The log is filled first, in no order and with a hundredth of it twice; then a worker that does nothing else is asked for all of it
//! over HTTP, and what comes is counted and looked at for its order. Nothing is asserted of the speed.
//!
//! `cargo bench --bench export` does it for RabbitMQ and the embedded broker with 100,000 decisions; `-- rabbitmq` or `-- embedded`
//! for one of them, `--decisions N` changes the size, `--formats csv,json` what is asked for.

#[path = "../../tests/it/support/rabbit.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the tests use the rest of it, and panic where they cannot go on")]
mod rabbit;

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use interven_alerts::{
    broker::{
        Broker, Destination, Log, Message,
        embedded::{Embedded, EmbeddedSettings},
        rabbitmq::{RabbitMq, RabbitSettings},
    },
    model::{Clock, Timestamp, hex},
};
use rabbit::Rabbit;
use sha2::Digest as _;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// The token of the worker's auditor.
const TOKEN: &str = "token-of-the-bench";

/// How long decisions are kept.
const KEEP: Option<Duration> = Some(Duration::from_hours(24 * 30));

/// Of so many decisions, one is in the log twice.
const TWICE_EVERY: u64 = 100;

struct Arguments {
    part: Option<String>,
    decisions: u64,
    formats: String,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let after = |name: &str| arguments.iter().position(|one| one == name).and_then(|at| arguments.get(at + 1));
    let arguments = Arguments {
        part: arguments.first().filter(|first| !first.starts_with("--")).cloned(),
        decisions: after("--decisions").map_or(100_000, |text| text.parse().expect("a number")),
        formats: after("--formats").cloned().unwrap_or_else(|| String::from("ndjson,csv,splunk")),
    };
    interven_alerts::tls::install();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(run(&arguments));
}

async fn run(arguments: &Arguments) {
    let wanted = |part: &str| arguments.part.as_deref().is_none_or(|one| one == part);
    println!("{} decisions of about 400 bytes, in no order, every {TWICE_EVERY}th twice", arguments.decisions);
    if wanted("rabbitmq") {
        let rabbit = Rabbit::start("", "[].");
        let settings = RabbitSettings {
            urls: vec![rabbit.url()],
            prefix: String::from("bench"),
            declare: true,
            keep_decisions: KEEP,
            lanes: Vec::new(),
        };
        let broker = RabbitMq::connect(settings, &TaskTracker::new()).expect("the URL is sound");
        broker.ready(Duration::from_mins(1)).await.expect("the broker is there");
        fill("rabbitmq", Arc::new(broker), arguments.decisions).await;
        let directory = tempfile::tempdir().expect("a directory");
        let section = format!("[broker]\nurl = \"{}\"\nprefix = \"bench\"\n", rabbit.url().expose());
        measure(arguments, directory.path(), &section).await;
    }
    if wanted("embedded") {
        let directory = tempfile::tempdir().expect("a directory");
        let settings =
            EmbeddedSettings { dir: directory.path().join("broker"), keep_decisions: KEEP, lanes: Vec::new() };
        let broker = Embedded::open(settings, Clock::System, &TaskTracker::new()).await.expect("a store");
        fill("embedded", Arc::new(broker), arguments.decisions).await;
        measure(arguments, directory.path(), "").await;
    }
}

/// One of the decisions: its time, its id and its number are in one order.
fn decision(first: Timestamp, number: u64) -> Bytes {
    let time = first.plus(Duration::from_millis(number * 10)).to_rfc3339_millis();
    let json = format!(
        r#"{{"id":"{number:08}-5b6a-4788-99aa-bbccddeeff00","time":"{time}","decision":"DENY","severity":"HIGH","risk":0.71,"title":"Secret egress blocked by the policy of the production tenant","agent":{{"id":"agt_42","name":"production-langgraph"}},"tool":"slack","operation":"post_message","reasons":["PII_EGRESS","SENSITIVE_DATA_EGRESS"],"src":"10.0.0.42","tenant":"acme","policy":{{"id":"p-1","rev":12345678901234567890123}}}}"#
    );
    Bytes::from(json)
}

async fn fill(name: &str, broker: Arc<dyn Broker>, count: u64) {
    let began = Instant::now();
    let first = Clock::System.now().minus(Duration::from_hours(48));
    // A step that has no factor in common with the count visits every number once.
    let step = (count / 3 * 2 + 1..=count).find(|step| divisor(*step, count) == 1).unwrap_or(1);
    let numbers = (0..count).map(|at| at * step % count);
    let numbers = numbers.flat_map(|number| std::iter::repeat_n(number, 1 + usize::from(number % TWICE_EVERY == 0)));
    let publish = |(at, number): (usize, u64)| {
        let (to, body) = (Destination::Log(Log::Decisions), decision(first, number));
        broker.publish(Message { to, id: at.to_string(), body })
    };
    let mut confirms = stream::iter(numbers.enumerate()).map(publish).buffer_unordered(1_000);
    while let Some(confirm) = confirms.next().await {
        confirm.expect("the broker takes it");
    }
    drop(confirms);
    broker.close().await;
    println!("\n== {name}: filled in {:.1} s", began.elapsed().as_secs_f64());
}

const fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// A worker, ended when dropped.
struct Worker {
    child: Child,
    api: String,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Worker {
    async fn start(directory: &Path, section: &str) -> Self {
        let port = || TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let (api, metrics) = (port(), port());
        let text = format!(
            "data_dir = \"{}\"\n{section}[http]\nlisten = \"{api}\"\nmetrics_listen = \"{metrics}\"\n\
             [[access.token]]\nname = \"bench\"\nrole = \"auditor\"\nsha256 = \"{}\"\n",
            directory.display(),
            hex(&sha2::Sha256::digest(TOKEN)),
        );
        let config = directory.join("bench.toml");
        fs::write(&config, text).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_interven-alerts"));
        command.args(["run", "--log-level", "warn", "--config"]).arg(config).stdin(Stdio::null());
        let worker = Self { child: command.spawn().expect("the process starts"), api: format!("http://{api}") };
        let (client, deadline) = (client(), Instant::now() + Duration::from_mins(2));
        let ready = async || {
            let reply = client.get(format!("http://{metrics}/readyz")).send().await;
            reply.is_ok_and(|reply| reply.status() == 200)
        };
        while !ready().await {
            assert!(Instant::now() < deadline, "the worker is not ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        worker
    }

    /// A line of `/proc/PID/status`, in megabytes.
    fn megabytes(&self, key: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with(key)).expect("Linux tells it");
        line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<f64>().ok()).expect("a number") / 1024.0
    }

    /// Forgets the peak of resident memory so far. Source: proc(5), `clear_refs`.
    fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("the process is ours");
    }

    /// User and system time so far, in seconds. Source: proc(5), fields 14 and 15, at 100 ticks a second.
    fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the process runs");
        let after_name = stat.rsplit_once(") ").expect("the name is in parentheses").1;
        let fields: Vec<f64> = after_name.split(' ').map(|field| field.trim().parse().unwrap_or(0.0)).collect();
        (fields[11] + fields[12]) / 100.0
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

async fn measure(arguments: &Arguments, directory: &Path, section: &str) {
    let worker = Worker::start(directory, section).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("  format    first byte  all       rate      CPU      idle    peak    over idle");
    for format in arguments.formats.split(',') {
        let idle = worker.megabytes("VmRSS:");
        worker.forget_peak();
        let (began, cpu) = (Instant::now(), worker.cpu_seconds());
        let url = format!("{}/api/telemetry/decisions/export?format={format}", worker.api);
        let mut response = client().get(url).bearer_auth(TOKEN).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        let (mut first, mut reader) = (None, Reader::default());
        while let Some(piece) = response.chunk().await.expect("a whole export") {
            first.get_or_insert_with(|| began.elapsed());
            reader.take(&piece);
        }
        let all = began.elapsed().as_secs_f64();
        let expected =
            arguments.decisions + u64::from(format == "csv") + 2 * u64::from(matches!(format, "json" | "datadog"));
        assert_eq!(reader.lines, expected, "every decision once");
        assert!(reader.ordered, "in the order of their times");
        let peak = worker.megabytes("VmHWM:");
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let rate = arguments.decisions as f64 / all;
        println!(
            "  {format:<9} {:>7.1} s  {all:>5.1} s  {rate:>7.0}/s  {:>5.1} s  {idle:>4.0} MB  {peak:>4.0} MB  {:>4.0} MB",
            first.unwrap_or_default().as_secs_f64(),
            worker.cpu_seconds() - cpu,
            peak - idle,
        );
    }
}

/// Counts lines, and looks whether the ids in them, which are in the order of the times, grow.
struct Reader {
    rest: BytesMut,
    lines: u64,
    last: u64,
    ordered: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self { rest: BytesMut::new(), lines: 0, last: 0, ordered: true }
    }
}

impl Reader {
    fn take(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(end + 1);
            self.lines += 1;
            if let Some(number) = number(&line) {
                self.ordered &= number >= self.last;
                self.last = number + 1;
            }
        }
    }
}

/// The number in the id of the decision on this line.
fn number(line: &[u8]) -> Option<u64> {
    const REST: &[u8] = b"-5b6a-4788-99aa-bbccddeeff00";
    let at = line.windows(REST.len()).position(|window| window == REST)?;
    std::str::from_utf8(line.get(at.checked_sub(8)?..at)?).ok()?.parse().ok()
}
