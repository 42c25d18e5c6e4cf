//! The console over HTTP: finds the plain values of each page, and does what its forms ask for, by the same functions as the API.
//!
//! A form's answer leads to a page (303), which says once what has been done (`flash.rs`). Who is not signed in is led to the
//! sign-in and back; what was sent with a form is gone then, and both pages say so.
//!
//! A link in another site's card needs a detour. The session is a `SameSite=Strict` cookie, so the browser does not send it with
//! the first request that such a link causes, and not with what a redirect makes of that request either. So that request gets a
//! page of ours, which asks again by itself: this time the request is ours, and carries the cookie. A mark in the address says
//! that this was done, so that it is not done twice.

mod apologies;
mod approvals;
mod channels;
mod dead_letters;
mod decisions;
mod flash;
mod forms;
mod overview;
mod removing;
mod signing_in;
#[cfg(test)]
pub(super) mod tests;
mod views;

use axum::{
    Router,
    body::Body,
    extract::{Path, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use tokio::time::Instant;

use super::{
    access, catalogue,
    errors::{self, ApiError},
    guard::{Caller, Gate},
    session::see_other,
};
use crate::{
    console::{self, ContinuePage, Flash, Frame, NoticePage, Section, Text, Tone, Viewer},
    model::{Role, Timestamp},
};

/// What pages may load and do: our own stylesheet, script and forms, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The largest form, in bytes.
const FORM_BYTES_MAX: usize = 16 * 1024;

/// The mark of a request that a page of ours has sent anew.
const MARK: &str = "continued";

/// The mark of a sign-in that stands where a form was sent.
const LOST: &str = "lost";

/// The mark of a sign-in that stands where somebody looked at pages before.
const ENDED: &str = "ended";

pub(super) use apologies::for_people;

pub(super) fn routes(gate: Gate) -> Router {
    Router::new()
        .route("/", get(overview::show))
        .route("/sign-in", get(signing_in::form).post(signing_in::sign_in))
        .route("/sign-out", post(signing_in::sign_out))
        .route("/approvals", get(approvals::list))
        .route("/approvals/{id}", get(approvals::show).post(approvals::answer))
        .route("/channels", get(channels::list))
        .route("/add-channel", get(forms::kinds))
        .route("/add-channel/{kind}", get(forms::blank).post(forms::make))
        .route("/channels/{id}", get(channels::show))
        .route("/channels/{id}/edit", get(forms::edit).post(forms::change))
        .route("/channels/{id}/delete", get(removing::ask).post(removing::delete))
        .route("/channels/{id}/test", post(channels::test))
        .route("/channels/{id}/pause", post(channels::pause))
        .route("/channels/{id}/resume", post(channels::resume))
        .route("/decisions", get(decisions::list))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/{id}", get(dead_letters::show))
        .route("/dead-letters/replay", get(dead_letters::acting::ask_replay).post(dead_letters::acting::replay))
        .route("/dead-letters/purge", get(dead_letters::acting::ask_purge).post(dead_letters::acting::purge))
        .route("/decisions/{id}", get(decisions::show))
        .route("/assets/{name}", get(asset))
        .with_state(gate)
}

async fn asset(request: Request) -> Response {
    let Some(asset) = console::asset(request.uri().path()) else { return errors::not_found().await.into_response() };
    let headers =
        [(header::CONTENT_TYPE, asset.content_type), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, asset.body).into_response()
}

/// Somebody's look at a page.
struct Visit {
    viewer: Option<Viewer>,
    flash: Option<Flash>,
}

impl Visit {
    fn new(gate: &Gate, caller: &Caller, headers: &HeaderMap) -> Self {
        let viewer = Viewer { name: Text::short(&caller.name), role: caller.role };
        Self { viewer: Some(viewer), flash: flash::read(gate.sessions.key(), headers) }
    }

    /// The page that `make` makes with this frame.
    fn page(self, title: &str, here: Option<Section>, make: impl FnOnce(Frame) -> String) -> Response {
        let told = self.flash.is_some();
        let frame = Frame { title: Text::short(title), here, viewer: self.viewer, flash: self.flash };
        let mut response = page(StatusCode::OK, make(frame));
        if told {
            flash::forget(&mut response);
        }
        response
    }

    /// A page that says what went wrong.
    fn notice(self, status: StatusCode, title: &str, here: Section, message: &str, hint: &str) -> Response {
        let mut response = self.page(title, Some(here), |frame| {
            let way = (here.path().to_owned(), here.name());
            console::html(&NoticePage { frame, message: Text::long(message), hint: Text::long(hint), way })
        });
        *response.status_mut() = status;
        response
    }
}

fn page(status: StatusCode, html: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // With none at all, a form's `Origin` would be `null`, and older browsers have nothing else to say where it comes from.
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (status, headers, html).into_response()
}

/// The longest that a page waits until it is looked at anew, in seconds, and how many times as long as a look takes that is at least:
/// a search is not to be all that a broker does, nor counting all that a store does.
const AGAIN_MAX: u64 = 60;
const AGAIN_TIMES: u64 = 10;

/// After how many seconds a page is looked at anew that has taken since `began`; `least` where that is short.
fn again_after(began: Instant, least: u64) -> u64 {
    (began.elapsed().as_secs() * AGAIN_TIMES).clamp(least, AGAIN_MAX)
}

/// A time as the API reads it, of what people write: a day, or a day and a time, in UTC.
fn moment(text: &str) -> String {
    if text.parse::<Timestamp>().is_ok() {
        return text.to_owned();
    }
    let dense = text.replacen(' ', "T", 1);
    let candidates = [format!("{dense}T00:00:00Z"), format!("{dense}:00Z"), format!("{dense}Z"), dense];
    candidates.into_iter().find(|one| one.parse::<Timestamp>().is_ok()).unwrap_or_else(|| text.to_owned())
}

/// Leads to a page of ours, which says what has been done.
fn lead(gate: &Gate, to: &str, tone: Tone, text: &str) -> Response {
    let mut response = see_other(to);
    flash::leave(gate.sessions.key(), &mut response, tone, text);
    response
}

/// Who looks, by a session or a token, for a page that is for everybody.
fn viewer_of(gate: &Gate, headers: &HeaderMap) -> Option<Viewer> {
    let tokens = gate.inside.tokens.borrow().clone();
    let known = access::identify(headers, &tokens, &gate.sessions, gate.inside.clock.now()).ok()?;
    Some(Viewer { name: Text::short(&known.name), role: known.role })
}

/// Where somebody goes on who cannot go on here.
fn way_out(viewer: Option<&Viewer>) -> (String, &'static str) {
    let may_look = |viewer: &Viewer| catalogue::find(&Method::GET, "/").is_some_and(|route| route.admits(viewer.role));
    if viewer.is_some_and(may_look) {
        (String::from("/"), "Overview")
    } else {
        (String::from("/sign-in"), "Sign in with another token")
    }
}

/// How the guard turns somebody away from a page.
pub(super) fn refusal(gate: &Gate, error: &ApiError, request: &Request, route: &str) -> Response {
    let (query, is_marked) = query_of(request);
    if error.status == StatusCode::UNAUTHORIZED {
        // Where a form has no page of its own, the one that it was on. Whoever signs in then may look at less; that page says so.
        let path = page_above(request.uri().path(), route, Role::Admin).unwrap_or_else(|| String::from("/"));
        let is_safe = request.method().is_safe();
        if !is_marked && is_safe && comes_from_elsewhere(request.headers()) {
            let to = with_query(&path, &[query.as_str(), &format!("{MARK}=1")]);
            return page(StatusCode::OK, console::html(&ContinuePage { frame: Frame::bare("One moment"), to }));
        }
        let query = if is_safe { query.as_str() } else { "" };
        let next = with_query(&path, &[query]);
        let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
        let mark = match is_safe {
            false => format!("&{LOST}=1"),
            true if !is_marked && had_session(gate, request.headers()) => format!("&{ENDED}=1"),
            true => String::new(),
        };
        return see_other(&format!("/sign-in?next={next}{mark}"));
    }
    let viewer = viewer_of(gate, request.headers());
    let back = viewer.as_ref().and_then(|viewer| page_above(request.uri().path(), route, viewer.role));
    let way = back.map_or_else(|| way_out(viewer.as_ref()), |path| (path, "Back to the page"));
    let frame = Frame { viewer, ..Frame::bare("This may not be done") };
    let (message, hint) = (forms::sentence(&error.message), forms::sentence(error.hint));
    page(error.status, console::html(&NoticePage { frame, message, hint, way }))
}

/// Whether somebody was signed in before who is not any more: the browser sends a session that has ended, or, when it has dropped
/// that itself, comes from a page of ours. From the sign-in anybody comes.
fn had_session(gate: &Gate, headers: &HeaderMap) -> bool {
    let tokens = gate.inside.tokens.borrow().clone();
    let known = access::identify(headers, &tokens, &gate.sessions, gate.inside.clock.now());
    let is_ours = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
    let from = headers.get(header::REFERER).and_then(|from| url::Url::parse(from.to_str().ok()?).ok());
    known == Err(access::Stranger::NoSession) || is_ours && from.is_some_and(|from| from.path() != "/sign-in")
}

/// The page at this path, or the nearest above it, that somebody with this role may look at.
fn page_above(path: &str, route: &str, role: Role) -> Option<String> {
    let (mut path, mut route) = (path, route);
    while !route.is_empty() {
        if catalogue::find(&Method::GET, route).is_some_and(|route| route.admits(role)) {
            return Some(path.to_owned());
        }
        (path, route) = (path.rsplit_once('/')?.0, route.rsplit_once('/')?.0);
    }
    None
}

/// Whether a link on another site brings the browser here.
fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|one: &HeaderValue| one == value);
    is("sec-fetch-site", "cross-site") && is("sec-fetch-mode", "navigate")
}

