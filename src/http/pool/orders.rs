//! Replays and purges over the pool: first a count, then the order to every worker that was counted.
//!
//! Between the count and the order letters go on dying, and nobody may lose one that was not in the count. So each worker says with
//! its count up to which burial it has counted, in the order of its own store, and the order to it means none that was buried later.
//! Not up to when: a letter has its time of death before it is in the store, where a count could see it. A worker that was not
//! counted, or has restarted since, is given no order; and no worker waits for its order because another one is slow to answer.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{OWN, Pool, refusal};
use crate::{
    dead_letters::{Cause, LetterFilter, ReplayReport},
    http::{
        dead_letters::{
            errand::{self, Deed},
            words::{self, Order},
        },
        guard::{Caller, audit},
        trail::Trail,
    },
    model::ChannelId,
    workers::{
        Credential, Server, Trouble, Unheard,
        errands::{self, Summary},
        letters::Grouped,
    },
};

/// What is meant, as it was counted.
#[derive(Debug)]
pub(in crate::http) struct Tally {
    /// Worker by worker; those with nothing are left out.
    pub(in crate::http) counted: Vec<Counted>,
    /// Who could not be asked, and is not among them.
    pub(in crate::http) unheard: Vec<Unheard>,
}

/// What one worker has of what is meant.
#[derive(Debug)]
pub(in crate::http) struct Counted {
    /// How it is called.
    pub(in crate::http) name: String,
    /// Its causes.
    pub(in crate::http) causes: Vec<Cause>,
    /// How many letters it has.
    pub(in crate::http) count: u64,
    /// Up to where it was counted.
    pub(in crate::http) bound: Bound,
}

/// Up to where a worker was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct Bound {
    /// The worker.
    pub(in crate::http) worker: Uuid,
    /// The number of the last burial that was counted.
    pub(in crate::http) up_to: u64,
    /// How it was called, by who counted.
    pub(in crate::http) server: String,
}

impl Tally {
    /// How many letters are meant.
    pub(in crate::http) fn count(&self) -> u64 {
        self.counted.iter().map(|counted| counted.count).sum()
    }

    /// How many of each channel; without one, what was never a delivery.
    pub(in crate::http) fn by_channel(&self) -> BTreeMap<Option<ChannelId>, u64> {
        let mut channels = BTreeMap::new();
        for cause in self.causes() {
            *channels.entry(cause.channel.clone()).or_default() += cause.count;
        }
        channels
    }

    fn causes(&self) -> impl Iterator<Item = &Cause> {
        self.counted.iter().flat_map(|counted| &counted.causes)
    }

    /// Up to where each worker was counted.
    pub(in crate::http) fn bounds(&self) -> Vec<Bound> {
        self.counted.iter().map(|counted| counted.bound.clone()).collect()
    }
}

impl Counted {
    /// Of a worker that tells what it has counted. Who does not is given no order.
    fn of(name: String, grouped: Grouped) -> Result<Self, Unheard> {
        let count = grouped.letters();
        let Grouped { worker, causes, up_to, .. } = grouped;
        let older =
            || Trouble::Silent(String::from("it is of an older version, which does not tell what it has counted"));
        let up_to = up_to.ok_or_else(|| Unheard::new(&name, older()))?;
        let bound = Bound { worker, up_to, server: name.clone() };
        Ok(Self { name, causes, count, bound })
    }
}

/// What one worker did, or would do.
#[derive(Debug)]
pub(in crate::http) struct Done {
    /// How it is called.
    pub(in crate::http) name: String,
    /// What it did.
    pub(in crate::http) summary: Option<Summary<Report>>,
    /// What went wrong.
    pub(in crate::http) trouble: Option<Trouble>,
}

/// What a replay or a purge did.
#[derive(Clone, Debug, Default, Deserialize)]
pub(in crate::http) struct Report {
    /// Letters that were purged.
    #[serde(default)]
    pub(in crate::http) purged: u64,
    /// What became of those that were replayed.
    #[serde(flatten)]
    pub(in crate::http) replay: ReplayReport,
}

/// An order as it is given.
#[derive(Clone, Debug)]
pub(in crate::http) struct Wish {
    /// What is to be done.
    pub(in crate::http) deed: Deed,
    /// To which letters.
    pub(in crate::http) filter: LetterFilter,
    /// Of which workers, and up to where.
    pub(in crate::http) bounds: Vec<Bound>,
    /// Only say what would be done.
    pub(in crate::http) dry_run: bool,
}

