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

use super::{
    Exit, Failure, Global, Shell, choice, moment,
    place::{self, Place},
    runtime, server,
};
use crate::{
    dead_letters::{LetterFilter, LetterId},
    model::{ChannelId, DeathReason, Severity, Timestamp},
};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  What died of what, over all workers:
    interven-alerts dead-letters list --by-cause --server http://127.0.0.1:8080
  Mend the endpoint, look what would go, and send it again:
    interven-alerts dead-letters replay --channel soc-slack --dry-run
    interven-alerts dead-letters replay --channel soc-slack
  In the store of a stopped worker:
    interven-alerts dead-letters list --data-dir /var/lib/interven-alerts

Reasons:
  malformed         the message could not be read as a decision; its bytes are kept as they came
  poison            handling the decision failed; please report it
  refused           the endpoint refused this very payload, the plain-text form included
  exhausted         every permitted attempt was answered with a failure of the endpoint's own
  expired           older than the channel's `max_age`
  approval_expired  nobody could have answered any more
  channel_removed   the channel is no longer configured
  broker_gave_up    the broker itself gave the message up")]
pub struct Args {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    place: place::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List dead letters, newest first
    ///
    /// 100 unless --limit says otherwise, 1,000 at most; `export` has no end.
    #[command(after_long_help = "\
Examples:
  The newest 100, and what they died of:
    interven-alerts dead-letters list
    interven-alerts dead-letters list --by-cause
  What one channel did not get since yesterday, for another program:
    interven-alerts dead-letters list --channel soc-slack --since 24h --limit 1000 --json")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// Group by what they died of
        #[arg(long)]
        by_cause: bool,
    },
    /// Show one dead letter whole: the decision, what the endpoint said last, and why there was no other try
    #[command(after_long_help = "\
Examples:
  One of those that `list` shows:
    interven-alerts dead-letters show 0197a2b4-0000-7000-8000-000000000001")]
    Show {
        /// Its id, as `list` shows it
        #[arg(value_parser = letter_id)]
        id: LetterId,
    },
    /// Send dead letters again: each leaves the store only when the broker has confirmed it in its lane
    #[command(after_long_help = "\
Examples:
  How many would go, and what would be left:
    interven-alerts dead-letters replay --channel soc-slack --dry-run
  Send them again; or the ten that died last; or just one:
    interven-alerts dead-letters replay --channel soc-slack
    interven-alerts dead-letters replay --reason refused --limit 10
    interven-alerts dead-letters replay 0197a2b4-0000-7000-8000-000000000001

What happens:
  Letters go to the queue of their lane, oldest first, and leave it at the channel's own pace, with
  a fresh count of tries. Approvals that have expired and letters of channels that are not
  configured stay in the store, and are told. A replay that is interrupted stops after the batch
  under way: what was confirmed by then is sent and out of the store, the rest is untouched.")]
    Replay {
        #[command(flatten)]
        choice: Choice,
    },
    /// Delete dead letters for good
    ///
    /// It needs ids, filters or --all, and over the API the role admin.
    #[command(after_long_help = "\
Examples:
  Keep a copy, look how many it would be, and delete them:
    interven-alerts dead-letters export --reason expired > expired.ndjson
    interven-alerts dead-letters purge --reason expired --dry-run
    interven-alerts dead-letters purge --reason expired
  Everything:
    interven-alerts dead-letters purge --all")]
    Purge {
        #[command(flatten)]
        choice: Choice,
    },
    /// Write dead letters to standard output, one a line
    ///
    /// Newest first over all workers, page by page: an export of any size takes the memory of a page. `import` reads it again.
    #[command(after_long_help = "\
