//! Sessions over real sockets: opened, used on every worker of the pool, closed, and kept from other sites' pages.

use super::*;

/// What came back: status, headers as they are, body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The cookie that it gave, as it is sent back.
    fn cookie(&self) -> String {
        let cookie = self.header("set-cookie").expect("a cookie").split(';').next().unwrap();
        format!("cookie: {cookie}\r\n")
    }

    fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

async fn send(house: &House, line: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: inside:8080\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    let answer = ask(house.doors.api, &request).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

const JSON: &str = "content-type: application/json\r\n";

async fn sign_in(house: &House, token: &str) -> Answer {
    send(house, "POST /api/session", JSON, &format!(r#"{{"token":"{token}"}}"#)).await
}

#[tokio::test]
async fn a_session_holds_on_every_worker_with_the_key_and_on_no_other() {
    let key = Key::random().unwrap();
    let (one, other) = (House::open_with(key.clone()).await, House::open_with(key).await);
    let answer = sign_in(&one, "analyst").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&body["name"], &body["role"]), (&"analyst".into(), &"analyst".into()));
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"), "{cookie}");
    let cookie = answer.cookie();
    for house in [&one, &other] {
        let who = send(house, "GET /api/session", &cookie, "").await;
        assert_eq!((who.status, who.body.as_str()), (200, answer.body.as_str()));
        assert_eq!(send(house, "GET /api/channels", &cookie, "").await.status, 200);
        assert_eq!(send(house, "POST /api/channels/soc/pause", &cookie, "").await.status, 404);
    }
    let stranger = House::open().await;
    let who = send(&stranger, "GET /api/session", &cookie, "").await;
    assert_eq!((who.status, who.header("www-authenticate")), (401, Some("Bearer")));
    // Another role is another session at once; no token is none.
    let analyst = (String::from("analyst"), Role::Auditor, Sha256::digest(b"analyst").into());
    other.tokens.send_replace(Tokens::from([analyst]));
    assert_eq!(send(&other, "POST /api/channels/soc/pause", &cookie, "").await.status, 403);
    other.tokens.send_replace(Tokens::from([]));
    assert_eq!(send(&other, "GET /api/channels", &cookie, "").await.status, 401);
}

#[tokio::test]
async fn signing_out_takes_the_cookie_and_may_be_done_twice() {
    let house = House::open().await;
    let cookie = sign_in(&house, "auditor").await.cookie();
    for cookie in [cookie.as_str(), "", "cookie: interven_session=junk\r\n"] {
        let answer = send(&house, "DELETE /api/session", cookie, "").await;
        let taken = answer.header("set-cookie").unwrap();
        assert_eq!(answer.status, 204);
        assert!(taken.starts_with("interven_session=; Path=/; Max-Age=0; HttpOnly"), "{taken}");
    }
    let by_token = send(&house, "GET /api/session", "authorization: Bearer auditor\r\n", "").await;
    assert_eq!(by_token.body, r#"{"expires_at":null,"name":"auditor","role":"auditor"}"#);
}

#[tokio::test]
async fn a_form_signs_in_and_leads_to_our_own_pages_only() {
    let house = House::open().await;
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    for (next, location) in
        [("", "/"), ("&next=%2Fapprovals%2Fapr_7", "/approvals/apr_7"), ("&next=%2F%2Fevil.example", "/")]
    {
        let answer = send(&house, "POST /api/session", form, &format!("token=analyst{next}")).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some(location)));
        assert_eq!(send(&house, "GET /api/session", &answer.cookie(), "").await.status, 200);
    }
    assert_eq!(send(&house, "POST /api/session", form, "token=wrong").await.status, 401);
}

#[tokio::test]
async fn what_another_sites_page_sends_with_our_cookie_is_refused() {
    let house = House::open().await;
    let cookie = sign_in(&house, "admin").await.cookie();
    let pause = "POST /api/channels/soc/pause";
    for (from, refused) in [
        ("", false),
        ("sec-fetch-site: same-origin\r\norigin: https://alerts.example.com\r\n", false),
        ("origin: http://inside:8080\r\n", false),
        ("origin: https://alerts.example.com\r\n", false),
        ("sec-fetch-site: cross-site\r\n", true),
        ("sec-fetch-site: same-site\r\n", true),
        ("origin: https://evil.example\r\n", true),
        ("origin: null\r\n", true),
    ] {
        let answer = send(&house, pause, &format!("{cookie}{from}"), "").await;
        assert_eq!(
            (answer.status, answer.code() == "cross_origin"),
            if refused { (403, true) } else { (404, false) },
            "{from}"
        );
        // Reading changes nothing, and its answer cannot be read by the page.
        assert_eq!(send(&house, "GET /api/channels", &format!("{cookie}{from}"), "").await.status, 200);
        // No page can send a bearer token from elsewhere without our leave.
        let token = format!("authorization: Bearer admin\r\n{from}");
        assert_eq!(send(&house, pause, &token, "").await.status, 404, "{from}");
        // Nor may a page sign its visitor in as somebody else, or out.
        let sign_in = send(&house, "POST /api/session", &format!("{JSON}{from}"), r#"{"token":"auditor"}"#).await;
        assert_eq!(sign_in.status, if refused { 403 } else { 200 }, "{from}");
        let sign_out = send(&house, "DELETE /api/session", &format!("{cookie}{from}"), "").await;
        assert_eq!(sign_out.status, if refused { 403 } else { 204 }, "{from}");
    }
}

#[tokio::test]
async fn who_fails_to_sign_in_ten_times_is_refused_unseen_and_a_known_token_still_passes() {
    let house = House::open().await;
    for attempt in 0..10 {
        let answer = sign_in(&house, &format!("guess-{attempt}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorised"));
        assert!(!answer.body.contains("guess"), "{}", answer.body);
        assert_eq!(answer.header("set-cookie"), None);
    }
    let answer = sign_in(&house, "analyst").await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "too_many_attempts"));
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&after), "{after}");
    assert_eq!(send(&house, "GET /api/channels", "authorization: Bearer analyst\r\n", "").await.status, 200);
}
