//! `publish`: decisions from a file or a pipe into the broker, each one confirmed.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use http::{HeaderMap, HeaderValue};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::TaskTracker;

use super::{Exit, Failure, Global, Shell, config_file, is_loopback, place::Place, runtime, server, url_argument};
use crate::{
    app,
    broker::{Broker, Destination, Message},
    channels::{Endpoint, Parcel, Rate},
    lane::{HttpPost, Post, pace::Pace},
    model::{Clock, Decision, Egress, Secret, decision::DECISION_BYTES_MAX},
    settings::printable,
    workers::{Trouble, refused},
};

/// Publishes under way at once.
const UNDER_WAY_MAX: usize = 512;

/// The highest `--rate`: beyond it a pace means nothing.
const RATE_MAX: i64 = 1_000_000;

/// Decisions in one request to a worker.
const REQUEST_LINES: usize = 200;
const REQUEST_BYTES: usize = 4 * 1024 * 1024;
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// How long a request waits for more lines: input that comes by drops is published as it comes.
const COMPANY_MAX: Duration = Duration::from_millis(100);

/// Lines that are read ahead. Each may be as long as a decision.
const READ_AHEAD: usize = 64;

/// How often a publish is tried again before the command fails.
const TRIES: u32 = 8;

/// Faulty lines that are named one by one.
const FAULTS_NAMED_MAX: u64 = 20;

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  Publish a file, or what another program prints:
    interven-alerts publish decisions.ndjson
    tail -n 1000 audit.ndjson | interven-alerts publish - --rate 50
  Publish through a running worker, which must be done where it has the embedded broker:
    interven-alerts publish decisions.ndjson --server http://127.0.0.1:8080

Through workers:
  With --server each request goes to the first worker that takes it; the token in
  INTERVEN_ALERTS_TOKEN needs the role publisher. Delivery is at least once: what was under way
  when a command failed may have been published.

Exit codes:
  0  every line was published and confirmed
  1  some were left out, or could not be published")]
pub struct Args {
    /// A file with one decision a line, or - for standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Publish at most N decisions a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=RATE_MAX))]
    rate: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: server::Args,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Report {
    published: u64,
    faulty: u64,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let progress = progress_bar(shell);
    let mut report = Report::default();
    let runtime = runtime(true)?;
    let done = if Place::is_workers(&args.server, global) {
        let door = ServerDoor::new(&args.server, shell)?;
        let file = open(args, shell)?;
        read_beside(file, shell, |lines, shell| {
            runtime.block_on(publish_all(args, &door, lines, &progress, &mut report, shell))
        })
    } else {
        let plan = config_file::load(global, shell)?;
        let clock = shell.clock;
        let tracker = TaskTracker::new();
        let connecting =
            async { app::connect(&plan, clock, &tracker).await.map_err(|error| super::run::start_failure(&error)) };
        let file = open(args, shell)?;
        let broker = runtime.block_on(connecting)?;
        let door = BrokerDoor(Arc::clone(&broker));
        let done = read_beside(file, shell, |lines, shell| {
            runtime.block_on(publish_all(args, &door, lines, &progress, &mut report, shell))
        });
        runtime.block_on(broker.close());
        done
    };
    progress.finish_and_clear();
    if args.json {
        shell.print_json(&report)?;
    } else if done.is_ok() || report.published > 0 {
        writeln!(shell.out, "published {}, each confirmed; left out {}", report.published, report.faulty)?;
    }
    done?;
    if report.faulty > 0 {
        return Err(Failure::new(format!("{} lines are no decisions and were left out", report.faulty))
            .hint("the lines are named above; correct them and publish them alone"));
    }
    Ok(())
}

fn progress_bar(shell: &Shell<'_>) -> ProgressBar {
    let target = if shell.color { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} confirmed  {per_sec}  {elapsed}") {
        bar.set_style(style);
    }
    bar
}

/// Where decisions are handed in. `Ok` is confirmed.
trait Door {
    /// How many decisions go through at once.
    fn batch(&self) -> usize;
    async fn hand_in(&self, decisions: Vec<Decision>) -> Result<(), Failure>;
}

