//! One worker at one address, and several of them.
//!
//! A DNS name with several addresses means every worker behind it, as a headless service in Kubernetes has it, so names are resolved
//! here and each address is asked by itself, under the name, so that TLS certificates fit.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use http::{
    HeaderMap, Method,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::{Host, Url};
use uuid::Uuid;

use super::{
    Credential, Trouble,
    presence::{Presence, Thought},
    refused, understand,
};
use crate::settings::printable;

/// Limits of one request. A pause may wait for the broker's confirm.
const CONNECT_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_mins(1);
const RESOLVE_MAX: Duration = Duration::from_secs(10);

/// The largest answer, in bytes: a page of dead letters has up to 20 MiB and one more letter, and in JSON up to six times that, if
/// somebody sends nothing but control characters.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Workers that are asked at once.
pub const AT_ONCE_MAX: usize = 16;

/// How long an order may take in all, and how long its worker may say nothing meanwhile: it tells its progress every second.
const ORDER_MAX: Duration = Duration::from_hours(7 * 24);
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// The largest answer that says no.
const REFUSAL_BYTES_MAX: usize = 1024 * 1024;

/// The longest line of progress.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// The most workers behind one name.
const ADDRESSES_MAX: usize = 256;

/// The header by which a worker says which one answers: made anew at each start.
pub const WORKER: &str = "interven-worker";

/// What every caller may ask for, and no worker has to look for.
const WHO: &str = "/api/session";

/// Workers that can be asked.
#[derive(Debug)]
pub struct Servers {
    workers: Vec<Server>,
}

/// One worker at one address.
#[derive(Clone, Debug)]
pub struct Server {
    /// How it is called in messages.
    pub name: String,
    base: Url,
    client: reqwest::Client,
    credential: Credential,
    manners: Manners,
}

/// How a worker is asked.
#[derive(Clone, Debug)]
pub(super) struct Manners {
    /// How long an answer may take.
    pub(super) answer_max: Duration,
    /// The largest one, in bytes.
    pub(super) bytes_max: usize,
    /// What is known of whether it is there, and how long a look may take. Without it, it is asked straight away.
    pub(super) presence: Option<(Arc<Presence>, Duration)>,
}

/// An answer, and which worker gave it, where it says so.
#[derive(Debug)]
pub struct Answer {
    /// What it says.
    pub value: Value,
    /// Who says it.
    pub worker: Option<Uuid>,
}

impl Servers {
    /// These workers.
    pub fn new(workers: Vec<Server>) -> Self {
        Self { workers }
    }

    /// The workers, in the order in which they were named.
    pub fn iter(&self) -> impl Iterator<Item = &Server> {
        self.workers.iter()
    }

    /// Whether there are several.
    pub fn several(&self) -> bool {
        self.workers.len() > 1
    }

    /// Asks all workers, many at once; their answers, in the order of the workers.
    pub async fn ask_all(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Vec<(&Server, Result<Answer, Trouble>)> {
        let ask = |server| {
            let method = method.clone();
            async move { (server, Server::ask_telling(server, method, path, body).await) }
        };
        let asking: Vec<_> = self.workers.iter().map(ask).collect();
        stream::iter(asking).buffered(AT_ONCE_MAX).collect().await
    }

    /// Asks one worker after the other until one does it. One that says that it does not know what is asked for, or cannot do it
    /// now, is passed over, too: another one may. Without an answer, the last one's name and trouble.
    pub async fn ask_any(&self, method: Method, path: &str, body: &Value) -> Result<Value, (String, Trouble)> {
        let mut last = (String::from("nobody"), Trouble::Silent(String::from("no worker was named")));
        for server in &self.workers {
            let trouble = match server.ask(method.clone(), path, Some(body)).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            let is_final = trouble.is_final();
            last = (server.name.clone(), trouble);
            if is_final {
                break;
            }
        }
        Err(last)
    }
}

/// A client for one address of a host, which many requests may share.
pub(super) fn client(url: &Url, address: SocketAddr, connect_max: Duration) -> Result<reqwest::Client, String> {
    crate::tls::install();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(connect_max)
        .user_agent(concat!("interven-alerts/", env!("CARGO_PKG_VERSION")))
        .resolve(url.host_str().unwrap_or_default(), address)
        .build()
        .map_err(|error| error.to_string())
}

impl Server {
    /// The worker at this address of the URL's host. `several` says whether the host has others. On failure, why requests cannot be
    /// made at all.
    pub fn new(url: &Url, address: SocketAddr, several: bool, credential: Credential) -> Result<Self, String> {
        let client = client(url, address, CONNECT_MAX)?;
        let manners = Manners { answer_max: ANSWER_MAX, bytes_max: BODY_BYTES_MAX, presence: None };
        Ok(Self::with_client(url, address, several, credential, client, manners))
    }

