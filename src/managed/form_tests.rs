//! Forms of every kind: what stands in them comes out of them again, and secrets do not.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    managed::draft::{self, Draft},
    model::{ChannelId, Egress},
};

const HOOK: &str = "kQ7vXw2mZr9LpT4nHd6s";

fn id() -> ChannelId {
    "soc".parse().unwrap()
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn read(channel: &Map<String, Value>, present: Option<&Draft>) -> Draft {
    draft::read(&id(), channel, &Egress::default(), present).unwrap_or_else(|complaints| panic!("{complaints:#?}"))
}

/// Channels that between them have every key of every kind, most of them otherwise than by default.
fn everything() -> Vec<Map<String, Value>> {
    let common = json!({
        "events": ["ALLOW", "SANITIZE"], "min_severity": "HIGH", "tools": ["slack", "github.create_*"], "agents": [],
        "rate_limit": "20/min", "burst": 3, "timeout": "3s", "concurrency": 2, "notices": true, "canary": "1h",
        "retry": {"attempts": 3, "first": "2s", "longest": "3m", "max_age": "2h"},
    });
    let digest = json!({"enabled": false, "over": 7});
    let hook = format!("https://chat.example/services/{HOOK}");
    let own = [
        json!({"kind": "slack", "webhook_url": hook, "signing_secret": [HOOK, format!("{HOOK}2")],
            "approvers": ["U024BE7LH"], "response_hosts": ["hooks.slack.com"], "digest": digest}),
        json!({"kind": "slack", "bot_token": format!("xoxb-{HOOK}"), "channel": "C024BE91L", "approvers": [],
            "api_url": format!("https://slack.example/{HOOK}"), "signing_secret": HOOK, "digest": digest}),
        json!({"kind": "discord", "webhook_url": hook, "digest": digest}),
        json!({"kind": "teams", "webhook_url": "https://x.webhook.office.com/kQ7vXw2mZr9LpT4nHd6s", "allow_retired": true,
            "digest": digest}),
        json!({"kind": "telegram", "bot_token": format!("1234567890:{HOOK}{HOOK}"), "chat_id": -1001,
            "api_url": format!("https://telegram.example/{HOOK}"), "digest": digest}),
        json!({"kind": "siem", "url": hook, "format": "ocsf", "envelope": "splunk", "ocsf_class": "security_finding",
            "ocsf_version": "1.1.0", "headers": {"Authorization": format!("Splunk {HOOK}"), "X-Key": HOOK},
            "batch": {"events": 50, "bytes": "1MB", "wait": "2s"}, "compression": "gzip"}),
        json!({"kind": "siem", "url": hook, "format": "json", "template": {"id": "{{id}}"},
            "signing_secret": format!("whsec_{HOOK}{HOOK}"), "batch": {"bytes": 900_000}}),
    ];
    own.iter().map(|own| object(&common).into_iter().chain(object(own)).collect()).collect()
}

fn of(channel: &Map<String, Value>) -> &'static Kind {
    kind_of(channel["kind"].as_str().unwrap()).unwrap()
}

/// What a browser sends of a form in which nothing is changed.
fn as_sent(filled: &Filled) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (field, entry) in filled.entries() {
        let mut push = |value: &str| pairs.push((field.key.to_owned(), value.to_owned()));
        match entry {
            Entry::Several(texts) => texts.iter().for_each(|text| push(text)),
            Entry::On(true) => push("on"),
            Entry::On(false) => {}
            // A secret is not in the page.
            Entry::One(_) => push(""),
            // Line ends go over the network as the network's.
            Entry::Text(_) | Entry::Words { .. } | Entry::Each(_) => push(&entry.text().replace('\n', "\r\n")),
        }
    }
    pairs
}

#[test]
fn between_them_the_channels_of_this_test_have_every_key_of_every_form() {
    for kind in KINDS {
        let all = everything();
        let ours: Vec<_> = all.iter().filter(|channel| channel["kind"] == kind.name).collect();
        for field in config::form::fields(kind) {
            assert!(ours.iter().any(|channel| at(channel, field.key).is_some()), "{} {}", kind.name, field.key);
        }
    }
}

