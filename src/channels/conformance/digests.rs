//! What every chat kind's digests must hold: the exact numbers, within the platform's limits, whatever the names are.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use serde_json::Value;

use super::{
    super::{Channel, KINDS, Links, Occasion, Parcel, text::is_invisible},
    Subject, chats, configured, delivery, hostile_delivery, hostile_text, texts,
};
use crate::{
    model::{
        Decision, DecisionKind, Delivery, Digest, Timestamp,
        digest::{GROUPS_MAX, Groups, NAME_CHARS_MAX, NAMED_MAX},
    },
    stand_ins::{Card, Fate, Platform, Received, client},
};

/// The links of [`super::parcel`].
fn links() -> Links {
    Links { public: "https://alerts.example.com".into(), console: "https://app.example.com".into() }
}

/// What `channel` posts for `digest`, `seconds` after 12:00:00, with ordinary links.
pub(in crate::channels) fn digest_parcel(
    channel: &dyn Channel,
    digest: &Digest,
    plain: bool,
    seconds: u64,
) -> Option<Parcel> {
    let noon: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
    let now = noon.plus(Duration::from_secs(seconds));
    channel.render_digest(digest, plain, &Occasion { now, links: &links(), detour: None })
}

/// The body of [`digest_parcel`] of a chat kind, as JSON.
pub(in crate::channels) fn digest_body(channel: &dyn Channel, digest: &Digest, plain: bool) -> Value {
    serde_json::from_slice(&digest_parcel(channel, digest, plain, 60).unwrap().body).unwrap()
}

/// Digests of hostile names, with numbers as large as they get, up to the worst: every list full.
pub(in crate::channels) fn hostile_digest() -> impl Strategy<Value = Digest> {
    let count = || prop_oneof![1..100_usize, 1..1_000_000_000_usize];
    let groups = move || {
        let top = prop::collection::vec((hostile_text(), count()), 0..=GROUPS_MAX);
        (top, prop_oneof![Just(0), Just(1), count()], count()).prop_map(|(top, others, others_total)| Groups {
            top,
            others,
            others_total,
        })
    };
    let kinds = [(); DecisionKind::ALL.len()].map(|()| count());
    let worst = prop::collection::vec(hostile_delivery(), 1..=NAMED_MAX);
    (kinds, groups(), groups(), groups(), worst, 0..3_000_000_u64, any::<bool>()).prop_map(
        |(counts, agents, tools, reasons, worst, seconds, one)| {
            let worst: Vec<Arc<Decision>> = worst.into_iter().map(|delivery| delivery.decision).collect();
            let first = worst[0].time;
            Digest {
                total: if one { 1 } else { counts.iter().sum() },
                kinds: DecisionKind::ALL.into_iter().zip(counts).collect(),
                agents,
                tools,
                reasons,
                span: (first, first.plus(Duration::from_secs(seconds))),
                worst,
            }
        },
    )
}

/// What the platform of `subject` makes of a digest: it must show it, whole, as a digest.
fn posted(subject: &Subject, digest: &Digest, plain: bool) -> Received {
    let name = subject.name;
    let parcel = digest_parcel(&*subject.channel, digest, plain, 60).unwrap();
    let (received, reply) =
        client::judge(platform(subject), parcel.endpoint.expose(), &parcel.headers, parcel.body.clone());
    assert_eq!(received.fate, Fate::Taken, "{name}, plain {plain}: {reply:?} to {:?}", parcel.body);
    assert_eq!(received.digest_total(), Some(digest.total as u64), "{name}, plain {plain}: {:?}", parcel.body);
    assert!(received.ids.is_empty(), "{name}, plain {plain}: a digest tells no decision by itself: {:?}", received.ids);
    received
}

fn platform(subject: &Subject) -> Platform {
    let kind = subject.name.split(' ').next();
    Platform::ALL.into_iter().find(|platform| Some(platform.as_str()) == kind).expect("every chat kind has a stand-in")
}

/// What people see, without the markup around it.
fn shown(subject: &Subject, received: &Received) -> Card {
    let mut card = Card::read(platform(subject), &received.body).unwrap();
    for line in &mut card.lines {
        line.retain(|c| !['*', '`', '\\'].contains(&c));
    }
    card
}

