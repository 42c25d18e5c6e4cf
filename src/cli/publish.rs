//! `publish`: decisions from a file or a pipe into the broker, each one confirmed.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use http::{HeaderMap, HeaderValue};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{Failure, Global, Shell, config_file, runtime, url_argument};
use crate::{
    app,
    broker::{Broker, Destination, Message},
    channels::{Endpoint, Parcel, Rate},
    lane::{HttpPost, Post, pace::Pace},
    model::{Clock, Decision, Egress, Secret, decision::DECISION_BYTES_MAX},
};

/// Publishes under way at once.
const UNDER_WAY_MAX: usize = 512;

/// The highest `--rate`: beyond it a pace means nothing.
const RATE_MAX: i64 = 1_000_000;

/// Decisions in one request to a worker.
const REQUEST_LINES: usize = 200;
const REQUEST_BYTES: usize = 4 * 1024 * 1024;
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// How often a publish is tried again before the command fails.
const TRIES: u32 = 8;

/// Faulty lines that are named one by one.
const FAULTS_NAMED_MAX: u64 = 20;

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  interven-alerts publish decisions.ndjson
  tail -n 1000 audit.ndjson | interven-alerts publish - --rate 50
  interven-alerts publish decisions.ndjson --server http://127.0.0.1:8080

One decision a line. Each line is checked before it is published; a line that is no decision is reported with its number and
left out, and the exit code is then 1. A decision counts as published when the broker has confirmed it.

