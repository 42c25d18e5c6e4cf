//! Both doors over real sockets, with an embedded broker and a store in a directory of their own.

mod roles;
mod signing_in;

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::{
    broker::embedded::{Embedded, EmbeddedSettings},
    dead_letters::StoreOptions,
    export,
    model::{Clock, Role},
};

/// Who has a token with the name of its role. The publisher's is `right`, and its name `firewall`.
const ROLES: [Role; 3] = [Role::Auditor, Role::Analyst, Role::Admin];

/// A slow machine is no silent peer.
pub(super) const PATIENT: Patience = Patience {
    resolve: Duration::from_secs(5),
    connect: Duration::from_mins(1),
    look: Duration::from_mins(1),
    answer: Duration::from_mins(1),
};

pub(super) struct House {
    pub(super) doors: Doors,
    pub(super) inside: Inside,
    pub(super) channels: watch::Sender<Arc<[Shown]>>,
    draining: CancellationToken,
    closing: CancellationToken,
    tracker: TaskTracker,
    tokens: watch::Sender<Tokens>,
    terms: watch::Sender<Arc<terms::Terms>>,
    _dir: tempfile::TempDir,
}

impl House {
    pub(super) async fn open() -> Self {
        Self::open_with(Key::random().unwrap()).await
    }

    /// Makes the workers behind these URLs its peers.
    pub(super) fn meet(&self, peers: &[String]) {
        let peers: Vec<url::Url> = peers.iter().map(|url| url.parse().unwrap()).collect();
        self.terms.send_modify(|terms| *terms = Arc::new(terms::Terms::clone(terms).with_peers(peers)));
    }

    /// Two workers of one pool, each of which has both as its peers.
    pub(super) async fn pair() -> [Self; 2] {
        let key = Key::random().unwrap();
        let pair = [Self::open_with(key.clone()).await, Self::open_with(key).await];
        let urls: Vec<String> = pair.iter().map(|house| format!("http://{}", house.doors.api)).collect();
        for house in &pair {
            house.meet(&urls);
        }
        pair
    }

    /// A worker that nobody gave a key.
    pub(super) async fn open_without_key() -> Self {
        Self::build(None).await
    }

    /// A worker of the pool with this key.
    async fn open_with(key: Key) -> Self {
        Self::build(Some(key)).await
    }

    /// Shows a channel of the file.
    pub(super) fn show_channel(&self, id: &str) {
        self.show(id, serde_json::json!({"id": id, "kind": "slack", "source": "file", "events": ["DENY"]}));
    }

    /// Shows a channel about which this is told.
    pub(super) fn show(&self, id: &str, configured: serde_json::Value) {
        let id: crate::model::ChannelId = id.parse().unwrap();
        let filter = crate::model::Filter {
            events: crate::model::Filter::default_events(),
            min_severity: crate::model::Severity::Low,
            tools: None,
            agents: None,
        };
        let version = configured["version"].as_str().map(|version| version.parse().unwrap());
        let unreadable = configured["unreadable"].is_string();
        let max_age = Duration::from_hours(24);
        let shown = Shown { id, configured, filter, max_age, version, unreadable, lane: None };
        self.channels.send_replace(Arc::from([shown]));
    }

    async fn build(key: Option<Key>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tracker = TaskTracker::new();
        let lanes = vec!["soc".parse().unwrap()];
        let settings = EmbeddedSettings { dir: dir.path().join("broker"), keep_decisions: None, lanes };
        let broker = Embedded::open(settings, Clock::System, &TaskTracker::new()).await.unwrap();
        let broker = Arc::new(broker) as Arc<dyn Broker>;
        let (store, _) = Store::open(&dir.path().join("letters"), StoreOptions::default()).unwrap();
        let (draining, closing) = (CancellationToken::new(), CancellationToken::new());
        let token = |name: &str, role| (name.to_owned(), role, Sha256::digest(name.as_bytes()).into());
        let right = (String::from("firewall"), Role::Publisher, Sha256::digest(b"right").into());
        let tokens = watch::Sender::new(
            ROLES.map(|role| token(role.as_str(), role)).into_iter().chain([right]).collect::<Tokens>(),
        );
        let terms = terms::Terms::new("https://alerts.example.com", Duration::from_hours(12), Vec::new());
        let terms = watch::Sender::new(Arc::new(terms));
        let channels = watch::Sender::new(Arc::from([]));
        let approvals = Approvals::new(
            Arc::clone(&broker),
            Clock::System,
            Metrics::new(),
            crate::approvals::Terms::default(),
            TaskTracker::new(),
        );
        let inside = Inside {
            metrics: Metrics::new(),
            store,
            broker: Arc::clone(&broker),
            exporter: exporter(&broker, dir.path(), &tracker),
            deliveries: crate::delivery_log::DeliveryLog::none(),
            accounts: crate::delivery_log::Reader::new(Arc::clone(&broker), Clock::System, false),
            draining: draining.clone(),
            closing: closing.clone(),
            key,
            tokens: tokens.subscribe(),
            terms: terms.subscribe(),
            channels: channels.subscribe(),
            standing: watch::Sender::default().subscribe(),
            log: ChannelLog::new(Arc::clone(&broker)),
            desk: crate::managed::Desk::new(
                None,
                Arc::clone(&broker),
                Clock::System,
                crate::model::Scrubber::default(),
                watch::Sender::new(None).subscribe(),
                watch::Sender::default().subscribe(),
            ),
            slack: crate::interactions::Reception::idle(approvals.clone()),
            approvals,
            clock: Clock::System,
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let doors = open_with(any, any, inside.clone(), &tracker, PATIENT).await.unwrap();
        Self { doors, inside, channels, draining, closing, tracker, tokens, terms, _dir: dir }
    }
}

/// An exporter of a worker that keeps no decisions.
fn exporter(broker: &Arc<dyn Broker>, dir: &std::path::Path, tracker: &TaskTracker) -> Exporter {
    let terms = export::Terms {
        broker: Arc::clone(broker),
        kept: false,
        spill: export::Spill::to(vec![dir.to_owned()]),
        limits: export::Limits::default(),
        patience: None,
        stop: CancellationToken::new(),
    };
    Exporter::new(terms, tracker)
}

/// Sends `request` as it is and returns the whole answer.
pub(super) async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        // An error's body ends so; the connection stays open for the body that was announced and not sent.
        while !answer.ends_with(b"}}") && stream.read_buf(&mut answer).await.unwrap() > 0 {}
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("no answer");
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await
}

