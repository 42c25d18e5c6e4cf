//! What every request has: a time, a size, and errors of one shape.
//!
//! Handlers read their bodies up to bounds of their own. These here are the floor below them all, for the handler that forgets.

use std::time::Duration;

use axum::{
    RequestExt as _, Router,
    body::{Body, HttpBody as _, to_bytes},
    extract::{DefaultBodyLimit, Request},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
};

use super::errors::{self, ApiError};

/// How long one request may take until its answer begins, the broker's confirms included. A long answer may then take longer.
const REQUEST_MAX: Duration = Duration::from_mins(1);

/// The longest target of a request, its headers together, and their number. Browsers and proxies stay far below. hyper has bounds
/// of its own above these (`serving.rs`), which it can only answer without a word.
const TARGET_BYTES_MAX: usize = 8 * 1024;
const HEADERS_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 100;

/// The largest body of all: what `POST /v1/events` takes, and a little.
const BODY_BYTES_MAX: usize = 9 * 1024 * 1024;

/// The longest complaint of somebody else's that is passed on, in bytes.
const COMPLAINT_BYTES_MAX: usize = 4 * 1024;
const COMPLAINT_CHARS_MAX: usize = 300;

/// Puts the bounds around all routes.
pub(super) fn bounded(routes: Router) -> Router {
    routes
        .fallback(errors::not_found)
        .method_not_allowed_fallback(errors::wrong_method)
        .layer(from_fn(within))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(in_shape))
}

/// Answers within [`REQUEST_MAX`], the reading of the body included, so that nobody holds memory by sending slowly.
async fn within(request: Request, next: Next) -> Response {
    if let Err(error) = check_head(&request).and_then(|()| check_length(&request)) {
        return error.into_response();
    }
    match tokio::time::timeout(REQUEST_MAX, next.run(request.with_limited_body())).await {
        Ok(response) => response,
        Err(_) => errors::too_slow().into_response(),
    }
}

fn check_head(request: &Request) -> Result<(), ApiError> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > TARGET_BYTES_MAX {
        return Err(ApiError {
            status: StatusCode::URI_TOO_LONG,
            code: "target_too_long",
            message: format!("the path and the query have more than {TARGET_BYTES_MAX} bytes"),
            hint: "ask for less at once",
        });
    }
    let bytes =
        |headers: &HeaderMap| headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    if request.headers().len() > HEADERS_MAX || bytes(request.headers()) > HEADERS_BYTES_MAX {
        return Err(ApiError {
            status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            code: "headers_too_large",
            message: format!("there are more than {HEADERS_MAX} headers, or {HEADERS_BYTES_MAX} bytes of them"),
            hint: "send fewer or shorter headers; cookies of other sites on this name are headers, too",
        });
    }
    Ok(())
}

/// Refuses a body that says itself that it is too large. One that does not say so is cut off while it is read.
fn check_length(request: &Request) -> Result<(), ApiError> {
    if request.body().size_hint().lower() <= BODY_BYTES_MAX as u64 {
        return Ok(());
    }
    Err(ApiError {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        code: "too_large",
        message: format!("the body has more than {BODY_BYTES_MAX} bytes"),
        hint: "send less in one request; nothing of this one was done",
    })
}

/// Gives errors that our own code did not make (a path that is not UTF-8, a query that cannot be read) the shape of all others.
async fn in_shape(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // axum complains in plain text, with its charset, and our probes answer without; whatever else is somebody's intention.
    let foreign = kind.is_empty() || kind == "text/plain; charset=utf-8";
    if !foreign || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let complaint = complaint(body).await;
    let message =
        if complaint.is_empty() { status.canonical_reason().unwrap_or("refused").to_owned() } else { complaint };
    let shaped =
        ApiError { status, code: code(status), message, hint: "`GET /api/openapi.json` describes every request" };
    let shaped = shaped.into_response();
    head.headers.remove("content-length");
    for (name, value) in shaped.headers() {
        head.headers.insert(name.clone(), value.clone());
    }
    Response::from_parts(head, shaped.into_body())
}

/// The first words of it. They may quote what was sent, so they are one line without control characters.
async fn complaint(body: Body) -> String {
    let bytes = to_bytes(body, COMPLAINT_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(COMPLAINT_CHARS_MAX).collect()
}

fn code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
        status if status.is_server_error() => "internal",
        _ => "malformed",
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        extract::{Path, Query},
        routing::get,
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn complaints_of_axum_have_the_shape_of_our_errors() {
        #[derive(serde::Deserialize)]
        struct Wanted {
            count: u8,
        }
        let count = async |Query(wanted): Query<Wanted>| wanted.count.to_string();
        let routes = Router::new()
            .route("/count", get(count))
            .route("/id/{id}", get(async |Path(id): Path<String>| id))
            .route("/body", axum::routing::post(async |body: axum::body::Bytes| body.len().to_string()))
            .route(
                "/failing",
                get(async || (StatusCode::SERVICE_UNAVAILABLE, [(CONTENT_TYPE, "text/plain")], "draining")),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, tracker) = (listener.local_addr().unwrap(), tokio_util::task::TaskTracker::new());
        super::super::serving::serve(listener, bounded(routes), tokio_util::sync::CancellationToken::new(), &tracker);
        let ask = async |line: &str, rest: &str| {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{rest}\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert!(ask("GET /count?count=3", "").await.ends_with("\r\n\r\n3"));
        let (long, many) = ("a".repeat(TARGET_BYTES_MAX), "a: b\r\n".repeat(HEADERS_MAX));
        for (line, rest, status, code) in [
            ("GET /count?count=x", "", 400, "malformed"),
            ("GET /id/%ff", "", 400, "malformed"),
            ("POST /body", "content-length: 9999999\r\n", 413, "too_large"),
            ("POST /count", "", 405, "method_not_allowed"),
            ("GET /other", "", 404, "not_found"),
            (&format!("GET /{long}"), "", 414, "target_too_long"),
            ("GET /count?count=3", &many, 431, "headers_too_large"),
            ("GET /count?count=3", &format!("a: {}\r\n", "b".repeat(HEADERS_BYTES_MAX)), 431, "headers_too_large"),
        ] {
            let answer = ask(line, rest).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
            assert!(answer.contains(&format!(r#"{{"error":{{"code":"{code}","#)), "{line}: {answer}");
            assert!(answer.contains("content-type: application/json"), "{line}: {answer}");
        }
        let answer = ask("GET /failing", "").await;
        assert!(answer.ends_with("\r\n\r\ndraining"), "what a handler says in its own way stays: {answer}");
    }
}
