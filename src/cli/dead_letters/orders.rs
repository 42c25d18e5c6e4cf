//! Replaying and purging the dead letters of running workers: each does its own, all at once, and tells how far it is.
//!
//! What one worker did stands, whatever becomes of the others; the totals are told, then who failed.

use std::cell::RefCell;

use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Choice, Exit, Failure, Filter, Purged, Shell, pool::Pages, telling};
use crate::{
    cli::{
        server::{self, AT_ONCE_MAX, Server, Servers, Trouble, refused, understand},
        table,
    },
    dead_letters::ReplayReport,
    settings::printable,
};

/// What one worker says at the end.
#[derive(Debug, Deserialize)]
struct Summary<T> {
    selected: u64,
    #[serde(flatten)]
    report: T,
    stopped: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PurgeReport {
    purged: u64,
}

/// What all workers said.
struct Heard<T> {
    summaries: Vec<(String, Summary<T>)>,
    failures: Vec<Failure>,
}

#[derive(Serialize)]
struct OfServer<T> {
    server: String,
    #[serde(flatten)]
    report: T,
}

#[derive(Serialize)]
struct Whole<T, U> {
    #[serde(flatten)]
    total: T,
    servers: Vec<OfServer<U>>,
}

/// Replays on every worker.
pub(super) async fn replay(
    choice: &Choice,
    json: bool,
    servers: &Servers,
    shell: &mut Shell<'_>,
) -> Result<(), Failure> {
    let Heard { summaries, failures }: Heard<ReplayReport> = give("replay", choice, servers, shell).await?;
    tell_missing(choice, summaries.iter().map(|(_, summary)| summary.selected).sum(), shell);
    let mut total = ReplayReport::default();
    for (_, Summary { report, .. }) in &summaries {
        total.replayed += report.replayed;
        total.skipped_expired += report.skipped_expired;
        total.skipped_no_channel += report.skipped_no_channel;
        total.failed += report.failed;
        total.gone += report.gone;
        total.notes.extend_from_slice(&report.notes);
    }
    let stopped = stopped(&summaries);
    let reports: Vec<(String, ReplayReport)> =
        summaries.into_iter().map(|(server, summary)| (server, summary.report)).collect();
    if json {
        let servers = reports.into_iter().map(|(server, report)| OfServer { server, report }).collect();
        shell.print_json(&Whole { total: total.clone(), servers })?;
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
    ends.extend(failures);
    server::end(ends, shell)
}

/// Purges on every worker.
pub(super) async fn purge(
    choice: &Choice,
    json: bool,
    servers: &Servers,
    shell: &mut Shell<'_>,
) -> Result<(), Failure> {
    let Heard { summaries, failures }: Heard<PurgeReport> = give("purge", choice, servers, shell).await?;
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
        shell.print_json(&Whole { total, servers })?;
    } else {
        let verb = if dry_run { "would purge" } else { "purged" };
        writeln!(shell.out, "{verb} {}", total.purged)?;
        if servers.several() {
            let row = |(server, report): &(String, Purged)| vec![server.clone(), report.purged.to_string()];
            print_servers(["WORKER", "PURGED"].map(str::to_owned).to_vec(), reports.iter().map(row), shell)?;
        }
    }
    server::end(stopped.into_iter().chain(failures).collect(), shell)
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
    let (bodies, mut failures) = bodies(choice, servers).await?;
    let progress = Progress::new(what, bodies.len(), shell);
    let path = format!("/api/dead-letters/{what}");
    let order = async |at: usize, server: &Server, body: &Value| {
        let last = server.order(&path, body, |line| progress.hear(at, &line["progress"])).await;
        let (summary, trouble) = match last {
            Ok(last) => {
                // An error at the end comes with what had been done before it.
                let trouble = last.get("error").map(|_| refused(http::StatusCode::OK, last.to_string().as_bytes()));
                match last.get("summary").cloned().map(understand::<Summary<T>>) {
                    Some(Ok(summary)) => (Some(summary), trouble),
                    Some(Err(trouble)) => (None, Some(trouble)),
                    None => (
                        None,
                        trouble.or_else(|| Some(Trouble::Silent(String::from("it broke off in the middle of it")))),
                    ),
                }
            }
            Err(trouble) => (None, Some(trouble)),
        };
        (server.name.clone(), summary, trouble)
    };
    let orders = bodies.iter().enumerate().map(|(at, (server, body))| order(at, server, body));
    let done: Vec<_> = stream::iter(orders).buffered(AT_ONCE_MAX).collect().await;
    progress.bar.finish_and_clear();
    let mut summaries = Vec::new();
    for (server, summary, trouble) in done {
        failures.extend(trouble.map(|trouble| trouble.failure(&server)));
        summaries.extend(summary.map(|summary| (server, summary)));
    }
    Ok(Heard { summaries, failures })
}

/// What each worker is told. A limit is the pool's: each worker gets its share of the newest letters of all.
async fn bodies<'a>(
    choice: &Choice,
    servers: &'a Servers,
) -> Result<(Vec<(&'a Server, Value)>, Vec<Failure>), Failure> {
    let (Some(limit), true) = (choice.filter.limit, servers.several()) else {
        let body = body(choice, choice.filter.limit);
        return Ok((servers.iter().map(|server| (server, body.clone())).collect(), Vec::new()));
    };
    if !choice.ids.is_empty() {
        return Err(Failure::new("ids and --limit do not go together").hint("leave one of them out").exit(Exit::Usage));
    }
    let mut shares = vec![0; servers.iter().count()];
    let mut merge = Pages::of(servers, &choice.filter, limit, false);
    for _ in 0..limit {
        let Some((_, at)) = merge.next().await else { break };
        shares[at] += 1;
    }
    let with_share = servers.iter().zip(shares).filter(|(_, share)| *share > 0);
    Ok((with_share.map(|(server, share)| (server, body(choice, Some(share)))).collect(), merge.failures))
}

/// The order as the API reads it.
fn body(choice: &Choice, limit: Option<usize>) -> Value {
    let Choice { ids, filter, all, dry_run } = choice;
    let Filter { channel, reason, decision, severity, since, until, limit: _ } = filter;
    let words = json!({
        "channel": channel, "reason": reason, "decision": decision, "severity": severity, "since": since, "until": until,
        "limit": limit,
    });
    let mut order = json!({"filter": words, "dry_run": dry_run});
    if !ids.is_empty() {
        order["ids"] = json!(ids);
    } else if *all && filter.is_empty() {
        order["all"] = json!(true);
    }
    order
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_no_more_than_was_chosen() {
        let choice = |ids: Vec<_>, all, channel: Option<&str>| Choice {
            ids,
            filter: Filter { channel: channel.map(|id| id.parse().unwrap()), ..Filter::default() },
            all,
            dry_run: true,
        };
        let id: crate::dead_letters::LetterId = "0197a2b4-0000-7000-8000-000000000001".parse().unwrap();
        let some = body(&choice(Vec::new(), true, Some("soc")), Some(3));
        assert_eq!((&some["filter"]["channel"], &some["filter"]["limit"]), (&json!("soc"), &json!(3)));
        assert_eq!((some.get("all"), some.get("ids"), &some["dry_run"]), (None, None, &json!(true)));
        assert_eq!(body(&choice(vec![id], false, None), None)["ids"], json!([id]));
        assert_eq!(body(&choice(Vec::new(), true, None), None)["all"], json!(true));
    }
}
