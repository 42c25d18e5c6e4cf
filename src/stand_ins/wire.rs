//! As much HTTP/1.1 as a webhook needs: requests with a length or in chunks, kept-alive connections, replies in one write.
//!
//! Absent on purpose: TLS, HTTP/2, trailers, pipelining beyond answering in order.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::model::Reply;

/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The largest body of a request, in bytes: above the 5 MB of Datadog, which must be able to say that it is too much.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A request, read whole.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// The target without the query.
    pub(super) path: String,
    /// What follows the `?`, as it came.
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    /// The body as it was sent, compressed or not.
    pub(super) body: Bytes,
}

impl Request {
    /// A header's value, where it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A parameter of the query, as it came. Empty counts as absent.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// The parts of the path between slashes.
    pub(super) fn segments(&self) -> Vec<&str> {
        self.path.trim_start_matches('/').split('/').collect()
    }

    /// Whether the client wants to go on using the connection.
    pub(super) fn keeps_alive(&self) -> bool {
        !self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Why no request could be read: the status that says so, or nothing when nobody is left to say it to.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// The client has gone.
    Gone,
    /// What came is no request that we read.
    Bad(u16),
}

impl From<std::io::Error> for NoRequest {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// One client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// When the head of the present request had been read.
    head_at: Instant,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::with_capacity(8 * 1024), head_at: Instant::now() }
    }

    /// When the head of the last request had been read.
    pub(super) fn head_at(&self) -> Instant {
        self.head_at
    }

    /// Reads the next request whole.
    pub(super) async fn request(&mut self) -> Result<Request, NoRequest> {
        let head_end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(NoRequest::Bad(431));
            }
            self.more().await?;
        };
        let head = std::str::from_utf8(&self.buffer[..head_end]).map_err(|_| NoRequest::Bad(400))?;
        let mut request = parse_head(head).ok_or(NoRequest::Bad(400))?;
        self.head_at = Instant::now();
        self.buffer.drain(..head_end + 4);
        if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        request.body = if request.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            self.chunks().await?
        } else {
            let length = request.header("content-length").unwrap_or("0").parse().map_err(|_| NoRequest::Bad(400))?;
            self.exactly(length).await?
        };
        Ok(request)
    }

    /// Sends a reply in one write.
    pub(super) async fn reply(&mut self, reply: &Reply) -> std::io::Result<()> {
        let mut bytes =
            format!("HTTP/1.1 {} {}\r\n", reply.status.as_u16(), reply.status.canonical_reason().unwrap_or("Unknown"))
                .into_bytes();
        for (name, value) in &reply.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        // A 204 has no body, so a length would be wrong.
        if reply.status == http::StatusCode::NO_CONTENT {
            bytes.extend_from_slice(b"\r\n");
        } else {
            bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", reply.body.len()).as_bytes());
            bytes.extend_from_slice(&reply.body);
        }
        self.stream.write_all(&bytes).await
    }

    /// Sends bytes that need not be HTTP.
    pub(super) async fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Cuts the connection so that the client sees a reset and not an end.
    pub(super) fn reset(self) {
        // Where it cannot be set the connection just ends, which a client must survive as well.
        if let Err(error) = self.stream.set_zero_linger() {
            tracing::debug!(%error, "stand-in could not make its connection reset");
        }
    }

    async fn more(&mut self) -> Result<(), NoRequest> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 { Err(NoRequest::Gone) } else { Ok(()) }
    }

    async fn exactly(&mut self, length: usize) -> Result<Bytes, NoRequest> {
        if length > BODY_BYTES_MAX {
            return Err(NoRequest::Bad(413));
        }
        while self.buffer.len() < length {
            self.more().await?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest).into())
    }

    async fn line(&mut self) -> Result<String, NoRequest> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(NoRequest::Bad(400));
            }
            self.more().await?;
        }
    }

    async fn chunks(&mut self) -> Result<Bytes, NoRequest> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or("").trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| NoRequest::Bad(400))?;
            if size.saturating_add(body.len()) > BODY_BYTES_MAX {
                return Err(NoRequest::Bad(413));
            }
            body.extend_from_slice(&self.exactly(size).await?);
            if !self.line().await?.is_empty() {
                return Err(NoRequest::Bad(400));
            }
            if size == 0 {
                return Ok(body.into());
            }
        }
    }
}

fn parse_head(head: &str) -> Option<Request> {
    let mut lines = head.split("\r\n");
    let mut start = lines.next()?.split(' ');
    let (method, target, version) = (start.next()?, start.next()?, start.next()?);
    if start.next().is_some() || version != "HTTP/1.1" || !target.starts_with('/') {
        return None;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?);
    }
    // HTTP/1.1 requires it, and a client that forgets it is refused by every platform's front end.
    headers.get("host")?;
    Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Bytes::new(),
    })
}

/// Where `needle` first begins in `hay`.
pub(super) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}
