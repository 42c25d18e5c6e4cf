use proptest::prelude::*;

use super::*;
use crate::{
    channels::{
        Links,
        conformance::{
            body, configured, delivery,
            digests::{digest_body, hostile_digest},
            hostile_delivery, parcel, problems, split_quotes, telegram, url,
        },
        text::is_invisible,
    },
    model::{Timestamp, verdict::Outcome},
};

#[test]
fn every_description_in_telegrams_table_is_read_as_what_it_means() {
    use Outcome::{Broken, Refused, Throttled, TryLater};
    let table = [
        (400, "Bad Request: chat not found", Broken),
        (400, "Bad Request: chat_id is empty", Broken),
        (400, "Bad Request: private chat not found", Broken),
        (400, "Bad Request: message thread not found", Broken),
        (400, "Bad Request: not enough rights to send text messages to the chat", Broken),
        (400, "Bad Request: have no write access to the chat", Broken),
        (400, "Bad Request: TOPIC_CLOSED", Broken),
        (400, "Bad Request: group chat was upgraded to a supergroup chat", Broken),
        (400, "Bad Request: can't parse entities: Unsupported start tag \\\"x\\\" at byte offset 12", Refused),
        (400, "Bad Request: message is too long", Refused),
        (400, "Bad Request: text is too long", Refused),
        (400, "Bad Request: message text is empty", Refused),
        (400, "Bad Request: Unsupported parse_mode", Refused),
        (400, "Bad Request: inline keyboard button URL is invalid: Wrong HTTP URL", Refused),
        (400, "Bad Request: something new", Refused),
        (401, "Unauthorized", Broken),
        (401, "Unauthorized: invalid token specified", Broken),
        (403, "Forbidden: bot was kicked from the supergroup chat", Broken),
        (403, "Forbidden: bot is not a member of the channel chat", Broken),
        (403, "Forbidden: the group chat was deleted", Broken),
        (403, "Forbidden: user is deactivated", Broken),
        (403, "Forbidden: bot was blocked by the user", Broken),
        (403, "Forbidden: bot can't initiate conversation with a user", Broken),
        (403, "Forbidden: the bot can't send messages to the bot", Broken),
        (404, "Not Found", Broken),
        (421, "Misdirected Request", TryLater),
        (429, "Too Many Requests: retry after 37", Throttled),
        (500, "Internal Server Error: restart", TryLater),
        // The same, hidden in a 200.
        (200, "Too Many Requests: retry after 37", Throttled),
        (200, "Forbidden: bot was blocked by the user", Broken),
        (200, "Bad Request: something new", Refused),
    ];
    for (status, description, expected) in table {
        let reply =
            Reply::new(status, format!(r#"{{"ok":false,"error_code":{status},"description":"{description}"}}"#));
        let verdict = telegram().judge(&reply);
        assert_eq!(verdict.outcome(), expected, "{status} {description}: {verdict:?}");
    }
    assert_eq!(telegram().judge(&Reply::new(200, "<html>")).outcome(), TryLater);
    assert_eq!(telegram().judge(&Reply::new(502, "<html>")).outcome(), TryLater);
}

#[test]
fn a_telegram_429_waits_as_long_as_its_body_asks() {
    let body = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 37","parameters":{"retry_after":37}}"#;
    let verdict = telegram().judge(&Reply::new(429, body));
    assert!(matches!(verdict, Verdict::TryLater { after: Some(after), throttled: true, .. } if after.as_secs() == 37));
}

#[test]
fn a_group_that_became_a_supergroup_is_followed_by_cards_and_digests() {
    let body = r#"{"ok":false,"error_code":400,"description":"Bad Request: group chat was upgraded to a supergroup chat",
        "parameters":{"migrate_to_chat_id":-1009999999999}}"#;
    let Verdict::Moved { to, .. } = telegram().judge(&Reply::new(400, body)) else { panic!("not moved") };
    let links = Links { public: "https://a.example".into(), console: "https://a.example".into() };
    let occasion = Occasion { now: Timestamp::UNIX_EPOCH, links: &links, detour: Some(&to) };
    let card = telegram().render(&delivery(|_| ()), &occasion);
    let digest = Digest::of(&[delivery(|_| ())]).unwrap();
    let digest = telegram().render_digest(&digest, false, &occasion).unwrap();
    for parcel in [card, digest] {
        assert!(parcel.body.starts_with(br#"{"chat_id":-1009999999999,"#), "{:?}", parcel.body);
    }
}

#[test]
fn a_chat_is_a_number_or_the_name_of_a_channel() {
    for (text, chat) in [
        ("42", Some(ChatId::Number(42))),
        ("-1001234567890", Some(ChatId::Number(-1_001_234_567_890))),
        ("@soc_alerts", Some(ChatId::Name("@soc_alerts".into()))),
        ("0", None),
        ("soc", None),
        ("@", None),
        ("@a b", None),
        ("1.5", None),
        ("99999999999999999999", None),
    ] {
        assert_eq!(text.parse().ok(), chat, "{text}");
    }
    assert!(ChatId::Number(-1).is_group() && !ChatId::Number(1).is_group() && !ChatId::Name("@a".into()).is_group());
}

#[test]
fn a_token_has_the_shape_that_botfather_gives_it() {
    let api = url("https://api.telegram.org");
    for (token, good) in
        [("1:a", true), ("123456:ABC-DEF_g", true), ("abc", false), (":a", false), ("1:", false), ("1:a/../b", false)]
    {
        let telegram = Telegram::new(&api, Secret::new(token), ChatId::Number(1));
        assert_eq!(telegram.is_ok(), good, "{token}");
    }
}

#[test]
fn the_token_stands_in_the_path_below_the_api() {
    let api = url("http://127.0.0.1:9/base/");
    let telegram = Telegram::new(&api, Secret::new("1:a"), ChatId::Number(1)).unwrap();
    assert_eq!(telegram.endpoint.expose().as_str(), "http://127.0.0.1:9/base/bot1:a/sendMessage");
    // Nothing of the token is shown, nor the method.
    assert_eq!(telegram.endpoint.masked(), "http://127.0.0.1:9/...");
    assert!(telegram.secrets().iter().any(|secret| secret.expose().contains("bot1:a")), "it is scrubbed all the same");
}

#[test]
fn a_telegram_channel_needs_a_token_and_a_chat_of_their_shapes() {
    let token = "bot_token = \"1:a\"";
    let cases = [
        (format!("{token}\nchat_id = 42"), None),
        (format!("{token}\nchat_id = \"-42\""), None),
        (format!("{token}\nchat_id = \"@soc\""), None),
        (format!("{token}\nchat_id = 1.5"), Some("chat_id: a chat is a whole number")),
        (format!("{token}\nchat_id = \"soc\""), Some("chat_id: a chat is a whole number")),
        (token.to_owned(), Some("chat_id: is missing")),
        (
            String::from("bot_token = \"bot1:a\"\nchat_id = 42"),
            Some("bot_token: `bot_token` does not look like a token"),
        ),
    ];
    for (text, expected) in cases {
        let problems = problems(&KIND, &text);
        match expected {
            None => assert!(problems.is_empty(), "{text}: {problems:?}"),
            Some(expected) => {
                assert!(problems.len() == 1 && problems[0].starts_with(expected), "{text}: {problems:?}");
            }
        }
    }
}

#[test]
fn a_group_gets_twenty_a_minute_and_everyone_one_a_second() {
    let pace = |chat: &str| {
        let text = format!("bot_token = \"1:a\"\nchat_id = {chat}");
        configured(&KIND, &text).value.flatten().unwrap().pace
    };
    assert_eq!(pace("42"), [PACE]);
    assert_eq!(pace("-42"), [PACE, PACE_GROUP]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_decision_breaks_telegrams_limits_or_writes_anything_active(delivery in hostile_delivery()) {
        let body = body(&telegram(), &delivery, 1);
        prop_assert!(body["link_preview_options"]["is_disabled"] == true);
        let text = body["text"].as_str().unwrap();
        prop_assert!(text.len() <= 32_768);
        let inert = |ours: &str| {
            ours.split_whitespace().all(|word| word.starts_with("https://a") || word.chars().all(|c| c.is_alphanumeric() || "[]_:(),.".contains(c)))
        };
        if delivery.plain {
            prop_assert!(body.get("parse_mode").is_none() && body.get("reply_markup").is_none());
            let units: Vec<u16> = text.encode_utf16().collect();
            prop_assert!((1..=TEXT_UNITS_MAX).contains(&units.len()));
            // What no entity covers is ours.
            let mut ours = units.clone();
            for entity in body["entities"].as_array().unwrap().iter().rev() {
                let at = |key| usize::try_from(entity[key].as_u64().unwrap()).unwrap();
                prop_assert!(at("length") > 0 && entity["type"] == "code");
                ours.drain(at("offset")..at("offset") + at("length"));
            }
            let ours = String::from_utf16(&ours).unwrap();
            prop_assert!(inert(&ours), "{}", ours);
        } else {
            prop_assert!(body["parse_mode"] == "HTML");
            let (ours, theirs) = split_quotes(text, "<code>", "</code>");
            for quoted in theirs {
                prop_assert!(!quoted.is_empty() && !quoted.contains(['<', '>', '\n']) && !quoted.chars().any(is_invisible));
                let bare = ["&amp;", "&lt;", "&gt;"].iter().fold(quoted.to_owned(), |text, entity| text.replace(entity, ""));
                prop_assert!(!bare.contains('&'), "{}", quoted);
            }
            let ours = ours.replace("<b>", "").replace("</b>", "");
            prop_assert!(inert(&ours), "{}", ours);
            let parsed = text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
            prop_assert!(parsed.encode_utf16().count() <= TEXT_UNITS_MAX);
        }
    }

    #[test]
    fn no_digest_breaks_telegrams_limits_or_writes_anything_active(digest in hostile_digest(), plain in any::<bool>()) {
        let body = digest_body(&telegram(), &digest, plain);
        prop_assert!(body["link_preview_options"]["is_disabled"] == true);
        prop_assert_eq!((body.get("entities").is_some(), body.get("parse_mode").is_some()), (plain, !plain));
        let text = body["text"].as_str().unwrap();
        prop_assert!(text.len() <= 32_768);
        let mut ours = String::new();
        if plain {
            let mut units: Vec<u16> = text.encode_utf16().collect();
            prop_assert!(units.len() <= TEXT_UNITS_MAX, "{}", units.len());
            // Telegram reads the first 100 entities of a message and no more.
            let entities = body["entities"].as_array().unwrap();
            prop_assert!(entities.len() <= 100);
            for entity in entities.iter().rev() {
                let at = |key| usize::try_from(entity[key].as_u64().unwrap()).unwrap();
                prop_assert!(at("length") > 0 && entity["type"] == "code");
                units.drain(at("offset")..at("offset") + at("length"));
            }
            ours.push_str(&String::from_utf16(&units).unwrap());
        } else {
            let (outside, theirs) = split_quotes(text, "<code>", "</code>");
            for quoted in &theirs {
                prop_assert!(!quoted.is_empty() && !quoted.contains(['<', '>', '\n']));
                let bare = ["&amp;", "&lt;", "&gt;"].iter().fold((*quoted).to_owned(), |text, entity| text.replace(entity, ""));
                prop_assert!(!bare.contains('&'), "{}", quoted);
            }
            let (outside, links) = split_quotes(&outside, "<a href=\"", "\">View</a>");
            prop_assert!(links.iter().all(|url| url.starts_with("https://a") && !url.contains(['<', '>', '"'])));
            prop_assert!(theirs.len() + links.len() + outside.matches("<b>").count() <= 100);
            ours.push_str(&outside.replace("<b>", "").replace("</b>", ""));
            let theirs: String = theirs.concat().replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
            prop_assert!(ours.len() + theirs.encode_utf16().count() + 4 * links.len() <= TEXT_UNITS_MAX);
        }
        let inert = |word: &str| word.starts_with("https://a") || word.chars().all(|c| c.is_alphanumeric() || "[]_:(),.".contains(c));
        prop_assert!(ours.split_whitespace().all(inert), "{}", ours);
    }
}

#[test]
fn a_card_keeps_approve_and_deny_away_from_the_link_below() {
    let body = body(&telegram(), &delivery(|_| ()), 1);
    let rows = body["reply_markup"]["inline_keyboard"].as_array().unwrap();
    let labels: Vec<Vec<&str>> = rows
        .iter()
        .map(|row| row.as_array().unwrap().iter().map(|button| button["text"].as_str().unwrap()).collect())
        .collect();
    assert_eq!(labels, [vec!["Approve", "Deny"], vec!["View in Console"]]);
    assert_eq!(rows[0][0]["url"], "https://alerts.example.com/approvals/apr_7?answer=approve");
    assert!(parcel(&telegram(), &delivery(|_| ()), 1).endpoint.expose().path().ends_with("/sendMessage"));
}
