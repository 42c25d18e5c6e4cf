//! CEF read back by a small parser that follows the standard, so that escaping is tested by what a SIEM would see.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::formats::{clean, hostile};

/// A CEF line as a SIEM reads it: seven fields of the header, then keys and values.
fn parse(line: &str) -> (Vec<String>, BTreeMap<String, String>) {
    let mut header = vec![String::new()];
    let mut chars = line.chars();
    while header.len() < 8 {
        match chars.next().expect("the header has eight parts") {
            '\\' => header.last_mut().unwrap().push(chars.next().expect("an escape has two characters")),
            '|' => header.push(String::new()),
            c => header.last_mut().unwrap().push(c),
        }
    }
    assert_eq!(header.pop().as_deref(), Some(""));
    let rest: Vec<char> = chars.collect();
    // A key is the run of letters and digits before an equals sign that no backslash escapes.
    let mut values = BTreeMap::new();
    let mut current: Option<(String, String)> = None;
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            '\\' => {
                assert!(matches!(rest[at + 1], '\\' | '='), "unknown escape in {line}");
                current.as_mut().expect("a value has a key").1.push(rest[at + 1]);
                at += 2;
            }
            '=' => {
                let (key, value) = match current.take() {
                    Some((key, value)) => {
                        let (value, next) = value.rsplit_once(' ').expect("a key follows a space");
                        let next = next.to_owned();
                        assert!(values.insert(key, value.to_owned()).is_none(), "a key twice in {line}");
                        (next, String::new())
                    }
                    None => (rest[..at].iter().collect(), String::new()),
                };
                assert!(!key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric()), "key {key:?} in {line}");
                current = Some((key, value));
                at += 1;
            }
            c => {
                if let Some((_, value)) = &mut current {
                    value.push(c);
                }
                at += 1;
            }
        }
    }
    values.extend(current);
    (header, values)
}

