//! `decisions export`: what was decided, out of running workers, out of RabbitMQ, or out of the embedded broker of a stopped worker.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Exit, Failure, Global, Shell, choice, config_file,
    moment::Moment,
    place::{self, Place},
    runtime, server,
};
use crate::{
    app,
    broker::{
        Broker,
        embedded::{Embedded, EmbeddedSettings},
    },
    config::BrokerPlan,
    export::{Asked, Export, ExportError, Exporter, Format, Limits, Query, Spill, Terms},
    model::{DecisionKind, Severity, Timestamp},
    workers::Download,
};

/// The path of the export on a worker.
const PATH: &str = "/api/telemetry/decisions/export";

/// A worker that cuts an answer off cannot say why any more.
const ASK_THE_WORKER: &str = "; the worker's log says why, and `interven-alerts doctor` looks at what is around it";

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  The last day:
    interven-alerts decisions export --since 24h > decisions.ndjson")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write out every decision of a time range, each once, in the order of their times
    ///
    /// A running worker is asked with --server. Without it the decisions are read from RabbitMQ, as the configuration says, whether
    /// workers run or not; or with --data-dir from the embedded broker of a stopped worker.
    #[command(after_long_help = "\
Examples:
  The last day, from a running worker:
    interven-alerts decisions export --since 24h --server http://127.0.0.1:8080 > decisions.ndjson
  One day as CSV, straight from RabbitMQ, as the configuration says:
    interven-alerts decisions export --format csv --since 2026-06-01 --until 2026-06-02 \\
      --out day.csv
  What was HIGH or above about one tool, from the embedded broker of a stopped worker:
    interven-alerts decisions export --min-severity HIGH --tool 'github.*' --data-dir data
  Into Splunk:
    interven-alerts decisions export --format splunk --since 1h \\
      | curl -sS https://splunk.example.com:8088/services/collector/event \\
        -H \"Authorization: Splunk $TOKEN\" --data-binary @-

Times:
  They are those of the decisions' own clock. --since counts, --until does not.

Exit codes:
  0  the export is complete
  1  it was cut short; with --out there is then no file")]
    Export(ExportArgs),
}

/// Flags of `decisions export`.
#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// How it is written: json, csv, splunk, datadog or ndjson
    #[arg(long, default_value = "ndjson", value_name = "FORMAT", value_parser = choice::format(), hide_possible_values = true)]
    format: Format,
    /// Decided at this time or later: RFC 3339, a day as 2026-06-01 (UTC), or how long ago as 24h
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Decided before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Just these decisions: ALLOW, DENY, SANITIZE, REQUIRE_APPROVAL, INCIDENT (repeatable, or with commas)
    #[arg(long, value_name = "DECISION", value_delimiter = ',', value_parser = choice::decision(), hide_possible_values = true)]
    decision: Vec<DecisionKind>,
    /// Just these severities: LOW, MEDIUM, HIGH, CRITICAL (repeatable, or with commas)
    #[arg(long, value_name = "SEVERITY", value_delimiter = ',', value_parser = choice::severity(), hide_possible_values = true)]
    severity: Vec<Severity>,
    /// This severity or above
    #[arg(long, value_name = "SEVERITY", value_parser = choice::severity(), hide_possible_values = true)]
    min_severity: Option<Severity>,
    /// Of this agent: an id or a name, * stands for any text (repeatable)
    #[arg(long, value_name = "PATTERN")]
    agent: Vec<String>,
    /// Of this tool: a tool, or tool.operation, * stands for any text (repeatable)
    #[arg(long, value_name = "PATTERN")]
    tool: Vec<String>,
    /// The decision with this id (repeatable)
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
    /// Write to this file; it is there only when it is complete
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: place::Args,
}

