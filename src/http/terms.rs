//! On what terms the API is reached: under which name, through which proxies, how long a session lasts, and which other workers
//! there are.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

/// How many entries of `X-Forwarded-For` are looked at, from the last one on.
const HOPS_MAX: usize = 16;

/// What the configuration says about it. A reload may change it.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// `http.public_url`, without a slash at its end.
    public_url: String,
    /// The origin of it, as a browser writes it.
    origin: String,
    /// How long a session lasts from its sign-in.
    pub(super) session: Duration,
    proxies: Vec<IpNet>,
    /// The URLs of the other workers.
    pub(super) peers: Vec<url::Url>,
}

impl Terms {
    /// The terms of an API whose address for people is `public_url`.
    pub fn new(public_url: &str, session: Duration, proxies: Vec<IpNet>) -> Self {
        let origin = url::Url::parse(public_url).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
        let public_url = public_url.trim_end_matches('/').to_owned();
        Self { public_url, origin, session, proxies, peers: Vec::new() }
    }

    /// Where people and platforms reach it, without a slash at its end.
    pub(super) fn public_url(&self) -> &str {
        &self.public_url
    }

    /// The same for a worker of a pool, whose other workers are behind these URLs; it may be among them itself.
    #[must_use]
    pub fn with_peers(mut self, peers: Vec<url::Url>) -> Self {
        self.peers = peers;
        self
    }

    /// Whether people reach it by https.
    pub(super) fn is_https(&self) -> bool {
        self.origin.starts_with("https://")
    }

    /// Whether this is the origin of our own pages.
    pub(super) fn is_own_origin(&self, origin: &str) -> bool {
        !self.origin.is_empty() && self.origin.eq_ignore_ascii_case(origin)
    }

    /// Where a request comes from. `X-Forwarded-For` is believed only as far as trusted proxies wrote it: from its end back to the
    /// first address that is no trusted proxy, because everything before that the caller may have written itself.
    pub(super) fn caller_address(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        let trusted = |ip: IpAddr| self.proxies.iter().any(|net| net.contains(&ip));
        if !trusted(peer.ip().to_canonical()) {
            return peer;
        }
        let mut from = peer;
        // As bytes: in one line with what a proxy wrote may stand what is no text, and it must not hide that.
        let lines = headers.get_all("x-forwarded-for").iter().rev().map(HeaderValue::as_bytes);
        for hop in lines.flat_map(|line| line.rsplit(|byte| *byte == b',')).take(HOPS_MAX) {
            let Some(ip) = str::from_utf8(hop).ok().and_then(|hop| address(hop.trim())) else { return from };
            from = SocketAddr::new(ip, 0);
            if !trusted(ip) {
                return from;
            }
        }
        from
    }
}

/// An address as proxies write it: bare, with a port, or an IPv6 one in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    let bare = bare.or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>());
    bare.ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_trusted_proxies_wrote_about_the_caller_is_believed() {
        let terms = Terms::new("https://a.example", Duration::ZERO, vec!["10.0.0.0/8".parse().unwrap()]);
        for (peer, forwarded, from) in [
            ("203.0.113.1", "198.51.100.7", "203.0.113.1"),
            ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
            ("10.0.0.1", "127.0.0.1, 198.51.100.7", "198.51.100.7"),
            ("10.0.0.1", "198.51.100.7, 10.0.0.2", "198.51.100.7"),
            ("10.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
            ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
            ("10.0.0.1", "198.51.100.7, unknown", "10.0.0.1"),
            ("::ffff:10.0.0.1", "2001:db8::1", "2001:db8::1"),
            ("10.0.0.1", "", "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
            let peer = SocketAddr::new(peer.parse().unwrap(), 1);
            assert_eq!(terms.caller_address(peer, &headers).ip().to_string(), from, "{forwarded}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_neither_hide_the_caller_nor_let_it_say_who_it_is() {
        let terms = Terms::new("https://a.example", Duration::ZERO, vec!["10.0.0.0/8".parse().unwrap()]);
        for (lines, from) in [
            (&[&b"\xff, 198.51.100.7"[..]][..], "198.51.100.7"),
            (&[b"192.0.2.9", b"\xff, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            (&[b"192.0.2.9", b"\xff"], "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_bytes(line).unwrap());
            }
            let peer = SocketAddr::from(([10, 0, 0, 1], 1));
            assert_eq!(terms.caller_address(peer, &headers).ip().to_string(), from, "{headers:?}");
        }
    }

    #[test]
    fn an_origin_is_ours_when_it_is_that_of_the_public_url() {
        let terms = Terms::new("https://alerts.example.com:8443/base", Duration::ZERO, Vec::new());
        assert!(terms.is_own_origin("https://alerts.example.com:8443") && terms.is_https());
        for other in ["https://alerts.example.com", "http://alerts.example.com:8443", "null", ""] {
            assert!(!terms.is_own_origin(other), "{other}");
        }
        assert!(!Terms::default().is_own_origin("") && !Terms::default().is_https());
    }
}
