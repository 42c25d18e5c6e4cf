//! What pages show: names as they are, all that waits, what a search looks for, and why somebody is asked to sign in.

use super::*;

#[tokio::test]
async fn what_cannot_be_seen_in_a_name_is_marked_where_it_is_approved() {
    let (house, _tasks) = house_asked("apr_7").await;
    for (id, tool) in [("apr_8", "abc\u{202e}gnp"), ("apr_9", "\u{200b}")] {
        ask_for(
            &house,
            id,
            json!({"tool": tool, "operation": "\u{2060} ", "agent": {"id": "\u{200b}\u{200b}", "name": " "}}),
            10,
        )
        .await;
    }
    let page = look(&house, "analyst", "/approvals/apr_8").await;
    for says in [
        "<code><bdi>abc[U+202E]gnp</bdi></code>",
        "<code><bdi>[U+2060][U+0020]</bdi></code>",
        "<b><bdi>[U+0020]</bdi></b> <code><bdi>[U+200B x2]</bdi></code>",
        "<title>abc[U+202E]gnp.[U+2060][U+0020] · Approval · Interven Alerts</title>",
    ] {
        assert!(page.contains(says), "{says}: {page}");
    }
    let list = look(&house, "analyst", "/").await;
    assert!(list.contains("<bdi>[U+200B]</bdi><wbr>.<bdi>[U+2060][U+0020]</bdi>"), "{list}");
}

#[tokio::test]
async fn those_that_expire_first_are_shown_first_and_all_that_wait_can_be_reached_and_are_counted() {
    let (house, _tasks) = house_asked("apr_last").await;
    // The later it is asked for, the more time is left, but for one; the newest are not those that matter.
    for at in 0..101_u64 {
        ask_for(&house, &format!("apr-{at:03}"), json!({}), 20 + at).await;
    }
    ask_for(&house, "apr_soon", json!({}), 5).await;
    let ids = |page: &str| -> Vec<String> {
        let links = page.split("href=\"/approvals/").skip(1);
        links.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    };
    let page = look(&house, "auditor", "/approvals").await;
    let first = ids(&page);
    assert_eq!((first.len(), &*first[0], &*first[1], &*first[2]), (100, "apr_soon", "apr_last", "apr-000"));
    assert!(page.contains("1 to 100 of 103, those that expire first at the top"), "{page}");
    let next = "/approvals?show=waiting&#38;before=100";
    assert!(page.contains(&format!("id=\"next\" href=\"{next}\">Next 3</a>")), "{page}");
    for address in [next.replace("&#38;", "&"), String::from("/approvals?before=4000000000")] {
        let page = look(&house, "auditor", &address).await;
        assert_eq!(ids(&page), ["apr-098", "apr-099", "apr-100"]);
        assert!(
            page.contains("show=waiting&#38;before=0\">Previous 100</a>") && !page.contains("id=\"next\""),
            "{page}"
        );
    }
    let page = look(&house, "auditor", "/").await;
    assert_eq!((ids(&page).len(), &*ids(&page)[0]), (10, "apr_soon"));
    assert!(page.contains("<a href=\"/approvals\">103</a>") && page.contains("All 103 that wait"), "{page}");
    let page = look(&house, "auditor", "/approvals?show=all").await;
    assert_eq!(ids(&page)[0], "apr_soon", "of all, the newest is the first");
}

