use proptest::prelude::*;

use super::*;
use crate::{
    channels::{
        conformance::{
            body, delivery,
            digests::{digest_body, hostile_digest},
            hostile_delivery, parcel, problems, split_quotes, texts, url,
        },
        text::is_invisible,
    },
    model::verdict::Outcome,
};

fn discord() -> Discord {
    Discord::new(url("https://discord.com/api/webhooks/1/abcdefghijkl"))
}

#[test]
fn discord_is_always_asked_to_wait_and_the_thread_is_kept() {
    let base = "https://discord.com/api/webhooks/1/abc";
    for (given, posted) in [
        ("", "?wait=true"),
        ("?", "?wait=true"),
        ("?thread_id=7", "?thread_id=7&wait=true"),
        ("?wait=false&thread_id=7", "?thread_id=7&wait=true"),
        ("?wait", "?wait=true"),
        ("?wait=true", "?wait=true"),
    ] {
        let discord = Discord::new(url(&format!("{base}{given}")));
        assert_eq!(discord.endpoint.expose().as_str(), format!("{base}{posted}"));
    }
    // What is shown is the URL that the operator knows, and not what we add to it.
    assert_eq!(discord().endpoint.masked(), "https://discord.com/...ijkl");
}

#[test]
fn the_token_is_known_as_a_secret_of_its_own_and_an_address_for_foreign_messages_is_a_fault() {
    let known = Discord::new(url("https://discord.com/api/v10/webhooks/1/abcdefghijkl?thread_id=7")).secrets();
    assert!(known.contains(&Secret::new("abcdefghijkl")));
    for foreign in ["slack", "github"] {
        let found = problems(&KIND, &format!("webhook_url = \"https://discord.com/api/webhooks/1/abc/{foreign}\""));
        assert!(found.len() == 1 && found[0].starts_with("webhook_url: "), "{found:?}");
    }
}

#[test]
fn the_user_agent_has_the_form_that_discord_requires() {
    let agent = parcel(&discord(), &delivery(|_| ()), 1).headers[header::USER_AGENT].to_str().unwrap().to_owned();
    assert!(agent.starts_with("DiscordBot (https://") && agent.ends_with(')') && agent.contains(", "), "{agent}");
}

