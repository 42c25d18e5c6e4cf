//! What a live button carries: a claim that only we can have made, opaque to whoever sees the message.
//!
//! A click comes back with the button's value and with Slack's signature, which says that Slack sent it, not that we made the
//! button: any message of the same Slack app, or of another workspace with the same app, can hold any value. So the value is
//! sealed with a key derived from the signing secret, and names the channel, the approval, the agent, the tool and the end of its
//! time: what the one who clicks has read, and what an approval would grant. No
//! worker has to remember which cards it sent. The channel is in it because several may share an app and not its approvers.
//!
//! Absent on purpose: whether the time is over, who may click, which answer was clicked. That is for whoever opens it.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::{Approval, ChannelId, Secret, Timestamp};

/// The version of the seal; another layout gets another.
const VERSION: &str = "v1";

/// Separates our use of the signing secret from Slack's own, which signs texts that begin with `v0:`.
const KEY_PURPOSE: &[u8] = b"interven-alerts button v1";

/// The longest value that a Slack button may have, in characters. Source: Slack API reference, Block Kit, "button".
pub const VALUE_CHARS_MAX: usize = 2_000;

/// The longest name that stands in a value itself, in bytes; of longer ones it is the digest.
const NAME_BYTES_MAX: usize = 200;

/// What a button stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ButtonClaim {
    /// The channel whose card it is on.
    pub channel: ChannelId,
    /// The approval that it answers.
    pub approval: Name,
    /// The id of the agent that asked; `None` on buttons of older workers.
    pub agent: Option<Name>,
    /// The full name of the tool that was asked for.
    pub tool: Name,
    /// From when on an answer is too late.
    pub expires_at: Option<Timestamp>,
}

/// A name from a decision: itself, or of one too long (or with control characters) for a button, its digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Name {
    /// The name.
    #[serde(rename = "n")]
    Whole(String),
    /// The SHA-256 of the name, base64url.
    #[serde(rename = "d")]
    Digest(String),
}

impl Name {
    /// The name of `name`: each text has exactly one.
    pub fn of(name: &str) -> Self {
        if name.len() <= NAME_BYTES_MAX && !name.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
            Self::Whole(name.to_owned())
        } else {
            Self::Digest(BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(name)))
        }
    }

    /// Whether this is the name of `name`.
    pub fn is(&self, name: &str) -> bool {
        *self == Self::of(name)
    }

    /// The name, where it is held itself.
    pub fn whole(&self) -> Option<&str> {
        match self {
            Self::Whole(name) => Some(name),
            Self::Digest(_) => None,
        }
    }
}

/// The claim as it travels, in short.
#[derive(Serialize, Deserialize)]
struct Wire {
    c: ChannelId,
    a: Name,
    t: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    g: Option<Name>,
    e: Option<i64>,
}

/// The value of a button for this approval: printable ASCII, at most [`VALUE_CHARS_MAX`] characters whatever the names are.
#[expect(clippy::missing_panics_doc, reason = "serialising texts and numbers never fails")]
pub fn seal(secret: &Secret, channel: &ChannelId, approval: &Approval, agent_id: &str, tool_name: &str) -> String {
    let (a, t, g) = (Name::of(&approval.id), Name::of(tool_name), Some(Name::of(agent_id)));
    let wire = Wire { c: channel.clone(), a, t, g, e: approval.expires_at.map(Timestamp::unix_millis) };
    let json = serde_json::to_vec(&wire).expect("texts and numbers are always JSON");
    let mut value = format!("{VERSION}.{}", BASE64_URL_SAFE_NO_PAD.encode(json));
    let tag = mac(secret, &value).finalize().into_bytes();
    value.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(tag, &mut value);
    value
}

/// The claim in `value`, if one of `secrets` sealed it. Several, so that a secret can be changed while cards are out.
pub fn open(secrets: &[Secret], value: &str) -> Option<ButtonClaim> {
    if value.len() > VALUE_CHARS_MAX {
        return None;
    }
    let (sealed, tag) = value.rsplit_once('.')?;
    let json = sealed.strip_prefix(VERSION)?.strip_prefix('.')?;
    let tag = BASE64_URL_SAFE_NO_PAD.decode(tag).ok()?;
    // The tag is compared in constant time, and nothing of the claim is looked at before.
    if !secrets.iter().any(|secret| mac(secret, sealed).verify_slice(&tag).is_ok()) {
        return None;
    }
    let wire: Wire = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(json).ok()?).ok()?;
    let expires_at = wire.e.map(Timestamp::from_unix_millis);
    Some(ButtonClaim { channel: wire.c, approval: wire.a, agent: wire.g, tool: wire.t, expires_at })
}

fn mac(secret: &Secret, sealed: &str) -> Hmac<Sha256> {
    let new = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    let mut derive = new(secret.expose().as_bytes());
    derive.update(KEY_PURPOSE);
    let mut mac = new(&derive.finalize().into_bytes());
    mac.update(sealed.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    fn seal(secret: &Secret, approval_id: &str, tool_name: &str, expires_at: Option<Timestamp>) -> String {
        let approval = Approval { id: approval_id.into(), expires_at };
        super::seal(secret, &"c".repeat(64).parse().unwrap(), &approval, approval_id, tool_name)
    }

    #[test]
    fn a_claim_comes_back_as_it_was_sealed_under_any_secret_that_is_still_known() {
        let end = Timestamp::from_unix_millis(1_780_315_800_000);
        let value = seal(&secret("old"), "apr_7", "slack.post_message", Some(end));
        let claim = open(&[secret("new"), secret("old")], &value).unwrap();
        assert!(claim.approval.is("apr_7") && claim.tool.is("slack.post_message"));
        assert!(claim.agent.unwrap().is("apr_7"), "here it is called as the approval is");
        assert_eq!(claim.channel.as_str(), "c".repeat(64));
        assert_eq!((claim.approval.whole(), claim.expires_at), (Some("apr_7"), Some(end)));
        assert_eq!(open(&[secret("new")], &value), None);
        assert_eq!(open(&[], &value), None);
    }

    #[test]
    fn a_value_is_opaque_and_short_whatever_the_names_are() {
        let names = ["apr_7".to_owned(), "x".repeat(200), "\u{1}".repeat(200), "🙂".repeat(10_000), "\"".repeat(199)];
        for name in names {
            let value = seal(&secret("s"), &name, &name, Some(Timestamp::UNIX_EPOCH));
            assert!(value.len() <= VALUE_CHARS_MAX, "{} characters", value.len());
            assert!(value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{value}");
            assert!(!value.contains(&name));
            let claim = open(&[secret("s")], &value).unwrap();
            assert!(claim.approval.is(&name) && claim.tool.is(&name) && !claim.tool.is("other"));
        }
    }

    #[test]
    fn a_changed_value_is_no_claim() {
        let value = seal(&secret("s"), "apr_7", "t", None);
        for index in 0..value.len() {
            let mut bytes = value.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(open(&[secret("s")], std::str::from_utf8(&bytes).unwrap()), None, "byte {index}");
        }
        for bad in ["", "v1", "v1.", "v1..", "v2.a.b", &"v1.".repeat(1_000)] {
            assert_eq!(open(&[secret("s")], bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_makes_opening_panic(value in ".*") {
            proptest::prop_assert_eq!(open(&[secret("s")], &value), None);
        }
    }
}
