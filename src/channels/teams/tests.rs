use proptest::prelude::*;

use super::*;
use crate::{
    channels::{
        conformance::{
            body, delivery,
            digests::{digest_body, hostile_digest},
            hostile_delivery, parcel, problems, texts, url,
        },
        text::is_invisible,
    },
    model::verdict::Outcome,
};

const WORKFLOW: &str = "https://env.01.environment.api.powerplatform.com/powerautomate/automations/direct/workflows/1/triggers/\
                        manual/paths/invoke?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=a-B_c%2Bd";

fn teams() -> Teams {
    Teams::new(url(WORKFLOW))
}

#[test]
fn the_signed_url_is_posted_to_byte_by_byte() {
    assert_eq!(parcel(&teams(), &delivery(|_| ()), 1).endpoint.expose().as_str(), WORKFLOW);
    let known: Vec<_> = teams().secrets().iter().map(|secret| secret.expose().to_owned()).collect();
    assert_eq!(known, [WORKFLOW, "a-B_c%2Bd", "a-B_c+d"]);
}

#[test]
fn every_reply_in_the_table_of_teams_is_read_as_what_it_means() {
    use Outcome::{Accepted, Broken, Delivered, Refused, Throttled, TryLater};
    let table = [
        (202, "", Accepted),
        (200, "", Accepted),
        (200, "1", Delivered),
        (200, r#"{"posted":true}"#, Accepted),
        (
            200,
            "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429 with ContextId x",
            Throttled,
        ),
        (
            200,
            "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 413 with ContextId x",
            Refused,
        ),
        (
            200,
            "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 500 with ContextId x",
            TryLater,
        ),
        (
            200,
            "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 404 with ContextId x",
            Broken,
        ),
        (
            200,
            "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 200 with ContextId x",
            TryLater,
        ),
        (400, r#"{"error":{"code":"InvalidRequestContent","message":"m"}}"#, Refused),
        (400, r#"{"error":{"code":"MissingApiVersionParameter","message":"m"}}"#, Broken),
        (401, r#"{"error":{"code":"DirectApiAuthorizationRequired","message":"m"}}"#, Broken),
        (403, "", Broken),
        (404, r#"{"error":{"code":"WorkflowNotFound","message":"m"}}"#, Broken),
        (408, "", TryLater),
        (413, r#"{"error":{"code":"RequestEntityTooLarge","message":"m"}}"#, Refused),
        (429, "", Throttled),
        (503, "", TryLater),
    ];
    for (status, body, expected) in table {
        let verdict = teams().judge(&Reply::new(status, body));
        assert_eq!(verdict.outcome(), expected, "{status} {body}: {verdict:?}");
    }
}

#[test]
fn a_connector_that_answers_200_with_any_text_but_1_has_failed() {
    let connector = Teams::new(url("https://acme.webhook.office.com/webhookb2/x"));
    assert_eq!(connector.judge(&Reply::new(200, "1")), Verdict::DELIVERED);
    assert_eq!(connector.judge(&Reply::new(200, "Summary or Text is required.")).outcome(), Outcome::Refused);
    for host in ["outlook.office.com", "webhook.office.com", "acme.webhook.office.com"] {
        assert!(is_retired(host), "{host}");
    }
    assert!(!is_retired("env.01.environment.api.powerplatform.com"));
}

#[test]
fn names_stay_readable_and_everything_active_is_escaped() {
    let cases = [
        ("slack.post_message", "slack.post_message"),
        ("PII_EGRESS, SENSITIVE-DATA", "PII_EGRESS, SENSITIVE-DATA"),
        ("_a_ *b* ~c~ `d`", r"\_a\_ \*b\* \~c\~ \`d\`"),
        ("[x](http://evil)", r"\[x\]\(http:\//evil\)"),
        ("<http://evil>", r"\<http:\//evil\>"),
        ("www.evil.example", r"www\.evil.example"),
        ("1. one", r"1\. one"),
        ("3.5 is fine", r"3\.5 is fine"),
        ("- l", r"\- l"),
        ("# h", r"\# h"),
        ("{{DATE(x)}}", r"\{\{DATE\(x\)\}\}"),
        (r"\*", r"\\\*"),
        ("&lt;", r"\&lt;"),
    ];
    for (hostile, safe) in cases {
        assert_eq!(escape(hostile), safe);
    }
}

/// Whether every character that Markdown reads stands behind a backslash.
fn is_inert(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '[' | ']' | '(' | ')' | '*' | '`' | '<' | '>' | '{' | '}' | '~' | '|' | '&' | '@' | '#' => return false,
            _ => {}
        }
    }
    !text.contains("://")
}

#[test]
fn a_retired_connector_is_a_fault_unless_it_is_allowed() {
    let retired = "webhook_url = \"https://acme.webhook.office.com/webhookb2/x\"";
    let found = problems(&KIND, retired);
    assert!(found.len() == 1 && found[0].contains("retired connectors"), "{found:?}");
    assert_eq!(problems(&KIND, &format!("{retired}\nallow_retired = true")), Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_decision_breaks_the_limits_of_teams_or_writes_anything_active(delivery in hostile_delivery()) {
        let bytes = parcel(&teams(), &delivery, 1).body;
        prop_assert!(bytes.len() <= BODY_BYTES_MAX, "{} bytes", bytes.len());
        let body = body(&teams(), &delivery, 1);
        let card = &body["attachments"][0]["content"];
        prop_assert!(body["type"] == "message" && card["version"] == "1.4");
        prop_assert!(body["attachments"][0]["contentUrl"].is_null());
        for action in card["actions"].as_array().into_iter().flatten() {
            prop_assert!(action["url"].as_str().unwrap().starts_with("https://a"));
        }
        for element in card["body"].as_array().unwrap() {
            prop_assert!(element["type"] == "FactSet" || element["wrap"] == true);
            for text in texts(element) {
                prop_assert!(!text.is_empty() && !text.contains('\n') && !text.chars().any(is_invisible));
                let ours = text.starts_with("[Interven] ") || text.contains("HIGH (0.71)") || text.contains("](https://a");
                prop_assert!(ours || is_inert(text), "{}", text);
            }
        }
    }

    #[test]
    fn no_digest_breaks_the_limits_of_teams_or_writes_anything_active(digest in hostile_digest(), plain in any::<bool>()) {
        let body = digest_body(&teams(), &digest, plain);
        let bytes = body.to_string().len();
        prop_assert!(bytes <= BODY_BYTES_MAX, "{} bytes", bytes);
        let card = &body["attachments"][0]["content"];
        prop_assert_eq!(card["actions"].as_array().map_or(0, Vec::len), usize::from(!plain));
        for element in card["body"].as_array().unwrap() {
            prop_assert!(element["type"] == "FactSet" || element["wrap"] == true);
            for text in texts(element) {
                prop_assert!(!text.is_empty() && !text.contains('\n'));
                // What is ours and active: the headline, the number of a risk, how long it took, a link at the end.
                let theirs = text.strip_prefix("[Interven] ").unwrap_or(text).replacen("HIGH (0.71) ", "", 1);
                let theirs = theirs.split_once(" UTC (").map_or(&*theirs, |(span, _)| span);
                let link = |text: &str| text.starts_with("](https://a") && text.ends_with(')');
                let at = theirs.rfind("[View").filter(|at| theirs[*at..].find(']').is_some_and(|end| link(&theirs[at + end..])));
                prop_assert!(is_inert(&theirs[..at.unwrap_or(theirs.len())]), "{}", text);
            }
        }
    }
}
