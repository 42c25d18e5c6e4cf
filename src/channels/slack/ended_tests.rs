//! Cards that have ended, and whispers: what they look like, and that nobody's name gets out of its quotes.

use proptest::prelude::*;

use super::*;
use crate::{
    channels::{
        conformance::{delivery, hostile_delivery, hostile_text, slack_bot, slack_webhook, split_quotes, texts},
        slack::Whisper,
        text::is_invisible,
    },
    model::verdict::Outcome,
};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn links() -> Links {
    Links { public: "https://alerts.example.com".into(), console: "https://app.example.com".into() }
}

fn approved() -> How<'static> {
    let (name, id, at) = ("jane.doe", "U024BE7LH", at("2026-06-01T12:03:04.5Z"));
    How::Answered(Given { approved: true, name, id, at, place: "in Slack" })
}

fn here() -> Endpoint {
    Endpoint::new("https://hooks.slack.com/actions/T1/1/abc".parse().unwrap())
}

fn body(parcel: &Parcel) -> serde_json::Value {
    serde_json::from_slice(&parcel.body).unwrap()
}

fn replaced(decision: Option<&Decision>, how: How<'_>, plain: bool) -> serde_json::Value {
    let ended = Ended { decision, approval: Some("apr_7"), how };
    body(&slack_webhook(None).replacement(here(), &ended, &links(), plain))
}

fn told(body: &serde_json::Value) -> String {
    serde_json::to_string_pretty(body).unwrap()
}

#[test]
fn an_answered_card_says_who_and_when_and_has_no_live_button() {
    let asked = delivery(|_| ()).decision;
    insta::assert_snapshot!("slack_answered", told(&replaced(Some(&asked), approved(), false)));
    insta::assert_snapshot!("slack_answered_plain", told(&replaced(Some(&asked), approved(), true)));
    let denied =
        Given { approved: false, name: " ", id: "soc-lead", at: at("2026-06-01T12:03:04Z"), place: "over the API" };
    insta::assert_snapshot!("slack_answered_unknown", told(&replaced(None, How::Answered(denied), false)));
    insta::assert_snapshot!(
        "slack_ended_expired",
        told(&replaced(Some(&asked), How::Expired(Some(at("2026-06-01T12:10:00Z"))), false))
    );
}

#[test]
fn a_bot_changes_its_message_in_place_and_a_webhook_cannot() {
    let (asked, posted) = (delivery(|_| ()).decision, PostedCard { conversation: "C1".into(), ts: "17.0001".into() });
    let ended = Ended { decision: Some(&asked), approval: None, how: How::Expired(None) };
    let parcel = slack_bot().change(&posted, &ended, &links(), false).unwrap();
    assert_eq!(parcel.endpoint.expose().as_str(), "https://slack.com/api/chat.update");
    assert!(parcel.headers[http::header::AUTHORIZATION].is_sensitive());
    let change = body(&parcel);
    assert_eq!((&change["channel"], &change["ts"]), (&"C1".into(), &"17.0001".into()));
    assert!(change.get("replace_original").is_none() && change["parse"] == "none");
    assert_eq!(body(&slack_bot().change(&posted, &ended, &links(), true).unwrap())["blocks"], serde_json::json!([]));
    assert!(slack_webhook(None).change(&posted, &ended, &links(), false).is_none());
    // Only the webhook's or the click's own URL is the right to post there: the bot's token stays at home.
    assert!(
        !slack_bot().replacement(here(), &ended, &links(), false).headers.contains_key(http::header::AUTHORIZATION)
    );
}

