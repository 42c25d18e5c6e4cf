//! What names mean, as they were looked up of late.
//!
//! A page that many look at asks for the same names all the time, and a resolver that is slow or silent would keep each of them
//! waiting. So an answer is believed for a few seconds, and so is silence; who asks for a name that is being looked up waits for that
//! one answer; and while the resolver says nothing, a name means what it meant before.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use url::Url;

/// For how long nobody looks a name up again, whatever came of it.
const BELIEVED: Duration = Duration::from_secs(5);

/// For how long a name that cannot be looked up means what it meant.
const REMEMBERED: Duration = Duration::from_mins(5);

/// The most names that are remembered.
const NAMES_MAX: usize = 128;

/// The names that somebody asked for.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: Mutex<BTreeMap<Url, Arc<Name>>>,
}

/// Held by whoever looks it up.
type Name = tokio::sync::Mutex<Meaning>;

#[derive(Debug, Default)]
struct Meaning {
    looked_up: Option<Instant>,
    heard: Option<(Instant, Vec<SocketAddr>)>,
}

impl Names {
    /// The addresses of the URL's host; `look_up` finds them out, and is not asked where they are known. `None` of a host that has none.
    pub(super) async fn addresses(
        &self,
        url: &Url,
        look_up: impl Future<Output = Option<Vec<SocketAddr>>>,
    ) -> Option<Vec<SocketAddr>> {
        let name = self.name(url);
        // Where who holds it goes away in the middle, the next one looks it up.
        let mut meaning = name.lock().await;
        if meaning.looked_up.is_none_or(|at| at.elapsed() >= BELIEVED) {
            let found = look_up.await;
            let now = Instant::now();
            meaning.looked_up = Some(now);
            if let Some(addresses) = found {
                meaning.heard = Some((now, addresses));
            }
        }
        let heard = meaning.heard.as_ref().filter(|(at, _)| at.elapsed() < REMEMBERED);
        heard.map(|(_, addresses)| addresses.clone())
    }

    fn name(&self, url: &Url) -> Arc<Name> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Of configurations before a reload; what is asked for now is looked up anew.
        if known.len() >= NAMES_MAX && !known.contains_key(url) {
            known.clear();
        }
        Arc::clone(known.entry(url.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A resolver that takes its time.
    struct Resolver {
        names: Names,
        asked: AtomicUsize,
    }

    impl Resolver {
        async fn ask(&self, answer: Option<&str>) -> Option<Vec<SocketAddr>> {
            let url = Url::parse("http://workers:8080").unwrap();
            let look_up = async {
                self.asked.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                answer.map(|address| vec![address.parse().unwrap()])
            };
            self.names.addresses(&url, look_up).await
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_a_name_at_the_same_time_shares_one_look_up() {
        let resolver = Resolver { names: Names::default(), asked: AtomicUsize::new(0) };
        let found = futures_util::future::join_all((0..5).map(|_| resolver.ask(Some("10.0.0.1:8080")))).await;
        assert!(found.iter().all(|found| *found == Some(vec!["10.0.0.1:8080".parse().unwrap()])), "{found:?}");
        assert_eq!(resolver.asked(), 1);
        tokio::time::advance(BELIEVED).await;
        assert_eq!(resolver.ask(Some("10.0.0.2:8080")).await, Some(vec!["10.0.0.2:8080".parse().unwrap()]));
        assert_eq!(resolver.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_says_nothing_is_not_asked_by_everybody() {
        let resolver = Resolver { names: Names::default(), asked: AtomicUsize::new(0) };
        for _ in 0..3 {
            assert_eq!(resolver.ask(None).await, None);
        }
        assert_eq!(resolver.asked(), 1);
        tokio::time::advance(BELIEVED).await;
        assert!(resolver.ask(Some("10.0.0.1:8080")).await.is_some(), "it is asked again after a while");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_means_what_it_meant_while_the_resolver_is_away() {
        let resolver = Resolver { names: Names::default(), asked: AtomicUsize::new(0) };
        let before = resolver.ask(Some("10.0.0.1:8080")).await;
        tokio::time::advance(BELIEVED).await;
        assert_eq!(resolver.ask(None).await, before);
        assert_eq!(resolver.asked(), 2);
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(resolver.ask(None).await, None, "not for ever");
    }
}
