//! Errors for people: what a program gets as JSON, a browser gets as a page in the console's frame.
//!
//! It stands around everything else, so a path that nobody knows and a request that is too slow or too large are told as any page is.
//! Below `/api` and `/v1` nothing changes: a browser that looks at an answer there wants to see the answer.

use axum::{
    body::to_bytes,
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE},
    },
    middleware::Next,
    response::Response,
};
use serde_json::Value;

use super::{page, viewer_of};
use crate::{
    console::{self, Frame, NoticePage, Text},
    http::{guard::Gate, session::is_own_path},
};

/// The largest error that is looked at, in bytes: ours are far smaller.
const ERROR_BYTES_MAX: usize = 16 * 1024;

/// Gives errors the shape that the one who asked can read.
pub(in crate::http) async fn for_people(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if !is_for_people(request.uri().path()) || !takes_pages(request.headers()) {
        return next.run(request).await;
    }
    let viewer = viewer_of(&gate, request.headers());
    let target = request.uri().path_and_query().map(|target| target.as_str().to_owned());
    // What is no path of ours (`//elsewhere`) leads somewhere else as a link.
    let again = target.filter(|target| request.method().is_safe() && is_own_path(target));
    let response = next.run(request).await;
    let status = response.status();
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if !is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let told: Value = to_bytes(body, ERROR_BYTES_MAX)
        .await
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let (title, hint) = in_words(status);
    let message = super::forms::sentence(told["error"]["message"].as_str().unwrap_or("it did not work"));
    let way = match again.filter(|_| may_pass(status)) {
        Some(target) => (target, "Load the page again"),
        None => super::way_out(viewer.as_ref()),
    };
    let frame = Frame { viewer, ..Frame::bare(title) };
    let html = console::html(&NoticePage { frame, message, hint: Text::short(hint), way });
    let page = page(status, html);
    head.headers.remove(CONTENT_LENGTH);
    for (name, value) in page.headers() {
        head.headers.insert(name.clone(), value.clone());
    }
    Response::from_parts(head, page.into_body())
}

/// Whether people are meant to come to this path.
fn is_for_people(path: &str) -> bool {
    let is_below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    !is_below("/api") && !is_below("/v1")
}

/// Whether whoever asks says that it reads pages. A browser that goes somewhere does; scripts and `curl` take anything.
fn takes_pages(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "text/html"))
}

/// Whether the same may work a moment later.
fn may_pass(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) || status.is_server_error()
}

/// What it is called, and what can be done.
fn in_words(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::NOT_FOUND => ("There is nothing here", "The address may be mistyped, or what was here is gone."),
        StatusCode::METHOD_NOT_ALLOWED => ("This cannot be done here", "Go to the page, and use what is on it."),
        StatusCode::FORBIDDEN => ("This may not be done", "It takes another role."),
        StatusCode::REQUEST_TIMEOUT => {
            ("That took too long", "Load the page again. If it stays so, look at the worker.")
        }
        StatusCode::TOO_MANY_REQUESTS => ("Too much at once", "Wait a moment, and try it again."),
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            ("That was too much", "Nothing was done. Send less at once.")
        }
        status if status.is_server_error() => (
            "This does not work at the moment",
            "Load the page again in a moment. The worker's log says what it waits for.",
        ),
        _ => ("This did not work", "Go back, and try it again."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_pages_where_people_go_and_where_they_say_that_they_read_them() {
        for (path, people) in
            [("/", true), ("/apis", true), ("/v1x", true), ("/api", false), ("/api/x", false), ("/v1/events", false)]
        {
            assert_eq!(is_for_people(path), people, "{path}");
        }
        let takes = |accept: &'static str| takes_pages(&[(ACCEPT, accept.parse().unwrap())].into_iter().collect());
        assert!(
            takes("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8") && takes("a/b, text/html;q=0.5")
        );
        assert!(may_pass(StatusCode::REQUEST_TIMEOUT) && may_pass(StatusCode::SERVICE_UNAVAILABLE));
        assert!(!may_pass(StatusCode::NOT_FOUND) && !may_pass(StatusCode::FORBIDDEN));
        assert!(!takes("*/*") && !takes("application/json") && !takes("") && !takes_pages(&HeaderMap::new()));
    }
}