#[test]
fn a_channel_whose_form_is_sent_as_it_was_shown_stays_as_it_is() {
    for channel in everything() {
        let (kind, before) = (of(&channel), read(&channel, None));
        let shown = before.masked();
        let form = Filled::of(kind, &shown);
        let sent = Filled::sent(kind, &as_sent(&form), &Held::default(), Some(&shown));
        assert_eq!((sent.complaints(), &sent.held()), (&[][..], &Held::default()), "{}", kind.name);
        let after = read(&sent.channel(), Some(&before));
        let told = |draft: &Draft| {
            let secrets: Vec<_> = draft.plan.channel.secrets().iter().map(|one| one.expose().to_owned()).collect();
            let plan = config::ChannelPlan { fingerprint: String::new(), ..draft.plan.clone() };
            format!("{plan:?} {secrets:?}")
        };
        assert_eq!(told(&after), told(&before), "{}", kind.name);
        let page: Vec<String> = form.entries().iter().map(|(_, entry)| entry.text()).collect();
        assert!(!page.concat().contains(HOOK), "{page:?}");
    }
}

#[test]
fn what_was_typed_is_held_for_the_next_press_and_is_not_shown() {
    for channel in everything() {
        let kind = of(&channel);
        // Typed by hand: the channel itself stands where masks stand in a page.
        let mut pairs = as_sent(&Filled::of(kind, &channel));
        for (key, value) in &mut pairs {
            if let Some(Entry::One(Hush::Kept(typed))) = entry_of(&Filled::of(kind, &channel), key) {
                value.clone_from(&typed);
            }
        }
        let first = Filled::sent(kind, &pairs, &Held::default(), None);
        let held = Held::from_text(&first.held().to_text()).unwrap();
        assert!(!held.is_empty() && first.complaints().is_empty(), "{}: {first:?}", kind.name);
        let page: Vec<String> = first.entries().iter().map(|(_, entry)| entry.text()).collect();
        assert!(!page.concat().contains(HOOK) && !format!("{first:?} {held:?}").contains(HOOK), "{page:?}");
        let again = Filled::sent(kind, &as_sent(&first), &held, None);
        assert_eq!(again.channel(), first.channel(), "{}", kind.name);
        read(&again.channel(), None);
        // Where it is not held any more, that is said, or the field is empty.
        let lost = Filled::sent(kind, &as_sent(&first), &Held::default(), None);
        assert!(!Value::from(lost.channel()).to_string().contains("[typed"), "{lost:?}");
    }
}

fn entry_of(filled: &Filled, key: &str) -> Option<Entry> {
    filled.entries().iter().find(|(field, _)| field.key == key).map(|(_, entry)| entry.clone())
}

#[test]
fn a_secret_goes_when_it_is_dropped_and_a_new_one_takes_its_place() {
    let (kind, held) = (kind_of("slack").unwrap(), Held::default());
    let shown = object(&json!({"webhook_url": "https://hooks.slack.com/...abcd", "signing_secret": "[secret]"}));
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let kept = Filled::sent(kind, &[pair("signing_secret", "[secret]")], &held, Some(&shown)).channel();
    assert_eq!((&kept["webhook_url"], &kept["signing_secret"]), (&shown["webhook_url"], &json!(["[secret]"])));
    let pairs =
        [pair("drop:webhook_url", "on"), pair("bot_token", " xoxb-1 "), pair("signing_secret", "new\r\n[secret]")];
    let changed = Filled::sent(kind, &pairs, &held, Some(&shown)).channel();
    assert!(!changed.contains_key("webhook_url"), "{changed:?}");
    assert_eq!((&changed["bot_token"], &changed["signing_secret"]), (&json!("xoxb-1"), &json!(["new", "[secret]"])));
}

#[test]
fn what_is_no_header_is_complained_about_without_being_shown() {
    let pairs = [(String::from("headers"), format!("{HOOK}\nA: 1\nA: 2\nB: [typed]"))];
    let sent = Filled::sent(kind_of("siem").unwrap(), &pairs, &Held::default(), None);
    assert_eq!(sent.channel()["headers"], json!({"A": "1"}));
    let problems: Vec<&str> = sent.complaints().iter().map(|one| one.problem.as_str()).collect();
    assert!(problems[0].contains("line 1 is no header") && problems[1].contains("line 3"), "{problems:?}");
    assert!(problems.len() == 3 && problems[2].contains("not kept any longer"), "{problems:?}");
    assert!(!format!("{sent:?}").contains(HOOK));
    assert_eq!(sent.field_of("headers.A.b").map(|field| field.key), Some("headers"));
    assert_eq!(sent.field_of("header").map(|field| field.key), None);
}