#[test]
fn the_line_of_the_contract_comes_out_to_the_letter() {
    let line = line(&hostile::decode(hostile::EXAMPLE), hostile::LINK);
    let shape = "CEF:0|Interven|AIF|0.6|DENY|Secret egress blocked|7|src=10.0.0.42 act=DENY app=slack.post_message \
                 externalId=f1e2d3c4-5b6a-4788-99aa-bbccddeeff00 cs1Label=reasons cs1=SECRET_DETECTED";
    assert_eq!(&line[..shape.len()], shape);
    insta::assert_snapshot!(&line[shape.len()..], @r#" rt=1780315200123 suser=production-langgraph suid=agt_42 cfp1Label=risk cfp1=0.71 cat=/AI Agent/Decision outcome=failure request=https://app.example.com/decisions/f1e2d3c4-5b6a-4788-99aa-bbccddeeff00"#);
}

#[test]
fn severities_are_those_of_the_contract() {
    for (severity, expected) in [("LOW", "3"), ("MEDIUM", "5"), ("HIGH", "7"), ("CRITICAL", "10")] {
        let (header, _) = parse(&line(&hostile::example(&json!({"severity": severity})), ""));
        assert_eq!(header[6], expected);
    }
}

#[test]
fn a_decision_without_a_title_has_a_name_that_depends_on_its_kind_alone() {
    for kind in DecisionKind::ALL {
        let fields = json!({"decision": kind, "title": "\u{202e}\n"});
        let (header, _) = parse(&line(&hostile::example(&fields), ""));
        assert_eq!(header[4], kind.as_str());
        assert!(header[5].starts_with("Agent "), "{header:?}");
    }
}

#[test]
fn an_ipv6_source_has_its_own_labelled_key_and_a_mapped_ipv4_one_is_ipv4() {
    let (_, values) = parse(&line(&hostile::example(&json!({"src": "2001:db8::1"})), ""));
    assert_eq!((values.get("src"), values["c6a2"].as_str()), (None, "2001:db8::1"));
    assert_eq!(values["c6a2Label"], "Source IPv6 Address");
    let (_, values) = parse(&line(&hostile::example(&json!({"src": "::ffff:10.0.0.1"})), ""));
    assert_eq!((values["src"].as_str(), values.get("c6a2")), ("10.0.0.1", None));
    let (_, values) = parse(&line(&hostile::example(&json!({"src": null})), ""));
    assert!(!values.contains_key("src") && !values.contains_key("c6a2"));
}

#[test]
fn what_is_too_long_for_its_key_stands_whole_in_another() {
    let fields = json!({"id": "i".repeat(128), "operation": "o".repeat(60)});
    let decision = hostile::example(&fields);
    let (_, values) = parse(&line(&decision, ""));
    assert_eq!(values["externalId"], "i".repeat(40));
    assert_eq!((values["cs3Label"].as_str(), values["cs3"].as_str()), ("decisionId", &*decision.id));
    assert_eq!(values["app"], format!("slack.{}", "o".repeat(25)));
    assert_eq!((values["cs2Label"].as_str(), values["cs2"].as_str()), ("tool", decision.tool_name()));
}

#[test]
fn a_value_that_ends_in_a_bar_does_not_swallow_the_next_key() {
    let fields = json!({"tool": "a|", "operation": null, "agent": {"id": "b|", "name": "c\\"}});
    let (_, values) = parse(&line(&hostile::example(&fields), ""));
    assert_eq!((values["app"].as_str(), values["suid"].as_str(), values["suser"].as_str()), ("a|", "b|", "c\\"));
}

#[test]
fn an_approval_names_itself_and_its_end() {
    let fields =
        json!({"decision": "REQUIRE_APPROVAL", "approval": {"id": "apr_7", "expires_at": "2026-06-01T12:10:00Z"}});
    let (_, values) = parse(&line(&hostile::example(&fields), ""));
    assert_eq!((values["cs4"].as_str(), values["cs5"].as_str()), ("apr_7", "2026-06-01T12:10:00.000Z"));
}

#[test]
fn a_risk_is_a_short_number() {
    for (risk, expected) in [("0", "0"), ("-0.0", "0"), ("1", "1"), ("0.123456789", "0.1235"), ("1e-300", "0")] {
        let text = hostile::EXAMPLE.replace("0.71", risk);
        let (_, values) = parse(&line(&hostile::decode(&text), ""));
        assert_eq!(values["cfp1"], expected, "{risk}");
    }
}

/// The longest value of each key, from the standard.
fn chars_max(key: &str) -> usize {
    match key {
        "act" | "outcome" => 63,
        "app" => 31,
        "externalId" => 40,
        _ => 1_023,
    }
}

proptest! {
    #[test]
    fn any_decision_is_one_line_that_reads_back_within_every_length(decision in hostile::decision()) {
        let line = line(&decision, "https://c.example/decisions/1?a=b|c\\d");
        prop_assert!(!line.chars().any(clean::is_invisible), "{line:?}");
        let (header, values) = parse(&line);
        prop_assert_eq!(&header[..4], &["CEF:0", "Interven", "AIF", "0.6"]);
        prop_assert_eq!(header[4].as_str(), decision.kind.as_str());
        prop_assert!(!header[5].is_empty() && header[5].chars().count() <= 512);
        for (key, value) in &values {
            prop_assert!(!value.is_empty() && value.chars().count() <= chars_max(key), "{key}");
            prop_assert_eq!(value.trim(), value.as_str());
        }
        prop_assert_eq!(values["act"].as_str(), decision.kind.as_str());
        prop_assert_eq!(values["request"].as_str(), "https://c.example/decisions/1?a=b|c\\d");
        let reasons = one_line(&decision.reasons.join(","), 1_023).into_owned();
        prop_assert_eq!(values.get("cs1").cloned().unwrap_or_default(), reasons);
        let suid = one_line(&decision.agent.id, 1_023).into_owned();
        prop_assert_eq!(values.get("suid").cloned().unwrap_or_default(), suid);
    }
}
