//! What SIEM endpoints answer. Splunk says it in a code in the body; the others by their status.
//!
//! Nothing is delivered that the endpoint did not say it has: HEC answers JSON always, so a web page with status 200 (Splunk
//! Web instead of the collector, a sign-in page in between) means that the URL is wrong, and the lane is held. The same goes
//! for Datadog and Sumo. A bare endpoint may answer what it likes.
//!
//! One lie cannot be seen: Sumo answers 200 and drops what is over an ingest budget.
//!
//! Source: `reference/platforms.md` sections 6 to 10.

use std::time::Duration;

use serde::Deserialize;

use super::Envelope;
use crate::{
    channels::judging::{by_status, explain, retry_after},
    model::{Reply, Verdict},
};

/// How long an endpoint that is close to its capacity is left alone, where it does not say itself.
const BREATHE: Duration = Duration::from_secs(1);

/// What `reply` means. `batched`: whether requests may carry several deliveries.
pub(super) fn judge(envelope: Envelope, batched: bool, reply: &Reply) -> Verdict {
    match envelope {
        Envelope::Splunk => splunk(batched, reply),
        Envelope::Datadog | Envelope::Sumo if is_web_page(reply) && reply.status.is_success() => {
            Verdict::Broken { why: format!("a web page instead of a log intake answers there: {}", explain(reply)) }
        }
        Envelope::None | Envelope::Datadog | Envelope::Sumo => by_status_alone(reply),
    }
}

/// The common table, but for what only chat kinds have: there is no plainer form to try. 415 is the endpoint's opinion of
/// every request that the configuration makes, so the lane is held rather than each of its deliveries buried.
fn by_status_alone(reply: &Reply) -> Verdict {
    match by_status(reply) {
        Verdict::Refused { why, .. } if reply.status.as_u16() == 415 => Verdict::Broken { why },
        Verdict::Refused { why, .. } => Verdict::Refused { plain_may_pass: false, why },
        other @ (Verdict::Delivered { .. }
        | Verdict::TryLater { .. }
        | Verdict::RefusedOne { .. }
        | Verdict::TooLarge { .. }
        | Verdict::Broken { .. }
        | Verdict::Moved { .. }) => other,
    }
}

/// The body of every reply of HEC.
#[derive(Deserialize)]
struct Hec {
    code: i64,
    #[serde(rename = "invalid-event-number", default)]
    invalid_event_number: Option<serde_json::Value>,
}

fn splunk(batched: bool, reply: &Reply) -> Verdict {
    let why = explain(reply);
    // A proxy in front has the last word on these, whatever stands in the body.
    if reply.status.as_u16() == 413 {
        return Verdict::TooLarge { why };
    }
    let Ok(hec) = serde_json::from_slice::<Hec>(&reply.body) else {
        if !reply.status.is_success() {
            return by_status_alone(reply);
        }
        if reply.body.trim_ascii().is_empty() {
            // A collector that speaks HEC without its words: it has the request, and promises no more.
            return Verdict::Delivered { confirmed: false, breathe: None };
        }
        return Verdict::Broken { why: format!("this is not a Splunk HTTP Event Collector: {why}") };
    };
    match hec.code {
        0 if reply.status.is_success() => Verdict::DELIVERED,
        // Indexed, and close to capacity: slow down, do not send again.
        24 | 25 if reply.status.is_success() => {
            Verdict::Delivered { confirmed: true, breathe: Some(retry_after(reply).unwrap_or(BREATHE)) }
        }
        // No data, invalid format, event missing or blank, bad indexed fields: this payload. Those before it are indexed.
        5 | 6 | 12 | 13 | 15 => match accepted_before(&hec) {
            Some(accepted) if batched => Verdict::RefusedOne { accepted, why },
            Some(_) | None => Verdict::Refused { plain_may_pass: false, why },
        },
        // Token, index, channel, acknowledgement, query string: the destination. 17 and 404: the wrong path.
        1..=4 | 7 | 10 | 11 | 14 | 16 | 17 | 21 | 22 | 28 | 404 => Verdict::Broken { why },
        8 | 9 | 18..=20 | 23 => Verdict::TryLater { after: retry_after(reply), throttled: false, why },
        26 | 27 => Verdict::TryLater { after: retry_after(reply), throttled: true, why },
        // A code that we do not know under a 2xx: nobody said that the event is in.
        _ if reply.status.is_success() => Verdict::TryLater { after: retry_after(reply), throttled: false, why },
        _ => by_status_alone(reply),
    }
}

