//! What replies of every kind have in common: how an endpoint says "wait", and what a status means when the body says nothing.
//!
//! A channel looks at the body first (platforms put failures into 200s and delays into JSON) and falls back to
//! [`by_status`].

use std::time::Duration;

use crate::model::{Reply, Verdict};

/// How many characters of a body are quoted.
const QUOTE_CHARS_MAX: usize = 300;

/// How long the endpoint asked to be left alone: the longest of its `Retry-After` header (whole or fractional seconds, or an HTTP
/// date), its `X-RateLimit-Reset-After` header and a `retry_after` in its JSON body, at the top or in `parameters` (Slack,
/// Discord, Telegram: seconds). `None` where it said nothing that is a time. Unclamped: the lane does that.
pub fn retry_after(reply: &Reply) -> Option<Duration> {
    let header = reply.header("retry-after").and_then(|text| {
        let text = text.trim();
        text.parse().ok().and_then(seconds).or_else(|| {
            let date = httpdate::parse_http_date(text).ok()?;
            let since_epoch = date.duration_since(std::time::UNIX_EPOCH).ok()?;
            let millis = i64::try_from(since_epoch.as_millis()).ok()?;
            Some(crate::model::Timestamp::from_unix_millis(millis).since(reply.at))
        })
    });
    let reset = reply.header("x-ratelimit-reset-after").and_then(|text| text.trim().parse().ok()).and_then(seconds);
    let body = serde_json::from_slice::<serde_json::Value>(&reply.body).ok();
    let body = body.as_ref().and_then(|body| {
        let asked = body.get("retry_after").or_else(|| body.get("parameters")?.get("retry_after"))?;
        seconds(asked.as_f64()?)
    });
    header.max(reset).max(body)
}

/// A number of seconds as a duration; `None` for what is negative or no number. At most a year, so that sums cannot overflow.
fn seconds(number: f64) -> Option<Duration> {
    (number.is_finite() && number >= 0.0).then(|| Duration::from_secs_f64(number.min(31_536_000.0)))
}

/// What a status means, going by the table of contract 5 alone.
pub fn by_status(reply: &Reply) -> Verdict {
    let why = explain(reply);
    match reply.status.as_u16() {
        200..=299 => Verdict::DELIVERED,
        429 => Verdict::TryLater { after: retry_after(reply), throttled: true, why },
        408 | 425 | 421 | 500..=599 => Verdict::TryLater { after: retry_after(reply), throttled: false, why },
        413 => Verdict::TooLarge { why },
        // A redirect is never followed: it means that the address is wrong, or worse, that somebody leads us elsewhere.
        300..=399 | 401 | 403 | 404 | 405 | 407 | 410 => Verdict::Broken { why },
        _ => Verdict::Refused { plain_may_pass: true, why },
    }
}

/// What an error code of a platform means, for the tables of the kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Time may mend it.
    Later,
    /// Too many, too fast.
    TooMany,
    /// This payload can never be accepted; its plain-text form may be.
    Refused,
    /// The destination is broken until somebody acts.
    Broken,
}

impl Meaning {
    /// The verdict on `reply`, whose code means this, in the words `why`.
    pub fn verdict(self, reply: &Reply, why: String) -> Verdict {
        match self {
            Self::Later => Verdict::TryLater { after: retry_after(reply), throttled: false, why },
            Self::TooMany => Verdict::TryLater { after: retry_after(reply), throttled: true, why },
            Self::Refused => Verdict::Refused { plain_may_pass: true, why },
            Self::Broken => Verdict::Broken { why },
        }
    }
}

/// What a status means to a kind that sends one delivery at a time: there is nothing to halve, but a plain-text form that is
/// shorter.
pub fn by_status_alone(reply: &Reply) -> Verdict {
    if reply.status == http::StatusCode::PAYLOAD_TOO_LARGE {
        return Meaning::Refused.verdict(reply, explain(reply));
    }
    by_status(reply)
}

/// A reply in one line for people: the status and the beginning of the body, control characters left out.
pub fn explain(reply: &Reply) -> String {
    let body = reply.text();
    let quote: String = body
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control())
        .take(QUOTE_CHARS_MAX)
        .collect();
    let quote = quote.trim();
    let status = reply.status.as_u16();
    if quote.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {quote}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn a_delay_is_understood_in_every_form_that_a_platform_uses() {
        let at: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let cases = [
            (Reply::new(429, "").with_header("retry-after", "30"), Some(30.0)),
            (Reply::new(429, "").with_header("retry-after", "1.5"), Some(1.5)),
            (Reply::new(429, "").with_header("retry-after", "Mon, 01 Jun 2026 12:00:40 GMT"), Some(40.0)),
            (Reply::new(429, "").with_header("retry-after", "Mon, 01 Jun 2026 11:00:00 GMT"), Some(0.0)),
            (Reply::new(429, r#"{"retry_after":64.57,"global":false}"#).with_header("retry-after", "65"), Some(65.0)),
            (Reply::new(429, r#"{"ok":false,"parameters":{"retry_after":37}}"#), Some(37.0)),
            (Reply::new(429, "").with_header("x-ratelimit-reset-after", "0.25"), Some(0.25)),
            (Reply::new(429, "").with_header("retry-after", "-5"), None),
            (Reply::new(429, "").with_header("retry-after", "NaN"), None),
            (Reply::new(429, "").with_header("retry-after", "soon"), None),
            (Reply::new(429, r#"{"retry_after":"soon"}"#), None),
            (Reply::new(503, ""), None),
        ];
        for (reply, expected) in cases {
            let reply = Reply { at, ..reply };
            assert_eq!(retry_after(&reply), expected.map(Duration::from_secs_f64), "{reply:?}");
        }
        let huge = Reply::new(429, "").with_header("retry-after", "1e300");
        assert_eq!(retry_after(&huge), Some(Duration::from_hours(365 * 24)));
    }

    #[test]
    fn every_status_has_a_meaning() {
        use crate::model::verdict::Outcome;
        let expected = |status: u16| match status {
            200..=299 => Outcome::Delivered,
            429 => Outcome::Throttled,
            408 | 421 | 425 | 500..=599 => Outcome::TryLater,
            300..=399 | 401 | 403 | 404 | 405 | 407 | 410 => Outcome::Broken,
            _ => Outcome::Refused,
        };
        for status in 200..=599 {
            assert_eq!(by_status(&Reply::new(status, "")).outcome(), expected(status), "{status}");
        }
    }

    #[test]
    fn a_quoted_body_is_one_line_of_bounded_length() {
        let why = explain(&Reply::new(500, format!("a\r\nb\u{1b}[31m{}", "x".repeat(1_000))));
        assert!(why.starts_with("HTTP 500: a  b[31mxxx") && why.chars().count() <= 310, "{why}");
    }
}