#[test]
fn where_a_card_was_posted_is_read_from_what_the_web_api_says_and_nothing_else() {
    use crate::channels::Channel as _;
    let good = Reply::new(200, r#"{"ok":true,"channel":"C024BE91L","ts":"1700000000.000100","message":{}}"#);
    let card = PostedCard { conversation: "C024BE91L".into(), ts: "1700000000.000100".into() };
    assert_eq!(slack_bot().posted(&good), Some(card));
    assert_eq!(slack_webhook(None).posted(&good), None);
    for bad in [
        "ok",
        r#"{"ok":false,"channel":"C1","ts":"17.1"}"#,
        r#"{"ok":true,"channel":"C1"}"#,
        r#"{"ok":true,"channel":"<!here>","ts":"17.1"}"#,
        r#"{"ok":true,"channel":"C1","ts":"now"}"#,
    ] {
        assert_eq!(slack_bot().posted(&Reply::new(200, bad)), None, "{bad}");
    }
}

#[test]
fn what_is_sent_to_the_url_of_a_click_has_arrived_with_any_2xx_that_names_no_error() {
    let judged = |status, body: &'static str| slack_bot().judge_replacement(&Reply::new(status, body)).outcome();
    for body in ["ok", "", "{}", r#"{"ok":true}"#] {
        assert_eq!(judged(200, body), Outcome::Delivered, "{body}");
    }
    assert_eq!(judged(204, ""), Outcome::Delivered);
    assert_eq!(judged(200, r#"{"ok":false,"error":"expired_url"}"#), Outcome::Refused);
    assert_eq!(judged(404, "used_url"), Outcome::Refused);
    assert_eq!(judged(500, ""), Outcome::TryLater);
    assert_eq!(judged(429, ""), Outcome::Throttled);
}

#[test]
fn a_message_that_is_gone_is_not_tried_again_in_another_form() {
    for code in ["message_not_found", "cant_update_message", "edit_window_closed"] {
        let verdict = slack_bot().judge_change(&Reply::new(200, format!(r#"{{"ok":false,"error":"{code}"}}"#)));
        assert!(matches!(verdict, Verdict::Refused { plain_may_pass: false, .. }), "{verdict:?}");
    }
    let judged = |status, body: &'static str| slack_bot().judge_change(&Reply::new(status, body)).outcome();
    assert!(matches!(
        slack_bot().judge_change(&Reply::new(404, "expired_url")),
        Verdict::Refused { plain_may_pass: false, .. }
    ));
    assert_eq!(judged(200, r#"{"ok":true,"channel":"C1","ts":"17.1"}"#), Outcome::Delivered);
    assert_eq!(judged(200, r#"{"ok":false,"error":"invalid_blocks"}"#), Outcome::Refused);
    assert_eq!(judged(200, r#"{"ok":false,"error":"invalid_auth"}"#), Outcome::Broken);
    assert_eq!(judged(429, r#"{"ok":false,"error":"ratelimited"}"#), Outcome::Throttled);
}

#[test]
fn whispers_say_what_became_of_the_click() {
    let given = Given { approved: true, name: "jane", id: "U1", at: at("2026-06-01T12:03:04Z"), place: "in Slack" };
    let expired = Whisper::Expired(Some(at("2026-06-01T12:10:00Z")));
    let all = [
        Whisper::Already(given),
        expired,
        Whisper::Expired(None),
        Whisper::Unknown,
        Whisper::NoChannel,
        Whisper::MayNot { id: "U1" },
        Whisper::NotRecorded,
        Whisper::NotHeard,
    ];
    let texts: Vec<String> = all.iter().map(Whisper::text).collect();
    insta::assert_snapshot!("slack_whispers", texts.join("\n"));
    let whisper = body(&all[0].parcel(here()));
    assert_eq!((&whisper["response_type"], &whisper["replace_original"]), (&"ephemeral".into(), &false.into()));
}

/// Everything outside of the code spans is ours, and nothing in them gets out.
fn is_quiet(text: &str) -> Result<(), TestCaseError> {
    let (ours, theirs) = split_quotes(text, "`", "`");
    for quoted in theirs {
        prop_assert!(!quoted.is_empty() && !quoted.contains(['<', '>', '\n']) && !quoted.chars().any(is_invisible));
        let bare = ["&amp;", "&lt;", "&gt;"].iter().fold(quoted.to_owned(), |text, one| text.replace(one, ""));
        prop_assert!(!bare.contains('&'), "{}", quoted);
    }
    for word in ours.split_whitespace() {
        prop_assert!(
            word.starts_with("<https://a")
                || word == "Console>"
                || word.chars().all(|c| c.is_alphanumeric() || "[]*_:(),.-".contains(c)),
            "{}",
            ours
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_decision_and_no_name_breaks_the_limits_or_writes_anything_active(
        delivery in hostile_delivery(), name in hostile_text(), id in hostile_text(), known in any::<bool>(),
        answered in any::<bool>(), plain in any::<bool>(),
    ) {
        let moment = at("2026-06-01T12:03:04Z");
        let given = Given { approved: true, name: &name, id: &id, at: moment, place: "in Slack" };
        let how = if answered { How::Answered(given) } else { How::Expired(Some(moment)) };
        let ended = Ended { decision: known.then_some(&delivery.decision), approval: Some(&id), how };
        let body = body(&slack_webhook(None).replacement(here(), &ended, &links(), plain));
        let size = |text: &str| text.encode_utf16().count();
        let text = body["text"].as_str().unwrap();
        prop_assert!((1..=TEXT_CHARS_MAX).contains(&size(text)));
        is_quiet(text)?;
        let blocks = body["blocks"].as_array().unwrap();
        prop_assert_eq!(blocks.is_empty(), plain);
        prop_assert!(texts(&body["blocks"]).iter().map(|text| size(text)).sum::<usize>() <= 12_000);
        for block in blocks {
            match block["type"].as_str().unwrap() {
                "header" => prop_assert!(size(block["text"]["text"].as_str().unwrap()) <= 150),
                "section" => {
                    prop_assert!(block["text"]["verbatim"] == true);
                    let text = block["text"]["text"].as_str().unwrap();
                    prop_assert!((1..=3_000).contains(&size(text)));
                    is_quiet(text)?;
                }
                _ => {
                    for element in block["elements"].as_array().unwrap() {
                        prop_assert!(element.get("value").is_none(), "a live button: {}", element);
                    }
                }
            }
        }
        is_quiet(&Whisper::Already(given).text())?;
        is_quiet(&Whisper::MayNot { id: &id }.text())?;
    }
}
