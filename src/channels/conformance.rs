//! What every kind of chat channel must hold, tested by walking a list, so that a new kind is tested before anybody writes a test
//! for it. What only one platform knows is tested in that kind's own file, with the hostile decisions from here.

pub(super) mod digests;

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use url::Url;

use super::{
    Built, Channel, KINDS, Kind, Links, Occasion, Parcel,
    slack::{Door, Interactivity, Slack},
    telegram::{ChatId, Telegram},
    text::is_invisible,
};
use crate::{
    model::{Decision, Delivery, Reply, Scrubber, Secret, Timestamp, Verdict, verdict::Outcome},
    settings::{self, Outside, Reading},
};

pub(super) const SIGNING_SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

/// The `{base}` of the samples.
const BASE: &str = "http://127.0.0.1:1";

/// A channel under test.
pub(super) struct Subject {
    pub name: &'static str,
    /// Whether people read it: then cards are looked at too.
    pub chat: bool,
    pub channel: Arc<dyn Channel>,
    /// What must never be seen of it: every secret that its configuration holds.
    secrets: Vec<String>,
}

/// Every kind, built from its sample as the configuration builds it, and the bot of Slack, which posts in another way.
pub(super) fn subjects() -> Vec<Subject> {
    let bot = "bot_token = \"xoxb-1234567890-abcdefghij\"\nchannel = \"C024BE91L\"\n";
    let samples = KINDS.iter().map(|kind| (kind.name, *kind, kind.sample));
    let samples = samples.chain([("slack bot", &super::slack::KIND, bot)]);
    let subject = |(name, kind, sample)| {
        let reading = configured(kind, sample);
        assert_eq!(reading.faults, [], "{name}: the sample has faults");
        let built = reading.value.flatten().expect("the sample builds");
        let secrets = reading.secrets.iter().map(|secret| secret.expose().to_owned());
        let secrets = secrets.filter(|secret| secret != BASE).collect();
        Subject { name, chat: kind.chat, channel: built.channel, secrets }
    };
    samples.map(subject).collect()
}

fn chats() -> Vec<Subject> {
    subjects().into_iter().filter(|subject| subject.chat).collect()
}

/// What becomes of `text` as the configuration of a `kind`.
pub(super) fn configured(kind: &Kind, text: &str) -> Reading<Option<Built>> {
    settings::read(&text.replace("{base}", BASE), &Outside::nothing(), |settings| (kind.build)(settings))
}

/// The problems in `text` as the configuration of a `kind`, each after its key. None of them is without a hint.
pub(super) fn problems(kind: &Kind, text: &str) -> Vec<String> {
    let reading = configured(kind, text);
    assert!(reading.faults.iter().all(|fault| !fault.hint.is_empty()), "{:?}", reading.faults);
    reading.faults.iter().map(|fault| format!("{}: {}", fault.path, fault.problem)).collect()
}

pub(super) fn slack_webhook(signing_secret: Option<&str>) -> Slack {
    let door = Door::Webhook(url("https://hooks.slack.com/services/T0/B0/abcdefghijklmnopqrstuvwx"));
    let signing_secrets = signing_secret.into_iter().map(Secret::new).collect();
    Slack::new(door, Interactivity { signing_secrets, ..Interactivity::default() }).unwrap()
}

pub(super) fn slack_bot() -> Slack {
    let (api, token, channel) =
        (url("https://slack.com/api/"), Secret::new("xoxb-1234567890-abcdefghij"), String::from("C024BE91L"));
    Slack::new(Door::Bot { api, token, channel }, Interactivity::default()).unwrap()
}