impl ExportArgs {
    fn asked(&self, now: Timestamp) -> Asked {
        Asked {
            since: self.since.map(|since| since.time(now)),
            until: self.until.map(|until| until.time(now)),
            decisions: self.decision.clone(),
            severities: self.severity.clone(),
            min_severity: self.min_severity,
            agents: self.agent.clone(),
            tools: self.tool.clone(),
            ids: self.id.clone(),
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let Command::Export(args) = &args.command;
    let asked = args.asked(shell.clock.now());
    let query = Query::try_from(asked.clone())
        .map_err(|fault| Failure::new(format!("{fault}")).hint("see `decisions export --help`").exit(Exit::Usage))?;
    let place = Place::of(&args.place.server, args.place.data_dir.as_deref(), global)?;
    // Several threads: writing to a pipe that is full blocks this one, and the broker must be answered meanwhile.
    let runtime = runtime(true)?;
    let sink = Sink::open(args.out.as_deref(), args.format, shell)?;
    match place {
        Place::Workers => runtime.block_on(from_workers(args, &asked, sink, shell)),
        Place::DataDir(_) | Place::Configuration => {
            runtime.block_on(from_broker((args.format, query), place, global, sink, shell))
        }
    }
}

/// Asks one worker after the other until one sends something.
async fn from_workers(args: &ExportArgs, asked: &Asked, mut sink: Sink, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let servers = server::find(&args.place.server, shell).await?;
    let path = path(args.format, asked);
    let mut last = None;
    for worker in servers.iter() {
        let failure = match worker.download(&path).await {
            Ok(download) => match pass_on(download, &mut sink, shell).await {
                Ok(()) => return sink.finish(shell),
                Err(failure) if sink.written > 0 || failure.exit == Exit::Done => return Err(failure),
                Err(failure) => failure,
            },
            Err(trouble) if trouble.is_final() => return Err(server::failure(&worker.name, trouble)),
            Err(trouble) => server::failure(&worker.name, trouble),
        };
        if let Some(earlier) = last.replace(failure) {
            shell.say("warning", &earlier.problem);
        }
    }
    Err(last.unwrap_or_else(|| Failure::new("no worker was named").exit(Exit::Usage)))
}

async fn pass_on(mut download: Download, sink: &mut Sink, shell: &mut Shell<'_>) -> Result<(), Failure> {
    while let Some(piece) = download.next().await {
        let piece = piece.map_err(|why| cut_short(sink, &why, ASK_THE_WORKER))?;
        sink.put(&piece, shell)?;
    }
    Ok(())
}

/// `whence` is where more is to be learnt.
fn cut_short(sink: &Sink, why: &str, whence: &str) -> Failure {
    let again = if sink.written > 0 { "what was written is not complete: export again" } else { "export again" };
    Failure::new("the export was cut short").caused_by(why).hint(format!("{again}{whence}"))
}

/// Where a worker has what was asked for.
fn path(format: Format, asked: &Asked) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("format", format.as_str());
    query.extend_pairs(asked.since.map(|time| ("since", time.to_string())));
    query.extend_pairs(asked.until.map(|time| ("until", time.to_string())));
    query.extend_pairs(asked.decisions.iter().map(|kind| ("decision", kind.as_str())));
    query.extend_pairs(asked.severities.iter().map(|severity| ("severity", severity.as_str())));
    query.extend_pairs(asked.min_severity.map(|severity| ("min_severity", severity.as_str())));
    query.extend_pairs(asked.agents.iter().map(|agent| ("agent", agent)));
    query.extend_pairs(asked.tools.iter().map(|tool| ("tool", tool)));
    query.extend_pairs(asked.ids.iter().map(|id| ("id", id)));
    format!("{PATH}?{}", query.finish())
}

/// Reads the log itself.
async fn from_broker(
    (format, query): (Format, Query),
    place: Place<'_>,
    global: &Global,
    mut sink: Sink,
    shell: &mut Shell<'_>,
) -> Result<(), Failure> {
    let tracker = TaskTracker::new();
    let Source { broker, kept, data_dir } = open(place, global, &tracker, shell).await?;
    // The data directory may be another machine's: then beside whoever asks.
    let spill = Spill::to(vec![data_dir, shell.directory.join(".")]);
    let terms = Terms {
        broker: Arc::clone(&broker),
        kept,
        spill,
        limits: Limits::default(),
        // A pager may be read for as long as it takes.
        patience: None,
        stop: CancellationToken::new(),
    };
    let done = match Exporter::new(terms, &tracker).export(query, format) {
        Ok(mut export) => pass_on_ours(&mut export, &mut sink, shell).await,
        Err(error) => Err(failure(&error)),
    };
    broker.close().await;
    done?;
    sink.finish(shell)
}

async fn pass_on_ours(export: &mut Export, sink: &mut Sink, shell: &mut Shell<'_>) -> Result<(), Failure> {
    while let Some(piece) = export.next().await {
        let piece =
            piece.map_err(
                |error| if sink.written == 0 { failure(&error) } else { cut_short(sink, &error.to_string(), "") },
            )?;
        sink.put(&piece, shell)?;
    }
    if let Some(report) = export.report()
        && report.unreadable > 0
    {
        shell.say("warning", &format!("{} records of the log are no decisions and were left out", report.unreadable));
    }
    Ok(())
}

fn failure(error: &ExportError) -> Failure {
    Failure::of(error).hint(error.hint())
}

/// Where the log is read.
struct Source {
    broker: Arc<dyn Broker>,
    kept: bool,
    data_dir: PathBuf,
}

async fn open(
    place: Place<'_>,
    global: &Global,
    tracker: &TaskTracker,
    shell: &mut Shell<'_>,
) -> Result<Source, Failure> {
    if let Place::DataDir(dir) = place {
        let data_dir = shell.directory.join(dir);
        let dir = data_dir.join(app::BROKER_DIR);
        if !dir.exists() {
            return Err(Failure::new(format!("there is no embedded broker in {}", data_dir.display()))
                .hint("give the worker's data directory; for RabbitMQ give --config, or ask a worker with --server"));
        }
        // Whatever is there is kept: it is not for an export to shorten the log.
        let settings = EmbeddedSettings { dir, keep_decisions: Some(Duration::MAX), lanes: Vec::new() };
        let broker = Embedded::open(settings, shell.clock, tracker)
            .await
            .map_err(|error| Failure::of(&error).hint("stop the worker, or ask it with `--server URL`"))?;
        return Ok(Source { broker: Arc::new(broker), kept: true, data_dir });
    }
    let plan = config_file::load(global, shell)?;
    let kept = match &plan.broker {
        BrokerPlan::RabbitMq { keep_decisions, .. } | BrokerPlan::Embedded { keep_decisions, .. } => {
            keep_decisions.is_some()
        }
    };
    if !kept {
        // Before anything is connected to.
        return Err(failure(&ExportError::NotKept));
    }
    let broker = app::connect(&plan, shell.clock, tracker).await.map_err(|error| super::run::start_failure(&error))?;
    Ok(Source { broker, kept, data_dir: plan.data_dir })
}

/// Where an export is written to: standard output, or a file that has its name only when it is whole.
struct Sink {
    file: Option<(tempfile::NamedTempFile, PathBuf)>,
    progress: ProgressBar,
    written: u64,
    format: Format,
    lines: u64,
}

/// How many decisions are in a document of so many lines, where the format shows it: what they say has no line ends of its own.
fn decisions_in(format: Format, lines: u64) -> Option<u64> {
    match format {
        Format::Ndjson | Format::Splunk => Some(lines),
        // The first line says what the columns are.
        Format::Csv => Some(lines.saturating_sub(1)),
        Format::Json | Format::Datadog => None,
    }
}

impl Sink {
    fn open(out: Option<&Path>, format: Format, shell: &Shell<'_>) -> Result<Self, Failure> {
        let file = match out {
            None => None,
            Some(path) => {
                let path = shell.directory.join(path);
                let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let file = tempfile::Builder::new().prefix(".decisions-").tempfile_in(dir);
                Some((file.map_err(|error| unwritable(&path, &error))?, path))
            }
        };
        let seen = shell.color && (file.is_some() || !shell.out_is_terminal);
        let target = if seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let progress = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec} {elapsed}") {
            progress.set_style(style);
        }
        progress.enable_steady_tick(Duration::from_millis(200));
        Ok(Self { file, progress, written: 0, format, lines: 0 })
    }

    fn put(&mut self, bytes: &Bytes, shell: &mut Shell<'_>) -> Result<(), Failure> {
        match &mut self.file {
            Some((file, path)) => {
                file.write_all(bytes).map_err(|error| unwritable(path, &error))?;
                // One piece more than there are line ends.
                self.lines += bytes.split(|byte| *byte == b'\n').count() as u64 - 1;
            }
            None => shell.out.write_all(bytes)?,
        }
        self.written += bytes.len() as u64;
        self.progress.inc(bytes.len() as u64);
        Ok(())
    }

    fn finish(mut self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        self.progress.finish_and_clear();
        let Some((file, path)) = self.file.take() else { return Ok(shell.out.flush()?) };
        let persisted = file.as_file().sync_all().and_then(|()| file.persist(&path).map_err(|error| error.error));
        persisted.map_err(|error| unwritable(&path, &error))?;
        let decisions = match decisions_in(self.format, self.lines) {
            None => String::new(),
            Some(1) => String::from("1 decision, "),
            Some(count) => format!("{count} decisions, "),
        };
        shell.say("note", &format!("wrote {decisions}{} bytes to {}", self.written, path.display()));
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.progress.finish_and_clear();
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("could not write {}", path.display())).caused_by(error.to_string()).hint("check the path")
}