With the embedded broker, a running worker owns its store: publish through it with --server (role `publisher`).")]
pub struct Args {
    /// A file with one decision a line, or - for standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Publish at most N decisions a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=RATE_MAX))]
    rate: Option<u32>,
    /// Publish through this worker's `POST /v1/events` and not to the broker
    #[arg(long, value_name = "URL", env = "INTERVEN_ALERTS_SERVER")]
    server: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
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
    // Several threads: reading standard input blocks this one, and what was read before must go out meanwhile.
    let runtime = runtime(true)?;
    let done = if let Some(server) = &args.server {
        let door = ServerDoor::new(server, shell)?;
        runtime.block_on(publish_all(args, &door, &progress, &mut report, shell))
    } else {
        let plan = config_file::load(global, shell)?;
        let clock = shell.clock;
        runtime.block_on(async {
            let tracker = TaskTracker::new();
            let broker =
                app::connect(&plan, clock, &tracker).await.map_err(|error| super::run::start_failure(&error))?;
            let done = publish_all(args, &BrokerDoor(Arc::clone(&broker)), &progress, &mut report, shell).await;
            broker.close().await;
            done
        })
    };
    progress.finish_and_clear();
    if args.json {
        shell.print_json(&report)?;
    } else {
        writeln!(shell.out, "published {}, every one confirmed; left out {}", report.published, report.faulty)?;
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

struct ServerDoor {
    post: HttpPost,
    endpoint: Endpoint,
    headers: HeaderMap,
}

impl ServerDoor {
    fn new(server: &str, shell: &Shell<'_>) -> Result<Self, Failure> {
        crate::tls::install();
        let mut url = url_argument(server)?;
        url.set_path("/v1/events");
        let token = (shell.env)("INTERVEN_ALERTS_TOKEN").map(Secret::new).ok_or_else(|| {
            Failure::new("there is no token for the worker")
                .hint("set INTERVEN_ALERTS_TOKEN; `interven-alerts token NAME --role publisher` makes one")
        })?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| Failure::new("INTERVEN_ALERTS_TOKEN holds characters that no token has"))?;
        value.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(http::header::AUTHORIZATION, value);
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        let post = HttpPost::new(Arc::new(Egress::default()), Clock::System).map_err(|error| Failure::of(&error))?;
        Ok(Self { post, endpoint: Endpoint::new(url), headers })
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
        let parcel = Parcel { endpoint: self.endpoint.clone(), headers: self.headers.clone(), body: Bytes::from(body) };
        match self.post.post(parcel, REQUEST_LIMIT).await {
            Ok(reply) if reply.status.as_u16() == 202 => Ok(()),
            Ok(reply) => {
                Err(Failure::new(format!("the worker answered {}", crate::channels::judging::explain(&reply)))
                    .hint("decisions of this request may have to be published again"))
            }
            Err(trouble) => Err(Failure::new(format!("the worker could not be reached: {}", trouble.as_str()))
                .hint("check --server and that the worker runs")),
        }
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
    progress: &ProgressBar,
    report: &mut Report,
    shell: &mut Shell<'_>,
) -> Result<(), Failure> {
    let mut lines = Lines::open(args, shell)?;
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
            while more && batch.len() < batch_max && bytes < REQUEST_BYTES {
                match lines.next(shell)? {
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
                    }
                }
            }
            if !batch.is_empty() {
                bytes = 0;
                let decisions = std::mem::take(&mut batch);
                if let Some(pace) = &mut pace {
                    for _ in &decisions {
                        let due = pace.next(Instant::now());
                        // Confirms are gathered as they come, and what is under way goes on.
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

/// The lines of the input, one at a time, so that a file of any size needs the memory of one.
struct Lines {
    file: Option<BufReader<std::fs::File>>,
    number: u64,
}

impl Lines {
    fn open(args: &Args, shell: &Shell<'_>) -> Result<Self, Failure> {
        let file = if args.file.as_os_str() == "-" {
            None
        } else {
            let path = shell.directory.join(&args.file);
            let file = std::fs::File::open(&path).map_err(|error| {
                let mut failure = Failure::of(&error).hint("check the path");
                failure.problem = format!("{}: {}", path.display(), failure.problem);
                failure
            })?;
            Some(BufReader::new(file))
        };
        Ok(Self { file, number: 0 })
    }

    /// The next line that is not empty, with its number, as a decision or as what is wrong with it.
    fn next(&mut self, shell: &mut Shell<'_>) -> Result<Option<Line>, Failure> {
        loop {
            let mut line = Vec::new();
            let read = match &mut self.file {
                Some(file) => read_line(file, &mut line),
                None => read_line_unbuffered(shell.input, &mut line),
            };
            let read = read.map_err(|error| {
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

/// The same over standard input, which the shell hands out without a buffer of its own; the process's is buffered below.
fn read_line_unbuffered(input: &mut dyn Read, line: &mut Vec<u8>) -> std::io::Result<usize> {
    let (mut byte, mut read) = ([0_u8], 0);
    loop {
        if input.read(&mut byte)? == 0 {
            return Ok(read);
        }
        read += 1;
        if line.len() <= DECISION_BYTES_MAX {
            line.push(byte[0]);
        }
        if byte[0] == b'\n' {
            return Ok(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A door that notes when each decision came, and confirms after a second.
    struct SlowDoor(std::sync::Mutex<Vec<Duration>>, Instant);

    impl Door for SlowDoor {
        fn batch(&self) -> usize {
            1
        }

        async fn hand_in(&self, decisions: Vec<Decision>) -> Result<(), Failure> {
            self.0.lock().unwrap().extend(decisions.iter().map(|_| self.1.elapsed()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_from_the_first_decision_on_and_none_waits_for_a_full_load() {
        let line = |id: u32| {
            format!(
                r#"{{"id":"{id}","time":"2026-06-01T12:00:00Z","decision":"DENY","severity":"LOW","agent":{{"id":"a"}},"tool":"t"}}"#
            )
        };
        let text: String = (0..30).map(|id| line(id) + "\n").collect();
        let (mut input, mut out, mut err) = (text.as_bytes(), Vec::new(), Vec::new());
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
        let args = Args { file: PathBuf::from("-"), rate: Some(10), server: None, json: false };
        let (door, mut report) = (SlowDoor(std::sync::Mutex::default(), Instant::now()), Report::default());
        let progress = ProgressBar::hidden();
        publish_all(&args, &door, &progress, &mut report, &mut shell).await.unwrap_or_else(|_| panic!("failed"));
        let came = door.0.into_inner().unwrap();
        assert_eq!((came.len(), report.published), (30, 30));
        for (at, came) in (0..).zip(came) {
            let due = Duration::from_millis(100 * at);
            assert!((due..due + Duration::from_millis(10)).contains(&came), "{at}: {came:?}");
        }
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
