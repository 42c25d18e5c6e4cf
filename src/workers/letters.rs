//! The dead letters of many workers as those of one.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde::{Deserialize, Serialize};
use url::form_urlencoded::Serializer;
use uuid::Uuid;

use super::{Merge, Server, Servers, Source, Trouble, Unheard, understand};
use crate::{
    dead_letters::{Cause, DeadLetter, LetterFilter, LetterId, Page},
    model::{ChannelId, DeathReason, Timestamp},
};

/// The path of them all.
pub const PATH: &str = "/api/dead-letters";

/// What gives the least of a worker's letters: who it is, and how many there are.
pub const GLANCE: &str = "/api/dead-letters?limit=1&bodies=false";

/// The pages of one worker.
#[derive(Debug)]
pub struct Pages<'a> {
    server: &'a Server,
    query: String,
    worker: Option<Uuid>,
    /// Who asks, where that is a worker: its own letters it has at hand.
    own: Option<Uuid>,
}

/// A page and whose it is.
#[derive(Deserialize)]
struct Listed {
    worker: Uuid,
    #[serde(flatten)]
    page: Page,
}

impl<'a> Pages<'a> {
    /// The letters of this worker that `filter` means, its limit aside, so many to a page.
    pub fn of(server: &'a Server, filter: &LetterFilter, page: usize, bodies: bool) -> Self {
        let limit = page.clamp(1, LetterFilter::LIMIT_MAX);
        let filter = LetterFilter { limit: Some(limit), ..filter.clone() };
        Self { server, query: format!("{}&bodies={bodies}", query(&filter)), worker: None, own: None }
    }

    /// The same, and nothing where it is this worker that answers.
    #[must_use]
    pub fn but_of(mut self, own: Uuid) -> Self {
        self.own = Some(own);
        self
    }

    /// A merge over the letters of all `servers`.
    pub fn merged(servers: &'a Servers, filter: &LetterFilter, page: usize, bodies: bool) -> Merge<Self> {
        Merge::new(servers.iter().map(|server| Self::of(server, filter, page, bodies)).collect())
    }
}

impl Source for Pages<'_> {
    fn name(&self) -> &str {
        &self.server.name
    }

    async fn page(&mut self, before: Option<LetterId>) -> Result<Page, Trouble> {
        let before = before.map_or_else(String::new, |id| format!("&before={id}"));
        let Listed { worker, page } = self.server.ask_for(&format!("{PATH}?{}{before}", self.query)).await?;
        if self.own == Some(worker) {
            return Ok(Page::default());
        }
        if self.worker.replace(worker).is_some_and(|before| before != worker) {
            return Err(Trouble::Refused {
                status: http::StatusCode::OK,
                message: String::from("several workers answer at this address, or it has restarted"),
                hint: String::from(
                    "name each worker by an address of its own, or a name that has the addresses of all",
                ),
            });
        }
        Ok(page)
    }
}

/// The filter as a query, with its limit. It knows of no ids.
pub fn query(filter: &LetterFilter) -> String {
    let LetterFilter { channel, reason, cause, decision, severity, since, until, up_to: _, limit, ids: _ } = filter;
    let pairs = [
        ("channel", channel.as_ref().map(ToString::to_string)),
        ("reason", reason.map(|reason| reason.to_string())),
        ("cause", cause.clone()),
        ("decision", decision.clone()),
        ("severity", severity.map(|severity| severity.to_string())),
        ("since", since.map(|since| since.to_string())),
        ("until", until.map(|until| until.to_string())),
        ("limit", limit.map(|limit| limit.to_string())),
    ];
    let mut query = Serializer::new(String::new());
    query.extend_pairs(pairs.into_iter().filter_map(|(key, value)| Some((key, value?))));
    query.finish()
}

/// The causes of one worker, as the API tells them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grouped {
    /// Which one.
    pub worker: Uuid,
    /// What its letters died of, as many causes as an answer holds.
    pub causes: Vec<Cause>,
    /// How many letters that are, of all causes. A worker of before does not say.
    #[serde(default)]
    pub count: Option<u64>,
    /// Up to which burial they were counted. A worker of before does not say.
    #[serde(default)]
    pub up_to: Option<u64>,
    /// What it is doing to its letters, or did last; none since its start.
    #[serde(default)]
    pub errand: Option<Doing>,
}

impl Grouped {
    /// How many letters there are.
    pub fn letters(&self) -> u64 {
        self.count.unwrap_or_else(|| self.causes.iter().map(|cause| cause.count).sum())
    }
}

