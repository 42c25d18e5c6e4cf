//! Workers that are played, over real sockets.

use std::{net::SocketAddr, time::Duration};

use http::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::TaskTracker;
use url::Url;
use uuid::Uuid;

use super::*;
use crate::model::Secret;

/// Plays a worker: to each request line this status and body, or none at all.
async fn play(tasks: &TaskTracker, answer: fn(&str) -> Option<(u16, &'static str)>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let playing = tasks.clone();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            playing.spawn(converse(stream, answer));
        }
    });
    address
}

async fn converse(mut stream: TcpStream, answer: fn(&str) -> Option<(u16, &'static str)>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        if !stream.read_buf(&mut request).await.is_ok_and(|bytes| bytes > 0) {
            return;
        }
    }
    let request = String::from_utf8(request).unwrap();
    let Some((status, body)) = answer(request.lines().next().unwrap()) else {
        // Until the other end has enough of it.
        drop(stream.read_buf(&mut Vec::new()).await);
        return;
    };
    let head = format!(
        "HTTP/1.1 {status} Status\r\n{}: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        server::WORKER,
        Uuid::from_u128(7),
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
}

fn credential() -> Credential {
    Credential::bearer(&Secret::new("token")).unwrap()
}

fn url(address: SocketAddr) -> Url {
    format!("http://{address}").parse().unwrap()
}

#[tokio::test]
async fn a_worker_that_is_busy_is_passed_over_and_one_that_says_no_is_not() {
    let tasks = TaskTracker::new();
    let busy = play(&tasks, |_| Some((429, r#"{"error":{"message":"it is being tested already"}}"#))).await;
    let forbids = play(&tasks, |_| Some((403, r#"{"error":{"message":"may not"}}"#))).await;
    let does = play(&tasks, |_| Some((200, r#"{"outcome":"delivered"}"#))).await;
    let servers = |addresses: &[SocketAddr]| {
        let server = |address: &SocketAddr| Server::new(&url(*address), *address, false, credential()).unwrap();
        Servers::new(addresses.iter().map(server).collect())
    };
    let ask = async |addresses: &[SocketAddr]| {
        servers(addresses).ask_any(Method::POST, "/api/channels/soc/test", &json!({})).await
    };
    assert_eq!(ask(&[busy, does]).await.unwrap()["outcome"], "delivered");
    assert_eq!(ask(&[busy]).await.unwrap_err().1.why(), "it is being tested already");
    assert_eq!(ask(&[forbids, does]).await.unwrap_err().1.why(), "may not");
}

/// Hangs over what is hard to find, and is there.
fn slow(request: &str) -> Option<(u16, &'static str)> {
    (!request.contains("by_cause")).then_some((200, "[]"))
}

#[tokio::test]
async fn an_answer_that_is_long_in_coming_makes_nobody_silent_for_all_else() {
    let tasks = TaskTracker::new();
    let address = play(&tasks, slow).await;
    // Nothing but the hard question can take too long in the eyes of `presence`.
    let long = Duration::from_mins(1);
    let patience = Patience { resolve: long, connect: long, look: long, answer: Duration::from_secs(1) };
    let peers = Peers::new(patience);
    let (found, _) = peers.find(&[url(address)], &credential()).await;
    let trouble = found[0].ask(Method::GET, "/api/dead-letters?by_cause=true", None).await.unwrap_err();
    assert_eq!(trouble.why(), "it took too long");
    // A machine that stalls may take too long for what is easy, too. Nobody is left alone for that.
    for answers in 0..10 {
        match found[0].ask(Method::GET, "/api/channels", None).await {
            Ok(_) => return,
            Err(trouble) => assert_eq!(trouble.why(), "it took too long", "after {answers}"),
        }
    }
    panic!("it never answered");
}

/// Hangs, but for who asks which one it is.
fn revived(request: &str) -> Option<(u16, &'static str)> {
    request.contains("/api/session").then_some((200, "{}"))
}

#[tokio::test]
async fn a_worker_that_was_silent_is_left_alone_and_still_asked_who_it_is() {
    let tasks = TaskTracker::new();
    let address = play(&tasks, revived).await;
    let long = Duration::from_mins(1);
    let peers = Peers::new(Patience { resolve: long, connect: long, look: Duration::from_millis(200), answer: long });
    let (found, _) = peers.find(&[url(address)], &credential()).await;
    let why = async || found[0].ask(Method::GET, "/api/channels", None).await.unwrap_err().why().to_owned();
    assert_eq!(why().await, "it took too long");
    assert_eq!(why().await, "it took too long a moment ago");
    assert_eq!(found[0].who().await.unwrap(), Uuid::from_u128(7));
}

#[tokio::test]
async fn who_knocks_hears_whether_a_worker_opens() {
    let tasks = TaskTracker::new();
    let worker = play(&tasks, |request| request.starts_with("HEAD /api/openapi.json ").then_some((200, ""))).await;
    assert_eq!(knock(&url(worker), worker).await.unwrap(), Some(Uuid::from_u128(7)));
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(knock(&url(gone), gone).await.unwrap_err().why().contains("refused"));
}
