//! `dead-letters`: looking at what could not be delivered, and sending it again, in the store of a stopped worker.

use std::{path::PathBuf, sync::Arc};

use serde::Serialize;
use tokio_util::task::TaskTracker;

use super::{Failure, Global, Shell, config_file, runtime, table};
use crate::{
    app,
    config::Plan,
    dead_letters::{
        DeadLetter, DeadLetterError, LetterFilter, LetterId, OpenReport, Store, StoreOptions,
        replay::{Replay, ReplayReport},
    },
    model::{ChannelId, Clock, DeathReason, Severity, Timestamp},
    settings::printable,
};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  interven-alerts dead-letters list --by-cause
  interven-alerts dead-letters list --channel soc-slack --since 2026-06-01T00:00:00Z --json
  interven-alerts dead-letters show 0197a2b4-...
  interven-alerts dead-letters replay --channel soc-slack --dry-run
  interven-alerts dead-letters export > letters.ndjson

These open the store of a stopped worker: `--data-dir DIR`, or `data_dir` of the configuration. A store that a running worker
holds is not opened twice.")]
pub struct Args {
    /// The data directory of the stopped worker; left out: `data_dir` of the configuration
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List dead letters, newest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// Group by what they died of
        #[arg(long)]
        by_cause: bool,
    },
    /// Show one dead letter whole
    Show {
        /// The id
        id: LetterId,
    },
    /// Send dead letters again: each leaves the store only when the broker has confirmed it in its lane
    Replay {
        #[command(flatten)]
        choice: Choice,
    },
    /// Delete dead letters for good
    Purge {
        #[command(flatten)]
        choice: Choice,
    },
    /// Write dead letters to standard output, one a line
    Export {
        #[command(flatten)]
        filter: Filter,
    },
    /// Add the dead letters of an export that the store has not
    Import {
        /// The export
        file: PathBuf,
    },
    /// Read every byte of the store, mend what can be mended, and report
    Verify,
}

/// Which letters.
#[derive(Clone, Debug, Default, clap::Args)]
struct Filter {
    /// Of this channel
    #[arg(long)]
    channel: Option<ChannelId>,
    /// Dead for this reason
    #[arg(long)]
    reason: Option<DeathReason>,
    /// Of the decision with this id
    #[arg(long, value_name = "ID")]
    decision: Option<String>,
    /// Of this severity
    #[arg(long)]
    severity: Option<Severity>,
    /// Dead at this time or later (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Dead before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// At most so many, the newest
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Which letters are acted upon. Deleting needs at least one word, so that all of them do not go by accident.
#[derive(Clone, Debug, clap::Args)]
struct Choice {
    /// Just these
    #[arg(value_name = "ID")]
    ids: Vec<LetterId>,
    #[command(flatten)]
    filter: Filter,
    /// All of them; `purge` wants it said
    #[arg(long)]
    all: bool,
    /// Say what would happen, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Filter {
    fn letters(&self, ids: &[LetterId]) -> LetterFilter {
        LetterFilter {
            channel: self.channel.clone(),
            reason: self.reason,
            decision: self.decision.clone(),
            severity: self.severity,
            since: self.since,
            until: self.until,
            limit: self.limit,
            ids: ids.to_vec(),
        }
    }

    fn is_empty(&self) -> bool {
        self.letters(&[]) == LetterFilter::default()
    }
}

impl Choice {
    /// What is chosen to be deleted: nothing unless it was said.
    fn to_delete(&self) -> Result<LetterFilter, Failure> {
        if self.ids.is_empty() && self.filter.is_empty() && !self.all {
            return Err(Failure::new("no dead letter was chosen")
                .hint("give ids, filters such as --channel, or --all")
                .exit(super::Exit::Usage));
        }
        Ok(self.to_send())
    }