/// A storm of 120: most of one agent, a few of twelve others, the last of them graver than the rest.
fn storm() -> Vec<Delivery> {
    let one = |number: usize| {
        delivery(|decision| {
            decision["id"] = format!("d-{number}").into();
            decision["decision"] = if number % 10 == 9 { "SANITIZE" } else { "DENY" }.into();
            decision["severity"] = if number < 116 { "MEDIUM" } else { "HIGH" }.into();
            decision["risk"] = if number == 117 { 0.93.into() } else { Value::Null };
            decision["title"] = if number == 117 { "Secret egress blocked".into() } else { Value::Null };
            decision["time"] = format!("2026-06-01T11:{:02}:30Z", number / 4).into();
            if number.is_multiple_of(5) {
                decision["agent"]["name"] = format!("builder-{:02}", number / 10).into();
                decision["operation"] = Value::Null;
                decision["reasons"] = serde_json::json!(["PII_EGRESS"]);
            }
        })
    };
    (0..120).map(one).collect()
}

#[test]
fn every_kind_that_people_read_tells_digests_and_no_other_does() {
    let digest = Digest::of(&storm()).unwrap();
    for kind in KINDS {
        let channel = configured(kind, kind.sample).value.flatten().unwrap().channel;
        for plain in [false, true] {
            let parcel = digest_parcel(&*channel, &digest, plain, 60);
            assert_eq!(parcel.is_some(), kind.chat, "{}, plain {plain}", kind.name);
        }
    }
}

#[test]
fn a_digest_says_exactly_how_many_of_what_and_when_and_links_to_the_most_severe() {
    let digest = Digest::of(&storm()).unwrap();
    for subject in chats() {
        for plain in [false, true] {
            let received = posted(&subject, &digest, plain);
            let card = shown(&subject, &received);
            let name = subject.name;
            for line in [
                "[Interven] 120 decisions",
                "decisions: DENY 108, SANITIZE 12",
                "agents: production-langgraph 96, builder-00 2, builder-01 2, builder-02 2, builder-03 2, \
                 builder-04 2, builder-05 2, builder-06 2, builder-07 2, builder-08 2 and 3 others: 6",
                "tools: slack.post_message 96, slack 24",
                "reasons: PII_EGRESS 120, SENSITIVE_DATA_EGRE… 96",
                "time: 2026-06-01 11:00:30 to 11:29:30 UTC (29 min)",
                "most severe:",
            ] {
                let line = if plain { line.to_owned() } else { line.replace("EGRE…", "EGRESS") };
                assert!(card.lines.contains(&line), "{name}, plain {plain}: {line:?} is not in {:#?}", card.lines);
            }
            for label in ["decisions", "agents", "tools"] {
                let counts = card.counts(label).unwrap();
                assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 120, "{name}, plain {plain}: {label}");
            }
            let worst = &received.digest.as_ref().unwrap().named;
            assert_eq!(worst, &["d-117", "d-116", "d-118", "d-119", "d-112"], "{name}, plain {plain}");
            let gravest = "HIGH (0.93) DENY slack.post_message by production-langgraph: Secret egress blocked";
            assert!(
                card.lines.iter().any(|line| line.starts_with(gravest)),
                "{name}, plain {plain}: {:#?}",
                card.lines
            );
            if name.contains(' ') {
                continue;
            }
            let body: Value = serde_json::from_slice(&received.body).unwrap();
            let scene = if plain { "digest_plain" } else { "digest" };
            insta::assert_snapshot!(format!("{name}_{scene}"), serde_json::to_string_pretty(&body).unwrap());
        }
    }
}

#[test]
fn a_digest_that_comes_late_says_how_late_and_one_in_time_does_not() {
    let digest = Digest::of(&storm()).unwrap();
    let noon: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
    let fresh = Digest { span: (noon, noon), ..digest };
    for Subject { name, channel, .. } in chats() {
        for plain in [false, true] {
            let said = |seconds| {
                let parcel = digest_parcel(&*channel, &fresh, plain, seconds).unwrap();
                texts(&serde_json::from_slice(&parcel.body).unwrap()).join("\n")
            };
            assert!(!said(60).contains(" late"), "{name}: {}", said(60));
            assert!(said(61).contains("delivered 1 min late"), "{name}: {}", said(61));
            assert!(said(12_000).contains("delivered 3 h 20 min late"), "{name}: {}", said(12_000));
        }
    }
}

#[test]
fn a_digest_asks_for_no_answer_even_of_approvals() {
    let digest = Digest::of(&[delivery(|_| ()), delivery(|decision| decision["id"] = "other".into())]).unwrap();
    for subject in chats() {
        for plain in [false, true] {
            let received = posted(&subject, &digest, plain);
            let card = shown(&subject, &received);
            let expected: &[&str] = if plain || subject.name == "discord" { &[] } else { &["View in Console"] };
            assert_eq!(card.buttons, expected, "{}, plain {plain}", subject.name);
            let body = String::from_utf8_lossy(&received.body);
            assert!(body.contains("View in Console") && body.contains("https://app.example.com"), "{body}");
            assert!(!body.contains("/approvals/") && !body.contains("Approve") && !body.contains("Deny"), "{body}");
        }
    }
}

