use proptest::prelude::*;

use super::*;
use crate::{
    channels::{
        conformance::{
            SIGNING_SECRET, body, configured, delivery,
            digests::{digest_body, hostile_digest},
            hostile_delivery, parcel, problems, slack_bot, slack_webhook, split_quotes, texts,
        },
        text::is_invisible,
    },
    model::verdict::Outcome,
};

#[test]
fn every_error_in_slacks_tables_is_read_as_what_it_means() {
    use Outcome::{Broken, Delivered, Refused, Throttled, TryLater};
    let slack = slack_webhook(None);
    let table = [
        (200, "ok", Delivered),
        (200, "ok\n", Delivered),
        (200, r#"{"ok":true}"#, Delivered),
        (400, "ok", Refused),
        (400, "invalid_payload", Refused),
        (400, "invalid_blocks", Refused),
        (400, "invalid_attachments", Refused),
        (400, "no_text", Refused),
        (400, "missing_text_or_fallback_or_attachments", Refused),
        (400, "too_many_attachments", Refused),
        (400, "something_new", Refused),
        (400, "user_not_found", Broken),
        (403, "action_prohibited", Broken),
        (403, "invalid_token", Broken),
        (403, "posting_to_general_channel_denied", Broken),
        (404, "channel_not_found", Broken),
        (404, "no_service", Broken),
        (404, "no_service_id", Broken),
        (404, "no_active_hooks", Broken),
        (404, "no_team", Broken),
        (404, "team_disabled", Broken),
        (410, "channel_is_archived", Broken),
        // The body counts first.
        (400, "channel_is_archived", Broken),
        (404, "invalid_payload", Refused),
        (200, "no_service", Broken),
        (429, r#"{"retry_after":1,"ok":false,"error":"rate_limited"}"#, Throttled),
        (429, r#"{"ok":false,"error":"ratelimited"}"#, Throttled),
        (200, r#"{"ok":false,"error":"ratelimited"}"#, Throttled),
        (500, "rollup_error", TryLater),
        (503, "<html>", TryLater),
        // A 200 that no Slack wrote.
        (200, "", TryLater),
        (200, "<html>Maintenance</html>", TryLater),
        // The Web API fails inside a 200.
        (200, r#"{"ok":false,"error":"msg_too_long"}"#, Refused),
        (200, r#"{"ok":false,"error":"msg_blocks_too_long"}"#, Refused),
        (200, r#"{"ok":false,"error":"invalid_blocks","response_metadata":{"messages":["[ERROR] x"]}}"#, Refused),
        (200, r#"{"ok":false,"error":"something_new"}"#, Refused),
        (200, r#"{"ok":false}"#, Refused),
        (200, r#"{"ok":false,"error":"not_in_channel"}"#, Broken),
        (200, r#"{"ok":false,"error":"channel_not_found"}"#, Broken),
        (200, r#"{"ok":false,"error":"is_archived"}"#, Broken),
        (200, r#"{"ok":false,"error":"restricted_action"}"#, Broken),
        (200, r#"{"ok":false,"error":"token_revoked"}"#, Broken),
        (200, r#"{"ok":false,"error":"account_inactive"}"#, Broken),
        (200, r#"{"ok":false,"error":"invalid_auth"}"#, Broken),
        (200, r#"{"ok":false,"error":"missing_scope"}"#, Broken),
        (200, r#"{"ok":false,"error":"ekm_access_denied"}"#, Broken),
        (200, r#"{"ok":false,"error":"not_authed"}"#, Broken),
        (200, r#"{"ok":false,"error":"token_expired"}"#, Broken),
        (200, r#"{"ok":false,"error":"org_login_required"}"#, Broken),
        (200, r#"{"ok":false,"error":"service_unavailable"}"#, TryLater),
        (200, r#"{"ok":false,"error":"internal_error"}"#, TryLater),
        (200, r#"{"ok":false,"error":"fatal_error"}"#, TryLater),
    ];
    for (status, body, expected) in table {
        let verdict = slack.judge(&Reply::new(status, body));
        assert_eq!(verdict.outcome(), expected, "{status} {body}: {verdict:?}");
    }
}

#[test]
fn what_slack_complains_about_reaches_the_operator() {
    let complaint = r#"{"ok":false,"error":"invalid_blocks","response_metadata":{"messages":["[ERROR] must be less than 3001 characters"]}}"#;
    let verdict = slack_bot().judge(&Reply::new(200, complaint));
    assert!(verdict.why().contains("must be less than 3001 characters"), "{verdict:?}");
}

#[test]
fn a_bot_posts_to_its_channel_with_its_token_in_a_header_that_does_not_print() {
    let parcel = parcel(&slack_bot(), &delivery(|_| ()), 1);
    assert_eq!(parcel.endpoint.expose().as_str(), "https://slack.com/api/chat.postMessage");
    assert_eq!(parcel.endpoint.masked(), "https://slack.com/...");
    let bearer = &parcel.headers[header::AUTHORIZATION];
    assert!(bearer.is_sensitive() && bearer.to_str().unwrap().starts_with("Bearer xoxb-"));
    let body: serde_json::Value = serde_json::from_slice(&parcel.body).unwrap();
    assert_eq!(body["channel"], "C024BE91L");
}

#[test]
fn a_token_that_cannot_stand_in_a_header_is_an_error() {
    let door = Door::Bot { api: Url::parse(API).unwrap(), token: Secret::new("xoxb-\n"), channel: "C1".into() };
    assert_eq!(Slack::new(door, Interactivity::default()).unwrap_err(), SlackError::Token);
}

/// The `action_id`s of a card's buttons.
fn buttons(slack: &Slack, delivery: &Delivery, seconds: u64) -> Vec<String> {
    let body = body(slack, delivery, seconds);
    let elements = body["blocks"][2]["elements"].as_array().cloned().unwrap_or_default();
    elements.iter().map(|element| element["action_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn buttons_are_live_only_while_an_approval_can_be_answered_and_a_secret_can_check_the_click() {
    let (signed, unsigned) = (slack_webhook(Some(SIGNING_SECRET)), slack_webhook(None));
    let asked = delivery(|_| ());
    assert_eq!(buttons(&signed, &asked, 1), ["approve", "deny", "view"]);
    assert_eq!(buttons(&signed, &asked, 599), ["approve", "deny", "view"]);
    assert_eq!(buttons(&signed, &asked, 600), ["view"]);
    assert_eq!(buttons(&unsigned, &asked, 1), ["review", "view"]);
    assert_eq!(buttons(&signed, &delivery(|decision| decision["decision"] = "DENY".into()), 1), ["view"]);
    assert_eq!(buttons(&signed, &delivery(|decision| decision["approval"] = serde_json::Value::Null), 1), ["view"]);
}

#[test]
fn a_buttons_value_is_a_claim_of_ours_and_carries_no_text_of_the_decision() {
    let slack = slack_webhook(Some(SIGNING_SECRET));
    let body = body(&slack, &delivery(|_| ()), 1);
    let value = body["blocks"][2]["elements"][0]["value"].as_str().unwrap();
    let claim = button::open(&slack.interactivity().signing_secrets, value).unwrap();
    assert!(claim.approval.is("apr_7") && claim.tool.is("slack.post_message") && claim.channel.as_str() == "soc");
    assert_eq!(claim.expires_at.unwrap().to_string(), "2026-06-01T12:10:00Z");
    assert!(!value.contains("apr_7") && !value.contains("slack"));
}

#[test]
fn a_slack_channel_has_one_way_in() {
    let cases = [
        ("", "webhook_url: nothing says where to post"),
        (
            "webhook_url = \"{base}/a\"\nbot_token = \"xoxb-1\"\nchannel = \"C1\"",
            "bot_token: `webhook_url` and `bot_token` are both given",
        ),
        ("bot_token = \"xoxb-1\"", "channel: `bot_token` is given without `channel`"),
        (
            "webhook_url = \"{base}/a\"\nchannel = \"C1\"",
            "channel: a webhook posts to the channel that it was made for",
        ),
        ("bot_token = \"a\\u0007b\"\nchannel = \"C1\"", "bot_token: `bot_token` has characters that no token has"),
        ("webhook_url = \"{base}/a\"\nresponse_hosts = [\"https://x\"]", "response_hosts: `https://x` is not a host"),
        ("webhook_url = \"{base}/a\"\napprovers = [\"U1\", \"@jane\"]", "approvers: `@jane` is not a member's id"),
    ];
    for (text, expected) in cases {
        let problems = problems(&KIND, text);
        assert!(problems.len() == 1 && problems[0].starts_with(expected), "{text}: {problems:?}");
    }
}

#[test]
fn a_signing_secret_that_is_none_of_slacks_is_warned_of_and_not_quoted() {
    let warned = |secrets: &str| {
        let reading = configured(&KIND, &format!("webhook_url = \"{{base}}/a\"\nsigning_secret = {secrets}"));
        assert_eq!(reading.faults, [], "{secrets}");
        reading.warnings
    };
    let like_slacks = "8f742231b10e8888abcd99edf0f385a5";
    for good in [format!("\"{like_slacks}\""), format!("[\"{like_slacks}\", \"{}\"]", like_slacks.to_uppercase())] {
        assert_eq!(warned(&good), [], "{good}");
    }
    for bad in [
        String::from("\"a-short-one\""),
        format!("[\"{like_slacks}\", \"a-short-one\"]"),
        format!("\"{like_slacks}0\""),
    ] {
        let warnings = warned(&bad);
        assert!(warnings.len() == 1 && warnings[0].path == "signing_secret", "{bad}: {warnings:?}");
        assert!(!format!("{warnings:?}").contains("short-one") && !format!("{warnings:?}").contains(like_slacks));
    }
}

#[test]
fn what_clicks_are_held_against_comes_from_the_configuration() {
    let keys = "approvers = [\"U1\"]\nresponse_hosts = [\"hooks.slack-gov.com\"]\nsigning_secret = [\"new\", \"old\"]";
    let built = configured(&KIND, &format!("webhook_url = \"{{base}}/a\"\n{keys}")).value.flatten().unwrap();
    let interactivity = built.channel.answerable().unwrap().interactivity();
    assert_eq!(interactivity.approvers, Some(vec!["U1".parse().unwrap()]));
    assert_eq!(interactivity.response_hosts, ["hooks.slack-gov.com"]);
    assert_eq!(interactivity.signing_secrets, [Secret::new("new"), Secret::new("old")]);
    let default = slack_webhook(None).interactivity().clone();
    assert_eq!((default.approvers, default.response_hosts), (None, vec![String::from("hooks.slack.com")]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_decision_breaks_slacks_limits_or_writes_anything_active(delivery in hostile_delivery()) {
        let body = body(&slack_webhook(Some(SIGNING_SECRET)), &delivery, 1);
        let size = |text: &str| text.encode_utf16().count();
        let text = body["text"].as_str().unwrap();
        prop_assert!((1..=TEXT_CHARS_MAX).contains(&size(text)));
        prop_assert!(body["unfurl_links"] == false && body["unfurl_media"] == false);

        let mut hostile = vec![text];
        if !delivery.plain {
            let blocks = &body["blocks"];
            prop_assert!(texts(blocks).iter().map(|text| size(text)).sum::<usize>() <= 12_000);
            prop_assert!(size(blocks[0]["text"]["text"].as_str().unwrap()) <= 150);
            let section = &blocks[1]["text"];
            prop_assert!(section["type"] == "mrkdwn" && section["verbatim"] == true);
            hostile.push(section["text"].as_str().unwrap());
            prop_assert!((1..=3_000).contains(&size(hostile[1])));
            for element in blocks[2]["elements"].as_array().unwrap() {
                prop_assert!(element["value"].as_str().is_none_or(|value| value.len() <= 2_000));
                prop_assert!(element["url"].as_str().is_none_or(|url| url.len() <= 3_000 && url.starts_with("https://a")));
            }
        }
        for text in hostile {
            let (ours, theirs) = split_quotes(text, "`", "`");
            for quoted in theirs {
                prop_assert!(!quoted.is_empty() && !quoted.contains(['<', '>', '\n']) && !quoted.chars().any(is_invisible));
                let bare = ["&amp;", "&lt;", "&gt;"].iter().fold(quoted.to_owned(), |text, entity| text.replace(entity, ""));
                prop_assert!(!bare.contains('&'), "{}", quoted);
            }
            // Outside of the code spans there is only what we write ourselves.
            for word in ours.split_whitespace() {
                prop_assert!(
                    word.starts_with("<https://a") || word.ends_with("|View") || word.chars().all(|c| c.is_alphanumeric() || "[]*_:(),.|>".contains(c)),
                    "{}", ours
                );
            }
        }
    }

    #[test]
    fn no_digest_breaks_slacks_limits_or_writes_anything_active(digest in hostile_digest(), plain in any::<bool>()) {
        let body = digest_body(&slack_webhook(Some(SIGNING_SECRET)), &digest, plain);
        let size = |text: &str| text.encode_utf16().count();
        let text = body["text"].as_str().unwrap();
        prop_assert!((1..=TEXT_CHARS_MAX).contains(&size(text)), "{}", size(text));
        prop_assert!(body["unfurl_links"] == false && body["unfurl_media"] == false);
        let mut hostile = vec![text];
        if !plain {
            let blocks = body["blocks"].as_array().unwrap();
            prop_assert!(texts(&body["blocks"]).iter().map(|text| size(text)).sum::<usize>() <= 12_000);
            for section in blocks.iter().filter(|block| block["type"] == "section") {
                prop_assert!(section["text"]["type"] == "mrkdwn" && section["text"]["verbatim"] == true);
                hostile.push(section["text"]["text"].as_str().unwrap());
                prop_assert!((1..=3_000).contains(&size(hostile[hostile.len() - 1])));
            }
            prop_assert_eq!(hostile.len(), 3);
            prop_assert_eq!(blocks.last().unwrap()["elements"].as_array().map(Vec::len), Some(1));
        }
        for text in hostile {
            let (ours, theirs) = split_quotes(text, "`", "`");
            for quoted in theirs {
                prop_assert!(!quoted.is_empty() && !quoted.contains(['<', '>', '\n']));
                let bare = ["&amp;", "&lt;", "&gt;"].iter().fold(quoted.to_owned(), |text, entity| text.replace(entity, ""));
                prop_assert!(!bare.contains('&'), "{}", quoted);
            }
            for word in ours.split_whitespace() {
                prop_assert!(
                    word.starts_with("<https://a") || word == "Console>" || word.chars().all(|c| c.is_alphanumeric() || "[]*_:(),.".contains(c)),
                    "{}", ours
                );
            }
        }
    }
}
