//! Who calls: a bearer token, known by its hash alone.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use sha2::{Digest as _, Sha256};

use super::errors::ApiError;
use crate::model::Role;

/// Who may call: name, role and SHA-256 of each token.
pub type Tokens = Arc<[(String, Role, [u8; 32])]>;

/// Finds out who calls. Every known hash is compared, each in constant time, so that neither the position of a token nor a
/// matching beginning can be measured.
pub(super) fn caller(headers: &HeaderMap, tokens: &[(String, Role, [u8; 32])]) -> Result<(String, Role), ApiError> {
    let unauthorised = |message: &str, hint| ApiError {
        status: StatusCode::UNAUTHORIZED,
        code: "unauthorised",
        message: message.to_owned(),
        hint,
    };
    let token = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| {
            unauthorised(
                "no bearer token was sent",
                "send `Authorization: Bearer TOKEN`; `interven-alerts token` makes one",
            )
        })?;
    let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    let mut found = None;
    for (name, role, known) in tokens {
        let difference = known.iter().zip(&hash).fold(0, |all, (a, b)| all | (a ^ b));
        if std::hint::black_box(difference) == 0 {
            found = Some((name.clone(), *role));
        }
    }
    found.ok_or_else(|| unauthorised("the token is not known", "check `[[access.token]]` in the configuration"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_token_names_its_caller() {
        let tokens = vec![(String::from("firewall"), Role::Publisher, Sha256::digest(b"right").into())];
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", value.parse().unwrap());
            caller(&headers, &tokens)
        };
        assert_eq!(with("Bearer right").unwrap(), (String::from("firewall"), Role::Publisher));
        assert!(with("bearer right").is_ok());
        for wrong in ["Bearer wrong", "Bearer ", "Basic right", "right"] {
            assert_eq!(with(wrong).unwrap_err().status, StatusCode::UNAUTHORIZED, "{wrong}");
        }
        assert!(caller(&HeaderMap::new(), &tokens).is_err());
    }
}
