//! The socket: the only place where a parcel leaves the machine, and the only one that names reqwest.
//!
//! What it guards: redirects are never followed, no proxy is taken from the environment, names resolve only to addresses that
//! `[egress]` permits (a literal address in a URL is checked too), the whole exchange has one time limit, and of a reply's body no
//! more than a bound is read. Errors become a [`Trouble`] and nothing else: reqwest's own texts quote URLs, and URLs are secrets.

use std::{error::Error as _, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::{
    channels::{Endpoint, Parcel},
    model::{Clock, Egress, Reply, Timestamp, Trouble, verdict::REPLY_BYTES_MAX},
};

/// How a request is posted. Production has one socket; tests script it.
pub trait Post: Send + Sync {
    /// Posts `parcel` and waits for the reply, for at most `limit` in all.
    fn post(&self, parcel: Parcel, limit: Duration) -> BoxFuture<'_, Result<Reply, Trouble>>;
}

/// Posts over HTTP. One for the whole process, so that connections are shared.
#[derive(Debug)]
pub struct HttpPost {
    client: reqwest::Client,
    egress: Arc<Egress>,
    clock: Clock,
}

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client could not be made: {0}")]
pub struct ClientError(String);

/// How long an idle connection is kept. Shorter than what load balancers keep, so that a reused connection is rarely a dead one.
const IDLE_MAX: Duration = Duration::from_secs(45);

impl HttpPost {
    /// A socket that goes where `egress` permits.
    ///
    /// # Errors
    /// When the machine's root certificates cannot be loaded.
    pub fn new(egress: Arc<Egress>, clock: Clock) -> Result<Self, ClientError> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE_MAX)
            .user_agent(concat!("interven-alerts/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(GuardedResolver { egress: Arc::clone(&egress) }))
            .build()
            .map_err(|error| ClientError(error.to_string()))?;
        Ok(Self { client, egress, clock })
    }

    /// Asks the endpoint's host for its head page, without the path that may be a secret, and returns the time that it told.
    /// Any answer at all shows that the host is there.
    pub async fn ask_the_time(&self, endpoint: &Endpoint, limit: Duration) -> Result<Option<Timestamp>, Trouble> {
        let mut url = endpoint.expose().clone();
        self.check_literal(&url)?;
        url.set_path("/");
        url.set_query(None);
        let request = reqwest::Request::new(http::Method::HEAD, url);
        let response = tokio::time::timeout(limit, self.client.execute(request)).await.map_err(|_| Trouble::Timeout)?;
        let response = response.map_err(|error| classify(&error))?;
        let date = response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let since_epoch = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(since_epoch.map(|since| Timestamp::UNIX_EPOCH.plus(since)))
    }

    /// The resolver never sees a host that is an address already.
    fn check_literal(&self, url: &url::Url) -> Result<(), Trouble> {
        let literal = match url.host() {
            Some(url::Host::Ipv4(ip)) => Some(ip.into()),
            Some(url::Host::Ipv6(ip)) => Some(ip.into()),
            Some(url::Host::Domain(_)) | None => None,
        };
        if literal.is_some_and(|ip| !self.egress.permits(ip)) { Err(Trouble::Egress) } else { Ok(()) }
    }

    async fn exchange(&self, parcel: Parcel) -> Result<Reply, Trouble> {
        let url = parcel.endpoint.expose();
        self.check_literal(url)?;
        let mut request = reqwest::Request::new(http::Method::POST, url.clone());
        *request.headers_mut() = parcel.headers;
        *request.body_mut() = Some(parcel.body.into());
        let mut response = self.client.execute(request).await.map_err(|error| classify(&error))?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let body = read_some(&mut response).await?;
        Ok(Reply { status, headers, body, at: self.clock.now() })
    }
}

/// Reads at most [`REPLY_BYTES_MAX`] bytes of the body.
async fn read_some(response: &mut reqwest::Response) -> Result<Bytes, Trouble> {
    let Some(first) = response.chunk().await.map_err(|error| classify(&error))? else { return Ok(Bytes::new()) };
    let Some(second) = response.chunk().await.map_err(|error| classify(&error))? else {
        return Ok(first.slice(..first.len().min(REPLY_BYTES_MAX)));
    };
    let mut body = BytesMut::from(first);
    body.extend_from_slice(&second);
    while body.len() < REPLY_BYTES_MAX
        && let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))?
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(REPLY_BYTES_MAX);
    Ok(body.freeze())
}