Examples:
  Everything, and the bodies that could not be read:
    interven-alerts dead-letters export > letters.ndjson
    interven-alerts dead-letters export --reason malformed | jq -r .body")]
    Export {
        #[command(flatten)]
        filter: Filter,
    },
    /// Add the dead letters of an export that the store has not
    ///
    /// Into the store of a stopped worker: one that was lost, or that another worker's letters shall go to.
    #[command(
        after_long_help = "\
Examples:
  Put an export back:
    interven-alerts dead-letters import letters.ndjson --data-dir /var/lib/interven-alerts",
        arg(no_server())
    )]
    Import {
        /// The export
        file: PathBuf,
    },
    /// Read every byte of the store, mend what can be mended, and report
    ///
    /// For the store of a stopped worker, after its disk has failed or a warning named damage. What is beyond mending is kept beside
    /// the store, and the exit code is 1.
    #[command(
        after_long_help = "\
Examples:
  With the worker stopped:
    interven-alerts dead-letters verify --data-dir /var/lib/interven-alerts",
        arg(no_server())
    )]
    Verify,
}

/// `--server` for the commands that refuse it: taken, so that they can say why, and not offered.
fn no_server() -> clap::Arg {
    clap::Arg::new(server::FLAG).long("server").action(clap::ArgAction::Append).help("Not for this command").hide(true)
}

/// The heading of what chooses letters.
const WHICH: &str = "Which letters";

/// Which letters.
#[derive(Clone, Debug, Default, clap::Args)]
struct Filter {
    /// Of this channel
    #[arg(help_heading = WHICH, long, value_name = "ID")]
    channel: Option<ChannelId>,
    /// Dead for this reason: malformed, poison, refused, exhausted, expired, approval_expired, channel_removed, broker_gave_up
    #[arg(help_heading = WHICH, long, value_parser = choice::reason(), hide_possible_values = true)]
    reason: Option<DeathReason>,
    /// Dead of this cause, as `list --by-cause` tells it
    #[arg(help_heading = WHICH, long, value_name = "CAUSE")]
    cause: Option<String>,
    /// Of the decision with this id
    #[arg(help_heading = WHICH, long, value_name = "ID")]
    decision: Option<String>,
    /// Of this severity: LOW, MEDIUM, HIGH or CRITICAL
    #[arg(help_heading = WHICH, long, value_parser = choice::severity(), hide_possible_values = true)]
    severity: Option<Severity>,
    /// Dead at this time or later: RFC 3339, a day as 2026-06-01 (UTC), or how long ago as 24h
    #[arg(help_heading = WHICH, long, value_name = "TIME", value_parser = moment::parse)]
    since: Option<Timestamp>,
    /// Dead before this time, written in the same ways
    #[arg(help_heading = WHICH, long, value_name = "TIME", value_parser = moment::parse)]
    until: Option<Timestamp>,
    /// At most so many, the newest
    #[arg(help_heading = WHICH, long, value_name = "N")]
    limit: Option<usize>,
}

/// Which letters are acted upon. Deleting needs at least one word, so that all of them do not go by accident.
#[derive(Clone, Debug, clap::Args)]
struct Choice {
    /// Just these, by their ids as `list` shows them
    #[arg(value_name = "ID", value_parser = letter_id)]
    ids: Vec<LetterId>,
    #[command(flatten)]
    filter: Filter,
    /// All of them; `purge` wants it said
    #[arg(help_heading = WHICH, long)]
    all: bool,
    /// Say what would happen, and do nothing
    #[arg(long)]
    dry_run: bool,
}

fn letter_id(text: &str) -> Result<LetterId, &'static str> {
    text.parse().map_err(|_| "it is not the id of a dead letter: `dead-letters list` shows them")
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
            up_to: None,
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
    if !is_for_servers(args, global)? {
        return offline::run(args, global, shell);
    }
    runtime(false)?.block_on(async {
        let servers = server::find(&args.place.server, shell).await?;
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

/// Whether running workers are asked.
fn is_for_servers(args: &Args, global: &Global) -> Result<bool, Failure> {
    let place = Place::of(&args.place.server, args.place.data_dir.as_deref(), global)?;
    if matches!(args.command, Command::Import { .. } | Command::Verify) {
        if global.by_flag.server {
            return Err(Failure::new("`import` and `verify` work on the store of a stopped worker alone")
                .hint("stop the worker and give `--data-dir` in the place of `--server`")
                .exit(Exit::Usage));
        }
        return Ok(false);
    }
    Ok(place == Place::Workers)
}
