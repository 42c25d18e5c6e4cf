//! Every section but the channels: `[broker]`, `[http]`, `[access]`, `[approvals]`, `[shutdown]`, `[egress]`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    time::Duration,
};

use ipnet::IpNet;

use super::plan::{AccessPlan, AccessToken, BrokerPlan, HttpPlan};
use crate::{
    approvals::Terms,
    channels::Links,
    model::{Egress, Role, Secret, unhex},
    sealing::Key,
    settings::Settings,
};

/// Defaults. Source: contract 3.
const PREFETCH: NonZeroU16 = NonZeroU16::new(1_000).expect("1000 is not zero");
const KEEP_DECISIONS: Duration = Duration::from_hours(30 * 24);
/// A working day and its edges: an analyst signs in once a shift.
const SESSION: Duration = Duration::from_hours(12);
const GRACE: Duration = Duration::from_secs(25);
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const METRICS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// The most URLs of other workers: behind each there may be many.
const PEERS_MAX: usize = 64;

/// The variable of the environment that holds the pool's key.
const KEY_VARIABLE: &str = "INTERVEN_ALERTS_KEY";

/// The longest prefix: with it, the longest queue name stays far below AMQP's 255 bytes.
const PREFIX_CHARS_MAX: usize = 64;

pub(super) fn egress(document: &mut Settings<'_>) -> Egress {
    let read = |s: &mut Settings<'_>| {
        let deny = networks(s, "deny");
        Egress::new(deny, s.boolean("allow_http").unwrap_or(false))
    };
    document.table("egress", read).unwrap_or_default()
}

fn networks(s: &mut Settings<'_>, key: &'static str) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in s.texts(key).unwrap_or_default() {
        if let Ok(net) = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            networks.push(net.trunc());
        } else {
            let problem = format!("`{}` is not a network", text.escape_debug());
            s.fault_shown(key, problem, "write networks as \"10.0.0.0/8\" or \"fd00::/8\", addresses as \"10.0.0.1\"");
        }
    }
    networks
}

pub(super) fn broker(document: &mut Settings<'_>) -> Option<BrokerPlan> {
    let embedded = BrokerPlan::Embedded { prefetch: PREFETCH, keep_decisions: Some(KEEP_DECISIONS) };
    if document.has("broker") { document.table("broker", read_broker).flatten() } else { Some(embedded) }
}

fn read_broker(s: &mut Settings<'_>) -> Option<BrokerPlan> {
    let both = s.has("url") && s.has("urls");
    let one = s.text("url");
    let several = if s.has("urls") { s.secrets("urls") } else { Vec::new() };
    if both {
        s.fault(
            "urls",
            "`url` and `urls` are both given".to_owned(),
            "keep one of them; `urls` are nodes of one cluster",
        );
    } else if !s.has("url") && !s.has("urls") {
        let hint =
            "add `url = \"amqp://...\"`; for the embedded broker write `url = \"embedded\"` or remove the section";
        s.fault("", "the section has no `url`".to_owned(), hint);
    } else if s.has("urls") && several.is_empty() {
        s.fault("urls", "names no node".to_owned(), "list at least one amqp:// or amqps:// URL");
    }
    let prefix = s.text("prefix");
    let declare = s.boolean("declare");
    let prefetch = s.integer("prefetch", 1..=u16::MAX.into());
    let prefetch = prefetch.and_then(|n| u16::try_from(n).ok()).and_then(NonZeroU16::new).unwrap_or(PREFETCH);
    let kept = Duration::from_hours(1)..=Duration::from_hours(3650 * 24);
    let keep_decisions = s.duration_or_none("keep_decisions", kept).unwrap_or(Some(KEEP_DECISIONS));

    if one.as_deref() == Some("embedded") {
        for key in ["prefix", "declare"] {
            if s.has(key) {
                s.warn_shown(key, "means nothing to the embedded broker".to_owned(), "remove it");
            }
        }
        return Some(BrokerPlan::Embedded { prefetch, keep_decisions });
    }
    let (key, urls) = match one.map(Secret::new) {
        Some(url) => {
            s.remember(url.clone());
            ("url", vec![url])
        }
        None => ("urls", several),
    };
    check_broker_urls(s, key, &urls);
    let prefix = prefix.unwrap_or_else(|| String::from("interven"));
    if prefix.len() > PREFIX_CHARS_MAX || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        let problem = format!("must be at most {PREFIX_CHARS_MAX} letters, digits, `.`, `_` and `-`");
        s.fault_shown("prefix", problem, "write it as prefix = \"interven\"");
    }
    let declare = declare.unwrap_or(true);
    (!urls.is_empty()).then_some(BrokerPlan::RabbitMq { urls, prefix, prefetch, declare, keep_decisions })
}

