//! Who calls: a bearer token, known by its hash alone, or the cookie of a session that was opened with one.
//!
//! A bearer token goes first: whoever sends a wrong one is told so, even beside a good cookie, because a script that believes to
//! use its token must not act as someone else.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};

use super::{errors::ApiError, sessions::Sessions};
use crate::model::{Role, Timestamp};

/// Who may call: name, role and SHA-256 of each token.
pub type Tokens = Arc<[(String, Role, [u8; 32])]>;

/// How a caller proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// With a bearer token.
    Token,
    /// With the cookie of a session.
    Session {
        /// When the session ends.
        expires_at: Timestamp,
    },
}

impl Via {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session { .. } => "session",
        }
    }
}

/// A caller that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) via: Via,
}

/// Why a caller is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    /// It sent nothing to know it by.
    Nothing,
    /// It sent a bearer token that nobody has: a guess, or one that was taken back.
    UnknownToken,
    /// Its session has ended, or never was.
    NoSession,
}

impl From<Stranger> for ApiError {
    fn from(stranger: Stranger) -> Self {
        let (message, hint) = match stranger {
            Stranger::Nothing => (
                "no bearer token was sent, and no session",
                "send `Authorization: Bearer TOKEN`, or sign in with `POST /api/session`; `interven-alerts token` makes a token",
            ),
            Stranger::UnknownToken => ("the token is not known", "check `[[access.token]]` in the configuration"),
            Stranger::NoSession => ("the session has ended", "sign in again with `POST /api/session`"),
        };
        Self { status: StatusCode::UNAUTHORIZED, code: "unauthorised", message: message.to_owned(), hint }
    }
}

/// Finds out who calls.
pub(super) fn identify(
    headers: &HeaderMap,
    tokens: &Tokens,
    sessions: &Sessions,
    now: Timestamp,
) -> Result<Identity, Stranger> {
    if let Some(token) = bearer(headers) {
        let (name, role, _) = known(token, tokens).ok_or(Stranger::UnknownToken)?;
        return Ok(Identity { name: name.clone(), role: *role, via: Via::Token });
    }
    sessions.find(headers, tokens, now)
}

/// The bearer token of a request. Other schemes are a proxy's business.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at(value.iter().position(|byte| *byte == b' ').unwrap_or(value.len()));
    scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii())
}

/// The entry of this token. Every known hash is compared, each in constant time, so that neither the position of a token nor a
/// matching beginning can be measured.
pub(super) fn known<'a>(token: &[u8], tokens: &'a [(String, Role, [u8; 32])]) -> Option<&'a (String, Role, [u8; 32])> {
    // The hash of nothing stands in somebody's configuration one day: `printf %s "$NOT_SET" | sha256sum` makes it.
    if token.trim_ascii().is_empty() {
        return None;
    }
    let hash: [u8; 32] = Sha256::digest(token).into();
    let mut found = None;
    for entry in tokens {
        if same(&entry.2, &hash) {
            found = Some(entry);
        }
    }
    found
}

/// Whether two codes are the same, in a time that does not depend on where they differ.
pub(super) fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealing::Key;

    #[test]
    fn nobody_is_known_by_an_empty_token() {
        for nothing in [&b""[..], b"\n", b" "] {
            let entry = (String::from("unset"), Role::Admin, Sha256::digest(nothing).into());
            assert_eq!(known(nothing, &[entry]), None, "{nothing:?}");
        }
    }

    #[test]
    fn only_a_known_token_names_its_caller_and_a_wrong_one_is_refused_beside_a_good_session() {
        let tokens = Tokens::from([(String::from("firewall"), Role::Publisher, Sha256::digest(b"right").into())]);
        let (sessions, now) = (Sessions::new(Key::random().unwrap()), Timestamp::UNIX_EPOCH);
        let (session, _) = sessions.open(&tokens[0], now, std::time::Duration::from_mins(1)).unwrap();
        let with = |authorization: Option<&str>, cookie: bool| {
            let mut headers = HeaderMap::new();
            if let Some(value) = authorization {
                headers.insert("authorization", value.parse().unwrap());
            }
            if cookie {
                headers.insert("cookie", format!("interven_session={session}").parse().unwrap());
            }
            identify(&headers, &tokens, &sessions, now).map(|identity| (identity.name, identity.via.as_str()))
        };
        let firewall = |via| Ok((String::from("firewall"), via));
        for (authorization, cookie, expected) in [
            (Some("Bearer right"), false, firewall("token")),
            (Some("bearer  right "), true, firewall("token")),
            (Some("Bearer wrong"), true, Err(Stranger::UnknownToken)),
            (Some("Bearer"), true, Err(Stranger::UnknownToken)),
            (Some("Basic right"), false, Err(Stranger::Nothing)),
            (Some("Basic right"), true, firewall("session")),
            (Some("right"), false, Err(Stranger::Nothing)),
            (None, true, firewall("session")),
            (None, false, Err(Stranger::Nothing)),
        ] {
            assert_eq!(with(authorization, cookie), expected, "{authorization:?} {cookie}");
        }
    }
}
