//! Looking at the dead letters of running workers: every one is asked, and their answers are put together.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use url::form_urlencoded::Serializer;
use uuid::Uuid;

use super::{
    Exit, Failure, Filter, Shell,
    merge::{Merge, Source},
    telling,
};
use crate::{
    cli::server::{self, Server, Servers, Trouble, understand},
    dead_letters::{Cause, DeadLetter, LetterFilter, LetterId, Page},
    model::{ChannelId, DeathReason},
};

/// Letters in one page of an export, from each worker.
const EXPORT_PAGE: usize = 250;

/// The pages of one worker.
pub(super) struct Pages<'a> {
    server: &'a Server,
    query: String,
    worker: Option<Uuid>,
}

#[derive(Deserialize)]
struct Listed {
    worker: Uuid,
    #[serde(flatten)]
    page: Page,
}

impl<'a> Pages<'a> {
    /// A merge over the letters of all `servers` that `filter` means, its limit aside, so many to a page.
    pub(super) fn of(servers: &'a Servers, filter: &Filter, page: usize, bodies: bool) -> Merge<Self> {
        let query = format!("{}&bodies={bodies}", query(filter, page.clamp(1, LetterFilter::LIMIT_MAX)));
        Merge::new(servers.iter().map(|server| Self { server, query: query.clone(), worker: None }).collect())
    }
}

impl Source for Pages<'_> {
    fn name(&self) -> &str {
        &self.server.name
    }

    async fn page(&mut self, before: Option<LetterId>) -> Result<Page, Failure> {
        let before = before.map_or_else(String::new, |id| format!("&before={id}"));
        let asked = self.server.ask_for(&format!("/api/dead-letters?{}{before}", self.query)).await;
        let Listed { worker, page } = asked.map_err(|trouble| trouble.failure(&self.server.name))?;
        if self.worker.replace(worker).is_some_and(|before| before != worker) {
            return Err(Failure::new(format!(
                "{}: several workers answer at this address, or it has restarted",
                self.server.name
            ))
            .hint("name each worker by an address of its own, or a name that has the addresses of all"));
        }
        Ok(page)
    }
}

/// The filter as a query, with this limit.
fn query(filter: &Filter, limit: usize) -> String {
    let Filter { channel, reason, decision, severity, since, until, limit: _ } = filter;
    let pairs = [
        ("channel", channel.as_ref().map(ToString::to_string)),
        ("reason", reason.map(|reason| reason.to_string())),
        ("decision", decision.clone()),
        ("severity", severity.map(|severity| severity.to_string())),
        ("since", since.map(|since| since.to_string())),
        ("until", until.map(|until| until.to_string())),
        ("limit", Some(limit.to_string())),
    ];
    let mut query = Serializer::new(String::new());
    query.extend_pairs(pairs.into_iter().filter_map(|(key, value)| Some((key, value?))));
    query.finish()
}

/// A letter and who has it.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    letter: &'a DeadLetter,
    server: &'a str,
}

#[derive(Serialize)]
struct AllTold<'a> {
    letters: Vec<Told<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damaged: Vec<LetterId>,
    /// From where on there is more; none at the end.
    next: Option<LetterId>,
}

/// Lists the newest letters of all workers.
pub(super) async fn list(filter: &Filter, json: bool, servers: &Servers, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let limit = filter.limit.unwrap_or(LetterFilter::LIMIT_DEFAULT).min(LetterFilter::LIMIT_MAX);
    let mut merge = Pages::of(servers, filter, limit, json);
    let (mut letters, mut more) = (Vec::new(), false);
    while let Some((letter, at)) = merge.next().await {
        if letters.len() >= limit {
            more = true;
            break;
        }
        letters.push((letter, merge.name(at).to_owned()));
    }
    let Merge { failures, damaged, .. } = merge;
    if json {
        let next = letters.last().map(|(letter, _)| letter.id).filter(|_| more);
        let told = letters.iter().map(|(letter, server)| Told { letter, server }).collect();
        shell.print_json(&AllTold { letters: told, damaged, next })?;
    } else {
        // Nothing at all was heard: then "no dead letters" would not be true.
        if !letters.is_empty() || failures.is_empty() {
            telling::print_letters(&letters, servers.several(), shell)?;
        }
        telling::warn_damaged(&damaged, shell);
        if more {
            shell.say("note", "there are more: raise --limit, or narrow the filters");
        }
    }
    server::end(failures, shell)
}

