//! Asking running workers over their API.
//!
//! A DNS name with several addresses means every worker behind it, as a headless service in Kubernetes has it, so names are resolved
//! here and each address is asked by itself, under the name, so that TLS certificates fit.
//!
//! What it guards: the token goes where it was sent to and nowhere else (no redirect is followed, no proxy taken from the
//! environment) and is never printed; every wait and every body has a bound; what a worker answers is printed without control
//! characters.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream};
use http::{Method, StatusCode};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Exit, Failure, Shell, url_argument};
use crate::{model::Secret, settings::printable};

/// The variable that names workers.
const SERVER: &str = "INTERVEN_ALERTS_SERVER";

/// The variable that holds the token. A flag would show it to everybody on the machine.
const TOKEN: &str = "INTERVEN_ALERTS_TOKEN";

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

/// The longest line of progress.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// The most workers behind one name.
const ADDRESSES_MAX: usize = 256;

/// Flags of every command that asks workers.
#[derive(Clone, Debug, clap::Args)]
// Every command's flags have this name, and a group of it would be there twice.
#[group(skip)]
pub struct Args {
    /// The API of a running worker: http://HOST:PORT, repeatable; a name with several addresses means all of them
    ///
    /// The token is taken from the variable INTERVEN_ALERTS_TOKEN.
    #[arg(long = "server", global = true, value_name = "URL", env = SERVER, hide_env_values = true, value_delimiter = ',')]
    servers: Vec<String>,
}

impl Args {
    /// The URLs that were given. A variable that is set to nothing gives none.
    pub fn given(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(|url| url.trim()).filter(|url| !url.is_empty())
    }

    /// Whether they were given on the command line, and not by the variable.
    pub fn by_flag(&self, shell: &Shell<'_>) -> bool {
        let variable = (shell.env)(SERVER).unwrap_or_default();
        let by_variable = variable.split(',').map(str::trim).filter(|url| !url.is_empty());
        self.given().next().is_some() && !self.given().eq(by_variable)
    }
}

/// Workers that can be asked.
pub struct Servers {
    workers: Vec<Server>,
}

/// One worker at one address.
pub struct Server {
    /// How it is called in messages.
    pub name: String,
    base: url::Url,
    client: reqwest::Client,
    authorization: HeaderValue,
}

/// What a worker said, or why it said nothing.
#[derive(Debug)]
pub enum Trouble {
    /// It could not be reached, or did not answer: another one may.
    Silent(String),
    /// It said no.
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// What was wrong.
        message: String,
        /// What to do about it.
        hint: String,
    },
}

impl Trouble {
    /// Whether no other worker would answer otherwise.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Silent(_) => false,
            Self::Refused { status, .. } => {
                !status.is_server_error() && ![StatusCode::NOT_FOUND, StatusCode::TOO_MANY_REQUESTS].contains(status)
            }
        }
    }

    /// The failure to end with.
    pub fn failure(self, server: &str) -> Failure {
        match self {
            Self::Silent(why) => Failure::new(format!("{server} did not answer"))
                .caused_by(why)
                .hint("check the address, and that a worker runs there"),
            Self::Refused { message, hint, .. } => Failure::new(format!("{server}: {message}")).hint(hint),
        }
    }
}

