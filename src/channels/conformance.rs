//! What every kind of chat channel must hold, tested by walking a list, so that a new kind is tested before anybody writes a test
//! for it. What only one platform knows is tested in that kind's own file, with the hostile decisions from here.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use url::Url;

use super::{
    Channel, KINDS, Links, Occasion, Parcel,
    discord::Discord,
    slack::{Door, Interactivity, Slack},
    teams::Teams,
    telegram::{ChatId, Telegram},
    text::is_invisible,
};
use crate::model::{Decision, Delivery, Reply, Scrubber, Secret, Timestamp, Verdict, verdict::Outcome};

pub(super) const SIGNING_SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
const BOT_TOKEN: &str = "xoxb-1234567890-abcdefghij";
const TELEGRAM_TOKEN: &str = "1234567890:abcdefghijklmnopqrstuvwxyz_ABC-123";
const PATH_TOKEN: &str = "abcdefghijklmnopqrstuvwx";

/// A channel under test.
pub(super) struct Subject {
    /// The name of its kind, and what is special about it.
    pub name: &'static str,
    pub channel: Arc<dyn Channel>,
    /// What must never be seen of it.
    secrets: Vec<&'static str>,
    /// How its platform says that it has a delivery.
    success: Reply,
}

/// Every kind of chat channel, in every form that posts differently.
pub(super) fn subjects() -> Vec<Subject> {
    vec![
        Subject {
            name: "slack",
            channel: Arc::new(slack_webhook(Some(SIGNING_SECRET))),
            secrets: vec![PATH_TOKEN, SIGNING_SECRET],
            success: Reply::new(200, "ok"),
        },
        Subject {
            name: "slack bot",
            channel: Arc::new(slack_bot()),
            secrets: vec![BOT_TOKEN],
            success: Reply::new(200, r#"{"ok":true,"channel":"C1","ts":"1700000000.000100"}"#),
        },
        Subject {
            name: "discord",
            channel: Arc::new(Discord::new(url(&format!(
                "https://discord.com/api/webhooks/1/{PATH_TOKEN}?thread_id=7"
            )))),
            secrets: vec![PATH_TOKEN],
            success: Reply::new(200, r#"{"id":"1","channel_id":"2"}"#),
        },
        Subject {
            name: "teams",
            channel: Arc::new(Teams::new(url(&format!(
                "https://x.example/workflows/1?sp=%2Ftriggers&sig={PATH_TOKEN}"
            )))),
            secrets: vec![PATH_TOKEN],
            success: Reply::new(202, ""),
        },
        Subject {
            name: "telegram",
            channel: Arc::new(telegram()),
            secrets: vec![TELEGRAM_TOKEN],
            success: Reply::new(200, r#"{"ok":true,"result":{"message_id":42}}"#),
        },
    ]
}

pub(super) fn slack_webhook(signing_secret: Option<&str>) -> Slack {
    let door = Door::Webhook(url(&format!("https://hooks.slack.com/services/T0/B0/{PATH_TOKEN}")));
    let signing_secrets = signing_secret.into_iter().map(Secret::new).collect();
    Slack::new(door, Interactivity { signing_secrets, ..Interactivity::default() }).unwrap()
}

pub(super) fn slack_bot() -> Slack {
    let (api, token, channel) = (url("https://slack.com/api/"), Secret::new(BOT_TOKEN), String::from("C024BE91L"));
    Slack::new(Door::Bot { api, token, channel }, Interactivity::default()).unwrap()
}

pub(super) fn telegram() -> Telegram {
    Telegram::new(&url("https://api.telegram.org"), Secret::new(TELEGRAM_TOKEN), ChatId::Number(-1_001_234_567_890))
        .unwrap()
}

pub(super) fn url(text: &str) -> Url {
    text.parse().unwrap()
}

/// The example of the contract, changed by `edit`.
pub(super) fn delivery(edit: impl FnOnce(&mut Value)) -> Delivery {
    let mut decision = json!({"id":"f1e2d3c4-5b6a-4788-99aa-bbccddeeff00","time":"2026-06-01T12:00:00.123Z",
        "decision":"REQUIRE_APPROVAL","severity":"HIGH","risk":0.71,"title":"Secret egress blocked",
        "agent":{"id":"agt_42","name":"production-langgraph"},"tool":"slack","operation":"post_message",
        "reasons":["PII_EGRESS","SENSITIVE_DATA_EGRESS"],"src":"10.0.0.42",
        "approval":{"id":"apr_7","expires_at":"2026-06-01T12:10:00Z"}});
    edit(&mut decision);
    let decision = Decision::decode(Bytes::from(decision.to_string())).unwrap();
    Delivery::new(Arc::new(decision), "soc".parse().unwrap(), Timestamp::UNIX_EPOCH)
}

/// What `channel` posts for `delivery`, `seconds` after 12:00:00, with ordinary links.
pub(super) fn parcel(channel: &dyn Channel, delivery: &Delivery, seconds: u64) -> Parcel {
    let links = Links { public: "https://alerts.example.com".into(), console: "https://app.example.com".into() };
    let noon: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
    let now = noon.plus(std::time::Duration::from_secs(seconds));
    channel.render(delivery, &Occasion { now, links: &links, detour: None })
}

/// The body of [`parcel`], as JSON.
pub(super) fn body(channel: &dyn Channel, delivery: &Delivery, seconds: u64) -> Value {
    serde_json::from_slice(&parcel(channel, delivery, seconds).body).unwrap()
}

/// Every text in `value`, keys left out.
pub(super) fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

/// `text` without what stands between `open` and `close`, and what stood there. Panics where one is missing.
pub(super) fn split_quotes<'t>(text: &'t str, open: &str, close: &str) -> (String, Vec<&'t str>) {
    let (mut outside, mut inside, mut rest) = (String::new(), Vec::new(), text);
    while let Some((before, after)) = rest.split_once(open) {
        let (quoted, after) = after.split_once(close).expect("what is opened is closed");
        outside.push_str(before);
        inside.push(quoted);
        rest = after;
    }
    outside.push_str(rest);
    (outside, inside)
}

/// Text as an attacker writes it: everything that is active somewhere, in any order, sometimes ten thousand characters of it.
pub(super) fn hostile_text() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "<!channel>",
        "<@U1>",
        "@everyone",
        "<@&123>",
        "[x](http://evil.example)",
        "`",
        "```",
        "\u{202e}",
        "*b*",
        "_i_",
        "~~s~~",
        "||s||",
        "<b>",
        "</code>",
        "</pre>",
        "&amp;",
        "&",
        "<",
        ">",
        "\"",
        "\\",
        "\r\n",
        "\u{2028}",
        "\u{0}",
        "{{DATE(2017-02-14T06:08:00Z)}}",
        "http://evil.example/x",
        "www.evil.example",
        "<t:1:R>",
        ":tada:",
        "@botname",
        "<http://evil.example|slack.com>",
        "<a href=\"tg://user?id=1\">x</a>",
        "\u{200b}",
        "\u{e0041}",
        "\u{2066}",
        "🙂",
        "# h",
        "- l",
        "1. n",
        "> q",
        "<at>all</at>",
        "plain words",
        "\u{2}\u{3}",
        "&lt;!here&gt;",
        "\u{fe0f}",
        "e\u{301}",
    ];
    let piece = prop_oneof![3 => proptest::sample::select(PIECES).prop_map(String::from), 1 => ".{0,20}"];
    let times = prop_oneof![4 => Just(1_usize), 1 => Just(60)];
    (prop::collection::vec(piece, 0..12), times).prop_map(|(pieces, times)| pieces.concat().repeat(times))
}