#[test]
fn every_code_in_discords_table_is_read_as_what_it_means() {
    use Outcome::{Broken, Delivered, Refused, Throttled, TryLater};
    let table = [
        (200, 0, Delivered),
        (204, 0, Delivered),
        (404, 10_015, Broken),
        (404, 10_003, Broken),
        (401, 50_027, Broken),
        (403, 50_013, Broken),
        (400, 50_035, Refused),
        (400, 50_006, Refused),
        (400, 50_109, Refused),
        (400, 40_005, Refused),
        (413, 40_005, Refused),
        (400, 220_001, Broken),
        (400, 220_002, Broken),
        (400, 220_003, Broken),
        (400, 220_004, Broken),
        (400, 40_058, Broken),
        (400, 40_067, Broken),
        (429, 0, Throttled),
        (429, 20_028, Throttled),
        (429, 20_029, Throttled),
        (429, 40_062, Throttled),
        (400, 40_333, Broken),
        (403, 40_333, Broken),
        (400, 40_004, TryLater),
        (502, 0, TryLater),
        (400, 30_007, Broken),
        (400, 30_058, Broken),
        (400, 99_999, Refused),
    ];
    for (status, code, expected) in table {
        let verdict = discord().judge(&Reply::new(status, format!(r#"{{"code":{code},"message":"m"}}"#)));
        assert_eq!(verdict.outcome(), expected, "{status} {code}: {verdict:?}");
    }
}

#[test]
fn a_success_that_used_the_last_of_the_allowance_asks_for_a_rest() {
    let reply = Reply::new(200, r#"{"id":"1","retry_after":99}"#).with_header("x-ratelimit-reset-after", "1.25");
    assert_eq!(discord().judge(&reply.clone().with_header("x-ratelimit-remaining", "3")), Verdict::DELIVERED);
    let rest = Verdict::Delivered { confirmed: true, breathe: Some(Duration::from_millis(1_250)) };
    assert_eq!(discord().judge(&reply.with_header("x-ratelimit-remaining", "0")), rest);
}

#[test]
fn the_delay_is_the_longest_that_was_asked_for_unless_only_an_old_header_is_absurd() {
    let after = |header: &str, body: &'static str| {
        let verdict = discord().judge(&Reply::new(429, body).with_header("retry-after", header));
        let Verdict::TryLater { after: Some(after), throttled: true, .. } = verdict else { panic!("{verdict:?}") };
        after.as_secs_f64()
    };
    let limited = r#"{"message":"You are being rate limited.","retry_after":64.57,"global":false}"#;
    assert_eq!(after("65", limited).to_string(), "65");
    assert_eq!(after("1", limited).to_string(), "64.57");
    assert_eq!(after("43323", limited).to_string(), "64.57");
    // Cloudflare's ban has no JSON, and means it.
    assert_eq!(after("3600", "<html>banned</html>").to_string(), "3600");
}

#[test]
fn the_field_that_discord_complains_about_reaches_the_operator() {
    let body = r#"{"code":50035,"message":"Invalid Form Body","errors":{"embeds":{"0":{"description":{"_errors":[
        {"code":"BASE_TYPE_MAX_LENGTH","message":"Must be 4096 or fewer in length."}]}}}}}"#;
    let verdict = discord().judge(&Reply::new(400, body));
    insta::assert_snapshot!(verdict.why(), @"HTTP 400: Invalid Form Body (code 50035): embeds.0.description: Must be 4096 or fewer in length.");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_decision_breaks_discords_limits_or_writes_anything_active(delivery in hostile_delivery()) {
        let body = body(&discord(), &delivery, 1);
        prop_assert_eq!(&body["allowed_mentions"], &serde_json::json!({"parse": []}));
        let text = if delivery.plain {
            prop_assert!(body["flags"] == 4);
            prop_assert!(body.get("embeds").is_none());
            body["content"].as_str().unwrap()
        } else {
            let embed = &body["embeds"][0];
            prop_assert!(embed["title"].as_str().unwrap().len() <= 256);
            prop_assert!(embed["url"].as_str().is_none_or(|url| url.len() <= 2_048));
            prop_assert!(texts(&body).iter().map(|text| text.encode_utf16().count()).sum::<usize>() <= 6_000);
            embed["description"].as_str().unwrap()
        };
        let max = if delivery.plain { CONTENT_CHARS_MAX } else { DESCRIPTION_CHARS_MAX };
        prop_assert!((1..=max).contains(&text.encode_utf16().count()));
        let (ours, theirs) = split_quotes(text, "`", "`");
        for quoted in theirs {
            prop_assert!(!quoted.is_empty() && !quoted.contains('\n') && !quoted.chars().any(is_invisible));
        }
        for word in ours.split_whitespace() {
            prop_assert!(
                word.contains("](https://a") || word.chars().all(|c| c.is_alphanumeric() || "[]*_:(),.·".contains(c)),
                "{}", ours
            );
        }
    }

    #[test]
    fn no_digest_breaks_discords_limits_or_writes_anything_active(digest in hostile_digest(), plain in any::<bool>()) {
        let body = digest_body(&discord(), &digest, plain);
        prop_assert_eq!(&body["allowed_mentions"], &serde_json::json!({"parse": []}));
        prop_assert_eq!((body.get("flags").is_some(), body.get("embeds").is_some()), (plain, !plain));
        let text = if plain { &body["content"] } else { &body["embeds"][0]["description"] }.as_str().unwrap();
        let max = if plain { CONTENT_CHARS_MAX } else { DESCRIPTION_CHARS_MAX };
        prop_assert!((1..=max).contains(&text.encode_utf16().count()), "{}", text.encode_utf16().count());
        let (ours, theirs) = split_quotes(text, "`", "`");
        prop_assert!(theirs.iter().all(|quoted| !quoted.is_empty() && !quoted.contains('\n')));
        for word in ours.split_whitespace() {
            prop_assert!(
                word.contains("](https://a") || word.chars().all(|c| c.is_alphanumeric() || "[]*_:(),.".contains(c)),
                "{}", ours
            );
        }
    }
}
