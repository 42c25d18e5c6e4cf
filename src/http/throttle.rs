//! How often an address may be wrong about who it is, before its sign-ins are refused unseen.
//!
//! Every failed sign-in and every unknown bearer token costs the address points, which a minute gives back; an IPv6 caller is its
//! /64. An attempt is charged before the token is looked at, and paid back when it was right, so that attempts side by side cannot
//! outrun the count.
//!
//! A known bearer token always passes: behind a proxy many callers have one address, and a publisher must not lose decisions
//! because its neighbour guesses. Our tokens cannot be guessed at any rate; the bound is for those that people made themselves,
//! and for the log.
//!
//! Memory is bounded: [`ADDRESSES_MAX`] addresses, friends, and one common account for all that come after. Past [`EVERYBODY_MAX`] failed
//! sign-ins a minute from everywhere together, only addresses that signed in before may still try.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// After so long, an account begins anew.
const WINDOW: Duration = Duration::from_mins(1);

/// What an address may spend in a window, and what its failures cost: ten sign-ins, or a hundred bearer tokens.
const POINTS: u32 = 100;
const SIGN_IN_COSTS: u32 = 10;
const TOKEN_COSTS: u32 = 1;

/// Failed sign-ins in a window, everybody's together.
const EVERYBODY_MAX: u32 = 600;

/// How many addresses have an account of their own, and how many are remembered that signed in well.
const ADDRESSES_MAX: usize = 4_096;
const FRIENDS_MAX: usize = 1_024;

/// How often, at most, all accounts are looked through for those that are over.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Who may try.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    accounts: HashMap<IpAddr, Account>,
    /// Of all addresses that found no account.
    others: Option<Account>,
    /// Of everybody together, in failed sign-ins.
    everybody: Option<Account>,
    /// Addresses that signed in well, and when last.
    friends: HashMap<IpAddr, Instant>,
    swept: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    since: Instant,
    spent: u32,
    /// Sign-ins that were refused unseen.
    refused: u32,
    /// Whether an unknown token was told of in this window, and how many were not told of since.
    told: bool,
    untold: u32,
}

impl Account {
    fn new(now: Instant) -> Self {
        Self { since: now, spent: 0, refused: 0, told: false, untold: 0 }
    }

    /// The same account, anew when its window is over. What was not told yet is kept, so that no refusal goes uncounted.
    fn at(&mut self, now: Instant) -> &mut Self {
        if now.duration_since(self.since) >= WINDOW {
            *self = Self { untold: self.untold, ..Self::new(now) };
        }
        self
    }

    fn refuse(&mut self, now: Instant) -> TooMany {
        self.refused = self.refused.saturating_add(1);
        TooMany { after: self.left(now), first: self.refused == 1 }
    }

    fn left(&self, now: Instant) -> Duration {
        WINDOW.saturating_sub(now.duration_since(self.since))
    }
}

/// A refusal that costs no look at the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany {
    /// When to come again.
    pub(super) after: Duration,
    /// Whether this is the first refusal of its window, and worth a line.
    pub(super) first: bool,
}

impl Throttle {
    /// Whether a sign-in from `ip` may be looked at. Then it is charged, until [`Self::welcome`].
    pub(super) fn sign_in(&self, ip: IpAddr) -> Result<(), TooMany> {
        let (now, ip) = (Instant::now(), network(ip));
        self.with(|book| {
            let account = book.account(ip, now);
            if account.spent + SIGN_IN_COSTS > POINTS {
                return Err(account.refuse(now));
            }
            let friend = book.friends.contains_key(&ip);
            let everybody = book.everybody.get_or_insert_with(|| Account::new(now)).at(now);
            if everybody.spent >= EVERYBODY_MAX && !friend {
                return Err(everybody.refuse(now));
            }
            everybody.spent = everybody.spent.saturating_add(1);
            book.account(ip, now).spent += SIGN_IN_COSTS;
            Ok(())
        })
    }

    /// The sign-in from `ip` was right: it costs nothing.
    pub(super) fn welcome(&self, ip: IpAddr) {
        let (now, ip) = (Instant::now(), network(ip));
        self.with(|book| {
            let account = book.account(ip, now);
            account.spent = account.spent.saturating_sub(SIGN_IN_COSTS);
            if let Some(everybody) = &mut book.everybody {
                everybody.spent = everybody.spent.saturating_sub(1);
            }
            if book.friends.len() >= FRIENDS_MAX
                && let Some(oldest) = book.friends.iter().min_by_key(|(_, at)| **at).map(|(ip, _)| *ip)
            {
                book.friends.remove(&oldest);
            }
            book.friends.insert(ip, now);
        });
    }