impl Pool {
    /// Counts what `filter` means, over all workers.
    pub(in crate::http) async fn tally(&self, filter: &LetterFilter, credential: Option<&Credential>) -> Tally {
        let super::Heard { of, mut unheard } = self.causes(filter, credential).await;
        let mut counted = Vec::new();
        for (name, grouped) in of.into_iter().filter(|(_, grouped)| !grouped.causes.is_empty()) {
            match Counted::of(name, grouped) {
                Ok(one) => counted.push(one),
                Err(one) => unheard.push(one),
            }
        }
        Tally { counted, unheard }
    }

    /// Gives the order to each worker that was counted, all at once, and waits for their ends: one entry for each of them.
    ///
    /// Each worker audits what it does. The others see a call of this worker and not of the caller, so what is ordered of them is
    /// audited here, too, with where the caller is.
    pub(in crate::http) async fn give(&self, wish: Wish, caller: Caller, credential: Option<Credential>) -> Vec<Done> {
        let own = wish.bounds.iter().find(|bound| bound.worker == self.desk.worker);
        let others: Vec<&Bound> = wish.bounds.iter().filter(|bound| bound.worker != self.desk.worker).collect();
        let trail = (!wish.dry_run && !others.is_empty()).then(|| wish.ordered(others.len(), &caller));
        let own = async {
            match own {
                Some(bound) => Some(self.give_own(&wish, bound, caller).await),
                None => None,
            }
        };
        let others = async {
            if others.is_empty() {
                return Vec::new();
            }
            let done = self.give_others(&wish, &others, credential.as_ref()).await;
            if let Some(trail) = trail {
                trail.end(Some(&in_words(wish.deed, &done)));
            }
            done
        };
        let (own, others) = tokio::join!(own, others);
        own.into_iter().chain(others).collect()
    }

    async fn give_own(&self, wish: &Wish, bound: &Bound, caller: Caller) -> Done {
        let begun = async {
            // By the same words as the others' orders, so that they mean the same.
            let order = Order::of(wish.words(bound).to_string().as_bytes(), wish.deed)?;
            self.desk.begin(wish.deed, order, caller).await
        };
        let (summary, trouble) = match begun.await {
            Ok(begun) => errands::ended(&begun.end().await),
            Err(error) => (None, Some(refusal(error))),
        };
        Done { name: OWN.to_owned(), summary, trouble }
    }

    /// Each by itself, so that one that hangs delays no other. Whom nobody counted is not even asked.
    async fn give_others(&self, wish: &Wish, bounds: &[&Bound], credential: Option<&Credential>) -> Vec<Done> {
        let (servers, _) = self.others(credential).await;
        let called = |name: &str| servers.iter().find(|server| server.name == name);
        let (there, elsewhere): (Vec<&Bound>, Vec<&Bound>) =
            bounds.iter().partition(|bound| called(&bound.server).is_some());
        let orders = there.into_iter().filter_map(|bound| Some((called(&bound.server)?, bound)));
        let orders = join_all(orders.map(|(server, bound)| self.order(wish, server, bound)));
        let rest = servers.iter().filter(|server| !bounds.iter().any(|bound| bound.server == server.name));
        let (mut done, found) = tokio::join!(orders, self.give_elsewhere(wish, &elsewhere, rest.collect()));
        done.extend(found);
        done
    }

    /// To workers that are not called as they were by who counted: another worker of the pool called itself "this one".
    async fn give_elsewhere(&self, wish: &Wish, bounds: &[&Bound], servers: Vec<&Server>) -> Vec<Done> {
        if bounds.is_empty() {
            return Vec::new();
        }
        let heard = join_all(servers.into_iter().map(async |server| (server, server.who().await))).await;
        let is = |bound: &Bound| heard.iter().find(|(_, who)| who.as_ref().is_ok_and(|who| *who == bound.worker));
        let orders = bounds.iter().map(async |bound| match is(bound) {
            Some((server, _)) => self.order(wish, server, bound).await,
            None => Done {
                name: match bound.server.as_str() {
                    "" | OWN => String::from("the worker on which it was counted"),
                    name => name.to_owned(),
                },
                summary: None,
                trouble: Some(restarted()),
            },
        });
        join_all(orders).await
    }

    /// To this worker, if it is still the one that was counted.
    async fn order(&self, wish: &Wish, server: &Server, bound: &Bound) -> Done {
        let name = server.name.clone();
        let trouble = match server.who().await {
            Ok(worker) if worker == bound.worker => None,
            Ok(_) => Some(restarted()),
            Err(trouble) => Some(trouble),
        };
        if trouble.is_some() {
            return Done { name, summary: None, trouble };
        }
        let words = wish.words(bound);
        let giving = errands::give::<Report>(server, wish.deed.as_str(), &words, |_| {});
        // The peer stops after the batch under way when nobody listens to it any more.
        let given = self.inside.draining.run_until_cancelled(giving).await;
        let stopping = || (None, Some(Trouble::Silent(String::from("this worker stops"))));
        let (summary, trouble) = given.unwrap_or_else(stopping);
        Done { name, summary, trouble }
    }
}