impl Servers {
    /// The workers that were named, each address by itself.
    pub async fn find(args: &Args, shell: &mut Shell<'_>) -> Result<Self, Failure> {
        if args.given().next().is_none() {
            return Err(Failure::new("no worker was named")
                .hint("give `--server http://HOST:PORT` (repeatable), or set INTERVEN_ALERTS_SERVER")
                .exit(Exit::Usage));
        }
        let authorization = authorization((shell.env)(TOKEN))?;
        crate::tls::install();
        let mut workers = Vec::new();
        for text in args.given() {
            let url = url_argument(text)?;
            if !url.username().is_empty() || url.password().is_some() {
                return Err(Failure::new("the URL of a worker holds credentials")
                    .hint(format!("leave them out, and put the token into {TOKEN}"))
                    .exit(Exit::Usage));
            }
            let addresses = resolve(&url).await?;
            if url.scheme() == "http" && addresses.iter().any(|address| !address.ip().is_loopback()) {
                let host = printable(url.host_str().unwrap_or_default());
                shell.say("warning", &format!("the token travels to {host} in clear: use https, or a tunnel"));
            }
            let several = addresses.len() > 1;
            for address in addresses {
                workers.push(Server::new(&url, address, several, authorization.clone())?);
            }
        }
        Ok(Self { workers })
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
    ) -> Vec<(&Server, Result<Value, Trouble>)> {
        let ask = async |server: &'_ Server| server.ask(method.clone(), path, body).await;
        let asking = self.workers.iter().map(|server| {
            let answer = ask(server);
            async move { (server, answer.await) }
        });
        stream::iter(asking).buffered(AT_ONCE_MAX).collect().await
    }

    /// Asks one worker after the other until one does it. One that says that it does not know what is asked for, or cannot do it
    /// now, is passed over, too: another one may.
    pub async fn ask_any(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        let mut last = None;
        for server in &self.workers {
            let trouble = match server.ask(method.clone(), path, Some(body)).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            let final_word = match &trouble {
                Trouble::Silent(_) => false,
                Trouble::Refused { status, .. } => !status.is_server_error() && *status != StatusCode::NOT_FOUND,
            };
            let failure = trouble.failure(&server.name);
            if final_word {
                return Err(failure);
            }
            last = Some(failure);
        }
        Err(last.unwrap_or_else(|| Failure::new("no worker was named").exit(Exit::Usage)))
    }
}

impl Server {
    fn new(url: &url::Url, address: SocketAddr, several: bool, authorization: HeaderValue) -> Result<Self, Failure> {
        let host = url.host_str().unwrap_or_default();
        let name = format!("{}://{host}:{}", url.scheme(), address.port());
        let name = printable(&if several { format!("{name} ({})", address.ip()) } else { name });
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_MAX)
            .timeout(ANSWER_MAX)
            .user_agent(concat!("interven-alerts/", env!("CARGO_PKG_VERSION")))
            .resolve(host, address)
            .build()
            .map_err(|error| Failure::of(&error).hint("install the package `ca-certificates`"))?;
        let mut base = url.clone();
        base.set_query(None);
        base.set_fragment(None);
        Ok(Self { name, base, client, authorization })
    }

    /// Asks for `path`, which begins with a slash and may have a query.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Trouble> {
        let mut response = self.request(method, path, body).send().await.map_err(|error| silent(&error))?;
        let status = response.status();
        let bytes = whole(&mut response).await?;
        if status.is_success() { read(&bytes) } else { Err(refused(status, &bytes)) }
    }

    /// The same for an answer of a known shape.
    pub async fn ask_for<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        understand(self.ask(Method::GET, path, None).await?)
    }

    /// Gives an order that may take long, and hears of its progress: `hear` is told each line of the answer, and the last one is
    /// returned.
    pub async fn order(&self, path: &str, body: &Value, mut hear: impl FnMut(&Value)) -> Result<Value, Trouble> {
        let request = self.request(Method::POST, path, Some(body)).header(ACCEPT, "application/x-ndjson");
        let mut response = request.timeout(ORDER_MAX).send().await.map_err(|error| silent(&error))?;
        let status = response.status();
        if !status.is_success() {
            let bytes = tokio::time::timeout(ANSWER_MAX, whole(&mut response)).await;
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
        let bytes = tokio::time::timeout(ANSWER_MAX, whole(&mut response)).await;
        Err(refused(status, &bytes.unwrap_or(Ok(Vec::new()))?))
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        // A worker may live below a path of a reverse proxy.
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(query.filter(|query| !query.is_empty()));
        let request = self.client.request(method, url).header(AUTHORIZATION, self.authorization.clone());
        match body {
            Some(body) => request.header(CONTENT_TYPE, "application/json").body(body.to_string()),
            None => request,
        }
    }
}

/// A long answer that is being received.
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