    /// `ip` sent a bearer token that nobody has. How many such there were since it was told last, where it is time to tell: at the
    /// first, and then once a window.
    pub(super) fn unknown_token(&self, ip: IpAddr) -> Option<u32> {
        let (now, ip) = (Instant::now(), network(ip));
        self.with(|book| {
            let account = book.account(ip, now);
            account.spent = account.spent.saturating_add(TOKEN_COSTS);
            account.untold = account.untold.saturating_add(1);
            let told = std::mem::replace(&mut account.told, true);
            (!told).then(|| std::mem::take(&mut account.untold))
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Book {
    /// The account of an address, or the common one where there is no room for more.
    fn account(&mut self, ip: IpAddr, now: Instant) -> &mut Account {
        // Friends always find room, so that strangers cannot take it from them.
        let has_room = |book: &Self| {
            let known = book.accounts.contains_key(&ip) || book.friends.contains_key(&ip);
            known || book.accounts.len() < ADDRESSES_MAX
        };
        let swept = self.swept.is_some_and(|at| now.duration_since(at) < SWEEP_EVERY);
        if !has_room(self) && !swept {
            self.accounts.retain(|_, account| !account.left(now).is_zero());
            self.swept = Some(now);
        }
        if has_room(self) {
            self.accounts.entry(ip).or_insert_with(|| Account::new(now)).at(now)
        } else {
            self.others.get_or_insert_with(|| Account::new(now)).at(now)
        }
    }
}

/// Whom an address stands for: one IPv6 caller has all of a /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        ip @ IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn ten_failed_sign_ins_a_minute_are_looked_at_and_no_more() {
        let (throttle, caller) = (Throttle::default(), ip("192.0.2.1"));
        for _ in 0..10 {
            throttle.sign_in(caller).unwrap();
        }
        tokio::time::advance(Duration::from_secs(20)).await;
        let after = Duration::from_secs(40);
        assert_eq!(throttle.sign_in(caller), Err(TooMany { after, first: true }));
        assert_eq!(throttle.sign_in(caller), Err(TooMany { after, first: false }));
        throttle.sign_in(ip("192.0.2.2")).unwrap();
        tokio::time::advance(after).await;
        throttle.sign_in(caller).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_in_that_is_right_costs_nothing_and_an_unknown_token_a_tenth() {
        let (throttle, caller) = (Throttle::default(), ip("2001:db8::1"));
        for _ in 0..100 {
            throttle.sign_in(caller).unwrap();
            throttle.welcome(caller);
        }
        for _ in 0..90 {
            throttle.unknown_token(ip("2001:db8::ffff"));
        }
        throttle.sign_in(caller).unwrap();
        throttle.sign_in(caller).unwrap_err();
        throttle.sign_in(ip("2001:db8:0:1::1")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_tokens_are_told_of_once_a_minute_with_their_number() {
        let (throttle, caller) = (Throttle::default(), ip("192.0.2.1"));
        assert_eq!(throttle.unknown_token(caller), Some(1));
        for _ in 0..500 {
            assert_eq!(throttle.unknown_token(caller), None);
        }
        tokio::time::advance(WINDOW).await;
        assert_eq!(throttle.unknown_token(caller), Some(501));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_sprays_from_everywhere_locks_out_strangers_only_and_takes_bounded_memory() {
        let (throttle, friend) = (Throttle::default(), ip("192.0.2.1"));
        throttle.sign_in(friend).unwrap();
        throttle.welcome(friend);
        let sprayed =
            (0..100_000_u32).filter(|n| throttle.sign_in(Ipv6Addr::from_bits(u128::from(*n) << 64).into()).is_ok());
        assert_eq!(sprayed.count(), EVERYBODY_MAX as usize);
        for n in 0..100_000_u32 {
            throttle.unknown_token(Ipv6Addr::from_bits(u128::from(n) << 64).into());
        }
        throttle.with(|book| assert!(book.accounts.len() <= ADDRESSES_MAX + FRIENDS_MAX));
        throttle.sign_in(friend).unwrap();
        for n in 0..10_000_u32 {
            throttle.welcome(std::net::Ipv4Addr::from_bits(n).into());
        }
        throttle.with(|book| assert_eq!(book.friends.len(), FRIENDS_MAX));
        // A minute later there is room, and everybody may try again.
        tokio::time::advance(WINDOW).await;
        throttle.sign_in(ip("198.51.100.1")).unwrap();
        throttle.with(|book| assert_eq!(book.accounts.len(), 1));
    }
}
