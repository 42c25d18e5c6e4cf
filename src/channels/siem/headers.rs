//! The operator's own headers: checked once, marked secret, ready to be cloned into every request.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::model::Secret;

/// The most headers of a channel.
const HEADERS_MAX: usize = 64;
/// The longest value of a header, in bytes: servers refuse more.
const VALUE_BYTES_MAX: usize = 8_192;

/// Why a header cannot be sent. It names the header and says nothing of its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    /// Not a name of HTTP.
    #[error("`{name}` is not the name of a header")]
    Name {
        /// The name as the operator wrote it.
        name: String,
    },
    /// A line break or another character that a value may not hold, or too long.
    #[error("the value of `{name}` is too long or holds characters that no header may hold")]
    Value {
        /// The name.
        name: HeaderName,
    },
    /// Written twice, in upper and lower case.
    #[error("`{name}` is there twice")]
    Twice {
        /// The name.
        name: HeaderName,
    },
    /// A header that belongs to the connection or that this program writes itself.
    #[error("`{name}` is written by interven-alerts itself")]
    Ours {
        /// The name.
        name: HeaderName,
    },
    /// More than [`HEADERS_MAX`].
    #[error("there are more than {HEADERS_MAX} headers")]
    TooMany,
}

impl HeaderError {
    /// What the operator can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Name { .. } => "write a name of letters, digits and hyphens, like Authorization and DD-API-KEY",
            Self::Value { .. } => "look for a line break in the value or in its variable; only ASCII can be sent",
            Self::Twice { .. } => "names of headers do not differ by case: keep one",
            Self::Ours { name } if name == header::CONTENT_ENCODING => "use compression = \"gzip\"",
            Self::Ours { name } if name.as_str().starts_with("webhook-") => {
                "it comes with signing_secret: leave it out"
            }
            Self::Ours { .. } => "leave it out",
            Self::TooMany => "keep those that the endpoint needs",
        }
    }
}

/// Checks every header; what is at fault is left out of the map and reported. `signed`: whether requests carry a signature.
pub(super) fn checked(written: &BTreeMap<String, Secret>, signed: bool) -> (HeaderMap, Vec<HeaderError>) {
    let mut map = HeaderMap::new();
    let mut faults = Vec::new();
    if written.len() > HEADERS_MAX {
        faults.push(HeaderError::TooMany);
    }
    for (name, value) in written.iter().take(HEADERS_MAX) {
        match one(name, value, signed) {
            Ok((name, _)) if map.contains_key(&name) => faults.push(HeaderError::Twice { name }),
            Ok((name, value)) => drop(map.insert(name, value)),
            Err(fault) => faults.push(fault),
        }
    }
    (map, faults)
}

fn one(name: &str, value: &Secret, signed: bool) -> Result<(HeaderName, HeaderValue), HeaderError> {
    let name: HeaderName = name.parse().map_err(|_| HeaderError::Name { name: name.chars().take(80).collect() })?;
    if is_ours(&name, signed) {
        return Err(HeaderError::Ours { name });
    }
    let mut value = match HeaderValue::from_str(value.expose()) {
        Ok(value) if value.len() <= VALUE_BYTES_MAX && value.as_bytes().is_ascii() => value,
        Ok(_) | Err(_) => return Err(HeaderError::Value { name }),
    };
    value.set_sensitive(true);
    Ok((name, value))
}

/// Headers of the connection, those that describe the body that we make, and those that would change what a reply looks like.
/// `Content-Type` is not among them: some endpoints want one of their own.
fn is_ours(name: &HeaderName, signed: bool) -> bool {
    const OURS: [&str; 15] = [
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let webhook = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    OURS.contains(&name.as_str()) || (signed && webhook.contains(&name.as_str()))
}

/// The secrets in a value: all of it, and what follows a scheme such as `Splunk` or `Bearer`, which an endpoint may echo alone.
pub(super) fn secrets_in(name: &str, value: &Secret) -> Vec<Secret> {
    // These two are descriptions; scrubbing them would garble what endpoints say.
    if name.eq_ignore_ascii_case("content-type") || name.eq_ignore_ascii_case("user-agent") {
        return Vec::new();
    }
    let credentials = value.expose().split_once(' ').map(|(_, rest)| Secret::new(rest.trim()));
    std::iter::once(value.clone()).chain(credentials).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pairs: &[(&str, &str)]) -> BTreeMap<String, Secret> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect()
    }

    #[test]
    fn good_headers_are_kept_and_do_not_print() {
        let pairs = [("Authorization", "Splunk 0f0f-token"), ("X-Sumo-Category", "a/b"), ("Content-Type", "text/csv")];
        let (map, faults) = checked(&written(&pairs), true);
        assert_eq!(faults, []);
        assert_eq!(map["authorization"], "Splunk 0f0f-token");
        assert!(!format!("{map:?}").contains("token"));
    }

    #[test]
    fn every_bad_header_is_a_fault_of_its_own_that_hides_the_value() {
        let pairs = [
            ("Host", "secret-value"),
            ("transfer-encoding", "secret-value"),
            ("Content-Length", "secret-value"),
            ("content-encoding", "secret-value"),
            ("webhook-id", "secret-value"),
            ("not a name", "secret-value"),
            ("", "secret-value"),
            ("X-Break", "secret-value\r\nX-Evil: 1"),
            ("X-Ümlaut", "secret-value"),
            ("X-Text", "secret-vålue"),
            ("X-Long", &"secret-value".repeat(1_000)),
        ];
        let (map, faults) = checked(&written(&pairs), true);
        assert_eq!((map.len(), faults.len()), (0, pairs.len()));
        for fault in faults {
            assert!(!format!("{fault} {fault:?} {}", fault.hint()).contains("secret-v"), "{fault}");
        }
        assert_eq!(checked(&written(&[("webhook-id", "1")]), false).1, []);
        let twice = checked(&written(&[("A", "1"), ("a", "2")]), false).1;
        assert!(matches!(twice[..], [HeaderError::Twice { .. }]), "{twice:?}");
    }

    #[test]
    fn a_token_is_scrubbed_with_and_without_its_scheme() {
        let secrets = secrets_in("Authorization", &Secret::new("Splunk 0f0f-token"));
        assert_eq!(secrets, [Secret::new("Splunk 0f0f-token"), Secret::new("0f0f-token")]);
    }
}