/// What a worker does to its letters, or did last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doing {
    /// `replay` or `purge`.
    pub what: String,
    /// By whose order.
    pub by: String,
    /// Which letters, in words.
    pub order: String,
    /// Since when.
    pub begun: Timestamp,
    /// How many letters it has found; none before it has.
    pub of: Option<u64>,
    /// How many it has looked at.
    pub seen: u64,
    /// How many it has replayed or purged.
    pub done: u64,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// What came of it, in words.
    pub outcome: Option<String>,
}

/// What the causes of these workers are asked with.
fn causes_path(filter: &LetterFilter) -> String {
    let words = query(&LetterFilter { limit: Some(LetterFilter::LIMIT_MAX), ..filter.clone() });
    let ids = filter.ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    // Only where they are meant, so that workers of before understand every other question.
    let ids = if ids.is_empty() { ids } else { format!("&ids={ids}") };
    format!("{PATH}?by_cause=true&{words}{ids}")
}

/// What the letters died of that `filter` means, worker by worker.
pub async fn causes<'a>(servers: &'a Servers, filter: &LetterFilter) -> (Vec<(&'a str, Grouped)>, Vec<Unheard>) {
    let (mut heard, mut unheard) = (Vec::new(), Vec::new());
    for (server, answer) in servers.ask_all(Method::GET, &causes_path(filter), None).await {
        match answer.and_then(|answer| understand::<Grouped>(answer.value)) {
            Ok(grouped) => heard.push((server.name.as_str(), grouped)),
            Err(trouble) => unheard.push(Unheard::new(&server.name, trouble)),
        }
    }
    (heard, unheard)
}

/// The causes of many workers as those of one, most letters first. A worker that was named twice counts once.
pub fn together(all: impl IntoIterator<Item = Grouped>) -> Vec<Cause> {
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

/// A letter and who has it.
#[derive(Clone, Debug)]
pub struct Had {
    /// The name of who has it.
    pub server: String,
    /// Which worker that is, where it says so.
    pub worker: Option<Uuid>,
    /// The letter.
    pub letter: DeadLetter,
}

/// Looks for one letter at all workers; who could not be asked may have it.
pub async fn find(servers: &Servers, id: LetterId) -> (Option<Had>, Vec<Unheard>) {
    let mut unheard = Vec::new();
    for (server, answer) in servers.ask_all(Method::GET, &format!("{PATH}/{id}"), None).await {
        let found = answer.and_then(|answer| Ok((answer.worker, understand::<DeadLetter>(answer.value)?)));
        match found {
            Ok((worker, letter)) => return (Some(Had { server: server.name.clone(), worker, letter }), Vec::new()),
            Err(trouble) if trouble.is_not_found() => {}
            Err(trouble) => unheard.push(Unheard::new(&server.name, trouble)),
        }
    }
    (None, unheard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(detail: &str, count: u64, at: u64) -> Cause {
        let at = Timestamp::UNIX_EPOCH.plus(std::time::Duration::from_secs(at));
        let channel = Some("soc".parse().unwrap());
        Cause { reason: DeathReason::Refused, channel, detail: detail.to_owned(), count, oldest: at, newest: at }
    }

    fn grouped(worker: u128, causes: Vec<Cause>) -> Grouped {
        Grouped { worker: Uuid::from_u128(worker), causes, count: None, up_to: None, errand: None }
    }

    #[test]
    fn causes_of_many_workers_are_added_up_and_a_worker_that_was_named_twice_counts_once() {
        let one = grouped(1, vec![cause("a", 3, 10), cause("b", 1, 11)]);
        let two = grouped(2, vec![cause("b", 4, 5), cause("c", 1, 6)]);
        let causes = together(vec![one.clone(), two, one]);
        let told: Vec<_> = causes.iter().map(|cause| (cause.detail.as_str(), cause.count)).collect();
        assert_eq!(told, [("b", 5), ("a", 3), ("c", 1)]);
        assert_eq!((causes[0].oldest, causes[0].newest), (cause("", 0, 5).oldest, cause("", 0, 11).newest));
    }

    #[test]
    fn a_filter_becomes_a_query_that_says_the_same() {
        let filter = LetterFilter {
            channel: Some("soc".parse().unwrap()),
            decision: Some(String::from("a b&c=d")),
            since: Some(Timestamp::UNIX_EPOCH),
            limit: Some(7),
            ..LetterFilter::default()
        };
        assert_eq!(query(&filter), "channel=soc&decision=a+b%26c%3Dd&since=1970-01-01T00%3A00%3A00Z&limit=7");
    }
}
