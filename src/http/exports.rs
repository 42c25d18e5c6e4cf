//! `GET /api/telemetry/decisions/export`: what was decided, whole.
//!
//! An export is streamed, however long it takes: what counts is that the caller takes something. An error before the first byte is
//! an answer like any other; one in the middle cuts the connection off, so that half an export never looks like a whole one.

use std::time::Duration;

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{RawQuery, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures_util::stream;
use tracing::warn;

use super::{
    Inside,
    errors::ApiError,
    guard::{Caller, audit},
};
use crate::export::{self, Asked, Export, ExportError, Format, KEYS, Query, QueryFault};

/// How long an export may take before its head is sent. Until then, an error is an answer with a status. Shorter than what a
/// request may take until its answer begins.
const HEAD_AFTER: Duration = Duration::from_secs(10);

/// How often a byte that means nothing is sent while the log is read. Shorter than proxies are patient.
const FILLER_EVERY: Duration = Duration::from_secs(10);

/// When a caller that was turned away because of others should ask again, in seconds.
const RETRY_AFTER: &str = "30";

pub(super) fn routes(inside: Inside) -> Router {
    Router::new().route("/api/telemetry/decisions/export", get(export)).with_state(inside)
}

async fn export(
    method: Method,
    State(inside): State<Inside>,
    Extension(caller): Extension<Caller>,
    RawQuery(text): RawQuery,
) -> Response {
    let text = text.unwrap_or_default();
    let mut format = None;
    let own = |key: &str, value: &str| match key {
        "format" => {
            let parsed = value.parse::<Format>().map_err(|error| QueryFault::new(key, format!("is wrong: {error}")))?;
            match format.replace(parsed) {
                None => Ok(true),
                Some(_) => Err(QueryFault::new(key, "is given twice: give it once")),
            }
        }
        _ => Ok(false),
    };
    let query = match read(&text, "format", own) {
        Ok(query) => query,
        Err(error) => return error.into_response(),
    };
    let Some(format) = format else {
        return unusable(&QueryFault::new("format", "is missing: give json, csv, splunk, datadog or ndjson"))
            .into_response();
    };
    if method == Method::HEAD {
        return head(&query, format, Body::empty());
    }
    let ledger = Ledger { caller, asked: text.chars().take(500).collect(), bytes: 0, outcome: None };
    begin(&inside, query, format, ledger).await
}

async fn begin(inside: &Inside, query: Query, format: Format, mut ledger: Ledger) -> Response {
    let begun = async {
        inside.exporter.reachable().await?;
        let mut export = inside.exporter.export(query.clone(), format)?;
        let first = tokio::time::timeout(HEAD_AFTER, export.next()).await;
        // Nothing after a while: the rest of the wait is done with the head sent.
        Ok::<_, ExportError>((first.ok().flatten().transpose()?, export))
    };
    let (first, export) = match begun.await {
        Ok(begun) => begun,
        Err(error) => {
            ledger.failed(&error);
            return refusal(&error);
        }
    };
    let under_way = UnderWay { export, ledger, first };
    head(&query, format, Body::from_stream(stream::unfold(Some(under_way), UnderWay::step)))
}

fn head(query: &Query, format: Format, body: Body) -> Response {
    let name = format!("attachment; filename=\"{}\"", export::file_name(query, format));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(name) = HeaderValue::try_from(name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    response
}

/// The body of an export.
struct UnderWay {
    export: Export,
    ledger: Ledger,
    /// What was received before the head was sent.
    first: Option<Bytes>,
}

impl UnderWay {
    async fn step(state: Option<Self>) -> Option<(Result<Bytes, ExportError>, Option<Self>)> {
        let mut state = state?;
        let next = match state.first.take() {
            Some(first) => Some(Ok(first)),
            None => state.export.next_or_filler(FILLER_EVERY).await,
        };
        match next {
            Some(Ok(bytes)) => {
                state.ledger.bytes += bytes.len() as u64;
                Some((Ok(bytes), Some(state)))
            }
            Some(Err(error)) => {
                state.ledger.failed(&error);
                // The server cuts the connection off without the end of the body.
                Some((Err(error), None))
            }
            None => {
                let report = state.export.report().unwrap_or_default();
                if report.unreadable > 0 {
                    warn!(records = report.unreadable, "the decisions log holds what is no decision; it was left out");
                }
                state.ledger.outcome = Some(format!("complete, {} decisions", report.decisions));
                None
            }
        }
    }
}

/// Writes one audit line for each export, when it is over, however it ends.
struct Ledger {
    caller: Caller,
    asked: String,
    bytes: u64,
    outcome: Option<String>,
}

impl Ledger {
    fn failed(&mut self, error: &ExportError) {
        let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
        if !matches!(error, ExportError::NotKept | ExportError::Busy { .. } | ExportError::Gone) {
            warn!(error = %format_args!("{error}{cause}"), hint = error.hint(), bytes = self.bytes, "an export was cut short");
        }
        self.outcome = Some(format!("failed after {} bytes: {error}{cause}", self.bytes));
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let gone = || format!("left by the caller after {} bytes", self.bytes);
        let outcome = self.outcome.take().unwrap_or_else(gone);
        audit(&self.caller, "export decisions", &self.asked, &outcome);
    }
}

/// The query of a URL. `own` takes the keys that are not filters.
pub(super) fn read(
    text: &str,
    own_keys: &str,
    mut own: impl FnMut(&str, &str) -> Result<bool, QueryFault>,
) -> Result<Query, ApiError> {
    let mut asked = Asked::default();
    let mut take = |key: &str, value: &str| {
        if own(key, value)? || asked.take(key, value)? {
            return Ok(());
        }
        Err(QueryFault::new(key, format!("is not known: use {own_keys}, {KEYS}")))
    };
    let taken = url::form_urlencoded::parse(text.as_bytes()).try_for_each(|(key, value)| take(&key, &value));
    taken.and_then(|()| Query::try_from(asked)).map_err(|fault| unusable(&fault))
}

fn unusable(fault: &QueryFault) -> ApiError {
    ApiError {
        status: StatusCode::BAD_REQUEST,
        code: "bad_query",
        message: fault.to_string(),
        hint: match fault.key.as_str() {
            "since" | "until" => "times are in RFC 3339, as 2026-06-01T12:00:00Z; a plus sign in a URL is written %2B",
            _ => "`GET /api/openapi.json` describes every parameter",
        },
    }
}

pub(super) fn refusal(error: &ExportError) -> Response {
    let (status, code) = match error {
        ExportError::NotKept => (StatusCode::CONFLICT, "decisions_not_kept"),
        ExportError::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "busy"),
        ExportError::Away | ExportError::Broker(_) => (StatusCode::SERVICE_UNAVAILABLE, "broker_unavailable"),
        ExportError::Spill(_) => (StatusCode::INSUFFICIENT_STORAGE, "no_room"),
        ExportError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        ExportError::Stuck(_) | ExportError::Gone | ExportError::Died => {
            (StatusCode::INTERNAL_SERVER_ERROR, "cut_short")
        }
    };
    let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
    let mut response =
        ApiError { status, code, message: format!("{error}{cause}"), hint: error.hint() }.into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
    response
}
