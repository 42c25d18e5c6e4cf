//! Serving a listener: connections come in, are bounded, and go when the worker stops.
//!
//! This is what `axum::serve` does, with two things that it lacks: a deadline for the headers of a request, without which a caller
//! that sends them byte by byte holds its place for as long as it likes, and bounds for their size.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    guard::Peer,
    guests::{Guest, Places},
};

/// How long a stop waits for requests under way.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// How long a request may take to say what it wants: from the first wait for it to the end of its headers. So long a connection
/// may also rest between two requests.
const HEADERS_MAX: Duration = Duration::from_secs(30);

/// hyper's own bounds, above those of `limits.rs`: it answers 431 without a word.
const HEADER_COUNT_MAX: usize = 200;
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Serves `routes` on `listener` until `until`, and then for [`DRAIN_MAX`] what is under way.
pub(super) fn serve(listener: TcpListener, routes: Router, until: CancellationToken, tracker: &TaskTracker) {
    serve_with(listener, routes, until, tracker, HEADERS_MAX);
}

fn serve_with(
    listener: TcpListener,
    routes: Router,
    until: CancellationToken,
    tracker: &TaskTracker,
    headers_max: Duration,
) {
    let connections = TaskTracker::new();
    tracker.spawn(async move {
        let mut places = Places::new(listener);
        while let Some((guest, address)) = until.run_until_cancelled(places.accept()).await {
            connections.spawn(attend(guest, address, routes.clone(), until.clone(), headers_max));
        }
        connections.close();
        // A client that keeps its connection open must not keep the worker from stopping.
        if tokio::time::timeout(DRAIN_MAX, connections.wait()).await.is_err() {
            warn!(connections = connections.len(), "requests were cut off by the stop");
        }
    });
}

async fn attend(guest: Guest, address: SocketAddr, routes: Router, until: CancellationToken, headers_max: Duration) {
    let routes = TowerToHyperService::new(routes);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(Peer(address)));
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(headers_max)
        .max_headers(HEADER_COUNT_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(guest), service);
    let mut connection = std::pin::pin!(connection);
    let overdue = async {
        until.cancelled().await;
        tokio::time::sleep(DRAIN_MAX).await;
    };
    let mut overdue = std::pin::pin!(overdue);
    let mut stopping = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    debug!(%address, %error, "a connection has ended");
                }
                return;
            }
            () = until.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut overdue => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn house(headers_max: Duration) -> (SocketAddr, CancellationToken, TaskTracker) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, until, tracker) = (listener.local_addr().unwrap(), CancellationToken::new(), TaskTracker::new());
        let slow = async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            "slow"
        };
        let routes = Router::new().route("/slow", get(slow));
        serve_with(listener, routes, until.clone(), &tracker, headers_max);
        tracker.close();
        (address, until, tracker)
    }

    #[tokio::test]
    async fn a_stop_finishes_the_request_under_way_and_closes_what_rests() {
        let (address, until, tracker) = house(HEADERS_MAX).await;
        let mut resting = TcpStream::connect(address).await.unwrap();
        let mut asking = TcpStream::connect(address).await.unwrap();
        asking.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut first = [0; 1];
        let mut known = TcpStream::connect(address).await.unwrap();
        known.write_all(b"GET /other HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        // Connections are taken in order, so the others are attended to by now.
        known.read_exact(&mut first).await.unwrap();
        until.cancel();
        let mut answer = String::new();
        asking.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("slow"), "{answer}");
        assert_eq!(resting.read(&mut first).await.unwrap_or(0), 0);
        tokio::time::timeout(Duration::from_secs(30), tracker.wait()).await.expect("it stops");
    }

    #[tokio::test]
    async fn a_caller_that_trickles_its_headers_is_cut_off() {
        let (address, _until, _tracker) = house(Duration::from_secs(2)).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n").await.unwrap();
        let trickling = async {
            let mut byte = [0; 1];
            loop {
                tokio::select! {
                    read = stream.read(&mut byte) => break read.unwrap_or(0),
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                }
                if stream.write_all(b"a: b\r\n").await.is_err() {
                    break 0;
                }
            }
        };
        let read = tokio::time::timeout(Duration::from_mins(1), trickling).await.expect("it is cut off");
        assert_eq!(read, 0, "and gets no answer");
    }
}