fn post(token: &str, length: usize, body: &str) -> String {
    format!(
        "POST /v1/events HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_stranger_is_turned_away_before_a_byte_of_the_body_is_read() {
    let house = House::open().await;
    // The body that is announced never comes: only an answer that does not wait for it arrives at all.
    let answer = ask(house.doors.api, &post("wrong", 1_000_000, "")).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let answer = ask(house.doors.api, &post("right", 100_000_000, "")).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains(r#""code":"too_large""#), "{answer}");
}

#[tokio::test]
async fn an_event_is_taken_in_and_every_error_has_the_shape_of_the_contract() {
    let house = House::open().await;
    let event =
        r#"{"id":"1","time":"2026-06-01T12:00:00Z","decision":"DENY","severity":"LOW","agent":{"id":"a"},"tool":"t"}"#;
    let answer = ask(house.doors.api, &post("right", event.len(), event)).await;
    assert!(answer.starts_with("HTTP/1.1 202") && answer.ends_with(r#"{"accepted":1}"#), "{answer}");
    for (answer, status, code) in [
        (get(house.doors.api, "/v1/events").await, 405, "method_not_allowed"),
        (get(house.doors.api, "/nothing").await, 404, "not_found"),
        (get(house.doors.metrics, "/nothing").await, 404, "not_found"),
        (ask(house.doors.api, &post("right", 2, "{}")).await, 400, "malformed"),
    ] {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains(&format!(r#"{{"error":{{"code":"{code}","#)), "{answer}");
    }
}

#[tokio::test]
async fn while_the_worker_drains_probes_answer_and_say_so_until_it_has_stopped() {
    let house = House::open().await;
    assert!(get(house.doors.metrics, "/readyz").await.starts_with("HTTP/1.1 200"));
    house.draining.cancel();
    let answer = get(house.doors.metrics, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("draining"), "{answer}");
    assert!(get(house.doors.metrics, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get(house.doors.metrics, "/metrics").await.contains("interven_alerts_build_info"));
    house.closing.cancel();
    house.tracker.close();
    tokio::time::timeout(Duration::from_secs(5), house.tracker.wait()).await.expect("a listener stayed open");
}

#[tokio::test]
async fn each_role_may_do_what_the_contract_says_and_a_revoked_token_may_do_nothing() {
    let house = House::open().await;
    let request = |method: &str, path: &str, token: &str| {
        format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n")
    };
    // There is no channel, so whoever may act hears that it is unknown.
    for (token, look, act) in [("right", 403, 403), ("auditor", 200, 403), ("analyst", 200, 404), ("nobody", 401, 401)]
    {
        for (method, path, status) in [
            ("GET", "/api/channels", look),
            ("POST", "/api/channels/soc/pause", act),
            ("POST", "/api/channels/soc/resume", act),
        ] {
            let answer = ask(house.doors.api, &request(method, path, token)).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{token} {method} {path}: {answer}");
        }
    }
    let answer = ask(house.doors.api, &request("GET", "/api/channels/s%22o", "auditor")).await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains(r#""code":"unknown_channel""#), "{answer}");
    house.tokens.send_replace(Tokens::from([]));
    let answer = ask(house.doors.api, &request("GET", "/api/channels", "auditor")).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}
