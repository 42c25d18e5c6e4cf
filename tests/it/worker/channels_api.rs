//! Channels that are made over the API: the whole pool runs them, they outlive it, nothing is lost to them, and nobody reads their
//! secrets.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use bytes::Bytes;
use interven_alerts::{
    broker::Log,
    model::{DeathReason, Reply},
    stand_ins::{Platform, Script, StandIn, Step},
};
use serde_json::{Value, json};

use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    relay::{Flow, Relay},
    scene::{FAST, PATIENT, PUBLISHER, PUBLISHER_TOKEN, Scene, on, token_of},
    unique_name,
    worker::{PATIENCE, WorkerProcess, post_events},
};

const KEY: &str = "INTERVEN_ALERTS_KEY";
const POOLS: &str = "the-key-of-this-pool-0123456789";
const ADMIN: &str = "token-of-admin";

/// How long the end of a removed channel may take on a loaded machine.
const CHANGE: Duration = Duration::from_secs(90);

/// Secrets that appear nowhere but in what is put. Any eight characters of one of them in a row are a leak.
const HOOK: &str = "kQ7vXw2mZr9LpT4nHd6s";
const OTHER_HOOK: &str = "Ww3cTyU8iOp5lKjHgFdS";
const SIGNING: &str = "8fGhJ3kLqW5eRtY7uIoP";

fn tokens() -> String {
    ["auditor", "analyst", "admin"].map(token_of).concat()
}

fn decisions(what: &str, count: usize) -> Vec<Bytes> {
    (0..count).map(|number| super::deny(&format!("{what}-{number}"))).collect()
}

fn url(stand_in: &StandIn, hook: &str) -> String {
    format!("http://127.0.0.1:{}/services/T0A/B0B/{hook}", stand_in.port())
}

/// A Slack channel at this URL, as fast as it can be, that folds nothing and gives nothing up.
fn slack(url: &str) -> Value {
    json!({
        "kind": "slack", "webhook_url": url, "signing_secret": SIGNING, "rate_limit": "none", "concurrency": 4,
        "digest": {"enabled": false}, "retry": {"attempts": 1000, "first": "50ms", "longest": "500ms"},
    })
}

/// A URL that nothing is ever sent to.
fn url_of_nobody() -> String {
    String::from("https://hooks.slack.com/services/T/B/x")
}

fn always(status: u16, body: &'static str) -> Script {
    Script::always(Step::Reply { reply: Reply::new(status, body), taken: false })
}

async fn put(worker: &WorkerProcess, id: &str, channel: &Value) -> (u16, Value) {
    worker.api("PUT", &format!("/api/channels/{id}"), ADMIN, &channel.to_string()).await
}

/// The same with a condition; the status.
async fn put_if(worker: &WorkerProcess, id: &str, (name, value): (&str, &str), channel: &Value) -> u16 {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let request = client.put(format!("{}/api/channels/{id}", worker.server())).bearer_auth(ADMIN);
    request.header(name, value).body(channel.to_string()).send().await.unwrap().status().as_u16()
}

/// Waits until the worker says that the channel is in this state.
async fn until(worker: &WorkerProcess, id: &str, state: &str) -> Value {
    eventually(state, PATIENCE, async || {
        let (status, channel) = worker.api("GET", &format!("/api/channels/{id}"), "token-of-auditor", "").await;
        (status == 200 && channel["state"] == state && channel["why"] != "the worker waits for the broker")
            .then_some(channel)
    })
    .await
}

/// Waits until so many decisions wait for the channel in its queue.
async fn until_waiting(worker: &WorkerProcess, id: &str, count: u64) {
    let labels = [&*format!("channel=\"{id}\""), "where=\"lane_queue\""];
    eventually("they wait in the queue", PATIENCE, async || {
        (worker.metrics().await.sum("deliveries_waiting", &labels) == count).then_some(())
    })
    .await;
}

async fn told(stand_in: &StandIn, count: usize) {
    eventually("they are told", PATIENCE, async || (stand_in.different_ids() == count).then_some(())).await;
}