#[tokio::test]
async fn the_decisions_of_a_channel_are_searched_by_what_it_is_narrowed_to_and_its_pause_is_told_whole() {
    let house = House::open().await;
    let why = "because ".repeat(60);
    let channel = |tools: serde_json::Value| json!({"id": "soc", "kind": "slack", "source": "file", "events": ["DENY"], "min_severity": "HIGH", "tools": tools, "agents": ["a,b"]});
    house.show("soc", channel(json!(["slack", "github.create_*"])));
    let page = look(&house, "auditor", "/channels/soc").await;
    let href = "/decisions?decision=DENY&#38;min_severity=HIGH&#38;tool=slack&#38;tool=github.create_*&#38;agent=a*b";
    assert!(page.contains(&format!("<a href=\"{href}\">Decisions of this sort</a>")), "{page}");
    let search = look(&house, "auditor", &href.replace("&#38;", "&")).await;
    assert!(search.contains("name=\"tool\" value=\"slack, github.create_*\""), "{search}");
    // None is better than one that finds others.
    house.show("soc", channel((0..65).map(|at| format!("tool-{at}")).collect()));
    assert!(!look(&house, "auditor", "/channels/soc").await.contains("Decisions of this sort"));
    let mut told = json!({"id": "soc", "state": "stopped", "why": why.trim_end()});
    let of = |told: &serde_json::Value| crate::http::console::channels::channel(told, Clock::System.now());
    assert_eq!(of(&told).why.unwrap().as_str(), why.trim_end());
    told["unreadable"] = json!("sealed");
    assert_eq!(of(&told).why.unwrap().as_str(), "sealed");
}

#[tokio::test]
async fn a_faulty_time_is_said_beside_its_field_and_no_span_is_marked_and_older_keeps_the_times() {
    let house = House::open().await;
    let page = look(&house, "auditor", "/decisions?since=24h&last=24h").await;
    let fault = "“24h” is not a time. Write it as 2026-06-01T12:00:00, or a day as 2026-06-01.</p>";
    let field = page.split("id=\"since\"").nth(1).and_then(|rest| rest.split("</div>").next()).unwrap();
    assert!(field.contains(fault) && field.contains(r#"aria-describedby="fault-since""#), "{page}");
    let tabs = page.split("aria-label=\"How far back\"").nth(1).and_then(|rest| rest.split("</nav>").next()).unwrap();
    assert!(!tabs.contains("aria-current") && page.contains("Nothing was looked for: see From (UTC)"), "{page}");
    assert!(page.contains("<details class=\"card\" open>"), "{page}");
    let page = look(&house, "auditor", "/decisions?since=2026-11-23T09:56:00Z&until=2026-11-24").await;
    for (name, value) in [("since", "2026-11-23T09:56:00"), ("until", "2026-11-24T00:00:00")] {
        assert!(page.contains(&format!(r#"name="{name}" type="datetime-local" step="1" value="{value}""#)), "{page}");
    }
}

#[tokio::test]
async fn whoever_is_led_to_the_sign_in_in_the_middle_is_told_that_the_session_has_ended_and_led_back_to_the_page() {
    let house = House::open().await;
    for (line, to) in [
        ("POST /channels/soc/pause", "%2Fchannels%2Fsoc&lost=1"),
        ("POST /channels/soc/delete", "%2Fchannels%2Fsoc%2Fdelete&lost=1"),
        ("GET /channels/soc", "%2Fchannels%2Fsoc"),
    ] {
        let answer = send(&house, line, OURS, "").await;
        assert_eq!((answer.status, answer.header("location")), (303, &*format!("/sign-in?next={to}")), "{line}");
    }
    let says = "Your session has ended. Sign in again to go on where you were.";
    let ended = "cookie: interven_session=one-of-yesterday\r\n".to_owned();
    let from = |path: &str| format!("{OURS}referer: http://inside:8080{path}\r\n");
    for (headers, is_told) in [(ended, true), (from("/channels"), true), (from("/sign-in?next=%2Fchannels"), false)] {
        let led = send(&house, "GET /channels?a=1", &headers, "").await;
        let page = send(&house, &format!("GET {}", led.header("location")), "", "").await;
        assert_eq!(page.body.contains(says), is_told, "{headers}: {}", led.header("location"));
        assert!(page.body.contains(r#"name="next" value="/channels?a=1""#) && !page.body.contains(r#"name="lost""#));
    }
}
