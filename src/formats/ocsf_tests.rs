//! OCSF events held against the schema, as far as `reference/platforms.md` section 12 and the schema's repository state it: a
//! validator rejects what is missing, what is unknown, and numbers outside of an enum, so this checker does too.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::formats::hostile;

fn all_shapes() -> impl Iterator<Item = Shape> {
    Version::ALL.into_iter().flat_map(|version| {
        [Class::DetectionFinding, Class::SecurityFinding].into_iter().map(move |class| Shape { class, version })
    })
}

/// Checks that `object` has all of `required` and nothing beside `allowed`.
fn attributes(what: &str, object: &Value, required: &[&str], allowed: &[&str]) {
    let map = object.as_object().unwrap_or_else(|| panic!("{what} is no object: {object}"));
    for key in required {
        assert!(map.get(*key).is_some_and(|value| !value.is_null()), "{what} lacks `{key}`: {object}");
    }
    for key in map.keys() {
        assert!(required.contains(&key.as_str()) || allowed.contains(&key.as_str()), "{what} may not have `{key}`");
    }
}

fn one_of(what: &str, value: &Value, allowed: impl IntoIterator<Item = u64>) {
    let number = value.as_u64().unwrap_or_else(|| panic!("{what} is no integer: {value}"));
    assert!(allowed.into_iter().any(|one| one == number), "{what} = {number}");
}

/// Holds `event` against the class and version of `shape`.
fn validate(shape: Shape, event: &Value) {
    let at_least = |version| shape.version >= version;
    let base_required = &["activity_id", "category_uid", "class_uid", "type_uid", "time", "severity_id", "metadata"];
    let base_allowed = &[
        "activity_name",
        "category_name",
        "class_name",
        "type_name",
        "severity",
        "message",
        "observables",
        "unmapped",
        "risk_score",
        "risk_level_id",
        "risk_level",
        "resources",
        "status",
        "status_id",
    ];
    let (own_required, own_allowed): (&[&str], &[&str]) = match shape.class {
        Class::DetectionFinding if at_least(Version::V1_5) => {
            (&["finding_info"], &["evidences", "action_id", "action", "disposition_id", "disposition", "is_alert"])
        }
        Class::DetectionFinding if at_least(Version::V1_4) => {
            (&["finding_info"], &["evidences", "action_id", "action", "disposition_id", "disposition"])
        }
        // The profile is listed, so before 1.4 its `action_id` is required.
        Class::DetectionFinding => {
            (&["finding_info", "action_id"], &["evidences", "action", "disposition_id", "disposition"])
        }
        Class::SecurityFinding => (&["finding", "state_id"], &["state"]),
    };
    attributes(
        "event",
        event,
        &[&base_required[..], own_required].concat(),
        &[&base_allowed[..], own_allowed].concat(),
    );

    let class_uid = if shape.class == Class::DetectionFinding { 2004 } else { 2001 };
    one_of("class_uid", &event["class_uid"], [class_uid]);
    one_of("category_uid", &event["category_uid"], [2]);
    one_of("activity_id", &event["activity_id"], [0, 1, 2, 3, 99]);
    assert_eq!(event["type_uid"].as_u64(), Some(class_uid * 100 + event["activity_id"].as_u64().unwrap()));
    assert!(event["time"].is_i64() || event["time"].is_u64(), "time is in whole milliseconds");
    one_of("severity_id", &event["severity_id"], [0, 1, 2, 3, 4, 5, 6, 99]);
    one_of("risk_level_id", &event["risk_level_id"], [0, 1, 2, 3, 4, 99]);
    assert!(event.get("risk_score").is_none_or(|score| score.as_u64().is_some_and(|score| score <= 100)));

    validate_metadata(shape, &event["metadata"]);
    for observable in event["observables"].as_array().unwrap() {
        // `name` is required up to 1.3 and recommended since; we always send it.
        attributes("observable", observable, &["type_id", "name"], &["type", "value"]);
        one_of("observable.type_id", &observable["type_id"], [2, 4, 6, 10, 99]);
        assert!(observable["value"].is_string());
    }
    for resource in event["resources"].as_array().unwrap() {
        attributes("resource", resource, &[], &["uid", "name", "type"]);
    }
    assert!(event["unmapped"].is_object());
    let finding_allowed = &["desc", "types", "created_time", "src_url"];
    match shape.class {
        Class::DetectionFinding => {
            attributes("finding_info", &event["finding_info"], &["uid", "title"], finding_allowed);
            one_of("status_id", &event["status_id"], [0, 1, 2, 3, 4, 99]);
            let actions: &[u64] = if at_least(Version::V1_4) { &[0, 1, 2, 3, 4, 99] } else { &[0, 1, 2, 99] };
            one_of("action_id", &event["action_id"], actions.iter().copied());
            one_of("disposition_id", &event["disposition_id"], (0..=27).chain([99]));
            assert!(event["metadata"]["profiles"].as_array().unwrap().contains(&json!("security_control")));
            validate_evidences(shape, &event["evidences"]);
        }
        Class::SecurityFinding => {
            attributes("finding", &event["finding"], &["uid", "title"], finding_allowed);
            one_of("state_id", &event["state_id"], [0, 1, 2, 3, 4, 99]);
        }
    }
}