    /// What is chosen to be sent again: everything unless something was said.
    fn to_send(&self) -> LetterFilter {
        self.filter.letters(&self.ids)
    }
}

#[derive(Debug, Serialize)]
struct Purged {
    purged: u64,
    dry_run: bool,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let runtime = runtime(false)?;
    // Replaying needs the broker, and so the whole configuration; the rest needs the directory alone.
    if let Command::Replay { choice } = &args.command {
        return runtime.block_on(replay(args, choice, global, shell));
    }
    // Wrong usage is told before anything is opened.
    if let Command::Purge { choice } = &args.command {
        choice.to_delete()?;
    }
    let data_dir = match &args.data_dir {
        Some(dir) => shell.directory.join(dir),
        None => config_file::load(global, shell)?.data_dir,
    };
    let store = open(&data_dir, shell)?;
    runtime.block_on(async {
        let done = act(args, &store, shell).await;
        store.close().await;
        done
    })
}

fn open(data_dir: &std::path::Path, shell: &mut Shell<'_>) -> Result<Store, Failure> {
    let dir = data_dir.join(app::DEAD_LETTERS_DIR);
    if !dir.exists() {
        return Err(Failure::new(format!("there is no dead-letter store in {}", data_dir.display()))
            .hint("give the worker's data directory with `--data-dir`"));
    }
    let options = StoreOptions { clock: shell.clock, ..StoreOptions::default() };
    let (store, report) = Store::open(&dir, options).map_err(|error| failure(&error))?;
    tell_open(&report, shell)?;
    Ok(store)
}

fn tell_open(report: &OpenReport, shell: &mut Shell<'_>) -> Result<(), Failure> {
    for incident in &report.incidents {
        shell.say("warning", incident);
    }
    match &report.down {
        Some(why) => Err(Failure::new(format!("the dead-letter store cannot be opened: {why}"))),
        None => Ok(()),
    }
}

pub(super) fn failure(error: &DeadLetterError) -> Failure {
    Failure::of(error).hint(error.hint())
}

async fn act(args: &Args, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    match &args.command {
        Command::List { filter, by_cause: true } => list_causes(filter, args.json, store, shell).await,
        Command::List { filter, by_cause: false } => list(filter, args.json, store, shell).await,
        Command::Show { id } => {
            let letter = store.get(*id).await.map_err(|error| failure(&error))?;
            if args.json { shell.print_json(&letter) } else { show(&letter, shell) }
        }
        Command::Purge { choice } => purge(choice, args.json, store, shell).await,
        Command::Export { filter } => export(filter, store, shell).await,
        Command::Import { file } => import(file, args.json, store, shell).await,
        Command::Verify => verify(args.json, store, shell).await,
        // It needs the broker as well, and has its own way from `run`.
        Command::Replay { .. } => Ok(()),
    }
}

async fn list_causes(filter: &Filter, json: bool, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let causes = store.group_by_cause(&filter.letters(&[])).await.map_err(|error| failure(&error))?;
    if json {
        return shell.print_json(&causes);
    }
    let rows = causes.iter().map(|cause| {
        let channel = cause.channel.as_ref().map_or("-", |id| id.as_str());
        vec![
            cause.count.to_string(),
            cause.reason.to_string(),
            channel.to_owned(),
            cause.newest.to_rfc3339_millis(),
            printable(&cause.detail),
        ]
    });
    print_table(shell, &["COUNT", "REASON", "CHANNEL", "NEWEST", "CAUSE"], rows.collect())
}

async fn list(filter: &Filter, json: bool, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let page = store.list(&filter.letters(&[]), None).await.map_err(|error| failure(&error))?;
    if json {
        return shell.print_json(&page);
    }
    let rows = page.letters.iter().map(row).collect();
    print_table(shell, &["ID", "DIED", "REASON", "CHANNEL", "DECISION", "DETAIL"], rows)?;
    for id in &page.damaged {
        shell.say("warning", &format!("{id} is damaged on disk: run `dead-letters verify`"));
    }
    if page.next.is_some() {
        shell.say("note", "there are more: raise --limit, or narrow the filters");
    }
    Ok(())
}

async fn purge(choice: &Choice, json: bool, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let ids = store.select(&choice.to_delete()?).await.map_err(|error| failure(&error))?;
    let purged = if choice.dry_run { ids.len() } else { store.remove(ids).await.map_err(|error| failure(&error))? };
    let report = Purged { purged: purged as u64, dry_run: choice.dry_run };
    if json {
        return shell.print_json(&report);
    }
    let verb = if choice.dry_run { "would purge" } else { "purged" };
    Ok(writeln!(shell.out, "{verb} {purged}")?)
}

async fn export(filter: &Filter, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let mut after = None;
    let wanted = filter.letters(&[]);
    let mut left = wanted.limit.unwrap_or(usize::MAX);
    // Page by page, so that an export of any size needs the memory of one page.
    while left > 0 {
        let page_filter = LetterFilter { limit: Some(left.min(LetterFilter::LIMIT_MAX)), ..wanted.clone() };
        let page = store.list(&page_filter, after).await.map_err(|error| failure(&error))?;
        left -= page.letters.len().min(left);
        for letter in &page.letters {
            let line = serde_json::to_string(letter).map_err(|error| Failure::of(&error))?;
            writeln!(shell.out, "{line}")?;
        }
        for id in &page.damaged {
            shell.say("warning", &format!("{id} is damaged on disk and not in the export"));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

async fn import(file: &std::path::Path, json: bool, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let path = shell.directory.join(file);
    let input = tokio::fs::File::open(&path).await.map_err(|error| Failure::of(&error).hint("check the path"))?;
    let report = store.import(&mut tokio::io::BufReader::new(input)).await.map_err(|error| failure(&error))?;
    if json {
        shell.print_json(&report)?;
    } else {
        writeln!(
            shell.out,
            "imported {}, already there {}, faulty {}",
            report.imported, report.already_there, report.faulty_total
        )?;
    }
    for (line, fault) in &report.faulty {
        shell.say("error", &format!("line {line}: {fault}"));
    }
    if report.faulty_total > 0 {
        Err(Failure::new(format!("{} lines are no dead letters", report.faulty_total)))
    } else {
        Ok(())
    }
}

async fn verify(json: bool, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let report = store.verify().await.map_err(|error| failure(&error))?;
    if json {
        shell.print_json(&report)?;
    } else {
        writeln!(
            shell.out,
            "{} letters and {} journal segments read; mended {}, beyond mending {}",
            report.letters,
            report.segments,
            report.mended,
            report.damaged.len()
        )?;
    }
    for incident in &report.incidents {
        shell.say("warning", incident);
    }
    if report.damaged.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("{} dead letters are damaged beyond mending", report.damaged.len()))
        .hint("what was damaged is kept beside the store; restore it from a backup or an export with `import`"))
}

fn print_table(shell: &mut Shell<'_>, head: &[&str], mut rows: Vec<Vec<String>>) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(writeln!(shell.out, "no dead letters")?);
    }
    rows.insert(0, head.iter().map(ToString::to_string).collect());
    Ok(writeln!(shell.out, "{}", table::aligned(&rows).trim_end())?)
}

/// One letter in one line. Its text is hostile, and a terminal obeys more than a card does.
fn row(letter: &DeadLetter) -> Vec<String> {
    let short = |text: &str, chars: usize| printable(&text.chars().take(chars).collect::<String>());
    vec![
        letter.id.to_string(),
        letter.died_at.to_rfc3339_millis(),
        letter.reason.to_string(),
        letter.channel.as_ref().map_or_else(|| String::from("-"), ToString::to_string),
        letter.decision_id.as_deref().map_or_else(|| String::from("-"), |id| short(id, 40)),
        short(&letter.detail, 80),
    ]
}

fn show(letter: &DeadLetter, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let dash = || String::from("-");
    let reply = letter.last_reply.as_ref().map_or_else(dash, |reply| {
        let status = reply.status.map_or_else(|| String::from("no answer"), |status| format!("HTTP {status}"));
        format!("{status} at {}: {}", reply.at.to_rfc3339_millis(), printable(&reply.text))
    });
    let rows = [
        ("id", letter.id.to_string()),
        ("reason", letter.reason.to_string()),
        ("detail", printable(&letter.detail)),
        ("channel", letter.channel.as_ref().map_or_else(dash, ToString::to_string)),
        ("decision", letter.decision_id.as_deref().map_or_else(dash, printable)),
        ("severity", letter.severity.map_or_else(dash, |severity| severity.to_string())),
        ("first seen", letter.first_at.to_rfc3339_millis()),
        ("died", letter.died_at.to_rfc3339_millis()),
        ("attempts", letter.attempts.to_string()),
        ("last reply", reply),
        ("body", printable(&String::from_utf8_lossy(&letter.body))),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    Ok(writeln!(shell.out, "{}", table::aligned(&rows).trim_end())?)
}

async fn replay(args: &Args, choice: &Choice, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let letters = choice.to_send();
    let plan = config_file::load(global, shell)?;
    let data_dir = args.data_dir.as_ref().map_or_else(|| plan.data_dir.clone(), |dir| shell.directory.join(dir));
    let store = open(&data_dir, shell)?;
    let done = replay_from(&store, &plan, &letters, choice.dry_run, shell.clock).await;
    store.close().await;
    tell_replay(&done?, choice.dry_run, args.json, shell)
}

async fn replay_from(
    store: &Store,
    plan: &Plan,
    letters: &LetterFilter,
    dry_run: bool,
    clock: Clock,
) -> Result<ReplayReport, Failure> {
    let ids = store.select(letters).await.map_err(|error| failure(&error))?;
    let broker =
        app::connect(plan, clock, &TaskTracker::new()).await.map_err(|error| super::run::start_failure(&error))?;
    let known = |id: &ChannelId| plan.channels.iter().any(|channel| channel.id == *id);
    let replaying = Replay { store, broker: Arc::as_ref(&broker), known: &known, clock, dry_run };
    let done = replaying.run(&ids, |_| {}).await;
    broker.close().await;
    done.map_err(|error| failure(&error))
}

fn tell_replay(report: &ReplayReport, dry_run: bool, json: bool, shell: &mut Shell<'_>) -> Result<(), Failure> {
    if json {
        shell.print_json(report)?;
    } else {
        let verb = if dry_run { "would replay" } else { "replayed" };
        writeln!(
            shell.out,
            "{verb} {}; skipped {} whose approval has expired and {} whose channel is not configured; failed {}",
            report.replayed, report.skipped_expired, report.skipped_no_channel, report.failed
        )?;
    }
    if report.failed > 0 {
        return Err(Failure::new(format!("{} dead letters could not be replayed", report.failed))
            .hint("they are still in the store: replay them again"));
    }
    Ok(())
}
