//! The whole pool as the console shows it, whichever worker it was opened on.
//!
//! What this worker has is asked in process. The others (`[http] peers`) are asked over their API, with what the caller itself has
//! proved who it is with: they check it as this one did, so nobody can do more in this way than by asking them, and no worker needs
//! to trust another. The API itself never asks anybody, so there are no loops.
//!
//! A worker may be among its own peers, as it is where they are a name with the addresses of all. Its answers are known by the id
//! that each worker makes at its start, and dropped.
//!
//! A peer that is silent or refuses costs what it has and nothing else: it is named, with the reason, beside what the others have.
//!
//! Replays and purges over the pool are in `orders.rs`.

pub(super) mod orders;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use http::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{Inside, channels::as_json, dead_letters::Desk, errors::ApiError};
use crate::{
    dead_letters::{DeadLetter, LetterFilter, LetterId, Page},
    workers::{
        Credential, Merge, Patience, Peers, Servers, Source, Trouble, Unheard,
        channels::{View, together},
        letters::{self, Grouped, Had, Pages},
        understand,
    },
};

/// What this worker is called among others.
pub(super) const OWN: &str = "this worker";

/// This worker and its peers.
#[derive(Clone)]
pub(super) struct Pool {
    inside: Inside,
    desk: Desk,
    peers: Arc<Peers>,
}

/// Something of the pool, and whose part of it is missing.
#[derive(Debug)]
pub(super) struct Heard<T> {
    /// What was heard.
    pub(super) of: T,
    /// Who could not be asked, and why.
    pub(super) unheard: Vec<Unheard>,
}

/// Letters of the pool, newest first.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Each with the name of who has it.
    pub(super) letters: Vec<(String, DeadLetter)>,
    /// Letters that match and cannot be read any more.
    pub(super) damaged: Vec<LetterId>,
    /// From where on there is more.
    pub(super) next: Option<LetterId>,
}

impl Pool {
    pub(super) fn new(inside: Inside, desk: Desk, patience: Patience) -> Self {
        Self { inside, desk, peers: Arc::new(Peers::new(patience)) }
    }

    /// The other workers, and the names that mean nobody. This one may be among them.
    async fn others(&self, credential: Option<&Credential>) -> (Servers, Vec<Unheard>) {
        let urls = self.inside.terms.borrow().peers.clone();
        let Some(credential) = credential else { return (Servers::new(Vec::new()), Vec::new()) };
        let (servers, unheard) = self.peers.find(&urls, credential).await;
        (Servers::new(servers), unheard)
    }

