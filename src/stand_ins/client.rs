//! A client for tests: one request, one connection, no opinion about what is sent; or no connection at all ([`judge`]).

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{Ask, Judged, Platform, Received, SlackWall, StandIn, wire::Request};
use crate::model::Reply;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Posts `body` as JSON and reads the answer; `None` when none comes (refused, reset, garbage, nothing within the time).
pub(crate) async fn post(stand_in: &StandIn, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
    request("POST", stand_in.port(), target, headers, body).await
}

/// What `platform` makes of a post to `url` without a socket in between, and its reply.
pub(crate) fn judge(platform: Platform, url: &url::Url, headers: &HeaderMap, body: Bytes) -> (Received, Reply) {
    let (method, path, query) = ("POST".to_owned(), url.path().to_owned(), url.query().unwrap_or("").to_owned());
    let request = Request { method, path, query, headers: headers.clone(), body };
    let wall = SlackWall::default();
    let Judged { reply, fate, ids, digest } =
        platform.judge(&Ask { request: &request, credential: None, allowance: None, number: 0, wall: &wall });
    let Request { method, path, query, headers, body } = request;
    let status = Some(reply.status.as_u16());
    (Received { at: Instant::now(), method, path, query, headers, body, fate, ids, digest, status }, reply)
}

pub(crate) async fn request(
    method: &str,
    port: u16,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Answer> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    if !headers.iter().any(|(name, _)| *name == "transfer-encoding") {
        write!(head, "content-length: {}\r\n", body.len()).unwrap();
    }
    let mut bytes = format!("{head}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    let mut answer = Vec::new();
    timeout(Duration::from_secs(5), async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(&bytes).await?;
        stream.read_to_end(&mut answer).await
    })
    .await
    .ok()?
    .ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        headers.append(name.parse::<http::HeaderName>().ok()?, value.parse().ok()?);
    }
    Some(Answer { status, headers, body: body.to_owned() })
}