pub(super) fn telegram() -> Telegram {
    let token = Secret::new("1234567890:abcdefghijklmnopqrstuvwxyz_ABC-123");
    Telegram::new(&url("https://api.telegram.org"), token, ChatId::Number(-1_001_234_567_890)).unwrap()
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
fn every_kind_has_a_name_of_its_own_and_a_pace_that_lets_something_through() {
    for (index, kind) in KINDS.iter().enumerate() {
        assert!(KINDS[..index].iter().all(|other| other.name != kind.name), "{} is there twice", kind.name);
        assert!(kind.concurrency >= 1, "{}", kind.name);
        let built = configured(kind, kind.sample).value.flatten().unwrap();
        let flows = |rate: &super::Rate| rate.count >= 1 && rate.burst >= 1 && !rate.per.is_zero();
        assert!(built.pace.iter().all(flows), "{}: {:?}", kind.name, built.pace);
        assert!(!kind.chat || !built.pace.is_empty(), "{}: people read one line at a time", kind.name);
    }
}

#[test]
fn a_kind_without_its_keys_or_with_unknown_ones_is_a_fault() {
    for kind in KINDS {
        assert!(!problems(kind, "").is_empty(), "{}", kind.name);
        assert!(!problems(kind, &format!("{}\nunknwon = 1", kind.sample)).is_empty(), "{}", kind.name);
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
    for Subject { name, channel, .. } in chats() {
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
fn the_same_occasion_gives_the_same_parcel_and_the_plain_form_of_a_card_is_another() {
    for Subject { name, chat, channel, .. } in subjects() {
        let rich = delivery(|_| ());
        let plain = Delivery { plain: true, ..rich.clone() };
        let [one, same, other] = [&rich, &rich, &plain].map(|delivery| parcel(&*channel, delivery, 90));
        assert_eq!((&one.body, &one.headers, &one.endpoint), (&same.body, &same.headers, &same.endpoint), "{name}");
        assert!(!one.body.is_empty() && (!chat || one.body != other.body), "{name}");
        assert!(one.headers.contains_key(http::header::CONTENT_TYPE), "{name}");
    }
}

#[test]
fn no_secret_is_printed_and_every_secret_is_known_to_the_scrubber() {
    for Subject { name, channel, secrets, .. } in subjects() {
        let parcel = parcel(&*channel, &delivery(|_| ()), 1);
        let printed = format!("{channel:?} {channel:#?} {:?} {:?}", parcel.endpoint, parcel.headers);
        let body = String::from_utf8_lossy(&parcel.body);
        let scrubber = Scrubber::new(channel.secrets());
        assert!(!secrets.is_empty(), "{name} has none");
        for secret in &secrets {
            assert!(!printed.contains(secret), "{name} prints a secret: {printed}");
            assert!(!body.contains(secret), "{name} posts a secret in the body: {body}");
            let clean = scrubber.scrub(&format!("POST {secret} failed"));
            assert!(!clean.contains(secret), "{name} does not list a secret: {clean}");
        }
        let url = parcel.endpoint.expose();
        let path = &url[url::Position::BeforePath..];
        assert!(!scrubber.scrub(url.as_str()).contains(path) && !printed.contains(path), "{name}: {printed}");
    }
}

#[test]
fn replies_that_mean_the_same_everywhere_are_read_so() {
    let successes = [Reply::new(200, "ok"), Reply::new(200, r#"{"ok":true,"code":0,"id":"1"}"#), Reply::new(202, "")];
    for Subject { name, chat, channel, .. } in subjects() {
        let outcome = |reply: &Reply| channel.judge(reply).outcome();
        let delivered = |reply: &Reply| matches!(outcome(reply), Outcome::Delivered | Outcome::Accepted);
        assert!(successes.iter().any(delivered), "{name} takes nothing for a success");
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
        }
        for success in &successes {
            assert!(
                !delivered(&Reply { status: http::StatusCode::FOUND, ..success.clone() }),
                "{name} follows: {success:?}"
            );
        }
        for status in [400, 402, 406, 413, 418, 422, 451] {
            let verdict = channel.judge(&Reply::new(status, "whatever this is"));
            assert_eq!(verdict.outcome(), Outcome::Refused, "{name}: {status} {verdict:?}");
            let plain_next = matches!(verdict, Verdict::Refused { plain_may_pass: true, .. });
            assert!(plain_next || !chat, "{name}: {status} {verdict:?}");
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
        for Subject { name, channel, secrets, .. } in chats() {
            let body = body(&*channel, &delivery, 1);
            let texts = texts(&body);
            prop_assert!(!texts.iter().any(|text| text.chars().any(|c| c != '\n' && is_invisible(c))), "{}: {:?}", name, texts);
            prop_assert!(!texts.iter().any(|text| secrets.iter().any(|secret| text.contains(secret))), "{}", name);
            prop_assert!(texts.iter().any(|text| text.contains("[Interven] REQUIRE_APPROVAL")), "{}", name);
        }
    }
}
