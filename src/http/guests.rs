//! How many may be connected to a listener, and for how long without saying anything.
//!
//! Without these limits, whoever can reach the port can use up the worker's files and memory by opening connections and keeping
//! silent. The number is bounded by places: when all are taken, the next one waits in the system's queue.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};

/// Connections to one listener.
const PLACES: usize = 1_024;

/// How long a connection may be without a byte in either direction. Longer than any request may take (`REQUEST_MAX`), so that
/// only silence is cut off.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// A listener with places.
pub(super) struct Places {
    listener: TcpListener,
    free: Arc<Semaphore>,
    silence_max: Duration,
}

impl Places {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(PLACES)), silence_max: SILENCE_MAX }
    }
}

impl Places {
    pub(super) async fn accept(&mut self) -> (Guest, SocketAddr) {
        let place = Arc::clone(&self.free).acquire_owned().await.ok();
        // axum's own way waits a moment where the system has no more files, and goes on.
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        let silence = Box::pin(tokio::time::sleep(self.silence_max));
        (Guest { stream, silence, silence_max: self.silence_max, _place: place }, address)
    }
}

/// A connection that has a place, and is cut off when nothing moves on it for too long.
pub(super) struct Guest {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    silence_max: Duration,
    _place: Option<OwnedSemaphorePermit>,
}

impl Guest {
    /// What came of a read or write; an error where it still waits, and has for too long.
    fn judge<T>(&mut self, outcome: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            let end = Instant::now() + self.silence_max;
            self.silence.as_mut().reset(end);
            return outcome;
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Guest {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.judge(outcome, cx)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(outcome, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.judge(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn places(count: usize, silence_max: Duration) -> Places {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Places { listener, free: Arc::new(Semaphore::new(count)), silence_max }
    }

    #[tokio::test]
    async fn whoever_keeps_silent_is_cut_off_and_who_speaks_is_not() {
        let mut places = places(2, Duration::from_millis(200)).await;
        let mut caller = TcpStream::connect(places.listener.local_addr().unwrap()).await.unwrap();
        let (mut guest, _) = places.accept().await;
        caller.write_all(b"a").await.unwrap();
        assert_eq!(guest.read_u8().await.unwrap(), b'a');
        let silent = tokio::time::timeout(Duration::from_secs(30), guest.read_u8()).await.expect("it is cut off");
        assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_finds_no_place_waits_for_one() {
        let mut places = places(1, SILENCE_MAX).await;
        let address = places.listener.local_addr().unwrap();
        let _callers = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let (first, _) = places.accept().await;
        let second = tokio::time::timeout(Duration::from_millis(100), places.accept()).await;
        assert!(second.is_err(), "there is one place and two have it");
        drop(first);
        tokio::time::timeout(Duration::from_secs(30), places.accept()).await.expect("the place is free again");
    }
}