fn check_broker_urls(s: &mut Settings<'_>, key: &str, urls: &[Secret]) {
    let mut vhosts = Vec::new();
    for (at, secret) in urls.iter().enumerate() {
        let which = if urls.len() > 1 { format!("URL {} ", at + 1) } else { String::new() };
        let problem = match url::Url::parse(secret.expose()) {
            Err(error) => format!("{which}is not a URL: {error}"),
            Ok(url) if !matches!(url.scheme(), "amqp" | "amqps") => {
                format!("{which}must begin with amqp:// or amqps://")
            }
            Ok(url) if url.host_str().is_none_or(str::is_empty) => format!("{which}names no host"),
            Ok(url) if url.path().trim_start_matches('/').contains('/') => {
                format!("{which}has more than a virtual host in its path")
            }
            Ok(url) => {
                vhosts.push(url.path().to_ascii_lowercase());
                s.remember(Secret::new(url.password().unwrap_or_default()));
                continue;
            }
        };
        let hint = "write it as amqp://user:password@host:5672/%2f; @ / # in a password stand as %40 %2F %23";
        s.fault(key, problem, hint);
    }
    vhosts.dedup();
    if vhosts.len() > 1 {
        let problem = "the URLs name different virtual hosts".to_owned();
        s.fault(key, problem, "list nodes of one cluster, all with the same virtual host");
    }
}

/// The pool's key, from the environment alone: a key in the file would lie beside what it protects.
pub(super) fn key(document: &mut Settings<'_>) -> Option<Key> {
    let text = document.variable(KEY_VARIABLE).filter(|text| !text.trim().is_empty())?;
    document.remember(Secret::new(text.trim()));
    let key = Key::from_text(&text);
    if let Err(error) = &key {
        document.fault_of_variable(
            KEY_VARIABLE,
            error.to_string(),
            "make one with `openssl rand -base64 32`, the same for the whole pool",
        );
    }
    key.ok()
}

/// Where the HTTP side listens, which other workers there are, and where links point.
pub(super) fn http(
    document: &mut Settings<'_>,
    access: &AccessPlan,
    has_key: bool,
) -> (HttpPlan, Vec<url::Url>, Links) {
    let read = |s: &mut Settings<'_>| {
        let listen = address(s, "listen").unwrap_or(LISTEN);
        let metrics_listen = address(s, "metrics_listen").unwrap_or(METRICS_LISTEN);
        if listen == metrics_listen && listen.port() != 0 {
            let problem = format!("`listen` is {listen}, too");
            s.fault_shown("metrics_listen", problem, "give metrics a port of their own");
        }
        if !listen.ip().is_loopback() && access.tokens.is_empty() {
            let hint = "add an [[access.token]]: `interven-alerts token NAME --role ROLE` prints the lines";
            s.warn_shown("listen", "is reachable from elsewhere, but nobody has a token".to_owned(), hint);
        }
        let written = s.has("public_url");
        let peers = peers(s, has_key);
        (HttpPlan { listen, metrics_listen }, peers, s.link("public_url"), s.link("console_url"), written)
    };
    let nothing = (HttpPlan { listen: LISTEN, metrics_listen: METRICS_LISTEN }, Vec::new(), None, None, false);
    let (http, peers, public, console, written) = document.table("http", read).unwrap_or(nothing);
    let public = public.unwrap_or_else(|| {
        let url = own_url(http.listen);
        // A faulty one is a fault already.
        if !written {
            let problem = format!("`http.public_url` is missing: links in cards point to {url}");
            document.warn("http", problem, "set `public_url` in [http] to where analysts reach this worker");
        }
        url
    });
    let console = console.unwrap_or_else(|| public.clone());
    (http, peers, Links { public, console })
}

/// The APIs of the other workers. What a caller proves who it is with is handed on to them, so nothing is guessed here.
fn peers(s: &mut Settings<'_>, has_key: bool) -> Vec<url::Url> {
    const HINT: &str =
        "write it as http://HOST:PORT, where HOST is one worker, or a name that has the addresses of all of them";
    let mut peers: Vec<url::Url> = Vec::new();
    for (at, text) in s.texts("peers").unwrap_or_default().into_iter().enumerate() {
        let which = at + 1;
        let problem = match url::Url::parse(&text) {
            Err(error) => format!("URL {which} is not a URL: {error}"),
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                format!("URL {which} must begin with http:// or https://")
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                s.remember(Secret::new(url.password().unwrap_or_default()));
                format!("URL {which} holds credentials, and workers are asked with those of whoever looks")
            }
            Ok(url) if url.query().is_some() || url.fragment().is_some() => {
                format!("URL {which} has more than a host, a port and a path")
            }
            Ok(url) if peers.contains(&url) => format!("URL {which} is there twice"),
            Ok(url) => {
                peers.push(url);
                continue;
            }
        };
        s.fault("peers", problem, HINT);
    }
    if peers.len() > PEERS_MAX {
        s.fault("peers", format!("names more than {PEERS_MAX} workers"), "give one name that has the addresses of all");
    }
    if !peers.is_empty() && !has_key {
        let problem =
            format!("there is no {KEY_VARIABLE}, so no other worker knows the sessions of this one's console");
        s.warn("peers", problem, "set it, the same for the whole pool: `openssl rand -base64 32` makes one");
    }
    for host in peers.iter().filter_map(sent_in_clear) {
        s.warn("peers", format!("tokens and sessions travel to {host} in clear"), "use https, or a tunnel");
    }
    peers
}

