//! The other workers of the pool, as a worker knows them: by the URLs of its configuration, which are resolved again and again,
//! because workers come and go behind a name.
//!
//! Connections are kept from one request to the next, and so is what a name means, for a few seconds: a page that is looked at by
//! many asks for both all the time.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::Instant;
use url::Url;

use super::{
    Credential, Server, Trouble, Unheard,
    presence::Presence,
    server::{Manners, addresses, client},
};

/// How long a peer may take to take a connection and to answer, while somebody waits for a page.
const CONNECT_MAX: Duration = Duration::from_secs(3);
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The largest answer, in bytes: some fifty letters without their decisions, a thousand causes, the channels, or one letter. A page
/// asks many peers at once, and none of them may cost more than that, whatever it sends.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// For how long a name is believed to mean what it meant.
const BELIEVED: Duration = Duration::from_secs(5);

/// The most workers that are asked, and the most connections that are kept ready.
pub const WORKERS_MAX: usize = 64;
const CLIENTS_MAX: usize = 2 * WORKERS_MAX;

/// Who is behind some URLs.
#[derive(Debug, Default)]
pub struct Peers {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    names: BTreeMap<Url, (Instant, Vec<SocketAddr>)>,
    clients: BTreeMap<(Url, SocketAddr), (reqwest::Client, Arc<Presence>)>,
}

impl Peers {
    /// The workers behind `urls` at this moment, each to be asked with `credential`; and the names that mean nobody.
    pub async fn find(&self, urls: &[Url], credential: &Credential) -> (Vec<Server>, Vec<Unheard>) {
        let found = join_all(urls.iter().map(|url| self.addresses(url))).await;
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
                        let manners =
                            Manners { answer_max: ANSWER_MAX, bytes_max: BYTES_MAX, presence: Some(presence) };
                        servers.push(Server::with_client(url, address, several, credential, client, manners));
                    }
                    Err(why) => unheard.push(unheard_of(why)),
                }
            }
        }
        (servers, unheard)
    }

    async fn addresses(&self, url: &Url) -> Option<Vec<SocketAddr>> {
        let known = self.with(|known| known.names.get(url).cloned());
        if let Some((_, addresses)) = known.filter(|(at, _)| at.elapsed() < BELIEVED) {
            return Some(addresses);
        }
        let found = addresses(url).await?;
        self.with(|known| {
            if known.names.len() >= CLIENTS_MAX {
                known.names.clear();
            }
            known.names.insert(url.clone(), (Instant::now(), found.clone()));
        });
        Some(found)
    }

    fn client(&self, url: &Url, address: SocketAddr) -> Result<(reqwest::Client, Arc<Presence>), String> {
        let key = (url.clone(), address);
        if let Some(client) = self.with(|known| known.clients.get(&key).cloned()) {
            return Ok(client);
        }
        let made = (client(url, address, CONNECT_MAX)?, Arc::default());
        self.with(|known| {
            // Addresses of workers that are gone; those that are there are made anew.
            if known.clients.len() >= CLIENTS_MAX {
                known.clients.clear();
            }
            known.clients.insert(key, made.clone());
        });
        Ok(made)
    }

    fn with<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn shown(url: &Url) -> String {
    crate::settings::printable(url.as_str().trim_end_matches('/'))
}