/// Deliveries of such text, up to the worst that arrives: a title of 10 KB and 500 reasons.
pub(super) fn hostile_delivery() -> impl Strategy<Value = Delivery> {
    let count = prop_oneof![3 => 0_usize..4, 1 => Just(500)];
    let reasons = (prop::collection::vec(hostile_text(), 1..4), count).prop_map(|(some, count)| {
        some.iter().cycle().take(count).map(|text| text.chars().take(60).collect()).collect()
    });
    let ids = ("[^\\p{Cc}]{1,120}", hostile_text());
    (hostile_text(), hostile_text(), hostile_text(), reasons, ids, any::<bool>()).prop_map(
        |(title, agent, tool, reasons, (id, approval), plain): (_, _, _, Vec<String>, _, _)| {
            let mut hostile = delivery(|decision| {
                decision["title"] = title.into();
                decision["agent"]["name"] = agent.into();
                decision["tool"] = format!("t{tool}").into();
                decision["reasons"] = reasons.into();
                decision["id"] = id.into();
                decision["approval"]["id"] = format!("{approval}a").into();
            });
            hostile.plain = plain;
            hostile
        },
    )
}

#[test]
fn every_chat_kind_is_walked() {
    for kind in KINDS.iter().filter(|kind| kind.chat) {
        assert!(subjects().iter().any(|subject| subject.name == kind.name), "{} is not in `subjects`", kind.name);
        assert!(kind.concurrency >= 1 && !kind.sample.is_empty(), "{}", kind.name);
    }
}

