//! The pages of the dead letters: who sees which buttons, what they mean, and that nothing is done that was not counted.

use super::*;
use crate::{
    dead_letters::{DeadLetter, LetterFilter, LetterId},
    http::dead_letters::tests::{letter, show_soc},
    model::DeathReason,
};

async fn bury(house: &House, letter: DeadLetter) -> LetterId {
    house.inside.store.bury(letter).await.unwrap()
}

async fn left(house: &House) -> u64 {
    house.inside.store.count(&LetterFilter::default()).await.unwrap()
}

/// The fields of the form that asks, as a browser sends them.
fn form(page: &str) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for input in page.split("<input type=\"hidden\" ").skip(1) {
        let value = |name: &str| {
            let raw = input.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap();
            raw.replace("&#38;", "&")
                .replace("&#60;", "<")
                .replace("&#62;", ">")
                .replace("&#34;", "\"")
                .replace("&#39;", "'")
        };
        form.append_pair(&value("name"), &value("value"));
    }
    form.finish()
}

#[tokio::test]
async fn letters_are_counted_by_cause_narrowed_and_opened_and_buttons_are_for_who_may() {
    let house = House::open().await;
    show_soc(&house);
    for number in 0..3 {
        bury(&house, letter(&format!("d-{number}"), "soc", None)).await;
    }
    let other = DeadLetter {
        reason: DeathReason::Expired,
        detail: String::from("<b>late</b>"),
        ..letter("late", "gone", None)
    };
    let other = bury(&house, other).await;
    let malformed =
        DeadLetter::of_message("{\"not\": a decision".into(), DeathReason::Malformed, "no", Clock::System.now());
    let malformed = bury(&house, malformed).await;

    let page = look(&house, "auditor", "/dead-letters").await;
    assert!(page.contains("5 dead letters") && page.contains("<b>3</b>") && page.contains(">d-2<"), "{page}");
    assert!(page.contains("&#60;b&#62;late") && !page.contains("Replay…") && !page.contains("Purge all"), "{page}");
    let page = look(&house, "analyst", "/dead-letters").await;
    assert!(page.contains("id=\"replay-all\"") && !page.contains("purge-all"), "{page}");
    let page = look(&house, "admin", "/dead-letters").await;
    assert!(page.contains("id=\"replay-all\"") && page.contains("id=\"purge-all\""), "{page}");
    // What cannot be named is not replayed by a button that would mean more than its row.
    bury(&house, DeadLetter { reason: DeathReason::Expired, detail: String::new(), ..letter("mute", "soc", None) })
        .await;
    let page = look(&house, "analyst", "/dead-letters").await;
    let rows =
        ["Replay…<span class=\"unseen\"> 3 letters", "Replay…<span class=\"unseen\"> 1 letter<", "without a detail"];
    assert_eq!(rows.map(|row| page.matches(row).count()), [1, 2, 1], "{page}");

    let page = look(&house, "analyst", "/dead-letters?channel=&reason=refused&severity=&decision=&since=&until=").await;
    assert!(page.contains("3 dead letters") && page.contains("Replay these") && !page.contains(">late<"), "{page}");
    // A cause leads to its letters.
    let href = page.split("<a href=\"/dead-letters?").nth(1).unwrap().split('"').next().unwrap().replace("&#38;", "&");
    let of_cause = look(&house, "auditor", &format!("/dead-letters?{href}")).await;
    assert!(href.contains("cause=") && of_cause.contains("3 dead letters"), "{href}: {of_cause}");
    let page = look(&house, "auditor", "/dead-letters?until=2000-01-01").await;
    assert!(page.contains("No dead letter is like this."), "{page}");

    let page = look(&house, "analyst", &format!("/dead-letters/{other}")).await;
    assert!(
        page.contains("not configured any more")
            && page.contains("max_age")
            && page.contains("&#34;id&#34;: &#34;late&#34;"),
        "{page}"
    );
    assert!(
        page.contains(&format!("/dead-letters/replay?id={other}")) && !page.contains("/dead-letters/purge"),
        "{page}"
    );
    let page = look(&house, "admin", &format!("/dead-letters/{malformed}")).await;
    assert!(
        page.contains("not&#34;: a decision") && page.contains(&format!("/dead-letters/purge?id={malformed}")),
        "{page}"
    );

    let auditor = signed_in(&house, "auditor").await;
    for (path, status, says) in [
        ("/dead-letters?since=yesterday", 400, "not understood"),
        ("/dead-letters/nonsense", 404, "no such dead letter"),
        ("/dead-letters/0197a2b4-0000-7000-8000-000000000001", 404, "no such dead letter"),
        ("/dead-letters/replay", 403, "may not replay"),
        ("/dead-letters/purge", 403, "may not purge"),
    ] {
        let page = send(&house, &format!("GET {path}"), &auditor, "").await;
        assert!(page.status == status && page.body.contains(says), "{path}: {}", page.body);
    }
}

