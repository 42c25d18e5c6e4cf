//! The guard: every request of the API passes it, and it goes by the one table of routes.
//!
//! It finds out who calls and turns away who may not, before a byte of the body is read. What is not in the table is not reached,
//! so nobody can forget to guard a handler. The handler finds the [`Caller`] in the request's extensions.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State, connect_info::Connected},
    http::{HeaderValue, StatusCode, header::ALLOW},
    middleware::Next,
    response::{IntoResponse as _, Response},
    serve::IncomingStream,
};

use super::{
    Inside, access,
    catalogue::{self, Route, Who},
    errors::{self, ApiError},
    guests::Places,
};
use crate::model::Role;

/// Where a request came from: the address at the other end of the connection, which may be a proxy's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Connected<IncomingStream<'_, Places>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Places>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The name of the token, or of the one that the session was opened with.
    pub(super) name: String,
    /// What it may do.
    pub(super) role: Role,
    /// Where it calls from.
    pub(super) from: SocketAddr,
}

/// Lets pass who may.
pub(super) async fn guard(
    State(inside): State<Inside>,
    path: MatchedPath,
    ConnectInfo(Peer(from)): ConnectInfo<Peer>,
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
    match admit(route, &request, &inside, from) {
        Ok(Some(caller)) => drop(request.extensions_mut().insert(caller)),
        Ok(None) => {}
        Err(error) => return error.into_response(),
    }
    request.extensions_mut().insert(Peer(from));
    next.run(request).await
}

fn admit(route: &Route, request: &Request, inside: &Inside, from: SocketAddr) -> Result<Option<Caller>, ApiError> {
    let Who::Roles(roles) = route.who else { return Ok(None) };
    let tokens = access::Tokens::clone(&inside.tokens.borrow());
    let (name, role) = access::caller(request.headers(), &tokens)?;
    if roles.contains(&role) {
        return Ok(Some(Caller { name, role, from }));
    }
    Err(ApiError {
        status: StatusCode::FORBIDDEN,
        code: "forbidden",
        message: format!("`{name}` has the role `{role}` and may not {}", route.what),
        hint: "use a token with another role; the README says what each may do",
    })
}

/// An audit line: who did what, to what, with what outcome, and from where. Always at INFO, under a target of its own
/// (`interven_alerts::audit`), so that it can be told from everything else and kept for longer.
pub(super) fn audit(caller: &Caller, what: &'static str, subject: &str, outcome: &str) {
    tracing::info!(
        target: "interven_alerts::audit",
        what, subject, outcome,
        who = caller.name, role = %caller.role, from = %caller.from.ip(),
        "audit"
    );
}