fn validate_metadata(shape: Shape, metadata: &Value) {
    let allowed = &["uid", "correlation_uid", "event_code", "log_name", "original_time", "profiles"];
    attributes("metadata", metadata, &["product", "version"], allowed);
    assert_eq!(metadata["version"], shape.version.as_str(), "the schema's version, not the product's");
    // `vendor_name` is required up to 1.3.
    attributes("product", &metadata["product"], &["name", "vendor_name"], &["version"]);
}

fn validate_evidences(shape: Shape, evidences: &Value) {
    for evidence in evidences.as_array().unwrap() {
        attributes("evidence", evidence, &["actor"], &["api", "src_endpoint"]);
        if shape.version >= Version::V1_3 {
            attributes("actor", &evidence["actor"], &["app_name"], &["app_uid"]);
        } else {
            attributes("actor", &evidence["actor"], &["invoked_by"], &[]);
        }
        if let Some(api) = evidence.get("api") {
            attributes("api", api, &["operation"], &["service"]);
            attributes("service", &api["service"], &["name"], &[]);
        }
        if let Some(endpoint) = evidence.get("src_endpoint") {
            attributes("src_endpoint", endpoint, &["ip"], &[]);
        }
    }
}

#[test]
fn the_event_carries_the_excerpt_of_the_product_page() {
    let text = Shape::default().event(&hostile::decode(hostile::EXAMPLE), hostile::LINK);
    let event: Value = serde_json::from_str(&text).unwrap();
    validate(Shape::default(), &event);
    assert_eq!(event["metadata"]["product"]["name"], "Interven AIF");
    assert_eq!(event["severity_id"], 4);
    assert_eq!(event["finding_info"]["title"], "Secret egress blocked");
    assert_eq!(event["finding_info"]["uid"], "f1e2d3c4-5b6a-4788-99aa-bbccddeeff00");
    let named = |name: &str| {
        let all = event["observables"].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).unwrap()["value"].clone()
    };
    assert_eq!((named("interven.tool"), named("interven.operation")), (json!("slack"), json!("post_message")));
}

#[test]
#[expect(clippy::too_many_lines, reason = "the snapshot of a whole event")]
fn a_detection_finding_looks_like_this() {
    let text = Shape::default().event(&hostile::decode(hostile::EXAMPLE), hostile::LINK);
    let event: Value = serde_json::from_str(&text).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&event).unwrap(), @r#"
    {
      "action": "Denied",
      "action_id": 2,
      "activity_id": 1,
      "activity_name": "Create",
      "category_name": "Findings",
      "category_uid": 2,
      "class_name": "Detection Finding",
      "class_uid": 2004,
      "disposition": "Blocked",
      "disposition_id": 2,
      "evidences": [
        {
          "actor": {
            "app_name": "production-langgraph",
            "app_uid": "agt_42"
          },
          "api": {
            "operation": "post_message",
            "service": {
              "name": "slack"
            }
          },
          "src_endpoint": {
            "ip": "10.0.0.42"
          }
        }
      ],
      "finding_info": {
        "created_time": 1780315200123,
        "desc": "DENY of slack.post_message: SECRET_DETECTED",
        "src_url": "https://app.example.com/decisions/f1e2d3c4-5b6a-4788-99aa-bbccddeeff00",
        "title": "Secret egress blocked",
        "types": [
          "DENY"
        ],
        "uid": "f1e2d3c4-5b6a-4788-99aa-bbccddeeff00"
      },
      "is_alert": true,
      "message": "DENY slack.post_message for production-langgraph: Secret egress blocked",
      "metadata": {
        "event_code": "DENY",
        "log_name": "decisions",
        "original_time": "2026-06-01T12:00:00.123Z",
        "product": {
          "name": "Interven AIF",
          "vendor_name": "Interven",
          "version": "0.6.0"
        },
        "profiles": [
          "security_control"
        ],
        "uid": "f1e2d3c4-5b6a-4788-99aa-bbccddeeff00",
        "version": "1.5.0"
      },
      "observables": [
        {
          "name": "interven.tool",
          "type": "Tool",
          "type_id": 99,
          "value": "slack"
        },
        {
          "name": "interven.operation",
          "type": "Operation",
          "type_id": 99,
          "value": "post_message"
        },
        {
          "name": "resources.uid",
          "type": "Resource UID",
          "type_id": 10,
          "value": "agt_42"
        },
        {
          "name": "evidences.src_endpoint.ip",
          "type": "IP Address",
          "type_id": 2,
          "value": "10.0.0.42"
        }
      ],
      "resources": [
        {
          "name": "production-langgraph",
          "type": "AI Agent",
          "uid": "agt_42"
        }
      ],
      "risk_level": "High",
      "risk_level_id": 3,
      "risk_score": 71,
      "severity": "High",
      "severity_id": 4,
      "status": "New",
      "status_id": 1,
      "time": 1780315200123,
      "type_name": "Detection Finding: Create",
      "type_uid": 200401,
      "unmapped": {
        "agent": {
          "id": "agt_42",
          "name": "production-langgraph"
        },
        "decision": "DENY",
        "policy": {
          "id": "p-1",
          "rev": 1.2345678901234568e+22
        },
        "reasons": [
          "SECRET_DETECTED"
        ],
        "risk": 0.71
      }
    }
    "#);
}