    pub(super) fn with_client(
        url: &Url,
        address: SocketAddr,
        several: bool,
        credential: Credential,
        client: reqwest::Client,
        manners: Manners,
    ) -> Self {
        let name = name(url, address, several);
        let mut base = url.clone();
        base.set_query(None);
        base.set_fragment(None);
        Self { name, base, client, credential, manners }
    }

    /// Asks for `path`, which begins with a slash and may have a query.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Trouble> {
        self.ask_telling(method, path, body).await.map(|answer| answer.value)
    }

    /// The same, and who answers.
    pub async fn ask_telling(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Trouble> {
        self.look().await?;
        self.exchange(self.request(method, path, body)).await
    }

    /// Which worker answers. It is asked even if it was silent a moment ago: that may be over, and who has something to be done that
    /// was counted wants to know.
    pub async fn who(&self) -> Result<Uuid, Trouble> {
        let answer = self.exchange(self.request(Method::GET, WHO, None)).await?;
        answer.worker.ok_or_else(|| Trouble::Silent(String::from("it does not say which worker it is")))
    }

    async fn exchange(&self, request: reqwest::RequestBuilder) -> Result<Answer, Trouble> {
        let request = request.timeout(self.manners.answer_max);
        let mut response = request.send().await.map_err(|error| self.cut(&error))?;
        let (status, worker) = (response.status(), worker(response.headers()));
        let bytes = whole(&mut response, self.manners.bytes_max).await?;
        if let Some((presence, _)) = &self.manners.presence {
            presence.answered();
        }
        if !status.is_success() {
            return Err(refused(status, &bytes));
        }
        Ok(Answer { value: read(&bytes)?, worker })
    }

    /// Looks whether it is there, unless that is known. Whatever answers is there; what it says comes with the question.
    async fn look(&self) -> Result<(), Trouble> {
        let Some((presence, look_max)) = &self.manners.presence else { return Ok(()) };
        match presence.now() {
            Thought::There => Ok(()),
            Thought::Silent => Err(Trouble::Silent(String::from("it took too long a moment ago"))),
            Thought::Unknown => match self.request(Method::GET, "/livez", None).timeout(*look_max).send().await {
                Ok(_) => {
                    presence.answered();
                    Ok(())
                }
                Err(error) => {
                    if error.is_timeout() {
                        presence.was_silent();
                    }
                    Err(silent(&error))
                }
            },
        }
    }

    /// What is said, and remembered, of an exchange that failed. An answer that is long in coming may be one that is hard to find: who
    /// has taken the connection may be there for everybody else.
    fn cut(&self, error: &reqwest::Error) -> Trouble {
        if let Some((presence, _)) = self.manners.presence.as_ref().filter(|_| error.is_connect() && error.is_timeout())
        {
            presence.was_silent();
        }
        silent(error)
    }

    /// The same for an answer of a known shape.
    pub async fn ask_for<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        understand(self.ask(Method::GET, path, None).await?)
    }

    /// Gives an order that may take long, and hears of its progress: `hear` is told each line of the answer, and the last one is
    /// returned.
    pub async fn order(&self, path: &str, body: &Value, mut hear: impl FnMut(&Value)) -> Result<Value, Trouble> {
        let request = self.request(Method::POST, path, Some(body)).header(ACCEPT, "application/x-ndjson");
        let request = request.timeout(ORDER_MAX).send();
        // A worker begins its answer when it has begun.
        let answer = tokio::time::timeout(ANSWER_MAX, request).await;
        let answer = answer.map_err(|_| Trouble::Silent(String::from("it took too long")))?;
        let mut response = answer.map_err(|error| silent(&error))?;
        let status = response.status();
        if !status.is_success() {
            let bytes = tokio::time::timeout(ANSWER_MAX, whole(&mut response, REFUSAL_BYTES_MAX)).await;
            return Err(refused(status, &bytes.unwrap_or(Ok(Vec::new()))?));
        }
        let (mut line, mut last) = (Vec::new(), None);
        loop {
            let chunk = tokio::time::timeout(SILENCE_MAX, response.chunk()).await;
            let chunk = chunk.map_err(|_| Trouble::Silent(String::from("it has gone silent in the middle of it")))?;
            let Some(chunk) = chunk.map_err(|error| silent(&error))? else { break };
            for byte in chunk {
                if byte != b'\n' {
                    line.push(byte);
                } else if !line.trim_ascii().is_empty() {
                    let value = read(&line)?;
                    hear(&value);
                    last = Some(value);
                    line.clear();
                }
            }
            if line.len() > LINE_BYTES_MAX {
                return Err(Trouble::Silent(String::from("its answer is too large to be one of a worker")));
            }
        }
        last.ok_or_else(|| Trouble::Silent(String::from("it answered nothing")))
    }

