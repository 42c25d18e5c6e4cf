//! One table of routes: every method and path of the API and of the console, what it is for, and who may call it.
//!
//! The guard goes by it, so a handler that is not in the table cannot be reached; the tests walk it, role by role; and the OpenAPI
//! document is held against what is for programs.

use axum::http::Method;

use crate::model::Role;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Everybody: it tells no secret, or brings its own credential.
    Everybody,
    /// Callers with one of these roles.
    Roles(&'static [Role]),
}

/// For whom a route is, and so how it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Programs: errors are JSON, and the description tells of it.
    Programs,
    /// People with a browser: a stranger is led to the sign-in, and errors are pages.
    People,
}

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    /// As axum writes it: `{id}` is one segment.
    pub(super) path: &'static str,
    pub(super) who: Who,
    /// What it does, as the end of "may not ...".
    pub(super) what: &'static str,
    pub(super) whose: For,
}

impl Route {
    /// Whether somebody with this role may call it.
    pub(super) fn admits(&self, role: Role) -> bool {
        match self.who {
            Who::Everybody => true,
            Who::Roles(roles) => roles.contains(&role),
        }
    }
}

/// The table of contract 7, by who may do it.
const LOOK: Who = Who::Roles(&[Role::Auditor, Role::Analyst, Role::Admin]);
const ACT: Who = Who::Roles(&[Role::Analyst, Role::Admin]);
const CHANGE: Who = Who::Roles(&[Role::Admin]);
const PUBLISH: Who = Who::Roles(&[Role::Publisher]);
const SIGNED_IN: Who = Who::Roles(&Role::ALL);

/// Every route.
pub(super) static ROUTES: &[Route] = &[
    route(Method::GET, "/api/channels", LOOK, "look at channels"),
    route(Method::GET, "/api/channels/{id}", LOOK, "look at channels"),
    route(Method::PUT, "/api/channels/{id}", CHANGE, "change channels"),
    route(Method::DELETE, "/api/channels/{id}", CHANGE, "change channels"),
    route(Method::POST, "/api/channels/{id}/test", ACT, "test a channel"),
    route(Method::POST, "/api/channels/{id}/pause", ACT, "pause a channel"),
    route(Method::POST, "/api/channels/{id}/resume", ACT, "resume a channel"),
    route(Method::POST, "/api/explain", LOOK, "ask what a decision would match"),
    route(Method::GET, "/api/dead-letters", LOOK, "look at dead letters"),
    route(Method::GET, "/api/dead-letters/{id}", LOOK, "look at dead letters"),
    route(Method::POST, "/api/dead-letters/replay", ACT, "replay dead letters"),
    route(Method::POST, "/api/dead-letters/purge", CHANGE, "purge dead letters"),
    route(Method::GET, "/api/telemetry/decisions/export", LOOK, "export decisions"),
    route(Method::GET, "/api/decisions", LOOK, "look at decisions"),
    route(Method::GET, "/api/grants", LOOK, "look at grants"),
    route(Method::GET, "/api/approvals", LOOK, "look at approvals"),
    route(Method::GET, "/api/approvals/{id}", LOOK, "look at approvals"),
    route(Method::POST, "/api/approvals/{id}", ACT, "answer approvals"),
    route(Method::GET, "/api/session", SIGNED_IN, "ask who it is"),
    route(Method::POST, "/api/session", Who::Everybody, "sign in"),
    route(Method::DELETE, "/api/session", Who::Everybody, "sign out"),
    route(Method::GET, "/api/openapi.json", Who::Everybody, "read the description of the API"),
    route(Method::POST, "/v1/events", PUBLISH, "publish events"),
    route(Method::POST, "/v1/slack/interactions", Who::Everybody, "answer by Slack"),
    page(Method::GET, "/", LOOK, "look at the console"),
    page(Method::GET, "/sign-in", Who::Everybody, "sign in"),
    page(Method::POST, "/sign-in", Who::Everybody, "sign in"),
    page(Method::POST, "/sign-out", Who::Everybody, "sign out"),
    page(Method::GET, "/approvals", LOOK, "look at approvals"),
    page(Method::GET, "/approvals/{id}", LOOK, "look at approvals"),
    page(Method::POST, "/approvals/{id}", ACT, "answer approvals"),
    page(Method::GET, "/channels", LOOK, "look at channels"),
    page(Method::GET, "/add-channel", CHANGE, "change channels"),
    page(Method::GET, "/add-channel/{kind}", CHANGE, "change channels"),
    page(Method::POST, "/add-channel/{kind}", CHANGE, "change channels"),
    page(Method::GET, "/channels/{id}", LOOK, "look at channels"),
    page(Method::GET, "/channels/{id}/edit", CHANGE, "change channels"),
    page(Method::POST, "/channels/{id}/edit", CHANGE, "change channels"),
    page(Method::GET, "/channels/{id}/delete", CHANGE, "change channels"),
    page(Method::POST, "/channels/{id}/delete", CHANGE, "change channels"),
    page(Method::POST, "/channels/{id}/test", ACT, "test a channel"),
    page(Method::POST, "/channels/{id}/pause", ACT, "pause a channel"),
    page(Method::POST, "/channels/{id}/resume", ACT, "resume a channel"),
    page(Method::GET, "/decisions", LOOK, "look at decisions"),
    page(Method::GET, "/dead-letters", LOOK, "look at dead letters"),
    page(Method::GET, "/dead-letters/{id}", LOOK, "look at dead letters"),
    page(Method::GET, "/dead-letters/replay", ACT, "replay dead letters"),
    page(Method::POST, "/dead-letters/replay", ACT, "replay dead letters"),
    page(Method::GET, "/dead-letters/purge", CHANGE, "purge dead letters"),
    page(Method::POST, "/dead-letters/purge", CHANGE, "purge dead letters"),
    page(Method::GET, "/decisions/{id}", LOOK, "look at decisions"),
    page(Method::GET, "/assets/{name}", Who::Everybody, "load the console's look"),
];