#[test]
fn a_card_says_what_the_product_page_says() {
    let approval = delivery(|_| ());
    let deny = delivery(|decision| {
        decision["decision"] = "DENY".into();
        decision["risk"] = Value::Null;
        decision["title"] = Value::Null;
    });
    let plain = Delivery { plain: true, ..delivery(|_| ()) };
    for Subject { name, channel, .. } in subjects() {
        for (scene, delivery, seconds) in [
            ("approval", &approval, 1),
            ("deny", &deny, 1),
            ("late", &deny, 320),
            ("plain", &plain, 1),
            ("expired", &approval, 600),
        ] {
            let body = body(&*channel, delivery, seconds);
            let said = texts(&body).join("\n");
            for word in ["production-langgraph", "slack.post_message", "PII_EGRESS, SENSITIVE_DATA_EGRESS", "HIGH"] {
                assert!(said.contains(word), "{name} {scene} leaves out {word}: {said}");
            }
            if name.contains(' ') && scene != "approval" {
                // A second way in posts the same cards; one of them is enough to look at.
                continue;
            }
            let mut body = serde_json::to_string_pretty(&body).unwrap();
            if let Some(start) = body.find("v1.") {
                // Pinned elsewhere; here it would only hide what the card says.
                let value: String = body[start..].chars().take_while(|c| *c != '"').collect();
                body = body.replace(&value, "[sealed]");
            }
            insta::assert_snapshot!(format!("{}_{scene}", name.replace(' ', "_")), body);
        }
    }
}

#[test]
fn the_same_occasion_gives_the_same_parcel_and_the_plain_form_is_another() {
    for Subject { name, channel, .. } in subjects() {
        let rich = delivery(|_| ());
        let plain = Delivery { plain: true, ..rich.clone() };
        let [one, same, other] = [&rich, &rich, &plain].map(|delivery| parcel(&*channel, delivery, 90));
        assert_eq!((&one.body, &one.headers, &one.endpoint), (&same.body, &same.headers, &same.endpoint), "{name}");
        assert_ne!(one.body, other.body, "{name}");
        assert!(one.headers.contains_key(http::header::CONTENT_TYPE), "{name}");
    }
}

