//! Slack's signature, version 0: HMAC-SHA256 over `v0:TIMESTAMP:BODY` with the app's signing secret, the body as it came.
//!
//! It is read in two steps because several secrets may be right: first the headers, which say when it was signed, then each secret.
//! A signature that is repeated within its five minutes is as good as the first time, so whatever it allows must be harmless twice.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use sha2::Sha256;

use crate::model::{Secret, Timestamp, unhex};

/// How far the time of signing may be from ours, in either direction. Source: Slack, "Verifying requests from Slack".
const SKEW_MAX: Duration = Duration::from_mins(5);

/// The longest timestamp that is read: seconds until the year 5138.
const TIMESTAMP_CHARS_MAX: usize = 11;

/// The headers. Source: Slack, "Verifying requests from Slack".
const TIMESTAMP: &str = "x-slack-request-timestamp";
const SIGNATURE: &str = "x-slack-signature";

/// What the headers of a request claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// As it came: it is part of what is signed.
    timestamp: String,
    tag: [u8; 32],
}

/// Why the headers claim nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// A header is missing.
    #[error("a header of the signature is missing")]
    Missing,
    /// A header is there more than once, and who knows which one others go by.
    #[error("a header of the signature is there more than once")]
    Twice,
    /// A header is not of its form.
    #[error("a header of the signature is malformed")]
    Malformed,
    /// It was signed too long ago, or in the future.
    #[error("the request was signed more than {} minutes from now by this machine's clock", SKEW_MAX.as_secs() / 60)]
    Stale,
}

impl Signature {
    /// Reads the headers of a request that came at `now`.
    pub fn read(headers: &HeaderMap, now: Timestamp) -> Result<Self, Unsigned> {
        let timestamp = only(headers, TIMESTAMP)?;
        let signature = only(headers, SIGNATURE)?;
        if timestamp.len() > TIMESTAMP_CHARS_MAX || !timestamp.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Unsigned::Malformed);
        }
        let seconds: i64 = timestamp.parse().map_err(|_| Unsigned::Malformed)?;
        let tag = signature.strip_prefix("v0=").and_then(unhex).ok_or(Unsigned::Malformed)?;
        if now.unix_seconds().abs_diff(seconds) > SKEW_MAX.as_secs() {
            return Err(Unsigned::Stale);
        }
        Ok(Self { timestamp: timestamp.to_owned(), tag })
    }

    /// Whether it was made with `secret` over `body`. Compared in constant time.
    #[expect(clippy::missing_panics_doc, reason = "it never does: HMAC takes a key of any length")]
    pub fn is_by(&self, secret: &Secret, body: &[u8]) -> bool {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes a key of any length");
        for part in [b"v0:", self.timestamp.as_bytes(), b":", body] {
            mac.update(part);
        }
        mac.verify_slice(&self.tag).is_ok()
    }
}

