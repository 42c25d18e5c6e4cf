//! The guard: every request of the API and of the console passes it, and it goes by the one table of routes.
//!
//! It finds out who calls and turns away who may not, before a byte of the body is read. What is not in the table is not reached,
//! so nobody can forget to guard a handler. The handler finds the [`Caller`] in the request's extensions, and where the request
//! came from as [`Peer`].
//!
//! A browser sends its cookies with whatever request a page makes it send. So a request that changes something and is not proved
//! by a bearer token must come from our own pages (`cross_origin.rs`).
//!
//! Absent on purpose: a check of `Host` against DNS rebinding. A page that gets its own name to point here has neither our
//! cookie, which belongs to our name, nor a token; it can read no more than any stranger who reaches the port.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ALLOW, AUTHORIZATION},
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tracing::info;

use super::{
    Inside,
    access::{self, Identity, Stranger, Via},
    catalogue::{self, For, Route, Who},
    console, cross_origin,
    errors::{self, ApiError},
    pool::Pool,
    sessions::{self, Sessions},
    throttle::Throttle,
};
use crate::{model::Role, workers::Credential};

/// How much of a path that was refused stands in an audit line, in characters.
const SUBJECT_CHARS_MAX: usize = 200;

/// Where a request came from: the other end of the connection, or the caller before the proxies that are trusted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The name of the token, or of the one that the session was opened with.
    pub(super) name: String,
    /// What it may do.
    pub(super) role: Role,
    /// How it proved that.
    pub(super) via: Via,
    /// Where it calls from.
    pub(super) from: SocketAddr,
}

/// What it takes to know callers.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) inside: Inside,
    pub(super) sessions: Sessions,
    pub(super) throttle: Arc<Throttle>,
    /// All workers as one.
    pub(super) pool: Pool,
}

/// Lets pass who may.
pub(super) async fn guard(
    State(gate): State<Gate>,
    path: MatchedPath,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(route) = catalogue::find(request.method(), path.as_str()) else {
        let mut response = errors::wrong_method().await.into_response();
        if let Ok(methods) = HeaderValue::try_from(catalogue::allowed(path.as_str())) {
            response.headers_mut().insert(ALLOW, methods);
        }
        return response;
    };
    let from = gate.inside.terms.borrow().caller_address(peer, request.headers());
    match gate.admit(route, &request, from) {
        Ok(Some(caller)) => drop(request.extensions_mut().insert(caller)),
        Ok(None) => {}
        Err(error) => {
            return match route.whose {
                For::Programs => error.into_response(),
                For::People => console::refusal(&gate, &error, &request, path.as_str()),
            };
        }
    }
    request.extensions_mut().insert(Peer(from));
    next.run(request).await
}

impl Gate {
    fn admit(&self, route: &Route, request: &Request, from: SocketAddr) -> Result<Option<Caller>, ApiError> {
        let caller = match route.who {
            Who::Everybody => None,
            Who::Roles(_) => Some(self.caller(request.headers(), from)?),
        };
        let by_token = caller.as_ref().is_some_and(|caller| caller.via == Via::Token);
        if !by_token && !request.method().is_safe() {
            cross_origin::refuse(request.headers(), &self.inside.terms.borrow())?;
        }
        match (caller, route.who) {
            (Some(caller), Who::Roles(_)) if !route.admits(caller.role) => {
                let asked: String = request.uri().path().chars().take(SUBJECT_CHARS_MAX).collect();
                audit(&caller, "forbidden", &asked, &format!("refused: may not {}", route.what));
                Err(ApiError {
                    status: StatusCode::FORBIDDEN,
                    code: "forbidden",
                    message: format!("`{}` has the role `{}` and may not {}", caller.name, caller.role, route.what),
                    hint: "use a token with another role; the README says what each may do",
                })
            }
            (caller, _) => Ok(caller),
        }
    }

    /// What these headers of a caller prove who it is with, for the other workers of the pool: they check it as this one did, so a
    /// caller may there what it may there, and no worker trusts another. `None` where it cannot be handed on.
    pub(super) fn credential(caller: &Caller, headers: &HeaderMap) -> Option<Credential> {
        match caller.via {
            Via::Token => Credential::authorization(headers.get(AUTHORIZATION)?.clone()),
            Via::Session { .. } => Credential::cookies(&sessions::handed_on(headers)),
        }
    }

    /// Who sent these headers.
    pub(super) fn caller(&self, headers: &HeaderMap, from: SocketAddr) -> Result<Caller, Stranger> {
        let tokens = access::Tokens::clone(&self.inside.tokens.borrow());
        let known = access::identify(headers, &tokens, &self.sessions, self.inside.clock.now());
        if known == Err(Stranger::UnknownToken)
            && let Some(times) = self.throttle.unknown_token(from.ip())
        {
            let outcome = if times == 1 { String::from("refused") } else { format!("refused {times} times") };
            audit_stranger(from, "bearer_token", &outcome);
        }
        let Identity { name, role, via } = known?;
        Ok(Caller { name, role, via, from })
    }
}

/// An audit line: who did what, to what, with what outcome, and from where. Always at INFO, under a target of its own
/// (`interven_alerts::audit`), so that it can be told from everything else and kept for longer.
pub(super) fn audit(caller: &Caller, what: &'static str, subject: &str, outcome: &str) {
    info!(
        target: "interven_alerts::audit",
        what, subject, outcome,
        who = caller.name, role = %caller.role, via = caller.via.as_str(), from = %caller.from.ip(),
        "audit"
    );
}

/// An audit line about somebody who did not prove who it is.
pub(super) fn audit_stranger(from: SocketAddr, what: &'static str, outcome: &str) {
    info!(target: "interven_alerts::audit", what, outcome, from = %from.ip(), "audit");
}
