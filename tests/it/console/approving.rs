//! An approval, from the link of a card on another site to the answer, with scripts and without.

use std::time::Duration;

use interven_alerts::model::Clock;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::support::{
    browser::Browser,
    eventually,
    scene::{PUBLISHER, PUBLISHER_TOKEN, token_of},
    turn_of_the_heavy,
    worker::{PATIENCE, WorkerProcess, post_events},
};

/// Asks for this approval, and waits until the worker tells of it.
pub(super) async fn ask(worker: &WorkerProcess, approval: &str) {
    let now = Clock::System.now();
    let decision = json!({
        "id": format!("decision-{approval}"), "time": now, "decision": "REQUIRE_APPROVAL", "severity": "HIGH", "risk": 0.71,
        "title": "Secret egress blocked: <b>three</b> API keys in a message to #general", "tool": "slack",
        "agent": {"id": "agt_42", "name": "production-langgraph"}, "operation": "post_message",
        "reasons": ["PII_EGRESS", "SENSITIVE_DATA_EGRESS"], "src": "10.0.0.42",
        "approval": {"id": approval, "expires_at": now.plus(Duration::from_hours(1))},
    });
    let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), decision.to_string()).await.unwrap();
    assert_eq!(answer.0, 202, "{answer:?}");
    let path = format!("/api/approvals/{approval}");
    let known = async || (worker.api("GET", &path, "token-of-auditor", "").await.0 == 200).then_some(());
    eventually("the approval is known", PATIENCE, known).await;
}

/// A page on another site (`localhost` is another one than `127.0.0.1`) with a link, as a card has one.
async fn card(link: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
    let page = format!("<!doctype html><title>Card</title><a id=\"review\" href=\"{link}\">Review</a>");
    let reply = format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{page}", page.len());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let reply = reply.clone();
            tokio::spawn(async move {
                let mut request = [0; 4_096];
                while stream.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                    stream.write_all(reply.as_bytes()).await.ok();
                }
            });
        }
    });
    url
}

pub(super) async fn worker() -> WorkerProcess {
    let tokens = ["auditor", "analyst"].map(token_of).concat();
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{tokens}"));
    worker.start_ready().await;
    worker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_analyst_follows_a_cards_link_signs_in_approves_and_sees_who_answered_what() {
    let _turn = turn_of_the_heavy().await;
    let worker = worker().await;
    for approval in ["apr_7", "apr_8"] {
        ask(&worker, approval).await;
    }
    let page = format!("{}/approvals/apr_7", worker.server());
    let card = card(&page).await;
    let browser = Browser::start("approving", true).await;

    browser.go(&card).await;
    browser.click("#review").await;
    browser.until("Access token").await;
    browser.picture("sign-in").await;
    browser.type_into("#token", "wrong").await;
    browser.click("form .primary").await;
    browser.until("This token is not known.").await;
    browser.type_into("#token", "token-of-analyst").await;
    browser.click("form .primary").await;
    browser.until("May this call be made?").await;
    assert_eq!(browser.url().await, page, "the sign-in leads back");

    // The browser keeps the session back from the first request of another site's link. It must not be asked for again.
    browser.go(&card).await;
    browser.click("#review").await;
    let text = browser.until("May this call be made?").await;
    assert!(text.contains("production-langgraph") && text.contains("<b>three</b>"), "{text}");
    eventually("the mark is gone", PATIENCE, async || (browser.url().await == page).then_some(())).await;
    browser.picture("waiting").await;

    browser.click("#approve").await;
    let text = browser.until("The firewall has been told.").await;
    assert!(text.contains("Approved by the-analyst in the console"), "{text}");
    browser.picture("approved").await;
    let (_, said) = worker.api("GET", "/api/approvals/apr_7", "token-of-auditor", "").await;
    assert_eq!((&said["state"], &said["answer"]["via"]), (&json!("answered"), &json!("console")), "{said}");
    assert_eq!(worker.metrics().await.sum("approvals_total", &["via=\"console\""]), 1);

    // An answer from elsewhere shows without anybody's doing.
    browser.go(&format!("{}/approvals/apr_8", worker.server())).await;
    browser.until("May this call be made?").await;
    let denied = worker.api("POST", "/api/approvals/apr_8", "token-of-analyst", r#"{"answer":"deny"}"#).await;
    assert_eq!(denied.0, 200, "{denied:?}");
    browser.until("Denied by the-analyst in the API").await;
    browser.picture("denied").await;

    ask(&worker, "apr_9").await;
    for (path, name, says) in [("/", "overview", "Overview"), ("/approvals?show=all", "approvals", "Denied")] {
        browser.go(&format!("{}{path}", worker.server())).await;
        browser.until(says).await;
        browser.picture(name).await;
    }
    let complaints = browser.complaints().await;
    let broken: Vec<&String> = complaints.iter().filter(|line| !line.contains("401")).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    browser.click(".viewer button").await;
    browser.until("You are signed out.").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_scripts_an_approval_is_denied_all_the_same() {
    let _turn = turn_of_the_heavy().await;
    let worker = worker().await;
    ask(&worker, "apr_7").await;
    let card = card(&format!("{}/approvals/apr_7", worker.server())).await;
    let browser = Browser::start("without-scripts", false).await;
    browser.go(&card).await;
    browser.click("#review").await;
    browser.until("Access token").await;
    browser.type_into("#token", "token-of-analyst").await;
    browser.click("form .primary").await;
    browser.until("May this call be made?").await;
    // Signed in, and over the other site's link.
    browser.go(&card).await;
    browser.click("#review").await;
    browser.until("May this call be made?").await;
    browser.click("#deny").await;
    browser.until("Denied by the-analyst in the console").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_changes_by_itself_leaves_the_focus_and_what_somebody_types_where_they_are() {
    let _turn = turn_of_the_heavy().await;
    let worker = worker().await;
    ask(&worker, "apr_1").await;
    let browser = Browser::start("focus", true).await;
    browser.go(&format!("{}/approvals", worker.server())).await;
    browser.type_into("#token", "token-of-analyst").await;
    browser.click("form .primary").await;
    browser.until("apr_1").await;
    browser.tab_to("/approvals/apr_1").await;
    ask(&worker, "apr_2").await;
    browser.until("apr_2").await;
    assert_eq!(browser.focus().await, "/approvals/apr_1");

    // The session ends while somebody types: the page says that it is out of date, and stays.
    let page = format!("{}/dead-letters", worker.server());
    browser.go(&page).await;
    browser.type_into("#decision", "what I was looking for").await;
    browser.devtools("Network.clearBrowserCookies", json!({})).await;
    browser.until("Not up to date").await;
    assert_eq!((browser.url().await, browser.focus().await), (page, String::from("decision")));
}
