//! `dead-letters`: looking at what could not be delivered, sending it again, deleting it.
//!
//! Running workers are asked over their API, all of them at once (`pool.rs`, `orders.rs`); the store of a stopped one is opened
//! (`offline.rs`). Each worker has its own letters, and no other worker can reach them.

mod offline;
mod orders;
mod pool;
mod telling;

use std::path::PathBuf;

use serde::Serialize;

use super::{Exit, Failure, Global, Shell, runtime, server};
use crate::{
    dead_letters::{LetterFilter, LetterId},
    model::{ChannelId, DeathReason, Severity, Timestamp},
};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  interven-alerts dead-letters list --by-cause --server http://alerts:8080
  interven-alerts dead-letters list --channel soc-slack --since 2026-06-01T00:00:00Z --json
  interven-alerts dead-letters show 0197a2b4-...
  interven-alerts dead-letters replay --channel soc-slack --dry-run
  interven-alerts dead-letters purge --reason expired --until 2026-06-01T00:00:00Z
  interven-alerts dead-letters export > letters.ndjson
  interven-alerts dead-letters verify --data-dir /var/lib/interven-alerts

Each worker keeps its own dead letters. With `--server` (or INTERVEN_ALERTS_SERVER) every worker that is named is asked, a name with
several addresses means all of them, and their answers are put together; the exit code is 1 where one of them failed or was silent,
and what the others did stands. Without it, the store of a stopped worker is opened: `--data-dir DIR`, or `data_dir` of the
configuration. `import` and `verify` work on the store of a stopped worker alone.")]
pub struct Args {
    /// The data directory of the stopped worker; left out: `data_dir` of the configuration
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: server::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List dead letters, newest first
    #[command(after_long_help = "\
Examples:
  interven-alerts dead-letters list                                      the newest 100
  interven-alerts dead-letters list --by-cause                           what they died of, most letters first
  interven-alerts dead-letters list --channel soc-slack --limit 1000 --json | jq -r '.letters[].decision_id'

A list shows 1,000 letters at most; `export` has no end.")]
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
    #[command(after_long_help = "\
Examples:
  interven-alerts dead-letters replay --channel soc-slack --dry-run      how many would go, and what would be skipped
  interven-alerts dead-letters replay --channel soc-slack                send them again
  interven-alerts dead-letters replay 0197a2b4-... 0197a2b5-...          just these
  interven-alerts dead-letters replay --reason refused --limit 10        the ten that died last

Replayed letters go to the queue of their lane, oldest first, and leave it at the channel's own pace, with a fresh count of tries.
Approvals that have expired and letters of channels that are not configured are skipped, stay in the store, and are told. A replay
that is interrupted stops after the batch under way: what was confirmed by then is sent and out of the store, the rest is untouched.")]
    Replay {
        #[command(flatten)]
        choice: Choice,
    },
    /// Delete dead letters for good
    #[command(after_long_help = "\
Examples:
  interven-alerts dead-letters purge --reason expired --dry-run
  interven-alerts dead-letters purge --channel old-slack
  interven-alerts dead-letters purge --all

It needs ids, filters or --all. Over the API it needs the role `admin`. `export` them first if anybody may ask for them later.")]
    Purge {
        #[command(flatten)]
        choice: Choice,
    },
    /// Write dead letters to standard output, one a line
    #[command(after_long_help = "\
Examples:
  interven-alerts dead-letters export > letters.ndjson
  interven-alerts dead-letters export --reason malformed | jq -r .body

Newest first over all workers, page by page: an export of any size takes the memory of a page. `import` reads it again.")]
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
    /// Dead of this cause, as `list --by-cause` tells it
    #[arg(long, value_name = "CAUSE")]
    cause: Option<String>,
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
            cause: self.cause.clone(),
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
                .exit(Exit::Usage));
        }
        Ok(self.to_send())
    }

    /// What is chosen to be sent again: everything unless something was said.
    fn to_send(&self) -> LetterFilter {
        self.filter.letters(&self.ids)
    }
}

/// What a purge did, or with `dry_run` would do.
#[derive(Debug, Serialize)]
struct Purged {
    purged: u64,
    dry_run: bool,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    // Wrong usage is told before anything is opened or asked.
    if let Command::Purge { choice } = &args.command {
        choice.to_delete()?;
    }
    if !is_for_servers(args, shell)? {
        return offline::run(args, global, shell);
    }
    runtime(false)?.block_on(async {
        let servers = server::find(&args.server, shell).await?;
        match &args.command {
            Command::List { filter, by_cause: true } => pool::causes(filter, args.json, &servers, shell).await,
            Command::List { filter, by_cause: false } => pool::list(filter, args.json, &servers, shell).await,
            Command::Show { id } => pool::show(*id, args.json, &servers, shell).await,
            Command::Export { filter } => pool::export(filter, &servers, shell).await,
            Command::Replay { choice } => orders::replay(choice, args.json, &servers, shell).await,
            Command::Purge { choice } => orders::purge(choice, args.json, &servers, shell).await,
            Command::Import { .. } | Command::Verify => offline::run(args, global, shell),
        }
    })
}

/// Whether running workers are asked. A flag counts for more than the variable, which may be set for other commands.
fn is_for_servers(args: &Args, shell: &Shell<'_>) -> Result<bool, Failure> {
    let by_flag = args.server.by_flag(shell);
    if args.data_dir.is_some() && by_flag {
        return Err(Failure::new("both `--server` and `--data-dir` are given")
            .hint("ask running workers with `--server`, or open the store of a stopped one with `--data-dir`")
            .exit(Exit::Usage));
    }
    if matches!(args.command, Command::Import { .. } | Command::Verify) {
        if by_flag {
            return Err(Failure::new("`import` and `verify` work on the store of a stopped worker alone")
                .hint("stop the worker and give `--data-dir` in the place of `--server`")
                .exit(Exit::Usage));
        }
        return Ok(false);
    }
    Ok(args.data_dir.is_none() && args.server.given().next().is_some())
}
