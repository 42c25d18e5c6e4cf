//! `/api/session`: sign in with a token, ask who it is, sign out.
//!
//! The sign-in takes JSON, and the form of a page without scripts. Who fails too often is refused unseen (`throttle.rs`). Success
//! and failure are audit lines; the token is in neither.

use std::net::SocketAddr;

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Query, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, HOST, LOCATION, ORIGIN, RETRY_AFTER, SET_COOKIE},
    },
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde_json::{Value, json};
use tracing::error;

use super::{
    access::{self, Via},
    errors::ApiError,
    guard::{Caller, Gate, Peer, audit, audit_stranger},
    sessions::{clear_cookie, set_cookie},
    terms::Terms,
    throttle::TooMany,
};
use crate::model::{Role, Timestamp};

/// The largest body of a sign-in, in bytes.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// The longest path that a form may lead to, in bytes.
const NEXT_BYTES_MAX: usize = 2_048;

pub(super) fn routes(gate: Gate) -> Router {
    Router::new().route("/api/session", post(sign_in).get(who).delete(sign_out)).with_state(gate)
}

/// What a sign-in says.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    token: String,
    /// Where the form leads.
    #[serde(default)]
    next: Option<String>,
}

async fn sign_in(State(gate): State<Gate>, Extension(Peer(from)): Extension<Peer>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    match read(&head.headers, body).await {
        Ok((form, credentials)) => gate.sign_in(&head.headers, form, &credentials, from),
        Err(error) => error.into_response(),
    }
}

/// A session that was opened.
pub(super) struct Opened {
    name: String,
    role: Role,
    expires_at: Timestamp,
    /// What gives it to the browser.
    cookie: Option<HeaderValue>,
}

impl Opened {
    /// Gives it to the browser, with this answer.
    pub(super) fn give(self, mut response: Response) -> Response {
        if let Some(cookie) = self.cookie {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        response
    }
}

/// Why a session was not opened.
pub(super) enum NotOpened {
    /// Too many sign-ins from there have failed.
    TooMany(TooMany),
    /// Nobody has this token.
    Unknown,
    /// The machine has no randomness to give.
    Trouble,
}

impl Gate {
    fn sign_in(&self, headers: &HeaderMap, form: bool, credentials: &Credentials, from: SocketAddr) -> Response {
        let opened = match self.open_session(headers, &credentials.token, from) {
            Ok(opened) => opened,
            Err(NotOpened::TooMany(refusal)) => return too_many(refusal),
            Err(NotOpened::Unknown) => return unknown().into_response(),
            Err(NotOpened::Trouble) => return not_opened().into_response(),
        };
        let response = if form {
            let next = credentials.next.as_deref().filter(|next| is_own_path(next)).unwrap_or("/");
            see_other(next)
        } else {
            Json(description(&opened.name, opened.role, Some(opened.expires_at))).into_response()
        };
        opened.give(response)
    }

    /// Opens a session for whoever has this token. Success and failure are audit lines.
    pub(super) fn open_session(&self, headers: &HeaderMap, token: &str, from: SocketAddr) -> Result<Opened, NotOpened> {
        if let Err(refusal) = self.throttle.sign_in(from.ip()) {
            if refusal.first {
                audit_stranger(from, "sign_in", "refused: too many failures; more of them in this minute are not told");
            }
            return Err(NotOpened::TooMany(refusal));
        }
        let tokens = access::Tokens::clone(&self.inside.tokens.borrow());
        let Some(entry) = access::known(token.as_bytes(), &tokens) else {
            audit_stranger(from, "sign_in", "refused: the token is not known");
            return Err(NotOpened::Unknown);
        };
        self.throttle.welcome(from.ip());
        let terms = self.inside.terms.borrow().clone();
        let (session, expires_at) =
            self.sessions.open(entry, self.inside.clock.now(), terms.session).map_err(|fault| {
                error!(error = %fault, "a session could not be opened");
                NotOpened::Trouble
            })?;
        let (name, role) = (entry.0.clone(), entry.1);
        audit(&Caller { name: name.clone(), role, via: Via::Session { expires_at }, from }, "sign_in", &name, "done");
        let cookie = set_cookie(&session, terms.session, is_secure(headers, &terms));
        Ok(Opened { name, role, expires_at, cookie: HeaderValue::try_from(cookie).ok() })
    }