/// How many events before the bad one are indexed, where HEC says so and the number is one.
fn accepted_before(hec: &Hec) -> Option<usize> {
    usize::try_from(hec.invalid_event_number.as_ref()?.as_u64()?).ok()
}

/// Whether the reply is a page for people.
fn is_web_page(reply: &Reply) -> bool {
    let start = reply.body.trim_ascii_start();
    let begins = |text: &str| start.get(..text.len()).is_some_and(|head| head.eq_ignore_ascii_case(text.as_bytes()));
    let says_so = reply.header("content-type").is_some_and(|value| value.to_ascii_lowercase().starts_with("text/html"));
    (says_so && !start.is_empty()) || begins("<!doctype html") || begins("<html")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::verdict::Outcome;

    fn hec(status: u16, code: i64) -> Reply {
        Reply::new(status, format!(r#"{{"text":"said so","code":{code}}}"#))
    }

    #[test]
    fn every_code_of_splunk_has_its_meaning() {
        use Outcome::{Broken, Delivered, Refused, Throttled, TryLater};
        let table = [
            (0, 200, Delivered),
            (1, 403, Broken),
            (2, 401, Broken),
            (3, 401, Broken),
            (4, 403, Broken),
            (5, 400, Refused),
            (6, 400, Refused),
            (7, 400, Broken),
            (8, 500, TryLater),
            (9, 503, TryLater),
            (10, 400, Broken),
            (11, 400, Broken),
            (12, 400, Refused),
            (13, 400, Refused),
            (14, 400, Broken),
            (15, 400, Refused),
            (16, 400, Broken),
            (17, 200, Broken),
            (18, 503, TryLater),
            (19, 503, TryLater),
            (20, 503, TryLater),
            (21, 400, Broken),
            (22, 400, Broken),
            (23, 503, TryLater),
            (24, 200, Delivered),
            (25, 200, Delivered),
            (26, 429, Throttled),
            (27, 429, Throttled),
            (28, 400, Broken),
            (404, 404, Broken),
            // Not in the table: nothing is delivered that Splunk did not confirm.
            (99, 200, TryLater),
            (6, 200, Refused),
            (4, 200, Broken),
            (99, 400, Refused),
            (0, 500, TryLater),
            (99, 503, TryLater),
            (-1, 200, TryLater),
        ];
        for (code, status, expected) in table {
            let verdict = judge(Envelope::Splunk, false, &hec(status, code));
            assert_eq!(verdict.outcome(), expected, "code {code} with {status}");
            assert!(expected == Delivered || verdict.why().contains("said so"), "{verdict:?}");
        }
    }

    #[test]
    fn splunk_near_its_capacity_has_the_event_and_is_given_a_rest() {
        for code in [24, 25] {
            let verdict = judge(Envelope::Splunk, true, &hec(200, code));
            assert_eq!(verdict, Verdict::Delivered { confirmed: true, breathe: Some(BREATHE) });
        }
    }

    #[test]
    fn a_bad_event_in_a_batch_is_refused_alone() {
        let reply = Reply::new(400, r#"{"text":"Invalid data format","code":6,"invalid-event-number":3}"#);
        assert!(matches!(judge(Envelope::Splunk, true, &reply), Verdict::RefusedOne { accepted: 3, .. }));
        assert!(matches!(judge(Envelope::Splunk, false, &reply), Verdict::Refused { plain_may_pass: false, .. }));
        for number in ["-1", "1.5", "\"3\"", "null", "99999999999999999999"] {
            let body = format!(r#"{{"text":"x","code":12,"invalid-event-number":{number}}}"#);
            assert_eq!(judge(Envelope::Splunk, true, &Reply::new(400, body)).outcome(), Outcome::Refused, "{number}");
        }
    }

    #[test]
    fn splunk_that_does_not_speak_hec_is_judged_with_suspicion() {
        let page = Reply::new(200, "<!doctype html><title>Splunk</title>");
        assert!(matches!(judge(Envelope::Splunk, false, &page), Verdict::Broken { .. }));
        let json = Reply::new(200, r#"{"success":true}"#);
        assert!(matches!(judge(Envelope::Splunk, false, &json), Verdict::Broken { .. }));
        let bare = Reply::new(204, "");
        assert_eq!(judge(Envelope::Splunk, false, &bare), Verdict::Delivered { confirmed: false, breathe: None });
        assert!(matches!(judge(Envelope::Splunk, true, &Reply::new(413, "")), Verdict::TooLarge { .. }));
        assert!(matches!(judge(Envelope::Splunk, true, &Reply::new(415, "x")), Verdict::Broken { .. }));
        assert!(matches!(judge(Envelope::Splunk, true, &Reply::new(502, "<html>")), Verdict::TryLater { .. }));
    }

    #[test]
    fn the_others_are_judged_by_status() {
        use Outcome::{Broken, Delivered, Refused, Throttled, TryLater};
        let table = [
            (200, Delivered),
            (202, Delivered),
            (204, Delivered),
            (302, Broken),
            (400, Refused),
            (401, Broken),
            (403, Broken),
            (404, Broken),
            (408, TryLater),
            (410, Broken),
            (413, Refused),
            (415, Broken),
            (422, Refused),
            (425, TryLater),
            (429, Throttled),
            (500, TryLater),
            (503, TryLater),
            (504, TryLater),
        ];
        for envelope in [Envelope::None, Envelope::Datadog, Envelope::Sumo] {
            for (status, expected) in table {
                let verdict = judge(envelope, true, &Reply::new(status, "{}"));
                assert_eq!(verdict.outcome(), expected, "{envelope:?} {status}");
                assert_eq!(matches!(verdict, Verdict::TooLarge { .. }), status == 413);
                assert!(!matches!(verdict, Verdict::Refused { plain_may_pass: true, .. }));
            }
        }
    }

    #[test]
    fn a_web_page_is_no_log_intake_but_a_bare_endpoint_may_answer_one() {
        let page = Reply::new(200, "\n<HTML>sign in").with_header("content-type", "text/html");
        for envelope in [Envelope::Datadog, Envelope::Sumo] {
            assert!(matches!(judge(envelope, false, &page), Verdict::Broken { .. }));
        }
        assert_eq!(judge(Envelope::None, false, &page), Verdict::DELIVERED);
        // Sumo answers with an empty page.
        let empty = Reply::new(200, "").with_header("content-type", "text/html");
        assert_eq!(judge(Envelope::Sumo, false, &empty), Verdict::DELIVERED);
    }

    proptest! {
        #[test]
        fn no_reply_makes_judging_panic_and_only_a_2xx_delivers(
            status in 100_u16..1_000,
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                (any::<i64>(), any::<i64>()).prop_map(|(code, n)| {
                    format!(r#"{{"code":{},"invalid-event-number":{n}}}"#, code % 40).into_bytes()
                }),
            ],
            batched in any::<bool>(),
        ) {
            for envelope in [Envelope::None, Envelope::Splunk, Envelope::Datadog, Envelope::Sumo] {
                let reply = Reply::new(status, body.clone());
                let verdict = judge(envelope, batched, &reply);
                let delivered = matches!(verdict, Verdict::Delivered { .. });
                prop_assert!(!delivered || reply.status.is_success());
                let refused_one = matches!(verdict, Verdict::RefusedOne { .. });
                prop_assert!(batched || !refused_one);
            }
        }
    }
}
