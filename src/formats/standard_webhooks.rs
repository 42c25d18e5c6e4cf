//! Signatures by Standard Webhooks 1.0.0, so that a receiver can tell our requests from anybody's.
//!
//! What is signed is the body as it goes over the wire (compressed, if it is): a receiver verifies before it unpacks.
//! Source: standard-webhooks/standard-webhooks `spec/standard-webhooks.md`; `reference/platforms.md` section 10.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::model::{Secret, Timestamp};

/// The key of one signing secret, ready for use.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

/// Why a secret is no signing secret. It says nothing of the secret itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// It does not begin with `whsec_`.
    #[error("the signing secret does not begin with whsec_")]
    Prefix,
    /// What follows is not base64.
    #[error("the signing secret is not base64 after whsec_")]
    Base64,
    /// Too short to be safe, or longer than the standard allows.
    #[error("the signing secret has {bytes} bytes, where the standard wants 24 to 64")]
    Length {
        /// How many it has.
        bytes: usize,
    },
}

impl SigningKeyError {
    /// What the operator can do about it.
    pub const fn hint(self) -> &'static str {
        "make one with: printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\""
    }
}

impl SigningKey {
    /// Reads `whsec_<base64 of 24 to 64 bytes>`.
    pub fn parse(secret: &Secret) -> Result<Self, SigningKeyError> {
        let text = secret.expose().strip_prefix("whsec_").ok_or(SigningKeyError::Prefix)?;
        let key = zeroize::Zeroizing::new(STANDARD.decode(text).map_err(|_| SigningKeyError::Base64)?);
        if !(24..=64).contains(&key.len()) {
            return Err(SigningKeyError::Length { bytes: key.len() });
        }
        // HMAC takes keys of every length, so the one error of `new_from_slice` cannot come.
        Hmac::new_from_slice(&key).map(Self).map_err(|_| SigningKeyError::Length { bytes: key.len() })
    }

    /// The signature of one request: `v1,<base64>`.
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(at.unix_seconds().to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The value of `webhook-signature`: one signature for each key, so that a receiver may know the old secret or the new one.
pub fn signatures(keys: &[SigningKey], id: &str, at: Timestamp, body: &[u8]) -> String {
    keys.iter().map(|key| key.sign(id, at, body)).collect::<Vec<_>>().join(" ")
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_vector_of_the_standard_comes_out() {
        let key = SigningKey::parse(&Secret::new(SECRET)).unwrap();
        let at = Timestamp::from_unix_millis(1_614_265_330_000);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#), expected);
        let twice = signatures(&[key.clone(), key], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
        assert_eq!(twice, format!("{expected} {expected}"));
    }

    #[test]
    fn a_secret_that_is_none_is_refused_and_neither_prints() {
        let cases = [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", SigningKeyError::Prefix),
            ("whsec_not base64!", SigningKeyError::Base64),
            ("whsec_c2hvcnQ=", SigningKeyError::Length { bytes: 5 }),
        ];
        for (text, expected) in cases {
            let error = SigningKey::parse(&Secret::new(text)).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains("c2hvcnQ"), "{error}");
        }
        assert_eq!(format!("{:?}", SigningKey::parse(&Secret::new(SECRET)).unwrap()), "[secret]");
    }
}