    /// Ends the session of these headers; what takes the cookie from the browser.
    pub(super) fn close_session(&self, headers: &HeaderMap, from: SocketAddr) -> Option<HeaderValue> {
        if let Ok(caller) = self.caller(headers, from)
            && matches!(caller.via, Via::Session { .. })
        {
            audit(&caller, "sign_out", &caller.name, "done");
        }
        let secure = is_secure(headers, &self.inside.terms.borrow());
        HeaderValue::try_from(clear_cookie(secure)).ok()
    }
}

async fn who(Extension(caller): Extension<Caller>) -> Json<Value> {
    let expires_at = match caller.via {
        Via::Session { expires_at } => Some(expires_at),
        Via::Token => None,
    };
    Json(description(&caller.name, caller.role, expires_at))
}

/// Takes the cookie, whoever asks: to sign out twice is the same as once.
async fn sign_out(State(gate): State<Gate>, Extension(Peer(from)): Extension<Peer>, headers: HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(cookie) = gate.close_session(&headers, from) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

fn description(name: &str, role: Role, expires_at: Option<Timestamp>) -> Value {
    json!({"name": name, "role": role, "expires_at": expires_at.map(Timestamp::to_rfc3339_millis)})
}

pub(super) fn see_other(next: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(next) = HeaderValue::try_from(next) {
        response.headers_mut().insert(LOCATION, next);
    }
    response
}

/// Whether it is a path of ours and nothing that a browser could take for another host: `//evil.example` and `/\evil.example` are.
pub(super) fn is_own_path(next: &str) -> bool {
    let other_host = next.starts_with("//") || next.contains('\\');
    next.starts_with('/')
        && !other_host
        && next.len() <= NEXT_BYTES_MAX
        && next.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether the browser is told to send the cookie by https only. The request itself says best how it was sent: a page's `Origin`,
/// then the proxy's word. Without either it is no browser, and our public address decides, unless this machine asks itself.
pub(super) fn is_secure(headers: &HeaderMap, terms: &Terms) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(origin) = text(ORIGIN.as_str()).filter(|origin| *origin != "null") {
        return origin.starts_with("https://");
    }
    if let Some(proto) = text("x-forwarded-proto") {
        return proto.eq_ignore_ascii_case("https");
    }
    let host = text(HOST.as_str()).and_then(|host| host.parse::<http::uri::Authority>().ok());
    let itself = host.is_some_and(|host| {
        let name = host.host().trim_matches(['[', ']']);
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    });
    terms.is_https() && !itself
}

/// The credentials in a body, and whether they came from a form.
async fn read(headers: &HeaderMap, body: Body) -> Result<(bool, Credentials), ApiError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let form = kind == "application/x-www-form-urlencoded";
    if !form && kind != "application/json" {
        return Err(ApiError {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code: "unsupported_media_type",
            message: String::from("a sign-in is JSON, or a form"),
            hint: "send `Content-Type: application/json` and {\"token\": \"...\"}",
        });
    }
    let bytes = axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| ApiError {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        code: "too_large",
        message: format!("the body has more than {BODY_BYTES_MAX} bytes, or did not arrive whole"),
        hint: "send {\"token\": \"...\"} and nothing else",
    })?;
    let malformed = || ApiError {
        status: StatusCode::BAD_REQUEST,
        code: "malformed",
        // What is wrong where is not said: it would quote the token.
        message: String::from("the body is no sign-in"),
        hint: "send {\"token\": \"...\"}, or the form fields `token` and `next`",
    };
    let credentials: Credentials = if form {
        read_form(&bytes).ok_or_else(malformed)?
    } else {
        serde_json::from_slice(&bytes).map_err(|_| malformed())?
    };
    Ok((form, credentials))
}