#[test]
fn the_legacy_class_has_its_own_shape() {
    let shape = Shape { class: Class::SecurityFinding, version: Version::V1_3 };
    let text = shape.event(&hostile::decode(hostile::EXAMPLE), hostile::LINK);
    let event: Value = serde_json::from_str(&text).unwrap();
    validate(shape, &event);
    insta::assert_snapshot!(serde_json::to_string_pretty(&event).unwrap(), @r#"
    {
      "activity_id": 1,
      "activity_name": "Create",
      "category_name": "Findings",
      "category_uid": 2,
      "class_name": "Security Finding",
      "class_uid": 2001,
      "finding": {
        "created_time": 1780315200123,
        "desc": "DENY of slack.post_message: SECRET_DETECTED",
        "src_url": "https://app.example.com/decisions/f1e2d3c4-5b6a-4788-99aa-bbccddeeff00",
        "title": "Secret egress blocked",
        "types": [
          "DENY"
        ],
        "uid": "f1e2d3c4-5b6a-4788-99aa-bbccddeeff00"
      },
      "message": "DENY slack.post_message for production-langgraph: Secret egress blocked",
      "metadata": {
        "event_code": "DENY",
        "log_name": "decisions",
        "original_time": "2026-06-01T12:00:00.123Z",
        "product": {
          "name": "Interven AIF",
          "vendor_name": "Interven",
          "version": "0.6.0"
        },
        "uid": "f1e2d3c4-5b6a-4788-99aa-bbccddeeff00",
        "version": "1.3.0"
      },
      "observables": [
        {
          "name": "interven.tool",
          "type": "Tool",
          "type_id": 99,
          "value": "slack"
        },
        {
          "name": "interven.operation",
          "type": "Operation",
          "type_id": 99,
          "value": "post_message"
        },
        {
          "name": "resources.uid",
          "type": "Resource UID",
          "type_id": 10,
          "value": "agt_42"
        },
        {
          "name": "unmapped.src",
          "type": "IP Address",
          "type_id": 2,
          "value": "10.0.0.42"
        }
      ],
      "resources": [
        {
          "name": "production-langgraph",
          "type": "AI Agent",
          "uid": "agt_42"
        }
      ],
      "risk_level": "High",
      "risk_level_id": 3,
      "risk_score": 71,
      "severity": "High",
      "severity_id": 4,
      "state": "New",
      "state_id": 1,
      "time": 1780315200123,
      "type_name": "Security Finding: Create",
      "type_uid": 200101,
      "unmapped": {
        "agent": {
          "id": "agt_42",
          "name": "production-langgraph"
        },
        "decision": "DENY",
        "operation": "post_message",
        "policy": {
          "id": "p-1",
          "rev": 1.2345678901234568e+22
        },
        "reasons": [
          "SECRET_DETECTED"
        ],
        "risk": 0.71,
        "src": "10.0.0.42"
      }
    }
    "#);
}

#[test]
fn unknown_fields_keep_every_digit() {
    let text = Shape::default().event(&hostile::decode(hostile::EXAMPLE), "");
    assert!(text.contains(r#""policy":{"id":"p-1","rev":12345678901234567890123}"#), "{text}");
}

#[test]
fn every_kind_of_decision_has_an_action_that_its_version_knows() {
    for shape in all_shapes() {
        for kind in DecisionKind::ALL {
            let decision = hostile::example(&json!({"decision": kind, "operation": null, "risk": null, "src": null}));
            validate(shape, &serde_json::from_str(&shape.event(&decision, "")).unwrap());
        }
    }
}

proptest! {
    #[test]
    fn any_decision_is_a_valid_event_in_every_version_of_both_classes(decision in hostile::decision()) {
        for shape in all_shapes() {
            let text = shape.event(&decision, "https://c.example/decisions/1");
            prop_assert!(!text.contains(['\n', '\r']));
            let event: Value = serde_json::from_str(&text).unwrap();
            validate(shape, &event);
            prop_assert_eq!(event["metadata"]["uid"].as_str(), Some(&*decision.id));
            prop_assert_eq!(event["unmapped"]["agent"]["id"].as_str(), Some(&*decision.agent.id));
        }
    }
}