impl Post for HttpPost {
    fn post(&self, parcel: Parcel, limit: Duration) -> BoxFuture<'_, Result<Reply, Trouble>> {
        Box::pin(
            async move { tokio::time::timeout(limit, self.exchange(parcel)).await.unwrap_or(Err(Trouble::Timeout)) },
        )
    }
}

/// What kind of trouble an error is, by what lies at the bottom of it.
#[expect(clippy::wildcard_enum_match_arm, reason = "`io::ErrorKind` is an open list")]
fn classify(error: &reqwest::Error) -> Trouble {
    if error.is_timeout() {
        return Trouble::Timeout;
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(refusal) = inner.downcast_ref::<ResolveError>() {
            return match refusal {
                ResolveError::Denied => Trouble::Egress,
                ResolveError::Unknown => Trouble::Dns,
            };
        }
        if inner.is::<rustls::Error>() {
            return Trouble::Tls;
        }
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            if is_tls(io) {
                return Trouble::Tls;
            }
            match io.kind() {
                io::ErrorKind::ConnectionRefused => return Trouble::Refused,
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => return Trouble::Reset,
                io::ErrorKind::TimedOut => return Trouble::Timeout,
                _ => {}
            }
        }
        cause = inner.source();
    }
    // A peer that closes in the middle of its answer is told as an incomplete message, with no cause below it.
    if error.is_request() || error.is_body() { Trouble::Reset } else { Trouble::Other }
}

/// Whether the encryption is what failed. Such an error lies in an I/O error, or in one in another, whose `source` leads past it.
fn is_tls(error: &io::Error) -> bool {
    let inner =
        |error: &io::Error| error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>()).is_some_and(is_tls);
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) || inner(error)
}

/// Resolves names to the addresses that `[egress]` permits. The check is made on what is connected to, not on a look-up before
/// it, so a name that changes its address in between gains nothing.
struct GuardedResolver {
    egress: Arc<Egress>,
}

#[derive(Debug, thiserror::Error)]
enum ResolveError {
    #[error("every address of the host is forbidden by [egress]")]
    Denied,
    #[error("the host has no address")]
    Unknown,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = Arc::clone(&self.egress);
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|_| ResolveError::Unknown)?.collect();
            if found.is_empty() {
                return Err(ResolveError::Unknown.into());
            }
            let permitted: Vec<SocketAddr> = found.into_iter().filter(|address| egress.permits(address.ip())).collect();
            if permitted.is_empty() {
                return Err(ResolveError::Denied.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// What posting over TLS comes to, where the endpoint greets with `greeting` and goes.
    async fn posted_to_one_who_says(greeting: &'static [u8]) -> Result<Reply, Trouble> {
        crate::tls::install();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/in", listener.local_addr().unwrap());
        let endpoint = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // All that the other side says first, so that closing with it unread is no reset.
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(greeting).await.unwrap();
        };
        let parcel = Parcel {
            endpoint: Endpoint::new(url.parse().unwrap()),
            headers: http::HeaderMap::new(),
            body: Bytes::from_static(b"{}"),
        };
        let post = HttpPost::new(Arc::new(Egress::default()), Clock::System).unwrap();
        tokio::join!(post.post(parcel, Duration::from_mins(1)), endpoint).0
    }

    #[tokio::test]
    async fn what_the_encryption_refuses_is_told_from_a_connection_that_breaks() {
        // An endpoint that speaks no TLS, or has a certificate that nobody vouches for, will not mend by itself as a reset does: the
        // operator is told where to look.
        assert_eq!(posted_to_one_who_says(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap_err(), Trouble::Tls);
        assert_eq!(posted_to_one_who_says(b"").await.unwrap_err(), Trouble::Reset);
    }
}
