//! Sessions: a cookie that any worker of the pool knows as its own, without a store.
//!
//! The cookie holds the name of the token that the session was opened with, a mark of that token and the end of the session, sealed
//! with the pool's key. Every request looks the token up in the present configuration: one that was removed, renamed or replaced
//! ends its sessions at once, and one that was given another role changes them at once.
//!
//! Absent on purpose: a list of sessions. Signing out therefore takes the cookie from the browser and no more; a copy of it that
//! somebody else has is good until its end. To end it before, replace the token.

use std::{io, time::Duration};

use axum::http::{HeaderMap, header::COOKIE};

use super::access::{Identity, Stranger, Tokens, Via, same};
use crate::{
    model::{Role, Secret, Timestamp},
    sealing::Key,
};

/// The name of the cookie.
pub(super) const NAME: &str = "interven_session";

/// What the key is used for here.
const PURPOSE: &str = "session";
const MARK: &str = "session-token";

/// The longest cookie that is looked at, in bytes, and how many of our name: another host of the same domain may have set more.
const BYTES_MAX: usize = 1_024;
const COOKIES_MAX: usize = 4;

/// Opens and knows sessions.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    key: Key,
}

/// What is sealed in a cookie.
#[derive(serde::Serialize, serde::Deserialize)]
struct Ticket {
    name: String,
    /// A mark of the token's hash, which the key alone can make.
    mark: [u8; 32],
    /// Unix time in milliseconds.
    expires: i64,
}

impl Sessions {
    pub(super) fn new(key: Key) -> Self {
        Self { key }
    }

    /// The key behind them.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// The cookie of a new session for the caller with this token, and its end.
    pub(super) fn open(
        &self,
        (name, _, hash): &(String, Role, [u8; 32]),
        now: Timestamp,
        lasts: Duration,
    ) -> io::Result<(String, Timestamp)> {
        // Whole seconds, as a cookie counts them.
        let end = Timestamp::from_unix_millis(now.plus(lasts).unix_millis() / 1_000 * 1_000);
        let ticket = Ticket { name: name.clone(), mark: self.key.mac(MARK, hash), expires: end.unix_millis() };
        let sealed = self.key.seal(PURPOSE, NAME, &serde_json::to_vec(&ticket)?)?;
        Ok((sealed, end))
    }

    /// Who the session of a request belongs to.
    pub(super) fn find(&self, headers: &HeaderMap, tokens: &Tokens, now: Timestamp) -> Result<Identity, Stranger> {
        let mut stranger = Stranger::Nothing;
        for cookie in cookies(headers).take(COOKIES_MAX) {
            if let Some(identity) = self.read(cookie, tokens, now) {
                return Ok(identity);
            }
            stranger = Stranger::NoSession;
        }
        Err(stranger)
    }

    fn read(&self, cookie: &str, tokens: &Tokens, now: Timestamp) -> Option<Identity> {
        if cookie.len() > BYTES_MAX {
            return None;
        }
        let ticket: Ticket = serde_json::from_slice(&self.key.open(PURPOSE, NAME, cookie)?).ok()?;
        let expires_at = Timestamp::from_unix_millis(ticket.expires);
        let (name, role, hash) = tokens.iter().find(|(name, ..)| *name == ticket.name)?;
        let good = same(&self.key.mac(MARK, hash), &ticket.mark) && now < expires_at;
        good.then(|| Identity { name: name.clone(), role: *role, via: Via::Session { expires_at } })
    }
}

/// The cookies of our name.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(name, _)| *name == NAME).map(|(_, value)| value)
}

/// The cookies of our name and no others, as a `Cookie` header holds them: for another worker of the pool, which knows them as its own.
pub(super) fn handed_on(headers: &HeaderMap) -> Secret {
    let ours = cookies(headers).filter(|cookie| cookie.len() <= BYTES_MAX).take(COOKIES_MAX);
    Secret::new(ours.map(|cookie| format!("{NAME}={cookie}")).collect::<Vec<_>>().join("; "))
}

/// The value of `Set-Cookie` that gives a session. No script sees it, and no other site's page sends it.
pub(super) fn set_cookie(session: &str, lasts: Duration, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{NAME}={session}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{secure}", lasts.as_secs())
}

/// The value of `Set-Cookie` that takes it.
pub(super) fn clear_cookie(secure: bool) -> String {
    set_cookie("", Duration::ZERO, secure)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_mins(1);

    fn token(name: &str, role: Role, hash: u8) -> (String, Role, [u8; 32]) {
        (name.to_owned(), role, [hash; 32])
    }

    fn sessions(key: &str) -> Sessions {
        Sessions::new(Key::from_text(key).unwrap())
    }

    fn find(sessions: &Sessions, cookie: &str, tokens: &[(String, Role, [u8; 32])], at: u64) -> Result<Role, Stranger> {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, cookie.parse().unwrap());
        let now = Timestamp::UNIX_EPOCH.plus(Duration::from_secs(at));
        sessions.find(&headers, &Tokens::from(tokens.to_vec()), now).map(|identity| identity.role)
    }

    #[test]
    fn every_worker_with_the_key_knows_a_session_until_its_end_and_no_other_does() {
        let (ours, soc) = (sessions("0123456789abcdef"), token("soc", Role::Analyst, 1));
        let (session, end) = ours.open(&soc, Timestamp::UNIX_EPOCH, LASTS).unwrap();
        assert_eq!(end, Timestamp::UNIX_EPOCH.plus(LASTS));
        let (cookie, all) = (format!("a=b; {NAME}={session}; c"), [soc]);
        assert_eq!(find(&sessions("0123456789abcdef"), &cookie, &all, 59), Ok(Role::Analyst));
        assert_eq!(find(&ours, &cookie, &all, 60), Err(Stranger::NoSession));
        assert_eq!(find(&sessions("fedcba9876543210"), &cookie, &all, 0), Err(Stranger::NoSession));
        // A cookie that a neighbour set does not hide ours.
        assert_eq!(find(&ours, &format!("{NAME}=junk; {cookie}"), &all, 0), Ok(Role::Analyst));
        let long = "A".repeat(100_000);
        for forged in [String::new(), format!("{session}A"), session[..session.len() - 4].to_owned(), long] {
            assert_eq!(find(&ours, &format!("{NAME}={forged}"), &all, 0), Err(Stranger::NoSession));
        }
        assert_eq!(find(&ours, "other=1", &all, 0), Err(Stranger::Nothing));
    }

    #[test]
    fn a_session_follows_its_token_in_the_configuration() {
        let ours = sessions("0123456789abcdef");
        let (session, _) = ours.open(&token("soc", Role::Analyst, 1), Timestamp::UNIX_EPOCH, LASTS).unwrap();
        let cookie = format!("{NAME}={session}");
        for (tokens, expected) in [
            (vec![token("soc", Role::Auditor, 1)], Ok(Role::Auditor)),
            (vec![token("soc", Role::Admin, 2)], Err(Stranger::NoSession)),
            (vec![token("lead", Role::Analyst, 1)], Err(Stranger::NoSession)),
            (vec![], Err(Stranger::NoSession)),
        ] {
            assert_eq!(find(&ours, &cookie, &tokens, 0), expected);
        }
    }
}