fn only<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, Unsigned> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Unsigned::Missing)?;
    if values.next().is_some() {
        return Err(Unsigned::Twice);
    }
    value.to_str().map_err(|_| Unsigned::Malformed)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// Slack's worked example. Source: Slack, "Verifying requests from Slack".
    const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
    const SIGNED_AT: i64 = 1_531_420_618;
    const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
        &channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=\
        &response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
        &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const TAG: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

    fn headers(timestamp: &str, tag: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TIMESTAMP, HeaderValue::from_str(timestamp).unwrap());
        headers.insert(SIGNATURE, HeaderValue::from_str(tag).unwrap());
        headers
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(seconds * 1_000)
    }

    fn example() -> Signature {
        Signature::read(&headers(&SIGNED_AT.to_string(), TAG), at(SIGNED_AT)).unwrap()
    }

    #[test]
    fn slacks_worked_example_passes() {
        assert!(example().is_by(&Secret::new(SECRET), BODY.as_bytes()));
    }

    #[test]
    fn one_changed_byte_anywhere_fails() {
        for index in 0..BODY.len() {
            let mut body = BODY.as_bytes().to_vec();
            body[index] ^= 1;
            assert!(!example().is_by(&Secret::new(SECRET), &body), "byte {index} of the body");
        }
        for index in 3..TAG.len() {
            let mut tag = TAG.as_bytes().to_vec();
            tag[index] = if tag[index] == b'0' { b'1' } else { b'0' };
            let tag = String::from_utf8(tag).unwrap();
            let signature = Signature::read(&headers(&SIGNED_AT.to_string(), &tag), at(SIGNED_AT)).unwrap();
            assert!(!signature.is_by(&Secret::new(SECRET), BODY.as_bytes()), "byte {index} of the signature");
        }
        let later = Signature::read(&headers(&(SIGNED_AT + 1).to_string(), TAG), at(SIGNED_AT)).unwrap();
        assert!(!later.is_by(&Secret::new(SECRET), BODY.as_bytes()), "another timestamp");
        // The same number, written otherwise.
        let padded = Signature::read(&headers(&format!("0{SIGNED_AT}"), TAG), at(SIGNED_AT)).unwrap();
        assert!(!padded.is_by(&Secret::new(SECRET), BODY.as_bytes()));
        assert!(!example().is_by(&Secret::new("another"), BODY.as_bytes()));
        assert!(!example().is_by(&Secret::new(""), BODY.as_bytes()));
    }

    #[test]
    fn five_minutes_are_accepted_both_ways_and_a_second_more_is_not() {
        let read = |now: i64| Signature::read(&headers(&SIGNED_AT.to_string(), TAG), at(now));
        // Within that time, a repeated request is as good as the first.
        for now in [SIGNED_AT - 300, SIGNED_AT, SIGNED_AT + 300] {
            assert!(read(now).unwrap().is_by(&Secret::new(SECRET), BODY.as_bytes()), "{}", now - SIGNED_AT);
        }
        for now in [SIGNED_AT - 301, SIGNED_AT + 301, 0, 99_999_999_999] {
            assert_eq!(read(now), Err(Unsigned::Stale), "{}", now - SIGNED_AT);
        }
    }

    #[test]
    fn headers_that_are_missing_doubled_or_malformed_are_no_signature() {
        let (now, good) = (at(SIGNED_AT), SIGNED_AT.to_string());
        for name in [TIMESTAMP, SIGNATURE] {
            let mut without = headers(&good, TAG);
            without.remove(name);
            assert_eq!(Signature::read(&without, now), Err(Unsigned::Missing));
            let mut twice = headers(&good, TAG);
            // The same value is no excuse.
            let value = twice[name].clone();
            twice.append(name, value);
            assert_eq!(Signature::read(&twice, now), Err(Unsigned::Twice));
        }
        for timestamp in ["", "+1531420618", "-1", " 1531420618", "1531420618.0", "0x5b47", "999999999999", "NaN"] {
            assert_eq!(Signature::read(&headers(timestamp, TAG), now), Err(Unsigned::Malformed), "{timestamp}");
        }
        let short = &TAG[..TAG.len() - 1];
        let long = format!("{TAG}0");
        let v1 = TAG.replace("v0", "v1");
        for tag in ["", "v0=", "v0", &TAG[3..], short, &long, &v1, &TAG.replace('a', "g")] {
            assert_eq!(Signature::read(&headers(&good, tag), now), Err(Unsigned::Malformed), "{tag}");
        }
    }

    proptest! {
        #[test]
        fn no_headers_make_reading_panic(timestamp in "\\PC*", tag in "\\PC*", now in any::<i64>()) {
            let (Ok(timestamp), Ok(tag)) = (HeaderValue::from_str(&timestamp), HeaderValue::from_str(&tag)) else {
                return Ok(());
            };
            let headers = HeaderMap::from_iter([
                (http::HeaderName::from_static(TIMESTAMP), timestamp), (http::HeaderName::from_static(SIGNATURE), tag),
            ]);
            drop(Signature::read(&headers, Timestamp::from_unix_millis(now)));
        }
    }
}
