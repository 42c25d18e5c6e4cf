//! Replaying and purging the dead letters of running workers: each does its own, all at once, and tells how far it is.
//!
//! What one worker did stands, whatever becomes of the others; the totals are told, then who failed.

use std::cell::RefCell;

use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use super::{Choice, Exit, Failure, Purged, Shell, telling};
use crate::{
    cli::{server, table},
    dead_letters::{LetterFilter, ReplayReport},
    settings::printable,
    workers::{
        AT_ONCE_MAX, Server, Servers, Unheard,
        errands::{self, PurgeReport, Summary},
        letters::Pages,
    },
};

/// What all workers said.
struct Heard<T> {
    summaries: Vec<(String, Summary<T>)>,
    unheard: Vec<Unheard>,
}

#[derive(Serialize)]
struct OfServer<T> {
    server: String,
    #[serde(flatten)]
    report: T,
}

#[derive(Serialize)]
struct Whole<'a, T, U> {
    #[serde(flatten)]
    total: T,
    servers: Vec<OfServer<U>>,
    /// Workers that failed, or whose letters were not looked at.
    #[serde(skip_serializing_if = "<[Unheard]>::is_empty")]
    silent: &'a [Unheard],
}

/// Replays on every worker.
pub(super) async fn replay(
    choice: &Choice,
    json: bool,
    servers: &Servers,
    shell: &mut Shell<'_>,
) -> Result<(), Failure> {
    let Heard { summaries, unheard }: Heard<ReplayReport> = give("replay", choice, servers, shell).await?;
    tell_missing(choice, summaries.iter().map(|(_, summary)| summary.selected).sum(), shell);
    let mut total = ReplayReport::default();
    summaries.iter().for_each(|(_, summary)| total.add(&summary.report));
    let stopped = stopped(&summaries);
    let reports: Vec<(String, ReplayReport)> =
        summaries.into_iter().map(|(server, summary)| (server, summary.report)).collect();
    if json {
        let servers = reports.into_iter().map(|(server, report)| OfServer { server, report }).collect();
        shell.print_json(&Whole { total: total.clone(), servers, silent: &unheard })?;
    } else {
        telling::tell_replay(&total, choice.dry_run, shell)?;
        if servers.several() {
            let head = ["WORKER", "REPLAYED", "EXPIRED", "NO CHANNEL", "FAILED"].map(str::to_owned).to_vec();
            let row = |(server, report): &(String, ReplayReport)| {
                let ReplayReport { replayed, skipped_expired, skipped_no_channel, failed, .. } = report;
                let counts = [replayed, skipped_expired, skipped_no_channel, failed].map(ToString::to_string);
                [vec![server.clone()], counts.to_vec()].concat()
            };
            print_servers(head, reports.iter().map(row), shell)?;
        }
    }
    let mut ends: Vec<Failure> = telling::failed(&total).err().into_iter().collect();
    ends.extend(stopped);
    ends.extend(server::failures(unheard));
    server::end(ends, shell)
}

/// Purges on every worker.
pub(super) async fn purge(
    choice: &Choice,
    json: bool,
    servers: &Servers,
    shell: &mut Shell<'_>,
) -> Result<(), Failure> {
    let Heard { summaries, unheard }: Heard<PurgeReport> = give("purge", choice, servers, shell).await?;
    tell_missing(choice, summaries.iter().map(|(_, summary)| summary.selected).sum(), shell);
    let stopped = stopped(&summaries);
    let dry_run = choice.dry_run;
    let reports: Vec<(String, Purged)> = summaries
        .into_iter()
        .map(|(server, Summary { report: PurgeReport { purged }, .. })| (server, Purged { purged, dry_run }))
        .collect();
    let total = Purged { purged: reports.iter().map(|(_, report)| report.purged).sum(), dry_run };
    if json {
        let servers = reports.into_iter().map(|(server, report)| OfServer { server, report }).collect();
        shell.print_json(&Whole { total, servers, silent: &unheard })?;
    } else {
        let verb = if dry_run { "would purge" } else { "purged" };
        writeln!(shell.out, "{verb} {}", total.purged)?;
        if servers.several() {
            let row = |(server, report): &(String, Purged)| vec![server.clone(), report.purged.to_string()];
            print_servers(["WORKER", "PURGED"].map(str::to_owned).to_vec(), reports.iter().map(row), shell)?;
        }
    }
    server::end(stopped.into_iter().chain(server::failures(unheard)).collect(), shell)
}

