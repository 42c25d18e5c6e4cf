//! Every role against every route, by every way to say who one is.

use std::collections::BTreeSet;

use super::*;
use crate::{
    http::catalogue::{For, ROUTES, Route, Who},
    model::Timestamp,
};

/// What is sent to say who calls, and the role that it proves.
struct Credential {
    what: String,
    header: String,
    role: Option<Role>,
}

/// The routes that check a credential of their own.
const OWN_CREDENTIAL: [&str; 1] = ["/v1/slack/interactions"];

/// A session of the caller with this token.
fn session(key: &Key, (name, token): (&str, &str), role: Role, opened: Timestamp) -> String {
    let entry = (name.to_owned(), role, Sha256::digest(token.as_bytes()).into());
    let (session, _) = Sessions::new(key.clone()).open(&entry, opened, Duration::from_hours(1)).unwrap();
    format!("cookie: interven_session={session}\r\n")
}

fn credentials(key: &Key) -> Vec<Credential> {
    let now = Clock::System.now();
    let strange = |what: &str, header: String| Credential { what: what.to_owned(), header, role: None };
    let long_ago = Timestamp::from_unix_millis(now.unix_millis() - 3_600_000);
    let admin = ("admin", "admin");
    let mut forged = session(key, admin, Role::Admin, now);
    let at = forged.len() - 10;
    forged.replace_range(at..=at, if forged.as_bytes()[at] == b'A' { "B" } else { "A" });
    let mut all = vec![
        strange("nothing", String::new()),
        strange("an unknown token", String::from("authorization: Bearer nobody\r\n")),
        strange("a token in another scheme", String::from("authorization: Basic admin\r\n")),
        strange("a forged cookie", forged),
        strange("an old cookie", session(key, admin, Role::Admin, long_ago)),
        strange("a cookie of another pool", session(&Key::random().unwrap(), admin, Role::Admin, now)),
        strange("a cookie of a replaced token", session(key, ("admin", "before"), Role::Admin, now)),
        strange(
            "an unknown token beside a good cookie",
            format!("authorization: Bearer nobody\r\n{}", session(key, admin, Role::Admin, now)),
        ),
    ];
    for role in Role::ALL {
        let (name, token) =
            if role == Role::Publisher { ("firewall", "right") } else { (role.as_str(), role.as_str()) };
        let bearer = format!("authorization: Bearer {token}\r\n");
        all.push(Credential { what: format!("the token of {name}"), header: bearer, role: Some(role) });
        let cookie = session(key, (name, token), role, now);
        all.push(Credential { what: format!("the session of {name}"), header: cookie, role: Some(role) });
    }
    all
}

/// One that there is.
fn asset_name() -> &'static str {
    let page = crate::console::html(&crate::console::ContinuePage {
        frame: crate::console::Frame::bare(""),
        to: String::new(),
    });
    let name = page.split("/assets/").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    String::leak(name)
}

fn request(route: &Route, header: &str) -> String {
    let path = route.path.replace("{id}", "nothing").replace("{name}", asset_name()).replace("{kind}", "slack");
    let body = if route.method.is_safe() { "" } else { "{}" };
    format!(
        "{} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n{header}\
         content-length: {}\r\n\r\n{body}",
        route.method,
        body.len()
    )
}

#[tokio::test]
async fn on_every_route_every_role_may_do_what_the_table_says_and_nobody_else_may() {
    let key = Key::random().unwrap();
    let house = House::open_with(key.clone()).await;
    let (mut faults, mut refused, mut passed) = (Vec::new(), 0, BTreeSet::new());
    for route in ROUTES {
        for Credential { what, header, role } in credentials(&key) {
            let answer = ask(house.doors.api, &request(route, &header)).await;
            let status: u16 = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
            let expected = match (route.who, role) {
                (Who::Everybody, _) => None,
                (Who::Roles(roles), Some(role)) if roles.contains(&role) => None,
                (Who::Roles(_), Some(_)) => Some(403),
                // A person is led to the sign-in.
                (Who::Roles(_), None) if route.whose == For::People => Some(303),
                (Who::Roles(_), None) => Some(401),
            };
            let own = OWN_CREDENTIAL.contains(&route.path) && status == 401;
            let led = status == 303 && !answer.contains("\r\nlocation: /sign-in?next=");
            let fault = match expected {
                Some(expected) => status != expected || led,
                // Whatever else it is that an empty request comes to there.
                None => matches!(status, 401 | 403 | 405 | 500) && !own || answer.contains(r#""code":"not_found""#),
            };
            if fault {
                faults.push(format!("{} {} with {what}: {status}, and not {expected:?}", route.method, route.path));
            }
            if expected.is_some() {
                refused += 1;
            } else {
                passed.insert((route.method.as_str(), route.path));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(passed.len(), ROUTES.len(), "somebody may on every route");
    assert!(refused > 8 * 15, "too few were refused to show anything: {refused}");
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_refused_with_those_that_it_has() {
    let house = House::open().await;
    for (method, path, allow) in [
        ("DELETE", "/v1/events", "POST"),
        ("PATCH", "/api/channels/soc/pause", "POST"),
        ("OPTIONS", "/api/session", "GET, HEAD, POST, DELETE"),
        ("TRACE", "/api/channels", "GET, HEAD"),
    ] {
        let answer =
            ask(house.doors.api, &format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 405") && answer.contains(r#""code":"method_not_allowed""#), "{answer}");
        let said = answer.lines().find_map(|line| line.strip_prefix("allow: ")).unwrap_or_default();
        let methods = |list: &str| list.split(',').map(|one| one.trim().to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(methods(said), methods(allow), "{method} {path}: {answer}");
    }
    let answer = ask(
        house.doors.api,
        "HEAD /api/channels HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer auditor\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_keep_browsers_in_their_place() {
    let house = House::open().await;
    let everywhere = [
        "cache-control: no-store\r\n",
        "x-content-type-options: nosniff\r\n",
        "referrer-policy: no-referrer\r\n",
        "content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n",
        "x-frame-options: DENY\r\n",
        "cross-origin-resource-policy: same-origin\r\n",
        "cross-origin-opener-policy: same-origin\r\n",
    ];
    for (address, path, https) in [
        (house.doors.api, "/api/channels", true),
        (house.doors.api, "/api/openapi.json", true),
        (house.doors.api, "/nothing", true),
        (house.doors.api, "/v1/events", true),
        (house.doors.metrics, "/metrics", false),
        (house.doors.metrics, "/nothing", false),
    ] {
        let answer = get(address, path).await;
        for header in everywhere {
            assert!(answer.contains(header), "{path} without {header}: {answer}");
        }
        assert_eq!(answer.contains("strict-transport-security: max-age="), https, "{path}: {answer}");
        assert!(!answer.contains("access-control-"), "{answer}");
    }
    house.terms.send_replace(Arc::new(terms::Terms::new(
        "http://alerts.example.com",
        Duration::from_hours(1),
        Vec::new(),
    )));
    assert!(!get(house.doors.api, "/nothing").await.contains("strict-transport-security"));
}