/// The host of a peer that is asked in clear over networks that others may be in. A name without a dot, or one of a cluster's own, is
/// known within one network only, such as that of containers.
fn sent_in_clear(peer: &url::Url) -> Option<&str> {
    let inside = match peer.host()? {
        url::Host::Ipv4(ip) => ip.is_loopback(),
        url::Host::Ipv6(ip) => ip.to_canonical().is_loopback(),
        url::Host::Domain(name) => {
            !name.contains('.') || [".localhost", ".svc", ".cluster.local"].iter().any(|end| name.ends_with(end))
        }
    };
    (peer.scheme() == "http" && !inside).then(|| peer.host_str())?
}

/// How this machine reaches `listen`.
fn own_url(listen: SocketAddr) -> String {
    if listen.ip().is_unspecified() {
        format!("http://localhost:{}", listen.port())
    } else {
        format!("http://{listen}")
    }
}

fn address(s: &mut Settings<'_>, key: &'static str) -> Option<SocketAddr> {
    let text = s.text(key)?;
    let address = text.parse().ok();
    if address.is_none() {
        let port = if key == "listen" { LISTEN.port() } else { METRICS_LISTEN.port() };
        let hint = format!("write it as {key} = \"127.0.0.1:{port}\"; 0.0.0.0 or [::] listens on every interface");
        s.fault_shown(key, "is not an IP address with a port".to_owned(), &hint);
    }
    address
}

pub(super) fn access(document: &mut Settings<'_>) -> AccessPlan {
    let read = |s: &mut Settings<'_>| {
        let mut tokens: Vec<AccessToken> = Vec::new();
        s.tables("token", |s| {
            let Some(token) = read_token(s) else { return };
            if tokens.iter().any(|other| other.name == token.name) {
                s.fault("name", format!("the name `{}` is taken", token.name), "give each token a name of its own");
            }
            if tokens.iter().any(|other| other.sha256 == token.sha256) {
                s.fault(
                    "sha256",
                    "another token has the same hash".to_owned(),
                    "make a new one with `interven-alerts token`",
                );
            }
            tokens.push(token);
        });
        let session = s.duration("session", Duration::from_mins(1)..=Duration::from_hours(30 * 24)).unwrap_or(SESSION);
        AccessPlan { tokens, session, trusted_proxies: networks(s, "trusted_proxies") }
    };
    let nobody = AccessPlan { tokens: Vec::new(), session: SESSION, trusted_proxies: Vec::new() };
    document.table("access", read).unwrap_or(nobody)
}

fn read_token(s: &mut Settings<'_>) -> Option<AccessToken> {
    let hint = "`interven-alerts token NAME --role ROLE` prints all three lines";
    let name = s.require_text("name", hint);
    let role = s.has("role").then(|| s.choice("role", &Role::ALL.map(Role::as_str))).flatten();
    if !s.has("role") {
        s.choice("role", &[]);
        s.fault("role", "is missing".to_owned(), hint);
    }
    let sha256 = s.require_text("sha256", hint);
    let sha256 = sha256.and_then(|hex| {
        let bytes = unhex(&hex);
        if bytes.is_none() {
            s.fault(
                "sha256",
                "is not a SHA-256 in 64 hexadecimal digits".to_owned(),
                "give the hash, not the token itself",
            );
        }
        bytes
    });
    let name = name.filter(|name| {
        let good = is_token_name(name);
        if !good {
            s.fault(
                "name",
                "must be 1 to 64 letters, digits, `.`, `_`, `@` and `-`".to_owned(),
                "write it as name = \"soc-lead\"",
            );
        }
        good
    });
    Some(AccessToken { name: name?, role: Role::ALL[role?], sha256: sha256? })
}

/// Whether a token may have this name: it stands in logs and in records of who did what.
pub fn is_token_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b))
}

/// For how long an approval is a grant.
pub(super) fn approvals(document: &mut Settings<'_>) -> Terms {
    let read = |s: &mut Settings<'_>| s.duration("grant", Duration::from_secs(1)..=Duration::from_hours(24));
    document.table("approvals", read).flatten().map_or_else(Terms::default, |grant| Terms { grant })
}

pub(super) fn shutdown_grace(document: &mut Settings<'_>) -> Duration {
    let read = |s: &mut Settings<'_>| s.duration("grace", Duration::ZERO..=Duration::from_hours(1));
    document.table("shutdown", read).flatten().unwrap_or(GRACE)
}