fn print_servers(
    head: Vec<String>,
    rows: impl Iterator<Item = Vec<String>>,
    shell: &mut Shell<'_>,
) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    Ok(write!(shell.out, "{}", table::aligned(&rows))?)
}

/// Ids that nobody has are no failure, as they are none in a store that is opened; but they are told.
fn tell_missing(choice: &Choice, selected: u64, shell: &mut Shell<'_>) {
    let missing = (choice.ids.len() as u64).saturating_sub(selected);
    if missing > 0 {
        shell.say("note", &format!("{missing} of the ids are on no worker that answered, or do not meet the filters"));
    }
}

/// Workers that stopped before their end.
fn stopped<T>(summaries: &[(String, Summary<T>)]) -> Vec<Failure> {
    let early = summaries.iter().filter_map(|(server, summary)| Some((server, summary.stopped.as_ref()?)));
    let failure = |(server, why): (&String, &String)| {
        Failure::new(format!("{server} stopped before its end: {}", printable(why)))
            .hint("what it had done stands; run the command again for the rest")
    };
    early.map(failure).collect()
}

/// Gives the order to every worker that has something to do, and waits until all are done.
async fn give<T: serde::de::DeserializeOwned>(
    what: &str,
    choice: &Choice,
    servers: &Servers,
    shell: &mut Shell<'_>,
) -> Result<Heard<T>, Failure> {
    let (bodies, mut unheard) = bodies(choice, servers).await?;
    let progress = Progress::new(what, bodies.len(), shell);
    let order = async |at: usize, server: &Server, body: &Value| {
        let (summary, trouble) = errands::give(server, what, body, |told| progress.hear(at, told)).await;
        (server.name.clone(), summary, trouble)
    };
    let orders = bodies.iter().enumerate().map(|(at, (server, body))| order(at, server, body));
    let done: Vec<_> = stream::iter(orders).buffered(AT_ONCE_MAX).collect().await;
    progress.bar.finish_and_clear();
    let mut summaries = Vec::new();
    for (server, summary, trouble) in done {
        unheard.extend(trouble.map(|trouble| Unheard::new(&server, trouble)));
        summaries.extend(summary.map(|summary| (server, summary)));
    }
    Ok(Heard { summaries, unheard })
}

/// What each worker is told. A limit is the pool's: each worker gets its share of the newest letters of all.
async fn bodies<'a>(
    choice: &Choice,
    servers: &'a Servers,
) -> Result<(Vec<(&'a Server, Value)>, Vec<Unheard>), Failure> {
    let (Some(limit), true) = (choice.filter.limit, servers.several()) else {
        let body = body(choice, choice.filter.limit);
        return Ok((servers.iter().map(|server| (server, body.clone())).collect(), Vec::new()));
    };
    if !choice.ids.is_empty() {
        return Err(Failure::new("ids and --limit do not go together").hint("leave one of them out").exit(Exit::Usage));
    }
    let mut shares = vec![0; servers.iter().count()];
    let mut merge = Pages::merged(servers, &choice.filter.letters(&[]), limit, false);
    for _ in 0..limit {
        let Some((_, at)) = merge.next().await else { break };
        shares[at] += 1;
    }
    let with_share = servers.iter().zip(shares).filter(|(_, share)| *share > 0);
    Ok((with_share.map(|(server, share)| (server, body(choice, Some(share)))).collect(), merge.unheard))
}

/// The order as the API reads it.
fn body(choice: &Choice, limit: Option<usize>) -> Value {
    let filter = choice.filter.letters(&choice.ids);
    errands::order(&LetterFilter { limit, ..filter }, choice.all, choice.dry_run)
}

/// How far all workers are, where somebody looks.
struct Progress {
    bar: ProgressBar,
    /// How many letters each worker has found and seen.
    workers: RefCell<Vec<(u64, u64)>>,
}

impl Progress {
    fn new(what: &str, workers: usize, shell: &Shell<'_>) -> Self {
        let target = if shell.color { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {pos} of {len}  {per_sec}  {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self { bar, workers: RefCell::new(vec![(0, 0); workers]) }
    }

    fn hear(&self, at: usize, told: &Value) {
        let (Some(of), Some(seen)) = (told["of"].as_u64(), told["seen"].as_u64()) else { return };
        let mut workers = self.workers.borrow_mut();
        workers[at] = (of, seen);
        let (of, seen) = workers.iter().fold((0, 0), |(of, seen), worker| (of + worker.0, seen + worker.1));
        self.bar.set_length(of);
        self.bar.set_position(seen);
    }
}