struct BrokerDoor(Arc<dyn Broker>);

impl Door for BrokerDoor {
    fn batch(&self) -> usize {
        1
    }

    async fn hand_in(&self, decisions: Vec<Decision>) -> Result<(), Failure> {
        for decision in decisions {
            let message = Message {
                to: Destination::DecisionsExchange,
                id: decision.id.to_string(),
                body: decision.raw().clone(),
            };
            let mut wait = Duration::from_millis(250);
            let mut tries = 1;
            while let Err(error) = self.0.publish(message.clone()).await {
                if tries >= TRIES {
                    return Err(Failure::of(&error).hint(error.hint()));
                }
                tokio::time::sleep(wait).await;
                (tries, wait) = (tries + 1, wait * 2);
            }
        }
        Ok(())
    }
}

/// Running workers, of which the first one that takes a request gets it.
struct ServerDoor {
    post: HttpPost,
    workers: Vec<(String, Endpoint)>,
    /// The one that took the last request: one that is away is not tried first each time.
    at: AtomicUsize,
    headers: HeaderMap,
}

impl ServerDoor {
    fn new(servers: &server::Args, shell: &mut Shell<'_>) -> Result<Self, Failure> {
        crate::tls::install();
        let mut workers = Vec::new();
        for text in servers.given() {
            let mut url = url_argument(text)?;
            let name = printable(&url.origin().ascii_serialization());
            if url.scheme() == "http" && !is_loopback(&url) {
                shell.say("warning", &format!("the token travels to {name} in clear: use https, or a tunnel"));
            }
            // A worker may live below a path of a reverse proxy.
            url.set_path(&format!("{}/v1/events", url.path().trim_end_matches('/')));
            url.set_query(None);
            workers.push((name, Endpoint::new(url)));
        }
        let unusable = |problem: &str| {
            Failure::new(problem)
                .hint("set INTERVEN_ALERTS_TOKEN; `interven-alerts token NAME --role publisher` makes a token")
                .exit(Exit::Usage)
        };
        let token = (shell.env)("INTERVEN_ALERTS_TOKEN").map(|token| Secret::new(token.trim()));
        let token = token.filter(|token| !token.expose().is_empty()).ok_or_else(|| unusable("there is no token"))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| unusable("INTERVEN_ALERTS_TOKEN holds characters that no token has"))?;
        value.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(http::header::AUTHORIZATION, value);
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        let post = HttpPost::new(Arc::new(Egress::default()), Clock::System).map_err(|error| Failure::of(&error))?;
        Ok(Self { post, workers, at: AtomicUsize::new(0), headers })
    }

    async fn ask(&self, endpoint: &Endpoint, body: Bytes) -> Result<(), Trouble> {
        let parcel = Parcel { endpoint: endpoint.clone(), headers: self.headers.clone(), body };
        match self.post.post(parcel, REQUEST_LIMIT).await {
            Ok(reply) if reply.status.as_u16() == 202 => Ok(()),
            Ok(reply) => Err(refused(reply.status, &reply.body)),
            Err(trouble) => Err(Trouble::Silent(trouble.as_str().to_owned())),
        }
    }
}

impl Door for ServerDoor {
    fn batch(&self) -> usize {
        REQUEST_LINES
    }