    /// Where what outlasts a request runs.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.desk.tasks
    }

    /// What the letters died of that `filter` means, worker by worker, each once. Its limit is that of each one's causes.
    pub(super) async fn causes(
        &self,
        filter: &LetterFilter,
        credential: Option<&Credential>,
    ) -> Heard<Vec<(String, Grouped)>> {
        let (servers, mut unheard) = self.others(credential).await;
        let (own, (others, silent)) = tokio::join!(self.desk.causes(filter), letters::causes(&servers, filter));
        unheard.extend(silent);
        let mut of = Vec::new();
        match own {
            Ok(grouped) => of.push((OWN.to_owned(), grouped)),
            Err(error) => unheard.insert(0, Unheard::new(OWN, refusal(error))),
        }
        let mut known = BTreeSet::from([self.desk.worker]);
        let others = others.into_iter().filter(|(_, grouped)| known.insert(grouped.worker));
        of.extend(others.map(|(server, grouped)| (server.to_owned(), grouped)));
        Heard { of, unheard }
    }

    /// The newest letters that `filter` means and that are older than `before`, without the decisions themselves: so many.
    pub(super) async fn letters(
        &self,
        filter: &LetterFilter,
        before: Option<LetterId>,
        most: usize,
        credential: Option<&Credential>,
    ) -> Heard<Listed> {
        let (servers, mut unheard) = self.others(credential).await;
        let filter = LetterFilter { limit: Some(most + 1), ..filter.clone() };
        let peer = |server| Line::Peer(Pages::of(server, &filter, most + 1, false).but_of(self.desk.worker));
        let own = Line::Own { desk: &self.desk, filter: &filter };
        let mut merge = Merge::before(servers.iter().map(peer).chain([own]).collect(), before);
        let mut listed = Listed::default();
        while let Some((letter, at)) = merge.next().await {
            if listed.letters.len() == most {
                listed.next = listed.letters.last().map(|(_, letter)| letter.id);
                break;
            }
            listed.letters.push((merge.name(at).to_owned(), letter));
        }
        unheard.extend(merge.unheard);
        listed.damaged = merge.damaged;
        Heard { of: listed, unheard }
    }

    /// One letter, whoever has it.
    pub(super) async fn find(&self, id: LetterId, credential: Option<&Credential>) -> Heard<Option<Had>> {
        let own = match self.desk.find(id).await {
            Ok(letter) => {
                let had = Had { server: OWN.to_owned(), worker: Some(self.desk.worker), letter };
                return Heard { of: Some(had), unheard: Vec::new() };
            }
            Err(error) => refusal(error),
        };
        let (servers, mut unheard) = self.others(credential).await;
        let (of, silent) = letters::find(&servers, id).await;
        unheard.extend(silent);
        if !own.is_not_found() {
            unheard.insert(0, Unheard::new(OWN, own));
        }
        Heard { of, unheard }
    }

    /// How many dead letters there are.
    pub(super) async fn total(&self, credential: Option<&Credential>) -> Heard<u64> {
        #[derive(Deserialize)]
        struct Page {
            worker: Uuid,
            #[serde(default)]
            total: u64,
        }
        let (servers, mut unheard) = self.others(credential).await;
        let (mut known, mut of) = (BTreeSet::from([self.desk.worker]), self.desk.total());
        for (server, answer) in servers.ask_all(Method::GET, letters::GLANCE, None).await {
            match answer.and_then(|answer| understand::<Page>(answer.value)) {
                Ok(Page { worker, total }) => of += if known.insert(worker) { total } else { 0 },
                Err(trouble) => unheard.push(Unheard::new(&server.name, trouble)),
            }
        }
        Heard { of, unheard }
    }

    /// The channels as all workers see them: of each the view that tells most, with what waits for it in the whole pool and what all
    /// have counted, and each worker's own view under `servers`.
    pub(super) async fn channels(&self, credential: Option<&Credential>) -> Heard<Lanes> {
        let shown = self.inside.channels.borrow().clone();
        let own = shown.iter().map(|one| as_json(one, &self.inside)).filter_map(|one| match one {
            Value::Object(view) => Some(view),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
        });
        let mut heard: Vec<(String, Vec<View>)> = vec![(OWN.to_owned(), own.collect())];
        let (servers, mut unheard) = self.others(credential).await;
        let mut known = BTreeSet::from([self.desk.worker]);
        for (server, answer) in servers.ask_all(Method::GET, "/api/channels", None).await {
            let views = answer.and_then(|answer| Ok((answer.worker, understand::<Vec<View>>(answer.value)?)));
            match views {
                // A worker of a version that does not say which one it is counts as another one.
                Ok((worker, views)) if worker.is_none_or(|worker| known.insert(worker)) => {
                    heard.push((server.name.clone(), views));
                }
                Ok(_) => {}
                Err(trouble) => unheard.push(Unheard::new(&server.name, trouble)),
            }
        }
        Heard { of: Lanes { workers: heard.len(), channels: together(heard) }, unheard }
    }
}

/// The channels of the pool.
#[derive(Debug)]
pub(super) struct Lanes {
    /// How many workers told of them.
    pub(super) workers: usize,
    /// What the API tells of each, put together.
    pub(super) channels: Vec<Value>,
}

/// Where letters come from: this worker's own, or a peer's.
enum Line<'a> {
    Own { desk: &'a Desk, filter: &'a LetterFilter },
    Peer(Pages<'a>),
}

impl Source for Line<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Own { .. } => OWN,
            Self::Peer(pages) => pages.name(),
        }
    }

    async fn page(&mut self, before: Option<LetterId>) -> Result<Page, Trouble> {
        match self {
            Self::Own { desk, filter } => desk.page(filter, before, false).await.map_err(refusal),
            Self::Peer(pages) => pages.page(before).await,
        }
    }
}

/// What this worker says that says no, as another one's.
fn refusal(error: ApiError) -> Trouble {
    Trouble::Refused { status: error.status, message: error.message, hint: error.hint.to_owned() }
}