#[test]
fn no_secret_is_printed_and_every_secret_is_known_to_the_scrubber() {
    for Subject { name, channel, secrets, .. } in subjects() {
        let parcel = parcel(&*channel, &delivery(|_| ()), 1);
        let url = parcel.endpoint.expose().as_str();
        let printed = format!("{channel:?} {channel:#?} {:?} {:?}", parcel.endpoint, parcel.headers);
        let body = String::from_utf8_lossy(&parcel.body);
        let scrubbed = Scrubber::new(channel.secrets()).scrub(&format!("{url} {}", secrets.join(" ")));
        for secret in secrets {
            assert!(!printed.contains(secret), "{name} prints a secret: {printed}");
            assert!(!body.contains(secret), "{name} posts a secret in the body: {body}");
            // Of a webhook whose whole URL is the secret, its last part alone is not always one.
            let alone = channel.secrets().iter().any(|known| known.expose().contains(secret));
            assert!(alone && !scrubbed.contains(url), "{name} does not list a secret: {scrubbed}");
        }
    }
}

#[test]
fn replies_that_mean_the_same_everywhere_are_read_so() {
    for Subject { name, channel, success, .. } in subjects() {
        let outcome = |reply: &Reply| channel.judge(reply).outcome();
        assert!(matches!(outcome(&success), Outcome::Delivered | Outcome::Accepted), "{name}: {success:?}");
        let throttled = channel.judge(&Reply::new(429, "").with_header("retry-after", "30"));
        let Verdict::TryLater { after: Some(after), throttled: true, .. } = throttled else {
            panic!("{name}: {throttled:?}")
        };
        assert_eq!(after.as_secs(), 30, "{name}");
        for status in [408, 425, 500, 502, 503, 504, 599] {
            for body in ["", "<html>Bad Gateway</html>", "{}", "null"] {
                assert_eq!(outcome(&Reply::new(status, body)), Outcome::TryLater, "{name}: {status} {body}");
            }
        }
        for status in [301, 302, 307, 308, 401, 403, 404, 410] {
            assert_eq!(outcome(&Reply::new(status, "<html>no</html>")), Outcome::Broken, "{name}: {status}");
            assert_eq!(
                outcome(&Reply { status: http::StatusCode::FOUND, ..success.clone() }),
                Outcome::Broken,
                "{name}"
            );
        }
        for status in [400, 402, 406, 413, 418, 422, 451] {
            let verdict = channel.judge(&Reply::new(status, "whatever this is"));
            assert!(matches!(verdict, Verdict::Refused { plain_may_pass: true, .. }), "{name}: {status} {verdict:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_reply_makes_judging_panic(
        status in 100_u16..1000,
        header in "[ -~]{0,20}",
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "\\{\"(ok|code|error|errors|description|parameters|retry_after)\":[a-z0-9\"{}.:-]{0,20}\\}".prop_map(String::into_bytes),
            "Microsoft Teams endpoint returned HTTP error .{0,6}".prop_map(String::into_bytes),
        ],
    ) {
        let reply = ["retry-after", "x-ratelimit-remaining", "x-ratelimit-reset-after"]
            .into_iter()
            .fold(Reply::new(status, body), |reply, name| reply.with_header(name, &header));
        for Subject { channel, .. } in subjects() {
            let why = channel.judge(&reply).why().to_owned();
            prop_assert!(why.chars().count() < 400 && !why.chars().any(char::is_control), "{:?}", why);
        }
    }

    #[test]
    fn whatever_a_decision_holds_the_body_is_json_without_anything_invisible(delivery in hostile_delivery()) {
        for Subject { name, channel, secrets, .. } in subjects() {
            let body = body(&*channel, &delivery, 1);
            let texts = texts(&body);
            prop_assert!(!texts.iter().any(|text| text.chars().any(|c| c != '\n' && is_invisible(c))), "{}: {:?}", name, texts);
            prop_assert!(!texts.iter().any(|text| secrets.iter().any(|secret| text.contains(secret))), "{}", name);
            prop_assert!(texts.iter().any(|text| text.contains("[Interven] REQUIRE_APPROVAL")), "{}", name);
        }
    }
}