/// What people write where something else is wanted.
const WRONG: [&str; 12] =
    ["", "?", "0", "30", "-1", "1,5", "fast", "a b", "my key: x", "\"30s\"", "[\"U024BE7LH\"]", "{ id = \"{{id}}\" }"];

/// The examples in a hint: what somebody would copy from it.
fn examples(hint: &str) -> Vec<String> {
    let behind = ["write it as ", "as in ", "such as "].into_iter().flat_map(|mark| hint.split(mark).skip(1));
    let example = |rest: &str| {
        let ends = [", ", "; ", " (", " or "].into_iter().filter_map(|end| rest.find(end));
        let json = rest.starts_with('{').then(|| rest.rfind('}').map(|end| end + 1)).flatten();
        rest[..json.or_else(|| ends.min()).unwrap_or(rest.len())].to_owned()
    };
    behind.map(example).collect()
}

/// What is wrong at `field` of the form of `channel`, where somebody types `text` there.
fn wrong_with(channel: &Map<String, Value>, field: &Field, text: &str) -> Vec<Complaint> {
    let (kind, typed) = (of(channel), Filled::of(of(channel), channel));
    let mut pairs = as_sent(&typed);
    for (key, value) in &mut pairs {
        if let Some(Entry::One(Hush::Kept(typed))) = entry_of(&typed, key) {
            *value = typed;
        }
    }
    pairs.retain(|(key, _)| key != field.key);
    pairs.push((field.key.to_owned(), text.to_owned()));
    let sent = Filled::sent(kind, &pairs, &Held::default(), None);
    let read = draft::read(&id(), &sent.channel(), &Egress::default(), None);
    let all = sent.complaints().iter().cloned().chain(read.err().unwrap_or_default());
    all.filter(|one| sent.field_of(&one.key).is_some_and(|about| about.key == field.key)).collect()
}

#[test]
fn whoever_does_what_a_hint_says_in_the_field_that_it_stands_at_is_not_refused_for_it() {
    let mut tried = std::collections::BTreeSet::new();
    for channel in everything() {
        let is_typed = |field: &&Field| {
            !matches!(field.input, Input::Switch { .. } | Input::Choice { .. } | Input::Several { .. })
        };
        for (field, wrong) in
            config::form::fields(of(&channel)).filter(is_typed).flat_map(|field| WRONG.map(|wrong| (field, wrong)))
        {
            let complaints = wrong_with(&channel, field, wrong);
            for Complaint { hint, .. } in &complaints {
                assert!(!hint.contains(" = ") && !hint.contains("[\""), "{}: written for the file: {hint}", field.key);
                for example in examples(hint) {
                    tried.insert(field.key);
                    // What was wrong besides may stay so.
                    let known = |one: &Complaint| one.hint != *hint && complaints.contains(one);
                    let left = wrong_with(&channel, field, &example);
                    assert!(left.iter().all(known), "{}: {hint}: {example}: {left:?}", field.key);
                }
            }
        }
    }
    let expected = [
        "approvers",
        "batch.bytes",
        "batch.wait",
        "bot_token",
        "canary",
        "channel",
        "headers",
        "rate_limit",
        "response_hosts",
        "retry.first",
        "retry.longest",
        "retry.max_age",
        "template",
        "timeout",
        "url",
        "webhook_url",
    ];
    assert!(expected.iter().all(|key| tried.contains(key)), "{tried:?}");
}

proptest! {
    #[test]
    fn whatever_is_sent_is_the_same_when_it_is_shown_and_sent_again(
        kind in 0..KINDS.len(),
        texts in proptest::collection::vec("(?s)[ -~\n]{0,40}|\\PC{0,20}|[A-Z]: [a-z]{3}\n[A-Z]: \\[typed\\]", 0..40),
    ) {
        let kind = KINDS[kind];
        let keys: Vec<String> = config::form::fields(kind).map(|field| field.key.to_owned()).collect();
        let pairs: Vec<(String, String)> = keys.into_iter().cycle().zip(texts).collect();
        let first = Filled::sent(kind, &pairs, &Held::default(), None);
        let again = Filled::sent(kind, &as_sent(&first), &first.held(), None);
        prop_assert_eq!(again.channel(), first.channel());
        prop_assert!(again.complaints().is_empty(), "{:?}", again.complaints());
        // Whatever it is, it is a channel or its faults are told.
        drop(draft::read(&id(), &again.channel(), &Egress::default(), None));
    }
}