/// The query without the mark, and whether it was there.
fn query_of(request: &Request) -> (String, bool) {
    let query = request.uri().query().unwrap_or_default();
    let is_mark = |part: &&str| part.split('=').next() == Some(MARK);
    let others: Vec<&str> = query.split('&').filter(|part| !is_mark(part) && !part.is_empty()).collect();
    (others.join("&"), query.split('&').any(|part| is_mark(&part)))
}

fn with_query(path: &str, queries: &[&str]) -> String {
    let queries: Vec<&str> = queries.iter().copied().filter(|query| !query.is_empty()).collect();
    if queries.is_empty() { path.to_owned() } else { format!("{path}?{}", queries.join("&")) }
}

/// The id in a path; `None` where it is no text.
type Id = Result<Path<String>, axum::extract::rejection::PathRejection>;

fn id_of(id: Id) -> String {
    // Nothing has an empty id.
    id.map(|Path(id)| id).unwrap_or_default()
}

/// The fields of a form; `None` of one that is too large or did not arrive whole.
async fn fields(body: Body) -> Option<Vec<(String, String)>> {
    fields_within(body, FORM_BYTES_MAX).await
}

/// The same of a form of this size at most, in bytes.
async fn fields_within(body: Body, limit: usize) -> Option<Vec<(String, String)>> {
    let bytes = axum::body::to_bytes(body, limit).await.ok()?;
    Some(url::form_urlencoded::parse(&bytes).into_owned().collect())
}

/// The first field of this name.
fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}