#[test]
fn the_same_digest_gives_the_same_parcel_and_its_plain_form_is_another() {
    let digest = Digest::of(&storm()).unwrap();
    for Subject { name, channel, .. } in chats() {
        let [one, same, other] =
            [false, false, true].map(|plain| digest_parcel(&*channel, &digest, plain, 60).unwrap());
        assert_eq!((&one.body, &one.headers, &one.endpoint), (&same.body, &same.headers, &same.endpoint), "{name}");
        assert_ne!(one.body, other.body, "{name}");
        assert_eq!((&one.headers, &one.endpoint), (&other.headers, &other.endpoint), "{name}");
    }
}

#[test]
fn the_longest_names_numbers_and_links_that_there_are_leave_the_numbers_whole() {
    // Each character is the worst for some platform: escaped longest, or heaviest in bytes or in UTF-16 units.
    for worst in ["<", "&", "\"", "\\", "`", "*", "🙂", "日", "://www."] {
        let name: String = worst.chars().cycle().take(NAME_CHARS_MAX).collect();
        let count = 1_234_567_890;
        let top = vec![(name.clone(), count); GROUPS_MAX];
        let groups = Groups { top, others: count, others_total: count };
        let decisions = (0..NAMED_MAX).map(|number| {
            delivery(|decision| {
                decision["id"] = format!("{number}{}", "日".repeat(127)).into();
                decision["agent"]["name"] = name.clone().into();
                decision["tool"] = name.clone().into();
                decision["title"] = name.clone().into();
            })
        });
        let digest = Digest {
            total: 9_876_543_210,
            kinds: DecisionKind::ALL.map(|kind| (kind, count)).into(),
            agents: groups.clone(),
            tools: groups.clone(),
            reasons: groups,
            span: (Timestamp::from_unix_millis(i64::MIN), Timestamp::from_unix_millis(i64::MAX)),
            worst: decisions.map(|delivery| delivery.decision).collect(),
        };
        for subject in chats() {
            for plain in [false, true] {
                let received = posted(&subject, &digest, plain);
                let body = String::from_utf8_lossy(&received.body);
                let times = body.matches("1234567890").count();
                // The notification of Slack says the kinds once more.
                let expected = DecisionKind::ALL.len() + 3 * (GROUPS_MAX + 2);
                assert!(times >= expected, "{}, plain {plain}: {times} of {expected} numbers in {body}", subject.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_a_digest_holds_the_platform_shows_it_with_its_numbers_and_nothing_invisible(
        digest in hostile_digest(),
        plain in any::<bool>(),
    ) {
        for subject in chats() {
            let received = posted(&subject, &digest, plain);
            let body: Value = serde_json::from_slice(&received.body).unwrap();
            let texts = texts(&body);
            let name = subject.name;
            prop_assert!(!texts.iter().any(|text| text.chars().any(|c| c != '\n' && is_invisible(c))), "{}: {:?}", name, texts);
            prop_assert!(!texts.iter().any(|text| subject.secrets.iter().any(|secret| text.contains(secret))), "{}", name);
            // A link holds the first 256 bytes of an id.
            let linked = |id: &str| String::from_utf8_lossy(&id.as_bytes()[..id.len().min(256)]).into_owned();
            let ids: Vec<String> = digest.worst.iter().map(|decision| linked(&decision.id)).collect();
            let named = &received.digest.as_ref().unwrap().named;
            prop_assert!(named.iter().all(|id| ids.contains(id)), "{}: {:?} of {:?}", name, named, ids);
            let said = texts.join("\n");
            for (kind, count) in &digest.kinds {
                let said = said.replace('\\', "");
                prop_assert!(said.contains(&format!("{kind} {count}")), "{}: {} of {} in {}", name, count, kind, said);
            }
            for groups in [&digest.agents, &digest.tools, &digest.reasons] {
                for (_, count) in &groups.top {
                    prop_assert!(said.contains(&format!(" {count}")), "{}: {} in {}", name, count, said);
                }
            }
        }
    }

    #[test]
    fn a_card_never_passes_for_a_digest(delivery in hostile_delivery()) {
        for subject in chats() {
            let Parcel { endpoint, headers, body } = super::parcel(&*subject.channel, &delivery, 1);
            let (received, reply) = client::judge(platform(&subject), endpoint.expose(), &headers, body);
            prop_assert_eq!(&received.fate, &Fate::Taken, "{}: {:?}", subject.name, reply);
            prop_assert_eq!(received.digest, None, "{}", subject.name);
        }
    }
}
