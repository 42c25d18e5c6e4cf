//! Records read back, and strangers are passed over.

use super::*;
use crate::broker::following::{is_mark, mark};

fn decision(text: &str) -> Arc<Decision> {
    Arc::new(Decision::decode(Bytes::copy_from_slice(text.as_bytes())).unwrap())
}

const ASKS: &str = r#" {"id":"1","time":"2026-06-01T12:00:00Z","decision":"REQUIRE_APPROVAL","severity":"HIGH","n":1e400,
 "agent":{"id":"a"},"tool":"t","approval":{"id":"apr_7"},"extra":{"z":[1, 2],"a":"\u0001"}} "#;

fn click() -> Click {
    let by = By { id: String::from("U1"), name: String::from("Ann \"O\""), team: Some(String::from("T1")) };
    Click {
        grant: Duration::from_mins(10),
        claim: Some(Claim {
            agent: Some(Name::of("a")),
            tool: Name::of(&"x".repeat(300)),
            expires_at: Some(Timestamp::UNIX_EPOCH),
        }),
        channel: Some("soc".parse().unwrap()),
        response_url: Some(Secret::new("https://hooks.slack.com/actions/T/1/abc")),
        ..Click::new(Name::of("apr_7"), Answer::Approve, by, Via::Slack, Timestamp::UNIX_EPOCH)
    }
}

fn card() -> Card {
    let (conversation, ts) = (String::from("C1"), String::from("1780315200.000100"));
    Card { id: Uuid::now_v7(), channel: "soc".parse().unwrap(), conversation, ts }
}

#[test]
fn every_record_reads_back() {
    let name = Name::of("apr_7");
    let plain = Click { claim: None, channel: None, response_url: None, ..click() };
    let deeds = [
        Deed::Click(click()),
        Deed::Click(plain),
        Deed::Published(name.clone()),
        Deed::Posted(Name::of("\u{1}"), card()),
        Deed::Updated(name, Uuid::now_v7(), Shown::Expired),
    ];
    for deed in deeds {
        let entry = Entry::new(deed, Timestamp::UNIX_EPOCH);
        let read = Entry::decode(&entry.to_bytes()).unwrap().unwrap();
        assert_eq!(format!("{read:?}"), format!("{entry:?}"));
    }
    let entry = Entry::new(Deed::Click(click()), Timestamp::UNIX_EPOCH);
    let Deed::Click(read) = Entry::decode(&entry.to_bytes()).unwrap().unwrap().deed else { panic!("no click") };
    assert_eq!(read.response_url.unwrap().expose(), "https://hooks.slack.com/actions/T/1/abc");
}

#[test]
fn a_decision_is_kept_to_the_byte() {
    let (id, bytes) = asked(&decision(ASKS), Timestamp::UNIX_EPOCH);
    let Entry { id: read, deed: Deed::Asked(decision), .. } = Entry::decode(&bytes).unwrap().unwrap() else {
        panic!("nobody asked")
    };
    assert_eq!((read, &decision.raw()[..]), (id, ASKS.trim().as_bytes()));
}

#[test]
fn a_decision_of_any_depth_can_be_asked_for() {
    // Goal: no decision that was read makes its record unreadable: the record is one level deeper than the decision.
    let deep = format!("{}1{}", "[".repeat(60_000), "]".repeat(60_000));
    let text = ASKS.replace("[1, 2]", &deep);
    let (_, bytes) = asked(&decision(&text), Timestamp::UNIX_EPOCH);
    assert!(matches!(Entry::decode(&bytes).unwrap().unwrap().deed, Deed::Asked(_)));
}

#[test]
fn a_record_looks_as_it_is_documented() {
    let text = r#"{"v":1,"id":"0192d5a0-0000-7000-8000-000000000000","at":"2026-06-01T12:00:00Z","do":"click",
        "approval":{"n":"apr_7"},"answer":"deny","by":{"id":"soc","name":"soc"},"via":"api","later":[1]}"#;
    let Deed::Click(click) = Entry::decode(text.as_bytes()).unwrap().unwrap().deed else { panic!("no click") };
    assert_eq!((click.answer, click.via, click.by.id.as_str()), (Answer::Deny, Via::Api, "soc"));
    assert_eq!((click.claim, click.grant), (None, Duration::ZERO));
}

#[test]
fn what_a_newer_worker_writes_is_passed_over_and_what_is_no_record_is_an_error() {
    let id = Uuid::now_v7();
    let newer = [
        format!(r#"{{"v":1,"id":"{id}","do":"delegate","to":"x"}}"#),
        format!(r#"{{"v":2,"id":"{id}","do":"click"}}"#),
        String::from_utf8(mark(id).to_vec()).unwrap(),
    ];
    for newer in newer {
        assert!(Entry::decode(newer.as_bytes()).unwrap().is_none(), "{newer}");
    }
    assert!(is_mark(&mark(id), id) && !is_mark(&mark(id), Uuid::nil()));
    let no_decision = format!(r#"{{"v":1,"id":"{id}","at":"2026-06-01T12:00:00Z","do":"asked","decision":{{}}}}"#);
    let no_click = format!(r#"{{"v":1,"id":"{id}","at":"2026-06-01T12:00:00Z","do":"click","approval":"apr_7"}}"#);
    for bad in ["", "{}", &no_decision, &no_click] {
        assert!(Entry::decode(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn what_people_call_themselves_is_cut() {
    let by = By { id: "i".repeat(1_000), name: "é".repeat(1_000), team: None };
    let click = Click::new(Name::of("a"), Answer::Deny, by, Via::Slack, Timestamp::UNIX_EPOCH);
    assert_eq!((click.by.id.len(), click.by.name.chars().count()), (200, 200));
}

#[test]
fn a_response_url_does_not_print() {
    let entry = Entry::new(Deed::Click(click()), Timestamp::UNIX_EPOCH);
    assert!(!format!("{entry:?} {entry:#?}").contains("hooks.slack.com"));
}