    async fn hand_in(&self, decisions: Vec<Decision>) -> Result<(), Failure> {
        let mut body = Vec::new();
        for decision in &decisions {
            // A decision may be written over several lines; NDJSON wants one.
            body.extend(decision.raw().iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
            body.push(b'\n');
        }
        let (body, first) = (Bytes::from(body), self.at.load(Ordering::Relaxed));
        let mut failures: Vec<Failure> = Vec::new();
        for number in 0..self.workers.len() {
            let at = (first + number) % self.workers.len();
            let (name, endpoint) = &self.workers[at];
            match self.ask(endpoint, body.clone()).await {
                Ok(()) => {
                    self.at.store(at, Ordering::Relaxed);
                    return Ok(());
                }
                // No other worker would say anything else.
                Err(trouble) if trouble.is_final() => return Err(final_word(name, trouble)),
                Err(trouble) => failures.push(server::failure(name, trouble)),
            }
        }
        // What the first one said, and that the others did not do either.
        let others = failures.split_off(1.min(failures.len()));
        let first = failures.pop().unwrap_or_else(|| Failure::new("no worker was named").exit(Exit::Usage));
        Err(others.into_iter().fold(first, |failure, other| failure.caused_by(other.problem)))
    }
}

/// The failure that a worker's last word is. A token that may do other things is a likely mistake, and here it is known which one it
/// should have been.
fn final_word(worker: &str, trouble: Trouble) -> Failure {
    let forbidden = matches!(trouble, Trouble::Refused { status: http::StatusCode::FORBIDDEN, .. });
    let failure = server::failure(worker, trouble);
    if forbidden {
        failure.hint("use a token of the role publisher, or publish to the broker itself with `--config FILE`")
    } else {
        failure
    }
}

/// The same pace that lanes keep: never more than `rate` in any second, however long nothing came before. Timers tick in
/// milliseconds, so a hundredth of a second's worth may go at once.
fn pace_of(rate: u32) -> Pace {
    Pace::new(&[Rate { count: rate, per: Duration::from_secs(1), burst: (rate / 100).max(1) }])
}

async fn publish_all(
    args: &Args,
    door: &impl Door,
    mut lines: LinesRead,
    progress: &ProgressBar,
    report: &mut Report,
    shell: &mut Shell<'_>,
) -> Result<(), Failure> {
    let mut pace = args.rate.map(pace_of);
    // With a pace, no request carries more than a second's worth: a full one would go out in one burst.
    let batch_max = door.batch().min(args.rate.and_then(|rate| usize::try_from(rate).ok()).unwrap_or(usize::MAX));
    let mut confirmed = |count: u64| {
        report.published += count;
        progress.inc(count);
    };
    let mut under_way = FuturesUnordered::new();
    let (mut batch, mut bytes, mut more) = (Vec::new(), 0, true);
    let mut faulty = 0;
    let done = async {
        while more || !under_way.is_empty() {
            let mut company_until = None;
            while more && batch.len() < batch_max && bytes < REQUEST_BYTES {
                let next = tokio::select! {
                    biased;
                    line = lines.recv() => line.transpose()?,
                    // Confirms are gathered as they come, and what is under way goes on.
                    Some(done) = under_way.next() => {
                        confirmed(done?);
                        continue;
                    }
                    () = tokio::time::sleep_until(company_until.unwrap_or_else(Instant::now)), if company_until.is_some() => break,
                };
                match next {
                    None => more = false,
                    Some(Line { number, decision: Err(fault) }) => {
                        faulty += 1;
                        if faulty <= FAULTS_NAMED_MAX {
                            progress.suspend(|| shell.say("error", &format!("line {number}: {fault}")));
                        }
                    }
                    Some(Line { decision: Ok(decision), .. }) => {
                        bytes += decision.raw().len();
                        batch.push(decision);
                        company_until.get_or_insert_with(|| Instant::now() + COMPANY_MAX);
                    }
                }
            }
            if !batch.is_empty() {
                bytes = 0;
                let decisions = std::mem::take(&mut batch);
                if let Some(pace) = &mut pace {
                    for _ in &decisions {
                        let due = pace.next(Instant::now());
                        while Instant::now() < due {
                            tokio::select! {
                                () = tokio::time::sleep_until(due) => {}
                                Some(done) = under_way.next() => confirmed(done?),
                            }
                        }
                        pace.take(Instant::now());
                    }
                }
                let count = decisions.len() as u64;
                under_way.push(async move { door.hand_in(decisions).await.map(|()| count) });
            }
            // A future does nothing until it is looked at: each one is begun at once, because the next line may be long in coming.
            while let Some(Some(done)) = under_way.next().now_or_never() {
                confirmed(done?);
            }
            let enough = if more { UNDER_WAY_MAX / door.batch() } else { 0 };
            while under_way.len() > enough {
                let Some(done) = under_way.next().await else { break };
                confirmed(done?);
            }
        }
        Ok(())
    }
    .await;
    report.faulty = faulty;
    done
}

/// A line that is not empty: a decision, or what is wrong with it.
struct Line {
    number: u64,
    decision: Result<Decision, String>,
}

/// The file to read; `None` is standard input.
fn open(args: &Args, shell: &Shell<'_>) -> Result<Option<File>, Failure> {
    if args.file.as_os_str() == "-" {
        return Ok(None);
    }
    let path = shell.directory.join(&args.file);
    let file = File::open(&path).map_err(|error| {
        let mut failure = Failure::of(&error).hint("check the path");
        failure.problem = format!("{}: {}", path.display(), failure.problem);
        failure
    })?;
    Ok(Some(file))
}

/// Lines as they come from the thread that reads them.
type LinesRead = mpsc::Receiver<Result<Line, Failure>>;

/// Reads lines on a thread of its own while `work` is done: a pipe that gives nothing for a while holds up nothing that was read
/// before. A read that waits cannot be broken off, so where `work` fails, this ends with the next line.
fn read_beside<T>(file: Option<File>, shell: &mut Shell<'_>, work: impl FnOnce(LinesRead, &mut Shell<'_>) -> T) -> T {
    let (into, lines) = mpsc::channel(READ_AHEAD);
    shell.lend_input(|input, shell| {
        std::thread::scope(|scope| {
            scope.spawn(move || match file {
                Some(file) => read_all(BufReader::new(file), &into),
                None => read_all(BufReader::new(input), &into),
            });
            work(lines, shell)
        })
    })
}

