//! The other workers of the pool, as the console asks them.
//!
//! A worker delivers without its peers, and they may be about to start: what is wrong with them breaks nothing but the view.

use std::{collections::BTreeSet, net::SocketAddr};

use futures_util::{StreamExt as _, stream};
use url::Url;

use super::Finding;
use crate::{
    settings::printable,
    workers::{knock, server::addresses},
};

/// Doors that are knocked at at once, for each name and of names.
const AT_ONCE_MAX: usize = 8;

const PART: &str = "peers";

/// What follows from a peer that cannot be asked.
const WITHOUT: &str =
    "the console shows this worker's own dead letters and channels without those of the workers there";

/// Looks at each of them.
pub(super) async fn look(peers: &[Url]) -> Vec<Finding> {
    stream::iter(peers.iter().map(one)).buffered(AT_ONCE_MAX).collect().await
}

async fn one(url: &Url) -> Finding {
    let shown = printable(url.as_str().trim_end_matches('/'));
    let Some(addresses) = addresses(url).await else {
        return Finding::doubtful(PART, format!("{shown}: the name has no address"))
            .because(WITHOUT)
            .hint("check the name, and this machine's resolver; some names have addresses while their workers run");
    };
    let knocking = stream::iter(addresses).map(async |address| (address, knock(url, address).await));
    let answers: Vec<_> = knocking.buffered(AT_ONCE_MAX).collect().await;
    let mut workers = BTreeSet::new();
    for (address, answer) in answers {
        match answer {
            Ok(Some(worker)) => drop(workers.insert(worker)),
            Ok(None) => return stranger(&shown, address),
            Err(trouble) => {
                return Finding::doubtful(PART, format!("{shown}: nobody answers at {address}: {}", trouble.why()))
                    .because(WITHOUT)
                    .hint("is that worker up, does its `[http] listen` take calls from here, and is the port right?");
            }
        }
    }
    match workers.len() {
        1 => Finding::well(PART, format!("{shown}: a worker answers")),
        many => Finding::well(PART, format!("{shown}: {many} workers answer")),
    }
}

fn stranger(shown: &str, address: SocketAddr) -> Finding {
    Finding::doubtful(PART, format!("{shown}: what answers at {address} is no worker's API"))
        .because("it is sent what people sign in with, whoever it is")
        .hint("give the address of the worker's `[http] listen`; `metrics_listen` is another one")
}
