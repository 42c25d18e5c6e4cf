//! The console over real sockets: strangers are led to the sign-in and back, roles see what they may, answers count once.

mod channels;
mod dead_letters;
mod shown;

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::task::TaskTracker;

use crate::{
    approvals::{Deed, Name, Via},
    broker::{Destination, Message, Queue},
    http::tests::{House, ask},
    model::{Clock, Decision},
};

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn headers(&self, name: &str) -> Vec<&str> {
        self.head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
    }

    fn header(&self, name: &str) -> &str {
        self.headers(name).first().copied().unwrap_or_default()
    }

    /// The cookies that it gave, as a browser sends them back.
    fn cookies(&self) -> String {
        let pairs: Vec<&str> =
            self.headers("set-cookie").iter().filter_map(|cookie| cookie.split(';').next()).collect();
        format!("cookie: {}\r\n", pairs.join("; "))
    }
}

/// What a browser sends with a form of ours.
const OURS: &str = "sec-fetch-site: same-origin\r\nsec-fetch-mode: navigate\r\n";

async fn send(house: &House, line: &str, headers: &str, body: &str) -> Answer {
    let request = format!(
        "{line} HTTP/1.1\r\nhost: inside:8080\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = ask(house.doors.api, &request).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

async fn signed_in(house: &House, token: &str) -> String {
    let answer = send(house, "POST /sign-in", OURS, &format!("token={token}&next=/")).await;
    assert_eq!(answer.status, 303, "{}", answer.body);
    answer.cookies()
}

/// A page as somebody with this role sees it.
pub(in crate::http) async fn look(house: &House, role: &str, path: &str) -> String {
    look_with(house, role, path, "").await
}

/// The same with more cookies.
pub(in crate::http) async fn look_with(house: &House, role: &str, path: &str, cookies: &str) -> String {
    let session = signed_in(house, role).await;
    let page = send(house, &format!("GET {path}"), &format!("{}; {cookies}\r\n", session.trim_end()), "").await;
    assert_eq!(page.status, 200, "{}", page.body);
    page.body
}

/// A house whose worker has read what is asked for, and this is.
async fn house_asked(approval: &str) -> (House, TaskTracker) {
    let (house, tasks) = (House::open().await, TaskTracker::new());
    tasks.spawn(house.inside.approvals.clone().follow());
    let known = house.inside.approvals.until_known();
    tokio::time::timeout(Duration::from_secs(30), known).await.expect("what is asked for is read");
    ask_for(&house, approval, json!({}), 10).await;
    (house, tasks)
}

/// Asks for an approval, with these fields of its own, that can be answered for so many minutes; waits until the worker knows.
async fn ask_for(house: &House, approval: &str, fields: serde_json::Value, minutes: u64) {
    let (approvals, now) = (&house.inside.approvals, Clock::System.now());
    let mut decision = json!({
        "id": "d-1", "time": now, "decision": "REQUIRE_APPROVAL", "severity": "HIGH", "risk": 0.71,
        "title": "<script>alert(1)</script>", "agent": {"id": "agt_42", "name": "production"}, "tool": "slack",
        "operation": "post_message", "reasons": ["PII_EGRESS"],
        "approval": {"id": approval, "expires_at": now.plus(Duration::from_mins(minutes))},
    });
    for (key, value) in fields.as_object().unwrap() {
        decision[key] = value.clone();
    }
    let decision = Arc::new(Decision::decode(decision.to_string().into()).unwrap());
    approvals.note(Deed::Asked(decision)).await.unwrap();
    let known = async {
        while approvals.get(&Name::of(approval)).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), known).await.expect("the approval is heard of");
}

#[tokio::test]
async fn a_stranger_is_led_to_the_sign_in_and_back() {
    let house = House::open().await;
    let answer = send(&house, "GET /approvals?show=all", "", "").await;
    assert_eq!((answer.status, answer.header("location")), (303, "/sign-in?next=%2Fapprovals%3Fshow%3Dall"));
    let form = send(&house, "GET /sign-in?next=%2Fapprovals%3Fshow%3Dall", "", "").await;
    assert!(form.status == 200 && form.body.contains(r#"name="next" value="/approvals?show=all""#), "{}", form.body);
    // A form that was sent after the session ended leads to its page, and not to the form's fields.
    let answer = send(&house, "POST /approvals/apr_7", OURS, "answer=approve").await;
    assert_eq!((answer.status, answer.header("location")), (303, "/sign-in?next=%2Fapprovals%2Fapr_7&lost=1"));
    let wrong = send(&house, "POST /sign-in", OURS, "token=hush&next=/approvals").await;
    assert!(wrong.status == 401 && wrong.body.contains("not known") && !wrong.body.contains("hush"), "{}", wrong.body);
    for (next, location) in [("/approvals", "/approvals"), ("//evil.example", "/"), ("/sign-in", "/"), ("", "/")] {
        let answer = send(&house, "POST /sign-in", OURS, &format!("token=auditor&next={next}")).await;
        assert_eq!((answer.status, answer.header("location")), (303, location));
        assert_eq!(send(&house, "GET /approvals", &answer.cookies(), "").await.header("location"), "");
    }
    let cookie = signed_in(&house, "auditor").await;
    let again = send(&house, "GET /sign-in?next=/approvals", &cookie, "").await;
    assert_eq!((again.status, again.header("location")), (303, "/approvals"), "who is known has nothing to do there");
    let out = send(&house, "POST /sign-out", &format!("{cookie}{OURS}"), "").await;
    assert_eq!((out.status, out.header("location")), (303, "/sign-in"));
    assert!(out.headers("set-cookie").iter().any(|cookie| cookie.starts_with("interven_session=; ")), "{}", out.head);
}

#[tokio::test]
async fn whoever_sends_a_form_after_the_session_ended_is_told_before_and_after_the_sign_in_that_nothing_was_done() {
    let house = House::open().await;
    let led = send(&house, "POST /add-channel/slack", OURS, "id=soc&action=save").await;
    let form = send(&house, &format!("GET {}", led.header("location")), OURS, "").await;
    assert!(form.status == 200 && form.body.contains("What you have just sent was not saved"), "{}", form.body);
    assert!(form.body.contains(r#"name="lost" value="1""#), "{}", form.body);
    // A mistyped token does not lose it.
    let wrong = send(&house, "POST /sign-in", OURS, "token=hush&next=/add-channel/slack&lost=1").await;
    assert!(wrong.status == 401 && wrong.body.contains(r#"name="lost" value="1""#), "{}", wrong.body);
    let says = "Nothing was saved or done: you were not signed in any more";
    let opened = send(&house, "POST /sign-in", OURS, "token=admin&next=/add-channel/slack&lost=1").await;
    assert_eq!((opened.status, opened.header("location")), (303, "/add-channel/slack"));
    let page = send(&house, "GET /add-channel/slack", &opened.cookies(), "").await;
    assert!(page.status == 200 && page.body.contains(says), "{}", page.body);
    // Who has signed in elsewhere meanwhile is told, too.
    let session = signed_in(&house, "admin").await;
    let known = send(&house, &format!("GET {}", led.header("location")), &session, "").await;
    assert_eq!((known.status, known.header("location")), (303, "/add-channel/slack"));
    let cookies = format!("{}; {}", session.trim_end(), known.cookies().trim_start_matches("cookie: "));
    assert!(send(&house, "GET /add-channel/slack", &cookies, "").await.body.contains(says));
    // Whoever only looked has lost nothing.
    let looked = send(&house, "GET /approvals", OURS, "").await;
    assert_eq!(looked.header("location"), "/sign-in?next=%2Fapprovals");
    let opened = send(&house, "POST /sign-in", OURS, "token=admin&next=/approvals").await;
    assert!(!send(&house, "GET /approvals", &opened.cookies(), "").await.body.contains(says));
}

#[tokio::test]
async fn a_link_on_another_site_asks_again_from_here_once_and_then_leads_to_the_sign_in() {
    // Goal: a person who is signed in follows a link of a card, and the browser keeps the session back at first.
    let house = House::open().await;
    let elsewhere = "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n";
    let answer = send(&house, "GET /approvals/apr_7?a=%22%3E", elsewhere, "").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains(r#"content="0; url=/approvals/apr_7?a=%22%3E&#38;continued=1">"#), "{}", answer.body);
    // Whatever the browser says then, it is not asked a second time.
    for headers in [elsewhere, OURS] {
        let answer = send(&house, "GET /approvals/apr_7?a=1&continued=1", headers, "").await;
        assert_eq!((answer.status, answer.header("location")), (303, "/sign-in?next=%2Fapprovals%2Fapr_7%3Fa%3D1"));
    }
    // What is no navigation, and what changes something, is not repeated.
    let script = "sec-fetch-site: cross-site\r\nsec-fetch-mode: cors\r\n";
    assert_eq!(send(&house, "GET /approvals/apr_7", script, "").await.status, 303);
    assert_eq!(send(&house, "POST /approvals/apr_7", elsewhere, "answer=approve").await.status, 303);
}

#[tokio::test]
async fn an_approval_is_answered_once_by_who_may_and_the_page_says_by_whom() {
    let (house, _tasks) = house_asked("apr_7").await;
    let (auditor, analyst, admin) =
        (signed_in(&house, "auditor").await, signed_in(&house, "analyst").await, signed_in(&house, "admin").await);
    for path in ["/", "/approvals"] {
        let list = send(&house, &format!("GET {path}"), &auditor, "").await;
        assert!(list.status == 200 && list.body.contains(r#"href="/approvals/apr_7""#), "{}", list.body);
    }
    let look = async |cookie: &str| send(&house, "GET /approvals/apr_7", cookie, "").await;
    let page = look(&auditor).await;
    assert!(page.status == 200 && page.body.contains("takes the role analyst or admin"), "{}", page.body);
    assert!(!page.body.contains("<button id=") && !page.body.contains("<script>alert"), "{}", page.body);
    let refused = send(&house, "POST /approvals/apr_7", &format!("{auditor}{OURS}"), "answer=approve").await;
    assert!(refused.status == 403 && refused.body.contains("may not answer approvals"), "{}", refused.body);
    let foreign = format!("{analyst}sec-fetch-site: cross-site\r\n");
    let refused = send(&house, "POST /approvals/apr_7", &foreign, "answer=approve").await;
    assert!(refused.status == 403 && refused.body.starts_with("<!doctype html>"), "{}", refused.body);
    let nothing = send(&house, "POST /approvals/apr_7", &format!("{analyst}{OURS}"), "answer=maybe").await;
    assert_eq!(nothing.status, 400);
    assert!(look(&analyst).await.body.contains(r#"<button id="approve""#));

    let done = send(&house, "POST /approvals/apr_7", &format!("{analyst}{OURS}"), "answer=approve").await;
    assert_eq!((done.status, done.header("location")), (303, "/approvals/apr_7"), "{}", done.body);
    let said = format!("{}; {}", analyst.trim_end(), done.cookies().trim_start_matches("cookie: "));
    let page = look(&said).await;
    assert!(page.body.contains("Approved. It is granted until"), "{}", page.body);
    assert!(page.header("set-cookie").starts_with("interven_said=; Path=/; Max-Age=0"), "{}", page.head);
    let page = look(&analyst).await;
    assert!(!page.body.contains("It is granted until"), "it is said once: {}", page.body);
    assert!(page.body.contains("<b>Approved</b> by <b>analyst</b> in the console"), "{}", page.body);

    let late = send(&house, "POST /approvals/apr_7", &format!("{admin}{OURS}"), "answer=deny").await;
    let said = format!("{}; {}", admin.trim_end(), late.cookies().trim_start_matches("cookie: "));
    let page = look(&said).await;
    assert!(page.body.contains("Too late: it was approved by analyst in the console at "), "{}", page.body);
    let approval = house.inside.approvals.get(&Name::of("apr_7")).unwrap();
    assert_eq!(approval.answer.as_ref().map(|click| click.via), Some(Via::Console));
}

#[tokio::test]
async fn what_is_not_there_is_said_on_a_page() {
    let (house, _tasks) = house_asked("apr_7").await;
    let analyst = signed_in(&house, "analyst").await;
    for line in ["GET /approvals/other", "GET /approvals/%ff", "POST /approvals/other"] {
        let answer = send(&house, line, &format!("{analyst}{OURS}"), "answer=deny").await;
        assert!(answer.status == 404 && answer.body.contains("There is no such approval"), "{line}: {}", answer.body);
    }
    // This worker keeps no decisions.
    let answer = send(&house, "GET /decisions/d-1", &analyst, "").await;
    assert!(answer.status == 503 && answer.body.contains("could not be looked up"), "{}", answer.body);
}

#[tokio::test]
async fn nobody_else_can_put_words_into_the_consoles_mouth() {
    let house = House::open().await;
    let auditor = signed_in(&house, "auditor").await;
    let forged = format!("{}; interven_said=good:All is well\r\n", auditor.trim_end());
    let page = send(&house, "GET /approvals", &forged, "").await;
    assert!(page.status == 200 && !page.body.contains("All is well"), "{}", page.body);
}

#[tokio::test]
async fn pages_are_strict_and_their_look_is_kept_for_ever_under_its_own_name() {
    let house = House::open().await;
    let auditor = signed_in(&house, "auditor").await;
    for (path, cookie) in [("/", auditor.as_str()), ("/approvals", &auditor), ("/sign-in", "")] {
        let page = send(&house, &format!("GET {path}"), cookie, "").await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{}", page.body);
        assert_eq!(page.headers("content-security-policy"), [super::POLICY]);
        assert_eq!((page.header("cache-control"), page.header("x-frame-options")), ("no-store", "DENY"));
        let assets: Vec<&str> =
            page.body.split("\"/assets/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(assets.len(), 2);
        for name in assets {
            let asset = send(&house, &format!("GET /assets/{name}"), "", "").await;
            assert_eq!(asset.header("cache-control"), "public, max-age=31536000, immutable");
            assert!(
                asset.status == 200 && asset.body.len() > 1_000 && asset.header("content-type").starts_with("text/")
            );
        }
    }
    assert_eq!(send(&house, "GET /assets/console.css", "", "").await.status, 404);
}

#[tokio::test]
async fn who_may_not_change_channels_sees_nothing_to_change_them_with_and_is_refused() {
    let house = House::open().await;
    house.show_channel("soc");
    let (auditor, analyst, admin) =
        (signed_in(&house, "auditor").await, signed_in(&house, "analyst").await, signed_in(&house, "admin").await);
    for path in ["/channels", "/channels/soc", "/"] {
        let page = send(&house, &format!("GET {path}"), &auditor, "").await;
        let forms: Vec<&str> = page.body.split("<form").skip(1).filter_map(|rest| rest.split('>').next()).collect();
        assert_eq!(forms, [r#" method="post" action="/sign-out""#], "{path}: {}", page.body);
        assert!(!page.body.contains("/add-channel") && !page.body.contains("/edit"), "{path}: {}", page.body);
        assert!(page.status == 200 && page.body.contains("soc") || path == "/", "{path}: {}", page.body);
    }
    let page = send(&house, "GET /channels/soc", &analyst, "").await;
    assert!(page.body.contains(r#"id="pause""#) && !page.body.contains("/channels/soc/edit"), "{}", page.body);
    let page = send(&house, "GET /channels", &admin, "").await;
    assert!(page.body.contains(r#"href="/add-channel""#), "{}", page.body);
    for cookie in [&auditor, &analyst] {
        for line in [
            "GET /add-channel",
            "GET /add-channel/slack",
            "POST /add-channel/slack",
            "GET /channels/soc/edit",
            "POST /channels/soc/edit",
            "GET /channels/soc/delete",
            "POST /channels/soc/delete",
        ] {
            let answer = send(&house, line, &format!("{cookie}{OURS}"), "").await;
            assert!(answer.status == 403 && answer.body.contains("may not change channels"), "{line}: {}", answer.body);
            assert!(answer.body.contains(r#"aria-label="Console""#), "it is in the frame: {}", answer.body);
        }
    }
    let foreign = format!("{admin}sec-fetch-site: cross-site\r\n");
    for line in ["POST /add-channel/slack", "POST /channels/soc/edit", "POST /channels/soc/delete"] {
        let answer = send(&house, line, &foreign, "id=x&action=save").await;
        assert!(answer.status == 403 && answer.body.starts_with("<!doctype html>"), "{line}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_channel_may_be_called_as_anything_is_that_the_console_does() {
    let house = House::open().await;
    let admin = signed_in(&house, "admin").await;
    for id in ["new", "add-channel", "edit"] {
        let version = uuid::Uuid::now_v7();
        house.show(id, json!({"id": id, "kind": "slack", "source": "api", "version": version, "config": {}}));
        for (path, says) in [
            (format!("/channels/{id}"), format!(r#"href="/channels/{id}/edit""#)),
            (format!("/channels/{id}/edit"), format!("<h1>Edit {id}</h1>")),
            (format!("/channels/{id}/delete"), format!("<h1>Delete {id}?</h1>")),
        ] {
            let page = send(&house, &format!("GET {path}"), &admin, "").await;
            assert!(page.status == 200 && page.body.contains(&says), "{path}: {} {}", page.status, page.body);
        }
        let tested =
            send(&house, &format!("POST /channels/{id}/test"), &format!("{admin}{OURS}"), "back=channel").await;
        assert_eq!((tested.status, tested.header("location")), (303, &*format!("/channels/{id}")), "{}", tested.body);
    }
}

#[tokio::test]
async fn a_channel_of_the_file_is_read_only_and_what_is_not_there_is_said() {
    let house = House::open().await;
    house.show_channel("soc");
    let admin = signed_in(&house, "admin").await;
    for (line, status, says) in [
        ("GET /channels/soc/edit", 409, "is of the worker&#39;s configuration file, and is read-only here"),
        ("POST /channels/soc/edit", 409, "is of the worker&#39;s configuration file, and is read-only here"),
        ("GET /channels/soc/delete", 409, "is of the worker&#39;s configuration file, and is read-only here"),
        ("GET /channels/other", 404, "There is no channel “other”"),
        ("GET /channels/other/edit", 404, "There is no channel “other”"),
        ("GET /channels/other/delete", 404, "There is no channel “other”"),
        ("GET /channels/%ff", 404, "There is no channel"),
        ("GET /add-channel/pager", 404, "There is no such kind of channel"),
        ("POST /add-channel/pager", 404, "There is no such kind of channel"),
    ] {
        let answer = send(&house, line, &format!("{admin}{OURS}"), "action=save").await;
        assert!(answer.status == status && answer.body.contains(says), "{line}: {} {}", answer.status, answer.body);
        assert!(answer.body.contains(r#"aria-label="Console""#), "it is in the frame: {}", answer.body);
    }
}

#[tokio::test]
async fn whoever_deletes_a_channel_is_told_how_many_wait_at_that_moment_and_never_that_none_do_where_that_is_not_known()
{
    let house = House::open().await;
    let admin = signed_in(&house, "admin").await;
    // No lane runs for it here, so no metric ever tells of its queue.
    let version = uuid::Uuid::now_v7();
    house.show("soc", json!({"id": "soc", "kind": "slack", "source": "api", "version": version, "config": {}}));
    let page = async || send(&house, "GET /channels/soc/delete", &admin, "").await.body;
    assert!(page().await.contains("Nothing waits for it."), "{}", page().await);
    for (id, says) in [("1", "<b>1</b> delivery waits for it."), ("2", "<b>2</b> deliveries wait for it.")] {
        let to = Destination::Queue(Queue::Lane("soc".parse().unwrap()));
        house.inside.broker.publish(Message { to, id: id.to_owned(), body: "{}".into() }).await.unwrap();
        assert!(page().await.contains(says), "{}", page().await);
    }
    house.inside.broker.close().await;
    let page = page().await;
    assert!(page.contains("It is not known how many deliveries wait for it"), "{page}");
    assert!(!page.contains("Nothing waits for it"), "{page}");
}

#[tokio::test]
async fn a_channel_that_is_larger_than_the_api_takes_is_not_taken_from_a_form_either() {
    let house = House::open().await;
    let admin = signed_in(&house, "admin").await;
    let form = async |agents: usize| {
        let agents = (0..agents).map(|at| format!("agent-{at:07}")).collect::<Vec<_>>().join("%0D%0A");
        let body = format!("id=soc&events=DENY&webhook_url=https%3A%2F%2Fhooks.slack.com%2Fx&agents={agents}");
        send(&house, "POST /add-channel/slack", &format!("{admin}{OURS}"), &body).await
    };
    let large = form(5_000).await;
    assert!(large.status == 422 && large.body.contains("The channel is larger than 64 KiB"), "{}", large.body);
    assert!(large.body.contains("agent-0004999</textarea>"), "nothing of it is lost");
    let fits = form(3_000).await;
    assert!(!fits.body.contains("larger than"), "{}", fits.body);
}

#[tokio::test]
async fn a_channel_is_not_paused_for_a_reason_that_would_be_lost_or_cut() {
    let house = House::open().await;
    house.show_channel("soc");
    let analyst = signed_in(&house, "analyst").await;
    for (chars, to, says) in [(501, "/channels/soc", "longer than 500 characters"), (20_000, "/channels", "too large")]
    {
        let body = format!("back=channel&why={}", "a".repeat(chars));
        let answer = send(&house, "POST /channels/soc/pause", &format!("{analyst}{OURS}"), &body).await;
        assert_eq!((answer.status, answer.header("location")), (303, to), "{}", answer.body);
        let cookies = format!("{}; {}", analyst.trim_end(), answer.cookies().trim_start_matches("cookie: "));
        let page = send(&house, &format!("GET {to}"), &cookies, "").await;
        assert!(page.body.contains("Nothing was done: the ") && page.body.contains(says), "{}", page.body);
    }
}

#[tokio::test]
async fn who_is_refused_is_led_to_the_nearest_page_that_they_may_look_at() {
    let house = House::open().await;
    house.show_channel("soc");
    let (auditor, admin) = (signed_in(&house, "auditor").await, signed_in(&house, "admin").await);
    let foreign = "sec-fetch-site: cross-site\r\n";
    let bearer = "authorization: Bearer auditor\r\n";
    for (line, who, from, to) in [
        ("POST /channels/soc/edit", &*auditor, OURS, "/channels/soc"),
        ("GET /channels/soc/delete", &auditor, OURS, "/channels/soc"),
        ("POST /channels/soc/pause", &auditor, OURS, "/channels/soc"),
        ("GET /channels/soc/edit", bearer, OURS, "/channels/soc"),
        ("POST /channels/soc/edit", &admin, foreign, "/channels/soc/edit"),
        ("GET /add-channel/slack", &auditor, OURS, "/"),
        ("GET /channels", "authorization: Bearer right\r\n", OURS, "/sign-in"),
    ] {
        let page = send(&house, line, &format!("{who}{from}"), "").await;
        let way = format!("<a class=\"button\" href=\"{to}\">");
        assert!(page.status == 403 && page.body.contains(&way), "{line}: {} {}", page.status, page.body);
    }
    // A token is known as a session is.
    let lost = send(&house, "GET /nothing", &format!("{bearer}accept: text/html\r\n"), "").await;
    assert!(lost.status == 404 && lost.body.contains(r#"href="/">Overview"#), "{}", lost.body);
}

#[tokio::test]
async fn a_form_that_does_not_say_what_it_was_made_upon_blames_nobody_and_saves_nothing() {
    let house = House::open().await;
    let admin = signed_in(&house, "admin").await;
    let version = uuid::Uuid::now_v7();
    let config = json!({"kind": "slack", "webhook_url": "https://hooks.slack.com/...abcd", "agents": ["agt_7"]});
    let told = json!({"id": "soc", "kind": "slack", "source": "api", "version": version, "config": config});
    house.show("soc", told);
    for body in ["", "kind=slack&action=save", "version=&kind=pager", "version=&action=save"] {
        let page = send(&house, "POST /channels/soc/edit", &format!("{admin}{OURS}"), body).await;
        assert!(page.status == 422 && page.body.contains("did not arrive as it was made"), "{body}: {}", page.body);
        assert!(!page.body.contains("while you edited it") && page.body.contains("agt_7</textarea>"), "{}", page.body);
    }
}

#[tokio::test]
async fn a_channel_that_this_worker_cannot_read_says_so_and_can_be_entered_anew_if_its_kind_is_known() {
    let house = House::open().await;
    let admin = signed_in(&house, "admin").await;
    let show = |kind: &str| {
        let told = json!({
            "id": "soc", "kind": kind, "source": "api", "version": uuid::Uuid::now_v7(), "config": null,
            "changed_by": "otto", "unreadable": "it was sealed with another key than this worker has",
        });
        house.show("soc", told);
    };
    show("slack");
    let page = send(&house, "GET /channels/soc", &admin, "").await;
    assert!(
        page.body.contains("it was sealed with another key") && page.body.contains("last by <b>otto</b>"),
        "{}",
        page.body
    );
    let page = send(&house, "GET /", &admin, "").await;
    assert!(page.body.contains("soc cannot be read by a worker: it tells nobody there"), "{}", page.body);
    let form = send(&house, "GET /channels/soc/edit", &admin, "").await;
    assert!(form.status == 200 && form.body.contains("This worker cannot read the channel"), "{}", form.body);
    show("pager");
    let form = send(&house, "GET /channels/soc/edit", &admin, "").await;
    assert!(form.status == 409 && form.body.contains("of a kind that this worker does not know"), "{}", form.body);
}

#[tokio::test]
async fn without_a_key_the_page_says_that_no_channel_can_be_added_and_what_to_do() {
    let house = House::open_without_key().await;
    let admin = signed_in(&house, "admin").await;
    for path in ["/add-channel", "/add-channel/slack"] {
        let page = send(&house, &format!("GET {path}"), &admin, "").await;
        assert!(page.status == 503 && page.body.contains("Set INTERVEN_ALERTS_KEY"), "{path}: {}", page.body);
    }
}

#[tokio::test]
async fn errors_are_pages_for_people_and_json_for_programs() {
    let house = House::open().await;
    let auditor = signed_in(&house, "auditor").await;
    let browser = format!("{auditor}accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n");
    let long = "a".repeat(9_000);
    for (line, status, says) in [
        ("GET /nothing", 404, "There is nothing here"),
        ("GET /channels/soc/nothing", 404, "There is nothing here"),
        ("DELETE /channels", 405, "This cannot be done here"),
        (&format!("GET /{long}"), 414, "That was too much"),
    ] {
        let page = send(&house, line, &browser, "").await;
        assert!(page.status == status && page.body.contains(says), "{line}: {}", page.body);
        assert!(page.body.starts_with("<!doctype html>") && page.body.contains("<b>auditor</b>"), "{}", page.body);
        assert_eq!(page.headers("content-type"), ["text/html; charset=utf-8"]);
        assert_eq!(page.headers("content-security-policy"), [super::POLICY]);
        let program = send(&house, line, &auditor, "").await;
        assert!(program.status == status && program.body.starts_with(r#"{"error":{"#), "{line}: {}", program.body);
    }
    let refused = send(&house, "DELETE /channels", &browser, "").await;
    assert_eq!(refused.header("allow").replace(' ', ""), "GET,HEAD");
    let stranger = send(&house, "GET /nothing", "accept: text/html\r\n", "").await;
    assert!(stranger.status == 404 && !stranger.body.contains(r#"aria-label="Console""#), "{}", stranger.body);
    for line in ["GET /api/nothing", "GET /v1/nothing", "GET /api/channels/nothing"] {
        let answer = send(&house, line, &browser, "").await;
        assert!(answer.status == 404 && answer.body.starts_with(r#"{"error":{"#), "{line}: {}", answer.body);
    }
}