/// What is said of a worker that is not there any more as it was counted.
fn restarted() -> Trouble {
    Trouble::Silent(String::from(
        "it has restarted since the count, or is gone, and nothing it has was touched: count again",
    ))
}

/// What the workers did that were given an order, in one line: all together, and who failed.
fn in_words(deed: Deed, done: &[Done]) -> String {
    const FAILURES_NAMED_MAX: usize = 10;
    const TEXT_CHARS_MAX: usize = 200;
    let (mut selected, mut report, mut failures) = (0, Report::default(), Vec::new());
    for Done { name, summary, trouble } in done {
        let stopped = summary.as_ref().and_then(|summary| summary.stopped.as_deref());
        failures.extend(trouble.as_ref().map(Trouble::why).or(stopped).map(|why| (name, why)));
        if let Some(summary) = summary {
            selected += summary.selected;
            report.purged += summary.report.purged;
            report.replay.add(&summary.report.replay);
        }
    }
    let all = match deed {
        Deed::Replay => errand::replayed(&report.replay, selected),
        Deed::Purge => errand::purged(report.purged, selected),
    };
    // What workers are called and what they say comes from elsewhere.
    let short = |text: &str| text.escape_debug().take(TEXT_CHARS_MAX).collect::<String>();
    let named = failures.iter().take(FAILURES_NAMED_MAX).map(|(name, why)| format!("{}: {}", short(name), short(why)));
    let more = failures.len().checked_sub(FAILURES_NAMED_MAX).filter(|more| *more > 0);
    let parts = [all].into_iter().chain(named).chain(more.map(|more| format!("and {more} more")));
    parts.collect::<Vec<_>>().join("; ")
}

impl Wish {
    /// The audit of what is ordered of so many other workers.
    fn ordered(&self, others: usize, caller: &Caller) -> Trail {
        let workers = if others == 1 { "worker" } else { "workers" };
        let subject = format!("{} of {others} other {workers}", words::in_words(&self.filter));
        audit(caller, self.deed.audited(), &subject, "begun");
        Trail::begin(caller, self.deed.audited(), &subject)
    }

    /// The order to one worker.
    fn words(&self, bound: &Bound) -> Value {
        let filter = LetterFilter { up_to: Some(bound.up_to), limit: None, ..self.filter.clone() };
        errands::order(&filter, false, self.dry_run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_workers_did_is_one_line_with_who_failed() {
        let did = |purged, selected| {
            let report = Report { purged, ..Report::default() };
            Some(Summary { selected, report, stopped: None })
        };
        let silent = |why: &str| Some(Trouble::Silent(why.to_owned()));
        let done = |name: &str, summary, trouble| Done { name: name.to_owned(), summary, trouble };
        let all = [
            done("http://a", did(3, 3), None),
            done("http://b", did(1, 2), silent("the disk is full")),
            done("forged\nwhat=\"purge\"", None, silent("it took too long")),
        ];
        let line = in_words(Deed::Purge, &all);
        assert_eq!(line, r#"purged 4 of 5; http://b: the disk is full; forged\nwhat=\"purge\": it took too long"#);
        let many: Vec<Done> = (0..12).map(|_| done(&"n".repeat(900), None, silent(&"w".repeat(900)))).collect();
        let line = in_words(Deed::Replay, &many);
        assert!(line.starts_with("replayed 0 of 0; nnn") && line.ends_with("; and 2 more") && line.len() < 5_000);
    }

    #[test]
    fn an_order_means_nothing_that_was_buried_after_its_worker_was_counted() {
        let bound = Bound { worker: Uuid::nil(), up_to: 7, server: String::from(OWN) };
        let until = Some("2026-06-01T11:00:00Z".parse().unwrap());
        for filter in [LetterFilter::default(), LetterFilter { until, ..LetterFilter::default() }] {
            let wish = Wish { deed: Deed::Purge, filter: filter.clone(), bounds: Vec::new(), dry_run: false };
            let words = wish.words(&bound).to_string();
            let read = Order::of(words.as_bytes(), Deed::Purge).unwrap().filter;
            assert_eq!(read, LetterFilter { up_to: Some(7), ..filter });
        }
    }
}