    /// Asks for something that may be long, and comes piece by piece. A worker that has nothing to send yet shows that it works.
    pub async fn download(&self, path: &str) -> Result<Download, Trouble> {
        let request = self.request(Method::GET, path, None).timeout(ORDER_MAX).send();
        let answer = tokio::time::timeout(ANSWER_MAX, request).await;
        let answer = answer.map_err(|_| Trouble::Silent(String::from("it took too long")))?;
        let mut response = answer.map_err(|error| silent(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(Download { response });
        }
        let bytes = tokio::time::timeout(ANSWER_MAX, whole(&mut response, REFUSAL_BYTES_MAX)).await;
        Err(refused(status, &bytes.unwrap_or(Ok(Vec::new()))?))
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::RequestBuilder {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let url = below(&self.base, path, query.filter(|query| !query.is_empty()));
        let (name, value) = self.credential.header();
        let request = self.client.request(method, url).header(name, value);
        match body {
            Some(body) => request.header(CONTENT_TYPE, "application/json").body(body.to_string()),
            None => request,
        }
    }
}

/// A long answer that is being received.
#[derive(Debug)]
pub struct Download {
    response: reqwest::Response,
}

impl Download {
    /// The next piece, or why there is no more though there should be; `None` when it is complete.
    pub async fn next(&mut self) -> Option<Result<bytes::Bytes, String>> {
        match tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await {
            Ok(Ok(piece)) => piece.map(Ok),
            Ok(Err(error)) => Some(Err(in_short(&error))),
            Err(_) => Some(Err(format!("nothing came for {} s", SILENCE_MAX.as_secs()))),
        }
    }
}

/// Where a path of the worker at `base` is: it may live below a path of a reverse proxy.
pub(super) fn below(base: &Url, path: &str, query: Option<&str>) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url.set_query(query);
    url
}

/// Every address of the URL's host, sorted, so that workers are asked in the same order each time; `None` of a host that has none,
/// or too many to be one pool.
pub async fn addresses(url: &Url) -> Option<Vec<SocketAddr>> {
    addresses_within(url, RESOLVE_MAX).await
}

/// The same, known within this time or not at all.
pub(super) async fn addresses_within(url: &Url, limit: Duration) -> Option<Vec<SocketAddr>> {
    let port = url.port_or_known_default().unwrap_or(80);
    let host = match url.host() {
        Some(Host::Ipv4(ip)) => return Some(vec![SocketAddr::new(ip.into(), port)]),
        Some(Host::Ipv6(ip)) => return Some(vec![SocketAddr::new(ip.into(), port)]),
        Some(Host::Domain(host)) => host,
        None => "",
    };
    let found = tokio::time::timeout(limit, tokio::net::lookup_host((host, port))).await;
    let mut addresses: Vec<SocketAddr> = found.ok()?.ok()?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    // `localhost` is one machine, by whichever address it listens.
    if host == "localhost" {
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses.truncate(1);
    }
    (1..=ADDRESSES_MAX).contains(&addresses.len()).then_some(addresses)
}

/// How the worker at this address is called in messages.
fn name(url: &Url, address: SocketAddr, several: bool) -> String {
    let name = format!("{}://{}:{}", url.scheme(), url.host_str().unwrap_or_default(), address.port());
    printable(&if several { format!("{name} ({})", address.ip()) } else { name })
}

pub(super) fn worker(headers: &HeaderMap) -> Option<Uuid> {
    headers.get(WORKER)?.to_str().ok()?.parse().ok()
}

pub(super) fn silent(error: &reqwest::Error) -> Trouble {
    Trouble::Silent(in_short(error))
}

/// Why an answer did not come whole.
enum Cut {
    Broken(reqwest::Error),
    TooLarge(usize),
}

impl From<Cut> for Trouble {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Broken(error) => silent(&error),
            Cut::TooLarge(max) => Self::Silent(format!("its answer is larger than {} MiB", max / 1024 / 1024)),
        }
    }
}

async fn whole(response: &mut reqwest::Response, bytes_max: usize) -> Result<Vec<u8>, Cut> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Cut::Broken)? {
        if bytes.len() + chunk.len() > bytes_max {
            return Err(Cut::TooLarge(bytes_max));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn read(bytes: &[u8]) -> Result<Value, Trouble> {
    serde_json::from_slice(bytes)
        .map_err(|_| Trouble::Silent(String::from("its answer is not JSON: is this a worker's API?")))
}

/// What went wrong, by what lies at the bottom of it.
fn in_short(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return String::from("it took too long");
    }
    let causes = std::iter::successors(std::error::Error::source(error), |cause| (*cause).source());
    printable(&causes.last().map_or_else(|| String::from("the exchange was cut short"), ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_literal_address_is_one_worker_and_a_name_is_resolved() {
        let find = async |url: &str| addresses(&Url::parse(url).unwrap()).await.unwrap();
        assert_eq!(find("http://127.0.0.1:8080").await, ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(find("https://[::1]").await, ["[::1]:443".parse().unwrap()]);
        assert_eq!(find("http://localhost:9").await.len(), 1);
    }
}