fn read_all(input: impl BufRead, into: &mpsc::Sender<Result<Line, Failure>>) {
    let mut lines = Lines { input, number: 0 };
    while let Some(line) = lines.next().transpose() {
        let last = line.is_err();
        if into.blocking_send(line).is_err() || last {
            return;
        }
    }
}

/// The lines of the input, one at a time, so that a file of any size needs the memory of a few.
struct Lines<I> {
    input: I,
    number: u64,
}

impl<I: BufRead> Lines<I> {
    /// The next line that is not empty, with its number, as a decision or as what is wrong with it.
    fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            let mut line = Vec::new();
            let read = read_line(&mut self.input, &mut line).map_err(|error| {
                let mut failure = Failure::of(&error);
                failure.problem = format!("could not read the input: {}", failure.problem);
                failure
            })?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let decision =
                Decision::decode(Bytes::copy_from_slice(line.trim_ascii())).map_err(|fault| fault.to_string());
            return Ok(Some(Line { number: self.number, decision }));
        }
    }
}

/// Reads one line, of which no more is kept than a decision may have; the rest of a longer one is read and dropped, so that it is
/// one faulty line and not several.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut read = 0;
    loop {
        let available = input.fill_buf()?;
        if available.is_empty() {
            return Ok(read);
        }
        let end = available.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let part = &available[..end.unwrap_or(available.len())];
        let room = (DECISION_BYTES_MAX + 1).saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len();
        input.consume(used);
        read += used;
        if end.is_some() {
            return Ok(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    /// A door that notes when each decision came, and confirms after a second.
    struct SlowDoor {
        batch: usize,
        came: std::sync::Mutex<Vec<Duration>>,
        since: Instant,
    }

    impl SlowDoor {
        fn new(batch: usize) -> Self {
            Self { batch, came: std::sync::Mutex::default(), since: Instant::now() }
        }
    }

    impl Door for SlowDoor {
        fn batch(&self) -> usize {
            self.batch
        }

        async fn hand_in(&self, decisions: Vec<Decision>) -> Result<(), Failure> {
            self.came.lock().unwrap().extend(decisions.iter().map(|_| self.since.elapsed()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        }
    }

    fn line(number: u64) -> Line {
        let text = format!(
            r#"{{"id":"{number}","time":"2026-06-01T12:00:00Z","decision":"DENY","severity":"LOW","agent":{{"id":"a"}},"tool":"t"}}"#
        );
        Line { number, decision: Decision::decode(text.into()).map_err(|fault| fault.to_string()) }
    }

    /// Publishes lines that come so far apart, and says when each was handed in.
    async fn publish(count: u64, every: Duration, rate: Option<u32>, door: SlowDoor) -> Vec<Duration> {
        let (mut input, mut out, mut err) = (&b""[..], Vec::new(), Vec::new());
        let mut shell = Shell {
            env: &|_| None,
            kinds: &[],
            directory: PathBuf::new(),
            clock: Clock::System,
            input: &mut input,
            out: &mut out,
            out_is_terminal: false,
            err: &mut err,
            color: false,
        };
        let rate = rate.map(|rate| format!("--rate={rate}"));
        let words = ["publish", "-"].into_iter().chain(rate.as_deref());
        let parsed = Args::augment_args(clap::Command::new("publish")).get_matches_from(words);
        let args = Args::from_arg_matches(&parsed).unwrap();
        let (mut report, progress) = (Report::default(), ProgressBar::hidden());
        let (into, lines) = mpsc::channel(READ_AHEAD);
        let feed = async move {
            for number in 0..count {
                assert!(into.send(Ok(line(number))).await.is_ok());
                tokio::time::sleep(every).await;
            }
        };
        let (done, ()) = tokio::join!(publish_all(&args, &door, lines, &progress, &mut report, &mut shell), feed);
        assert!(done.is_ok());
        assert_eq!((report.published, report.faulty), (count, 0));
        door.came.into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_from_the_first_decision_on_and_none_waits_for_a_full_load() {
        let came = publish(30, Duration::ZERO, Some(10), SlowDoor::new(1)).await;
        assert_eq!(came.len(), 30);
        for (at, came) in (0..).zip(came) {
            let due = Duration::from_millis(100 * at);
            assert!((due..due + Duration::from_millis(10)).contains(&came), "{at}: {came:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_drop_in_are_published_as_they_come_and_wait_for_no_full_request() {
        let came = publish(10, Duration::from_millis(500), None, SlowDoor::new(200)).await;
        assert_eq!(came.len(), 10);
        for (at, came) in (0..).zip(came) {
            let read = Duration::from_millis(500 * at);
            assert!((read..read + Duration::from_millis(200)).contains(&came), "{at}: {came:?}");
        }
    }

    #[test]
    fn the_input_is_read_to_its_end_and_a_fault_is_named_by_its_line() {
        let (into, mut lines) = mpsc::channel(READ_AHEAD);
        read_all(&b"\n{}\n  \nnone"[..], &into);
        drop(into);
        let numbers = std::iter::from_fn(|| lines.blocking_recv()).map(|line| {
            let line = line.unwrap_or_else(|_| panic!("it can be read"));
            (line.number, line.decision.is_ok())
        });
        assert_eq!(numbers.collect::<Vec<_>>(), [(2, false), (4, false)]);
    }

    #[test]
    fn the_highest_rate_is_a_pace() {
        let rate = u32::try_from(RATE_MAX).unwrap();
        let (mut pace, now) = (pace_of(rate), Instant::now());
        pace.take(now);
        assert!(pace.next(now) < now + Duration::from_secs(1));
    }

    #[test]
    fn a_line_that_is_too_long_is_one_line_and_takes_bounded_memory() {
        let text = format!("{}\nb\n", "a".repeat(3 * DECISION_BYTES_MAX));
        let (mut input, mut line) = (BufReader::with_capacity(64, text.as_bytes()), Vec::new());
        assert_eq!(read_line(&mut input, &mut line).unwrap(), 3 * DECISION_BYTES_MAX + 1);
        assert_eq!(line.len(), DECISION_BYTES_MAX + 1);
        line.clear();
        read_line(&mut input, &mut line).unwrap();
        assert_eq!(line, b"b\n");
        line.clear();
        assert_eq!(read_line(&mut input, &mut line).unwrap(), 0);
    }
}
