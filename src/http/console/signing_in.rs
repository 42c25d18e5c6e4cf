//! Signing in and out with a form.

use axum::{
    Extension,
    body::Body,
    extract::{RawQuery, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{RETRY_AFTER, SET_COOKIE},
    },
    response::Response,
};

use super::{ENDED, LOST, field, fields, flash, lead, page};
use crate::{
    console::{self, Frame, Lost, SignInPage, Text, Tone},
    http::{
        catalogue,
        guard::{Gate, Peer},
        session::{NotOpened, is_own_path, see_other},
    },
};

/// What is said where a form was sent that nobody was signed in for.
const NOT_DONE: &str =
    "Nothing was saved or done: you were not signed in any more when you sent the form. Please do it again.";

pub(super) async fn form(
    State(gate): State<Gate>,
    Extension(Peer(from)): Extension<Peer>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
    let next = own(field(&query, "next"));
    let form_lost = field(&query, LOST).is_some();
    // Who is known already has nothing to do here; who may not look at anything may want to be somebody else.
    let caller = gate.caller(&headers, from).ok();
    let may_look = |role| catalogue::find(&Method::GET, "/").is_some_and(|route| route.admits(role));
    if caller.is_some_and(|caller| may_look(caller.role)) {
        return lead_on(&gate, &next, form_lost);
    }
    let lost = match field(&query, ENDED) {
        _ if form_lost => Lost::Form,
        Some(_) => Lost::Session,
        None => Lost::Nothing,
    };
    let flash = flash::read(gate.sessions.key(), &headers);
    let told = flash.is_some();
    let frame = Frame { flash, ..Frame::bare("Sign in") };
    let mut response = page(StatusCode::OK, console::html(&SignInPage { frame, next, lost, refusal: None }));
    if told {
        flash::forget(&mut response);
    }
    response
}

pub(super) async fn sign_in(
    State(gate): State<Gate>,
    Extension(Peer(from)): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let fields = fields(body).await.unwrap_or_default();
    let (next, lost) = (own(field(&fields, "next")), field(&fields, LOST).is_some());
    let again = |status, text: &str| again(status, next.clone(), lost, text);
    let Some(token) = field(&fields, "token").map(str::trim).filter(|token| !token.is_empty()) else {
        return again(StatusCode::BAD_REQUEST, "Enter your token.");
    };
    match gate.open_session(&headers, token, from) {
        Ok(opened) => opened.give(lead_on(&gate, &next, lost)),
        Err(NotOpened::Unknown) => again(StatusCode::UNAUTHORIZED, "This token is not known."),
        Err(NotOpened::Trouble) => {
            again(StatusCode::INTERNAL_SERVER_ERROR, "The session could not be opened. Try again.")
        }
        Err(NotOpened::TooMany(refusal)) => {
            let seconds = refusal.after.as_secs() + 1;
            let text = format!("Too many sign-ins have failed. The next one is looked at in {seconds} s.");
            let mut response = again(StatusCode::TOO_MANY_REQUESTS, &text);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
    }
}

pub(super) async fn sign_out(
    State(gate): State<Gate>,
    Extension(Peer(from)): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let mut response = see_other("/sign-in");
    if let Some(cookie) = gate.close_session(&headers, from) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    flash::leave(gate.sessions.key(), &mut response, Tone::Good, "You are signed out.");
    response
}

/// Where it leads, if that is a page of ours and not the sign-in again.
fn own(next: Option<&str>) -> String {
    next.filter(|next| is_own_path(next) && !next.starts_with("/sign-in")).unwrap_or("/").to_owned()
}

/// Leads there, and says there what did not become of a form.
fn lead_on(gate: &Gate, next: &str, lost: bool) -> Response {
    if lost { lead(gate, next, Tone::Bad, NOT_DONE) } else { see_other(next) }
}

fn again(status: StatusCode, next: String, lost: bool, refusal: &str) -> Response {
    let (lost, refusal) = (if lost { Lost::Form } else { Lost::Nothing }, Some(Text::long(refusal)));
    page(status, console::html(&SignInPage { frame: Frame::bare("Sign in"), next, lost, refusal }))
}