const fn route(method: Method, path: &'static str, who: Who, what: &'static str) -> Route {
    Route { method, path, who, what, whose: For::Programs }
}

const fn page(method: Method, path: &'static str, who: Who, what: &'static str) -> Route {
    Route { method, path, who, what, whose: For::People }
}

/// The route with this method and path. Who may GET may ask for the HEAD alone.
pub(super) fn find(method: &Method, path: &str) -> Option<&'static Route> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    ROUTES.iter().find(|route| route.method == *method && route.path == path)
}

/// The methods that a path has, as an `Allow` header lists them.
pub(super) fn allowed(path: &str) -> String {
    let methods = ROUTES.iter().filter(|route| route.path == path).map(|route| match route.method.as_str() {
        "GET" => "GET, HEAD",
        other => other,
    });
    methods.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_route_is_listed_twice_and_nobody_but_publishers_may_publish() {
        for route in ROUTES {
            let same = |other: &&Route| other.method == route.method && other.path == route.path;
            assert_eq!(ROUTES.iter().filter(same).count(), 1, "{route:?}");
            assert!(find(&route.method, route.path).is_some_and(|found| std::ptr::eq(found, route)));
        }
        let may = |role: Role| {
            let of = |route: &&Route| matches!(route.who, Who::Roles(roles) if roles.contains(&role));
            ROUTES.iter().filter(of).map(|route| route.path).collect::<Vec<_>>()
        };
        assert_eq!(may(Role::Publisher), ["/api/session", "/v1/events"]);
        assert_eq!(allowed("/api/channels/{id}"), "GET, HEAD, PUT, DELETE");
    }

    #[test]
    fn no_route_takes_the_place_of_a_channel_whatever_its_id_is() {
        for path in ROUTES.iter().map(|route| route.path) {
            for root in ["/channels/", "/api/channels/"] {
                assert!(path.strip_prefix(root).is_none_or(|rest| rest.starts_with("{id}")), "{path}");
            }
        }
    }
}