/// Groups the letters of all workers by what they died of.
pub(super) async fn causes(
    filter: &Filter,
    json: bool,
    servers: &Servers,
    shell: &mut Shell<'_>,
) -> Result<(), Failure> {
    let path = format!("/api/dead-letters?by_cause=true&{}", query(filter, LetterFilter::LIMIT_MAX));
    let (mut heard, mut failures) = (Vec::new(), Vec::new());
    for (server, answer) in servers.ask_all(Method::GET, &path, None).await {
        match answer.and_then(understand::<Grouped>) {
            Ok(grouped) => heard.push(grouped),
            Err(trouble) => failures.push(trouble.failure(&server.name)),
        }
    }
    let mut causes = together(heard);
    causes.truncate(filter.limit.unwrap_or(usize::MAX));
    if json {
        shell.print_json(&causes)?;
    } else if !causes.is_empty() || failures.is_empty() {
        telling::print_causes(&causes, shell)?;
    }
    server::end(failures, shell)
}

#[derive(Clone, Deserialize)]
struct Grouped {
    worker: Uuid,
    causes: Vec<Cause>,
}

/// The causes of many workers as those of one, most letters first. A worker that was named twice counts once.
fn together(all: Vec<Grouped>) -> Vec<Cause> {
    let mut seen = BTreeSet::new();
    let mut merged: BTreeMap<(DeathReason, Option<ChannelId>, String), Cause> = BTreeMap::new();
    let causes = all.into_iter().filter(|grouped| seen.insert(grouped.worker)).flat_map(|grouped| grouped.causes);
    for cause in causes {
        let key = (cause.reason, cause.channel.clone(), cause.detail.clone());
        merged
            .entry(key)
            .and_modify(|known| {
                known.count += cause.count;
                known.oldest = known.oldest.min(cause.oldest);
                known.newest = known.newest.max(cause.newest);
            })
            .or_insert(cause);
    }
    let mut causes: Vec<Cause> = merged.into_values().collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    causes
}

/// Shows one letter, whoever has it.
pub(super) async fn show(id: LetterId, json: bool, servers: &Servers, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for (server, answer) in servers.ask_all(Method::GET, &format!("/api/dead-letters/{id}"), None).await {
        match answer.and_then(understand::<DeadLetter>) {
            Ok(letter) if json => return shell.print_json(&Told { letter: &letter, server: &server.name }),
            Ok(letter) => return telling::show(&letter, shell),
            Err(Trouble::Refused { status: StatusCode::NOT_FOUND, .. }) => {}
            Err(trouble) => failures.push(trouble.failure(&server.name)),
        }
    }
    if failures.is_empty() {
        return Err(Failure::new(format!("no worker that was asked has the dead letter {id}"))
            .hint("it may have been replayed or purged: run `interven-alerts dead-letters list`")
            .exit(Exit::Failed));
    }
    server::end(failures, shell)
}

/// Writes the letters of all workers, newest first, one a line.
pub(super) async fn export(filter: &Filter, servers: &Servers, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let limit = filter.limit.unwrap_or(usize::MAX);
    let mut merge = Pages::of(servers, filter, EXPORT_PAGE.min(limit), true);
    let mut written = 0;
    while written < limit
        && let Some((letter, _)) = merge.next().await
    {
        let line = serde_json::to_string(&letter).map_err(|error| Failure::of(&error))?;
        writeln!(shell.out, "{line}")?;
        written += 1;
        for id in std::mem::take(&mut merge.damaged) {
            shell.say("warning", &format!("{id} is damaged on disk and not in the export"));
        }
    }
    server::end(merge.failures, shell)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn cause(detail: &str, count: u64, at: u64) -> Cause {
        let at = Timestamp::UNIX_EPOCH.plus(std::time::Duration::from_secs(at));
        let channel = Some("soc".parse().unwrap());
        Cause { reason: DeathReason::Refused, channel, detail: detail.to_owned(), count, oldest: at, newest: at }
    }

    #[test]
    fn causes_of_many_workers_are_added_up_and_a_worker_that_was_named_twice_counts_once() {
        let one = Grouped { worker: Uuid::from_u128(1), causes: vec![cause("a", 3, 10), cause("b", 1, 11)] };
        let two = Grouped { worker: Uuid::from_u128(2), causes: vec![cause("b", 4, 5), cause("c", 1, 6)] };
        let causes = together(vec![one.clone(), two, one]);
        let told: Vec<_> = causes.iter().map(|cause| (cause.detail.as_str(), cause.count)).collect();
        assert_eq!(told, [("b", 5), ("a", 3), ("c", 1)]);
        assert_eq!((causes[0].oldest, causes[0].newest), (cause("", 0, 5).oldest, cause("", 0, 11).newest));
    }

    #[test]
    fn a_filter_becomes_a_query_that_says_the_same() {
        let filter = Filter {
            channel: Some("soc".parse().unwrap()),
            decision: Some(String::from("a b&c=d")),
            since: Some(Timestamp::UNIX_EPOCH),
            ..Filter::default()
        };
        assert_eq!(query(&filter, 7), "channel=soc&decision=a+b%26c%3Dd&since=1970-01-01T00%3A00%3A00Z&limit=7");
    }
}