/// Everything that is in the log of the channels.
async fn log_of(rabbit: &Rabbit, prefix: &str) -> String {
    let records = rabbit.records(prefix, Log::Channels).await;
    records.iter().map(|record| String::from_utf8_lossy(record)).collect()
}

fn assert_no_secret(what: &str, text: &str) {
    for secret in [HOOK, OTHER_HOOK, SIGNING, POOLS] {
        for start in 0..=secret.len() - 8 {
            let piece = &secret[start..start + 8];
            assert!(!text.contains(piece), "{what} tells {piece} of {secret}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_one_worker_is_given_is_run_by_the_pool_changed_and_removed_without_a_loss() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("made"));
    let mut scene = Scene::default();
    scene.add("filed", Platform::Slack, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    let [first, second] = [
        StandIn::start(Platform::Slack, Script::accept()).await,
        StandIn::start(Platform::Slack, Script::accept()).await,
    ]
    .map(Result::unwrap);
    let config = format!("{}{}{}", on(rabbit, &prefix, ""), tokens(), scene.channels());
    let worker = || WorkerProcess::new(&config).env(KEY, POOLS).flags(&["--log-level", "debug"]);
    let mut pool = [worker(), worker()];
    for worker in &mut pool {
        worker.start_ready().await;
        until(worker, "filed", "flowing").await;
    }
    let mut answers = String::new();

    // One worker is told, and goes; the other one delivers.
    let (status, made) = put(&pool[0], "made", &slack(&url(&first, HOOK))).await;
    assert_eq!((status, &made["source"], &made["changed_by"]), (201, &"api".into(), &"the-admin".into()), "{made}");
    assert_eq!(made["config"]["signing_secret"], "[secret]");
    answers.push_str(&made.to_string());
    until(&pool[1], "made", "flowing").await;
    assert_eq!(pool[0].terminate().await.0, 0);
    let mut publisher = Publisher::new(rabbit.url(), &prefix);
    publisher.publish_surely(&decisions("one", 10), PATIENCE).await;
    told(&first, 10).await;

    // Nobody runs, and all come back.
    assert_eq!(pool[1].terminate().await.0, 0);
    for worker in &mut pool {
        worker.start_ready().await;
    }
    for worker in &pool {
        let channel = until(worker, "made", "flowing").await;
        assert_eq!((&channel["version"], &channel["changed_by"]), (&made["version"], &made["changed_by"]));
        answers.push_str(&channel.to_string());
    }
    publisher.publish_surely(&decisions("two", 10), PATIENCE).await;
    told(&first, 20).await;

    // The endpoint is gone; with another URL, what waited goes there. A change upon an older version does nothing.
    first.set_script(always(404, "no_service"));
    publisher.publish_surely(&decisions("three", 6), PATIENCE).await;
    until_waiting(&pool[0], "made", 6).await;
    let moved = slack(&url(&second, OTHER_HOOK));
    let tag = format!("\"{}\"", made["version"].as_str().unwrap());
    assert_eq!(put_if(&pool[1], "made", ("if-none-match", "*"), &moved).await, 412);
    assert_eq!(put_if(&pool[1], "made", ("if-match", &tag), &moved).await, 200);
    assert_eq!(put_if(&pool[0], "made", ("if-match", &tag), &slack("https://example.com/stale")).await, 412);
    told(&second, 6).await;
    // What is shown can be sent back as it is, and masks keep the secrets.
    let (_, shown) = pool[1].api("GET", "/api/channels/made", "token-of-auditor", "").await;
    let (status, again) = put(&pool[1], "made", &shown["config"]).await;
    assert_eq!((status, &again["config"]), (200, &shown["config"]), "{again}");
    publisher.publish_surely(&decisions("four", 6), PATIENCE).await;
    told(&second, 12).await;

    // Removed: what waits is dead, whoever of the pool has buried it.
    second.set_script(always(503, "down"));
    publisher.publish_surely(&decisions("five", 6), PATIENCE).await;
    until_waiting(&pool[0], "made", 6).await;
    let (status, gone) = pool[0].api("DELETE", "/api/channels/made", ADMIN, "").await;
    assert_eq!((status, &gone["deleted"]), (200, &true.into()), "{gone}");
    let dead = ["channel=\"made\"", "reason=\"channel_removed\""];
    eventually("they are dead", CHANGE, async || {
        let [one, other] = [&pool[0], &pool[1]].map(async |worker| worker.metrics().await.sum("dead_letters", &dead));
        (one.await + other.await == 6).then_some(())
    })
    .await;
    for worker in &pool {
        eventually("nobody has it", PATIENCE, async || {
            (worker.api("GET", "/api/channels/made", ADMIN, "").await.0 == 404).then_some(())
        })
        .await;
    }
    for (method, path, status) in [("DELETE", "made", 404), ("DELETE", "filed", 409), ("PUT", "filed", 409)] {
        let body = slack(&url(&first, HOOK)).to_string();
        let (found, answer) = pool[0].api(method, &format!("/api/channels/{path}"), ADMIN, &body).await;
        assert_eq!(found, status, "{method} {path}: {answer}");
        answers.push_str(&answer.to_string());
    }
    let log = log_of(rabbit, &prefix).await;
    assert!(log.contains("\"put\"") && log.contains("\"delete\""), "the log was not read");
    assert_no_secret("the log on the broker", &log);
    assert_no_secret("an answer", &answers);
    for worker in &mut pool {
        assert_eq!(worker.terminate().await.0, 0);
        let logs = worker.logs();
        assert!(logs.contains("put_channel") || logs.contains("delete_channel"), "no audit line");
        assert_no_secret("a log", &logs);
        for letter in worker.dead_letters().await {
            assert_eq!(letter.reason, DeathReason::ChannelRemoved);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_pools_key_nothing_is_made_and_what_was_made_is_held_and_not_lost() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("keys"));
    let stand_in = StandIn::start(Platform::Slack, Script::accept()).await.unwrap();
    let config = format!("{}{}", on(rabbit, &prefix, ""), tokens());
    let mut right = WorkerProcess::new(&config).env(KEY, POOLS);
    right.start_ready().await;
    let channel = slack(&url(&stand_in, HOOK));
    eventually("it is made", PATIENCE, async || {
        matches!(put(&right, "made", &channel).await.0, 200 | 201).then_some(())
    })
    .await;
    assert_eq!(right.terminate().await.0, 0);

    let mut other = WorkerProcess::new(&config).env(KEY, "another-key-0123456789");
    let mut none = WorkerProcess::new(&config);
    for worker in [&mut other, &mut none] {
        worker.start_ready().await;
        let held = until(worker, "made", "unreadable").await;
        assert!(held["unreadable"].is_string() && held["config"].is_null() && held["endpoint"].is_null(), "{held}");
        assert_eq!(worker.metrics().await.sum("channels_unreadable", &[]), 1);
        let loud = worker.logs().lines().any(|line| line.contains("ERROR") && line.contains("cannot be read here"));
        assert!(loud, "nobody was told");
    }
    let (status, refused) = put(&none, "more", &channel).await;
    assert_eq!((status, &refused["error"]["code"]), (503, &"no_key".into()), "{refused}");
    assert!(refused["error"]["hint"].as_str().unwrap().contains(KEY));
    let mut publisher = Publisher::new(rabbit.url(), &prefix);
    publisher.publish_surely(&decisions("held", 12), PATIENCE).await;
    until_waiting(&other, "made", 12).await;
    let (status, tried) = other.api("POST", "/api/channels/made/test", ADMIN, "").await;
    assert_eq!((status, &tried["error"]["code"]), (409, &"unreadable_channel".into()), "{tried}");
    assert_eq!(stand_in.counters().requests, 0);
    right.start_ready().await;
    told(&stand_in, 12).await;
    // With the key of another pool, the channel can be made anew, and then the first one cannot read it.
    let second = StandIn::start(Platform::Slack, Script::accept()).await.unwrap();
    assert_eq!(put(&other, "made", &slack(&url(&second, HOOK))).await.0, 200);
    until(&right, "made", "unreadable").await;
    assert_eq!(right.terminate().await.0, 0);
    assert_eq!(none.terminate().await.0, 0);
    publisher.publish_surely(&decisions("anew", 5), PATIENCE).await;
    told(&second, 5).await;
    for worker in [&right, &none] {
        assert!(worker.dead_letters().await.is_empty());
        assert_no_secret("a log", &worker.logs());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_whose_queue_may_not_be_made_is_refused_and_written_nowhere() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("declared"));
    // It makes what is not a lane's, and goes.
    let mut maker = WorkerProcess::new(&on(rabbit, &prefix, ""));
    maker.start_ready().await;
    assert_eq!(maker.terminate().await.0, 0);
    let config = format!("{}{}", on(rabbit, &prefix, "declare = false"), tokens());
    let mut worker = WorkerProcess::new(&config).env(KEY, POOLS);
    worker.start_ready().await;
    let answer = eventually("it knows the log", PATIENCE, async || {
        let (status, answer) = put(&worker, "made", &slack("https://hooks.slack.com/services/T/B/x")).await;
        assert_eq!(status, 503, "{answer}");
        (answer["error"]["code"] != "not_ready").then_some(answer)
    })
    .await;
    assert_eq!(answer["error"]["code"], "queue_unavailable", "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains(&format!("{prefix}.alerts.lane.made")), "{answer}");
    assert_eq!(worker.api("GET", "/api/channels/made", ADMIN, "").await.0, 404);
    assert!(!log_of(rabbit, &prefix).await.contains("\"put\""));
    worker.until_ready(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_was_refused_while_the_broker_was_away_does_not_keep_it_away() {
    // Goal: where queues are only checked, a worker cannot connect while one that it asks for is missing. So it must not go on
    // asking for one of a channel that it has refused.
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("refused"));
    let mut maker = WorkerProcess::new(&on(rabbit, &prefix, ""));
    maker.start_ready().await;
    assert_eq!(maker.terminate().await.0, 0);
    let wire = Relay::to(rabbit.port()).await;
    let broker = on(rabbit, &prefix, "declare = false");
    let broker = broker.replace(&format!(":{}/", rabbit.port()), &format!(":{}/", wire.port()));
    let mut worker = WorkerProcess::new(&format!("{broker}{}", tokens())).env(KEY, POOLS);
    worker.start_ready().await;
    let code = async |id: &str| {
        let client = reqwest::Client::builder().no_proxy().timeout(CHANGE).build().unwrap();
        let request = client.put(format!("{}/api/channels/{id}", worker.server())).bearer_auth(ADMIN);
        let reply = request.body(slack(&url_of_nobody()).to_string()).send().await.unwrap();
        let answer: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
        answer["error"]["code"].clone()
    };
    eventually("it knows the log", PATIENCE, async || (code("known").await == "queue_unavailable").then_some(())).await;
    wire.set(Flow::Silent);
    wire.cut();
    eventually("the broker is away", PATIENCE, async || {
        worker.probe("/readyz").await.filter(|(status, _)| *status == 503)
    })
    .await;
    assert_eq!(code("refused").await, "queue_unavailable");
    wire.set(Flow::Open);
    wire.cut();
    worker.until_ready(CHANGE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_embedded_broker_a_channel_is_made_tried_and_kept_over_kill_9_with_a_key_of_its_own() {
    let stand_in = StandIn::start(Platform::Slack, Script::accept()).await.unwrap();
    let quoting = StandIn::start(Platform::Slack, always(403, "invalid_token: kQ7vXw2mZr9LpT4nHd6s")).await.unwrap();
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{}", tokens()));
    worker.start_ready().await;
    let channel = slack(&url(&stand_in, HOOK));
    let (status, made) = put(&worker, "made", &channel).await;
    assert_eq!(status, 201, "{made}");
    let key = std::fs::metadata(worker.dir().join("data/key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);

    // Tried as it is saved, by an analyst; as it is not saved, by admins alone, and nothing of it is kept.
    let test = async |token: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        worker.api("POST", "/api/channels/made/test", token, &body).await
    };
    let (status, report) = test("token-of-analyst", Value::Null).await;
    assert_eq!((status, &report["outcome"], &report["status"]), (200, &"delivered".into(), &200.into()), "{report}");
    assert!(report["took_ms"].is_u64() && report["answer"].is_string(), "{report}");
    let body = String::from_utf8(stand_in.kept()[0].body.to_vec()).unwrap();
    assert!(body.contains("TEST of channel made"), "{body}");
    let unsaved = json!({"channel": slack(&url(&quoting, HOOK))});
    assert_eq!(test("token-of-auditor", Value::Null).await.0, 403);
    assert_eq!(test("token-of-analyst", unsaved.clone()).await.0, 403);
    assert_eq!(quoting.counters().requests, 0);
    let (status, report) = test(ADMIN, unsaved).await;
    assert_eq!((status, &report["outcome"], &report["status"]), (200, &"broken".into(), &403.into()), "{report}");
    assert_no_secret("a report", &report.to_string());
    let (_, shown) = worker.api("GET", "/api/channels/made", ADMIN, "").await;
    assert_eq!(shown["version"], made["version"], "a test has saved something");
    let (status, own) =
        test(ADMIN, json!({"decision": serde_json::from_slice::<Value>(&super::deny("own")).unwrap()})).await;
    assert_eq!((status, &own["outcome"]), (200, &"delivered".into()), "{own}");
    assert_eq!(stand_in.times_received("own"), 0, "a test has the id of a decision");
    let ask = serde_json::from_slice::<Value>(&super::decision("ask", "REQUIRE_APPROVAL", "HIGH")).unwrap();
    let (status, refused) = test(ADMIN, json!({ "decision": ask })).await;
    assert_eq!((status, &refused["error"]["code"]), (422, &"faulty_decision".into()), "{refused}");

    // Every fault at once, and neither environment nor disk.
    let faulty = json!({"kind": "slack", "webhook_url": "${HOME}", "retry": {"attempts": 0}, "burts": 1,
        "signing_secret_file": "/etc/passwd"});
    let (status, answer) = put(&worker, "faulty", &faulty).await;
    let keys: Vec<&str> =
        answer["error"]["faults"].as_array().unwrap().iter().map(|fault| fault["key"].as_str().unwrap()).collect();
    assert_eq!((status, &answer["error"]["code"]), (422, &"faulty_channel".into()), "{answer}");
    for key in ["webhook_url", "retry.attempts", "burts", "signing_secret_file"] {
        assert!(keys.contains(&key), "{key} in {answer}");
    }
    for (id, body, status) in [("Bad_Id", "{}", 422), ("x", "[]", 400), ("x", "", 400), ("x", &"x".repeat(70_000), 413)]
    {
        let (found, answer) = worker.api("PUT", &format!("/api/channels/{id}"), ADMIN, body).await;
        assert_eq!(found, status, "{answer}");
        assert!(answer["error"]["hint"].is_string(), "{answer}");
    }

    let before = stand_in.different_ids();
    worker.kill();
    worker.start_ready().await;
    until(&worker, "made", "flowing").await;
    let events = String::from_utf8(decisions("kept", 5).join(&b"\n"[..])).unwrap();
    assert_eq!(post_events(&worker.server(), Some(PUBLISHER_TOKEN), events).await.unwrap().0, 202);
    told(&stand_in, before + 5).await;
    // What a reload of the file leaves alone, it leaves alone.
    worker.reconfigure(&format!("{PUBLISHER}{}[shutdown]\ngrace = \"20s\"\n", tokens()));
    worker.hang_up();
    eventually("it is taken over", PATIENCE, async || {
        worker.logs().contains("the new configuration was taken over").then_some(())
    })
    .await;
    until(&worker, "made", "flowing").await;
    assert_no_secret("a log", &worker.logs());
    worker.kill();
    for entry in walk(&worker.dir().join("data/broker")) {
        assert_no_secret("the broker's files", &String::from_utf8_lossy(&std::fs::read(entry).unwrap()));
    }
}

/// Every file below a directory.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