fn silent(error: &reqwest::Error) -> Trouble {
    Trouble::Silent(in_short(error))
}

async fn whole(response: &mut reqwest::Response) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| silent(&error))? {
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(Trouble::Silent(String::from("its answer is too large to be one of a worker")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn read(bytes: &[u8]) -> Result<Value, Trouble> {
    serde_json::from_slice(bytes)
        .map_err(|_| Trouble::Silent(String::from("its answer is not JSON: is this a worker's API?")))
}

/// An answer of a known shape.
pub fn understand<T: DeserializeOwned>(answer: Value) -> Result<T, Trouble> {
    serde_json::from_value(answer)
        .map_err(|_| Trouble::Silent(String::from("its answer is not understood: is it a worker of another version?")))
}

/// What a worker that says no says, be it by its status or at the end of an order.
pub fn refused(status: StatusCode, bytes: &[u8]) -> Trouble {
    let error: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |key: &str| error["error"][key].as_str().map(|text| printable(text).chars().take(500).collect());
    Trouble::Refused {
        status,
        message: text("message").unwrap_or_else(|| format!("it answered {status}")),
        hint: text("hint").unwrap_or_else(|| String::from("check that this is the address of a worker's API")),
    }
}

/// Says what went wrong with some workers. All but the last are told here; the last is the failure to end with.
pub fn end(mut failures: Vec<Failure>, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let last = failures.pop();
    for failure in failures {
        shell.say("error", &failure.problem);
    }
    last.map_or(Ok(()), Err)
}

/// The header with the token, marked so that it does not print.
fn authorization(token: Option<String>) -> Result<HeaderValue, Failure> {
    let missing = || {
        Failure::new("there is no token")
            .hint(format!(
                "put a token of `[[access.token]]` into the variable {TOKEN}; `interven-alerts token` makes one"
            ))
            .exit(Exit::Usage)
    };
    let token =
        Secret::new(token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()).ok_or_else(missing)?);
    let header = Secret::new(format!("Bearer {}", token.expose()));
    let mut value = HeaderValue::from_str(header.expose()).map_err(|_| missing())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Every address of the host, sorted, so that workers are asked in the same order each time.
async fn resolve(url: &url::Url) -> Result<Vec<SocketAddr>, Failure> {
    let port = url.port_or_known_default().unwrap_or(80);
    let host = match url.host() {
        Some(url::Host::Ipv4(ip)) => return Ok(vec![SocketAddr::new(ip.into(), port)]),
        Some(url::Host::Ipv6(ip)) => return Ok(vec![SocketAddr::new(ip.into(), port)]),
        Some(url::Host::Domain(host)) => host,
        None => "",
    };
    let unknown =
        || Failure::new(format!("`{}` has no address", printable(host))).hint("check the name of the worker's host");
    let found = tokio::time::timeout(RESOLVE_MAX, tokio::net::lookup_host((host, port))).await;
    let mut addresses: Vec<SocketAddr> = found.map_err(|_| unknown())?.map_err(|_| unknown())?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    // `localhost` is one machine, by whichever address it listens.
    if host == "localhost" {
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses.truncate(1);
    }
    if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
        return Err(unknown());
    }
    Ok(addresses)
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
        let find = async |url: &str| resolve(&url::Url::parse(url).unwrap()).await.unwrap();
        assert_eq!(find("http://127.0.0.1:8080").await, ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(find("https://[::1]").await, ["[::1]:443".parse().unwrap()]);
        assert_eq!(find("http://localhost:9").await.len(), 1);
    }

    #[test]
    fn a_token_is_needed_and_does_not_print() {
        for missing in [None, Some(String::new()), Some(String::from(" \n")), Some(String::from("a\nb"))] {
            assert_eq!(authorization(missing).unwrap_err().exit, Exit::Usage);
        }
        let header = authorization(Some(String::from("ivt_abc\n"))).unwrap();
        assert_eq!(header, "Bearer ivt_abc");
        assert!(!format!("{header:?}").contains("abc"));
    }
}
