//! The other workers of the pool, as a worker knows them: by the URLs of its configuration, which are resolved again and again,
//! because workers come and go behind a name.
//!
//! Connections are kept from one request to the next, and so is what a name means (`names.rs`): a page that is looked at by many asks
//! for both all the time.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use url::Url;

use super::{
    Credential, Server, Trouble, Unheard,
    names::Names,
    presence::Presence,
    server::{Manners, addresses_within, client},
};

/// The largest answer, in bytes: some fifty letters without their decisions, a thousand causes, the channels, or one letter. A page
/// asks many peers at once, and none of them may cost more than that, whatever it sends.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The most workers that are asked, and the most connections that are kept ready.
const WORKERS_MAX: usize = 64;
const CLIENTS_MAX: usize = 2 * WORKERS_MAX;

/// How long a peer may take, while somebody waits for a page.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Its name, to be looked up.
    pub resolve: Duration,
    /// To take a connection.
    pub connect: Duration,
    /// To show that it is there at all. Who takes longer is left alone for a while.
    pub look: Duration,
    /// To answer.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let short = Duration::from_secs(3);
        Self { resolve: short, connect: short, look: short, answer: Duration::from_secs(10) }
    }
}

/// Who is behind some URLs.
#[derive(Debug, Default)]
pub struct Peers {
    patience: Patience,
    names: Names,
    clients: Mutex<BTreeMap<Key, Known>>,
}

type Key = (Url, SocketAddr);
type Known = (reqwest::Client, Arc<Presence>);

impl Peers {
    /// Nobody is known yet.
    pub fn new(patience: Patience) -> Self {
        Self { patience, ..Self::default() }
    }

    /// The workers behind `urls` at this moment, each to be asked with `credential`; and the names that mean nobody.
    pub async fn find(&self, urls: &[Url], credential: &Credential) -> (Vec<Server>, Vec<Unheard>) {
        let found = {
            let look_up = |url| self.names.addresses(url, addresses_within(url, self.patience.resolve));
            join_all(urls.iter().map(look_up)).await
        };
        let (mut servers, mut unheard) = (Vec::new(), Vec::new());
        for (url, addresses) in urls.iter().zip(found) {
            let unheard_of = |why: String| Unheard::new(&shown(url), Trouble::Silent(why));
            let Some(addresses) = addresses else {
                unheard.push(unheard_of(String::from("its name has no address")));
                continue;
            };
            let several = addresses.len() > 1;
            for address in addresses {
                match self.client(url, address) {
                    Ok(_) if servers.len() >= WORKERS_MAX => {
                        unheard.push(unheard_of(format!("there are more than {WORKERS_MAX} workers")));
                        break;
                    }
                    Ok((client, presence)) => {
                        let credential = credential.clone();
                        let presence = Some((presence, self.patience.look));
                        let manners = Manners { answer_max: self.patience.answer, bytes_max: BYTES_MAX, presence };
                        servers.push(Server::with_client(url, address, several, credential, client, manners));
                    }
                    Err(why) => unheard.push(unheard_of(why)),
                }
            }
        }
        (servers, unheard)
    }

    fn client(&self, url: &Url, address: SocketAddr) -> Result<Known, String> {
        let key = (url.clone(), address);
        if let Some(known) = self.known().get(&key) {
            return Ok(known.clone());
        }
        let made: Known = (client(url, address, self.patience.connect)?, Arc::default());
        let mut known = self.known();
        // Addresses of workers that are gone; those that are there are made anew.
        if known.len() >= CLIENTS_MAX {
            known.clear();
        }
        Ok(known.entry(key).or_insert(made).clone())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Key, Known>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(url: &Url) -> String {
    crate::settings::printable(url.as_str().trim_end_matches('/'))
}
