//! Headers that every answer carries, so that a browser takes it for nothing but what it is.
//!
//! Answers are never cached, framed, sniffed or embedded by other sites, and run nothing. A page of our own may say otherwise for
//! itself: what a handler has set stays. There are no CORS headers: other sites' scripts have no business here.

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
            X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
    response::Response,
};
use std::sync::Arc;
use tokio::sync::watch;

use super::terms::Terms;
use crate::workers::server::WORKER;

/// Each header, where the handler has not set it.
const ALWAYS: [(HeaderName, &str); 7] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// For a year, and for our own name only: what stands beside it under the domain is not ours to decide.
const HTTPS_ONLY: &str = "max-age=31536000";

/// Adds them to an answer of the metrics listener.
pub(super) async fn plain(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    complete(response.headers_mut(), false);
    response
}

/// What answers of the API carry of this worker.
#[derive(Clone)]
pub(super) struct OfApi {
    pub(super) terms: watch::Receiver<Arc<Terms>>,
    /// Which worker answers, made anew at each start: who asks all workers tells by it whom it has asked twice, or whether it has
    /// asked itself.
    pub(super) worker: HeaderValue,
}

/// Adds them to an answer of the API.
pub(super) async fn of_api(State(this): State<OfApi>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    complete(response.headers_mut(), this.terms.borrow().is_https());
    response.headers_mut().insert(WORKER, this.worker);
    response
}

fn complete(headers: &mut HeaderMap, https: bool) {
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if https {
        headers.entry(STRICT_TRANSPORT_SECURITY).or_insert(HeaderValue::from_static(HTTPS_ONLY));
    }
}
