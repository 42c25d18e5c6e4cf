//! A sink: answers 200 to everything, as fast as two cores can, and counts. For measuring throughput.
//!
//! It reads no more of HTTP than where one request ends and the next begins, and answers all requests of one read in one
//! write. Requests must have a length; chunked ones end the connection.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::wire::find;

/// What every request is answered.
pub(super) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// One request of which the sink was asked to take the time.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// When the request had been read whole.
    pub at: Instant,
    /// The first `"id":"..."` of its body, as it stands there; empty when there is none.
    pub id: Box<str>,
}

/// A running sink. It stops when dropped.
#[derive(Debug)]
pub struct Sink {
    counts: Arc<Counts>,
    port: u16,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    body_bytes: AtomicU64,
    stamps_max: usize,
    stamps: Mutex<Vec<Stamp>>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Sink {
    /// Starts one on a free port of 127.0.0.1. Of the first `stamps_max` requests the time is taken; 0 saves the work.
    pub async fn start(stamps_max: usize) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let port = listener.local_addr()?.port();
        let counts = Arc::new(Counts { stamps_max, ..Counts::default() });
        let stop = CancellationToken::new();
        let (tasks, inner, stopped) = (TaskTracker::new(), Arc::clone(&counts), stop.clone());
        tasks.clone().spawn(async move {
            stopped
                .run_until_cancelled(async {
                    loop {
                        let Ok((stream, _)) = listener.accept().await else {
                            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                            continue;
                        };
                        let (counts, stopped) = (Arc::clone(&inner), stopped.clone());
                        tasks.spawn(async move { stopped.run_until_cancelled(swallow(stream, &counts)).await });
                    }
                })
                .await
        });
        Ok(Self { counts, port, stop })
    }

    /// A URL that it takes requests at.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/events", self.port)
    }

    /// How many requests were answered.
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// How many bytes their bodies had.
    pub fn body_bytes(&self) -> u64 {
        self.counts.body_bytes.load(Ordering::Relaxed)
    }

    /// Takes the stamps taken so far away.
    pub fn take_stamps(&self) -> Vec<Stamp> {
        std::mem::take(&mut *self.counts.stamps.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn swallow(mut stream: TcpStream, counts: &Counts) {
    // Where it cannot be set, answers come a little later: the measurement shows it.
    drop(stream.set_nodelay(true));
    let mut buffer: Vec<u8> = Vec::with_capacity(READ_BYTES);
    let mut answers: Vec<u8> = Vec::with_capacity(ANSWER.len() * 16);
    loop {
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let mut done = 0;
        while let Some((head, body)) = measure(&buffer[done..]) {
            if body > BODY_BYTES_MAX {
                return;
            }
            let end = done + head + body;
            if end > buffer.len() {
                // The rest comes with the next read; asking for the room now saves growing step by step.
                buffer.reserve(end - buffer.len());
                break;
            }
            counts.add(&buffer[done + head..end]);
            answers.extend_from_slice(ANSWER);
            done = end;
        }
        buffer.drain(..done);
        if buffer.len() > HEAD_BYTES_MAX && measure(&buffer).is_none() {
            return;
        }
        if !answers.is_empty() {
            if stream.write_all(&answers).await.is_err() {
                return;
            }
            answers.clear();
        }
    }
}

/// How long the head of the first request is, and how long its body; `None` while the head is not there.
fn measure(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let length = bytes[..head]
        .split(|&byte| byte == b'\n')
        .find(|line| line.len() > 15 && line[..15].eq_ignore_ascii_case(b"content-length:"))
        .and_then(|line| std::str::from_utf8(&line[15..]).ok()?.trim().parse().ok());
    Some((head, length.unwrap_or(0)))
}

impl Counts {
    fn add(&self, body: &[u8]) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        self.body_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        if number < self.stamps_max as u64 {
            let at = Instant::now();
            let id = find(body, b"\"id\":\"").map_or(&[][..], |start| {
                let rest = &body[start + 6..];
                &rest[..rest.iter().position(|&byte| byte == b'"').unwrap_or(0)]
            });
            let stamp = Stamp { at, id: String::from_utf8_lossy(id).into() };
            self.stamps.lock().unwrap_or_else(PoisonError::into_inner).push(stamp);
        }
    }
}