#[tokio::test]
async fn a_replay_says_first_how_many_there_are_and_what_becomes_of_each() {
    let house = House::open().await;
    show_soc(&house);
    for one in [
        letter("d-1", "soc", None),
        letter("d-2", "soc", None),
        letter("late", "soc", Some("2026-06-01T12:10:00Z")),
        letter("gone", "gone", None),
    ] {
        bury(&house, one).await;
    }
    bury(&house, DeadLetter::of_message("{".into(), DeathReason::Malformed, "no", Clock::System.now())).await;
    let analyst = signed_in(&house, "analyst").await;
    let page = look(&house, "analyst", "/dead-letters/replay").await;
    for says in [
        "Send 5 dead letters to 3 destinations again?",
        "1 of them stay where they are: their approvals have expired",
        "1 of them stay where they are: their channels are not configured",
        "1 of them are no decisions that this version can read",
    ] {
        assert!(page.contains(says), "{says}: {page}");
    }
    assert_eq!(left(&house).await, 5, "to ask did something");
    // What dies after the count is not among them.
    tokio::time::sleep(Duration::from_millis(5)).await;
    bury(&house, letter("after", "soc", None)).await;
    let headers = format!("{analyst}{OURS}");
    let foreign =
        send(&house, "POST /dead-letters/replay", &format!("{analyst}sec-fetch-site: cross-site\r\n"), &form(&page))
            .await;
    assert_eq!((foreign.status, left(&house).await), (403, 6));
    let done = send(&house, "POST /dead-letters/replay", &headers, &form(&page)).await;
    assert_eq!((done.status, done.header("location")), (303, "/dead-letters"), "{}", done.body);
    assert_eq!(left(&house).await, 3);
    let said = format!("{}; {}", analyst.trim_end(), done.cookies().trim_start_matches("cookie: "));
    let page = send(&house, "GET /dead-letters", &said, "").await.body;
    for says in [
        "flash warn",
        "Replayed 3 dead letters.",
        "1 skipped: the approval has expired.",
        "1 cannot be read",
        "3 dead letters</p>",
    ] {
        assert!(page.contains(says), "{says}: {page}");
    }
    // And what was done last is told to everybody.
    assert!(page.contains("(replay by analyst, "), "{page}");
}

#[tokio::test]
async fn a_purge_is_an_admins_and_never_of_more_than_was_counted() {
    let house = House::open().await;
    let (analyst, admin) = (signed_in(&house, "analyst").await, signed_in(&house, "admin").await);
    for number in 0..3 {
        bury(&house, letter(&format!("d-{number}"), "soc", None)).await;
    }
    let page = look(&house, "admin", "/dead-letters/purge?reason=refused").await;
    assert!(page.contains("Delete 3 dead letters for good?") && page.contains("Purge 3 dead letters"), "{page}");
    let refused = send(&house, "POST /dead-letters/purge", &format!("{analyst}{OURS}"), &form(&page)).await;
    assert_eq!((refused.status, left(&house).await), (403, 3), "{}", refused.body);
    // A form that somebody wrote without the count means nothing at all.
    for nothing in ["", "reason=refused", "reason=refused&counted=nonsense", "all=true"] {
        let done = send(&house, "POST /dead-letters/purge", &format!("{admin}{OURS}"), nothing).await;
        assert_eq!((done.status, left(&house).await), (303, 3), "{nothing}: {}", done.body);
    }
    let one = house.inside.store.select(&LetterFilter::default()).await.unwrap()[0];
    let of_one = look(&house, "admin", &format!("/dead-letters/purge?id={one}")).await;
    assert!(of_one.contains("Delete 1 dead letter for good?"), "{of_one}");
    // Whoever presses twice is not told twice that it went well.
    for (page, remain, says) in [
        (&of_one, 2, ["flash good", "Purged 1 dead letter."]),
        (&page, 0, ["flash good", "Purged 2 dead letters."]),
        (&page, 0, ["flash warn", "Purged nothing: they were gone already."]),
    ] {
        let done = send(&house, "POST /dead-letters/purge", &format!("{admin}{OURS}"), &form(page)).await;
        assert_eq!((done.status, left(&house).await), (303, remain), "{}", done.body);
        let said = format!("{}; {}", admin.trim_end(), done.cookies().trim_start_matches("cookie: "));
        let page = send(&house, "GET /dead-letters", &said, "").await.body;
        assert!(says.iter().all(|says| page.contains(says)), "{says:?}: {page}");
    }
    let page = look(&house, "admin", "/dead-letters/purge").await;
    assert!(page.contains("Nothing to purge") && !page.contains("id=\"confirm\""), "{page}");
}