fn read_form(bytes: &[u8]) -> Option<Credentials> {
    // A query and a form are written alike.
    let uri = format!("/?{}", std::str::from_utf8(bytes).ok()?).parse().ok()?;
    Query::try_from_uri(&uri).ok().map(|Query(credentials)| credentials)
}

fn unknown() -> ApiError {
    ApiError {
        status: StatusCode::UNAUTHORIZED,
        code: "unauthorised",
        message: String::from("the token is not known"),
        hint: "`interven-alerts token` makes one; it must stand in the configuration",
    }
}

fn not_opened() -> ApiError {
    ApiError {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        code: "internal",
        message: String::from("the session could not be opened"),
        hint: "try again; the log says more",
    }
}

fn too_many(TooMany { after, .. }: TooMany) -> Response {
    let seconds = after.as_secs() + 1;
    let error = ApiError {
        status: StatusCode::TOO_MANY_REQUESTS,
        code: "too_many_attempts",
        message: format!("too many sign-ins failed; the next one is looked at in {seconds} s"),
        hint: "wait; a bearer token in the `Authorization` header works meanwhile",
    };
    let mut response = error.into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_form_leads_to_our_own_pages_only() {
        for own in ["/", "/approvals/apr_7?from=slack#top"] {
            assert!(is_own_path(own), "{own}");
        }
        let long = format!("/{}", "a".repeat(NEXT_BYTES_MAX));
        for other in [
            "",
            "approvals",
            "//evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "https://evil.example",
            "/é",
            &long,
        ] {
            assert!(!is_own_path(other), "{other}");
        }
    }

    #[test]
    fn a_cookie_is_for_https_where_the_browser_speaks_it() {
        let https = Terms::new("https://alerts.example.com", Duration::ZERO, Vec::new());
        let http = Terms::new("http://inside:8080", Duration::ZERO, Vec::new());
        for (host, name, value, with_https, with_http) in [
            ("alerts.example.com", "x-other", "", true, false),
            ("127.0.0.1:8080", "x-other", "", false, false),
            ("localhost:8080", "x-other", "", false, false),
            ("[::1]:8080", "x-other", "", false, false),
            ("127.0.0.1:8080", "origin", "https://alerts.example.com", true, true),
            ("alerts.example.com", "origin", "http://alerts.example.com", false, false),
            ("alerts.example.com", "origin", "null", true, false),
            ("inside:8080", "x-forwarded-proto", "https", true, true),
            ("alerts.example.com", "x-forwarded-proto", "http", false, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            headers.insert(name, value.parse().unwrap());
            assert_eq!(is_secure(&headers, &https), with_https, "{host} {name} {value}");
            assert_eq!(is_secure(&headers, &http), with_http, "{host} {name} {value}");
        }
    }

    #[tokio::test]
    async fn a_sign_in_is_json_or_a_form_and_a_fault_does_not_quote_it() {
        let read = async |kind: &str, body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            let read = read(&headers, Body::from(body.to_owned())).await;
            read.map(|(form, credentials)| (form, credentials.token, credentials.next))
        };
        let (json, form) = ("application/json; charset=utf-8", "application/x-www-form-urlencoded");
        assert_eq!(read(json, r#"{"token":"a+b"}"#).await.unwrap(), (false, "a+b".to_owned(), None));
        let next = Some("/approvals/1".to_owned());
        assert_eq!(read(form, "next=%2Fapprovals%2F1&token=a%2Bb").await.unwrap(), (true, "a+b".to_owned(), next));
        let long = format!(r#"{{"token":"{}"}}"#, "x".repeat(BODY_BYTES_MAX));
        for (kind, body, status) in [
            ("text/plain", r#"{"token":"sesame"}"#, 415),
            (json, r#"{"token":"sesame","other":1}"#, 400),
            (json, r#"{"token":"sesame"#, 400),
            (json, "[]", 400),
            (form, "token=sesame&other=1", 400),
            (form, "sesame", 400),
            (form, "\u{e9}", 400),
            (json, &long, 413),
        ] {
            let error = read(kind, body).await.unwrap_err();
            assert_eq!(error.status.as_u16(), status, "{kind} {body}");
            assert!(!error.message.contains("sesame"), "{}", error.message);
        }
    }
}
