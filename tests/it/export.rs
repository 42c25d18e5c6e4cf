//! The decisions export, from outside: over HTTP and on the command line, on RabbitMQ and on the embedded broker.

mod reading;

use std::{collections::BTreeMap, fs, time::Duration};

use bytes::Bytes;
use interven_alerts::{
    model::{Clock, Timestamp},
    stand_ins::{Platform, Script, StandIn},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use self::reading::{by_python, ids};
use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{PUBLISHER, PUBLISHER_TOKEN, on, token_of},
    turn_of_the_heavy, unique_name,
    worker::{PATIENCE, Said, WorkerProcess, post_events},
};

const FORMATS: [&str; 5] = ["json", "csv", "splunk", "datadog", "ndjson"];
const AUDITOR: &str = "token-of-auditor";
const PATH: &str = "/api/telemetry/decisions/export";

/// Decisions of three days, by their place in the order of an export.
struct Story {
    decisions: BTreeMap<(i64, String), String>,
    /// As they are published: in no order, and some of them twice.
    published: Vec<Bytes>,
}

/// `count` decisions, of which every tenth is published twice, each with so many bytes that mean nothing.
fn story(count: u32, seed: u64, padding: usize) -> Story {
    const KINDS: [&str; 5] = ["ALLOW", "DENY", "SANITIZE", "REQUIRE_APPROVAL", "INCIDENT"];
    const SEVERITIES: [&str; 4] = ["LOW", "MEDIUM", "HIGH", "CRITICAL"];
    let mut random = fastrand::Rng::with_seed(seed);
    let first = Clock::System.now().minus(Duration::from_hours(72)).unix_millis();
    let (mut decisions, padding) = (BTreeMap::new(), "x".repeat(padding));
    for number in 0..count {
        // Several in the same millisecond, whose ids are not in the order of their making.
        let millis = first + i64::from(number / 4) * 34_000;
        let id = format!("{:08x}-{number}", random.u32(..));
        let time = Timestamp::from_unix_millis(millis).to_rfc3339_millis();
        let (kind, severity) = (KINDS[random.usize(..5)], SEVERITIES[random.usize(..4)]);
        let (agent, tool) = (random.u32(..9), ["slack", "github", "db"][random.usize(..3)]);
        let body = format!(
            r#"{{"id":"{id}","time":"{time}","decision":"{kind}","severity":"{severity}","risk":0.71,"title":"=cmd, \"quoted\" and \u2028 odd","agent":{{"id":"agt_{agent}","name":"production-{agent}"}},"tool":"{tool}","operation":"post_message","reasons":["PII_EGRESS","SENSITIVE_DATA_EGRESS"],"src":"10.0.0.42","policy":{{"rev":12345678901234567890123}},"padding":"{padding}"}}"#
        );
        decisions.insert((millis, id), body);
    }
    let mut published: Vec<Bytes> = decisions.values().cloned().map(Bytes::from).collect();
    let twice: Vec<Bytes> = published.iter().step_by(10).cloned().collect();
    published.extend(twice);
    random.shuffle(&mut published);
    Story { decisions, published }
}

impl Story {
    /// The ids of those from `since` until before `until` that `wanted` wants, in the order of an export.
    fn ids(&self, since: i64, until: i64, wanted: impl Fn(&str) -> bool) -> Vec<&str> {
        let range = self.decisions.range((since, String::new())..(until, String::new()));
        range.filter(|(_, body)| wanted(body)).map(|((_, id), _)| id.as_str()).collect()
    }

    /// The times a third and two thirds through it.
    fn middle(&self) -> (i64, i64) {
        let at = |part: usize| self.decisions.keys().nth(self.decisions.len() * part / 3).unwrap().0;
        (at(1), at(2))
    }
}

fn text(millis: i64) -> String {
    Timestamp::from_unix_millis(millis).to_string()
}

fn client() -> reqwest::Client {
    interven_alerts::tls::install();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(2)).build().unwrap()
}

async fn ask(worker: &WorkerProcess, path_and_query: &str) -> reqwest::Response {
    let request = client().get(format!("{}{path_and_query}", worker.server())).bearer_auth(AUDITOR);
    request.send().await.unwrap()
}

async fn export(worker: &WorkerProcess, query: &str) -> String {
    let response = ask(worker, &format!("{PATH}?{query}")).await;
    assert_eq!(response.status(), 200, "{query}");
    response.text().await.unwrap()
}

async fn decisions(worker: &WorkerProcess, arguments: &[&str], token: bool) -> Said {
    let env = if token { vec![("INTERVEN_ALERTS_TOKEN", AUDITOR)] } else { Vec::new() };
    worker.command_with(&[&["decisions", "export"], arguments].concat(), "", &env).await
}

async fn until_logged(worker: &WorkerProcess, count: usize) {
    eventually("every decision is in the log", Duration::from_mins(2), async || {
        let metrics = worker.metrics().await;
        (metrics.sum("decisions_total", &[]) >= count as u64 && metrics.sum("acks_waiting", &[]) == 0).then_some(())
    })
    .await;
}

/// A worker on the shared broker with all of `story` in its log.
async fn with_story(story: &Story, more: &str) -> WorkerProcess {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("export"));
    let mut worker = WorkerProcess::new(&format!("{}{}{more}", on(rabbit, &prefix, ""), token_of("auditor")));
    worker.start_ready().await;
    let mut publisher = Publisher::new(rabbit.url(), &prefix);
    for some in story.published.chunks(1_000) {
        publisher.publish_surely(some, PATIENCE).await;
    }
    until_logged(&worker, story.published.len()).await;
    worker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_thousand_decisions_come_out_once_each_and_in_order_in_every_format() {
    let _turn = turn_of_the_heavy().await;
    let story = story(30_000, 41, 0);
    let worker = with_story(&story, "").await;
    let all = story.ids(i64::MIN, i64::MAX, |_| true);
    for format in FORMATS {
        let response = ask(&worker, &format!("{PATH}?format={format}")).await;
        assert_eq!(response.status(), 200, "{format}");
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert!(header("content-disposition").starts_with("attachment; filename=\"decisions."), "{format}");
        assert_eq!(header("transfer-encoding"), "chunked", "{format}");
        let document = response.text().await.unwrap();
        assert_eq!(ids(format, &document), all, "{format}");
        if let Some(found) = by_python(format, &document).await {
            assert_eq!(found, all, "{format}, as python reads it");
        }
    }
    // As it was published, to the last digit of a number that no double holds.
    assert!(export(&worker, "format=ndjson").await.lines().eq(story.decisions.values()));

    let (since, until) = story.middle();
    let range = format!("since={}&until={}", text(since), text(until));
    let day = export(&worker, &format!("format=ndjson&{range}")).await;
    assert_eq!(ids("ndjson", &day), story.ids(since, until, |_| true));
    let filtered = export(
        &worker,
        &format!("format=json&{range}&decision=DENY,INCIDENT&min_severity=HIGH&agent=production-3&tool=slack.*"),
    )
    .await;
    let wanted = |body: &str| {
        let one_of = |texts: &[&str]| texts.iter().any(|text| body.contains(text));
        one_of(&["\"DENY\"", "\"INCIDENT\""])
            && one_of(&["\"HIGH\"", "\"CRITICAL\""])
            && body.contains("production-3")
            && body.contains("\"slack\"")
    };
    let expected = story.ids(since, until, wanted);
    assert!(expected.len() > 20, "the filters leave something");
    assert_eq!(ids("json", &filtered), expected);
    assert_eq!(export(&worker, "format=json&agent=nobody").await, "[]\n");
    assert_eq!(export(&worker, "format=ndjson&since=2999-01-01T00:00:00Z").await, "");

    // The command line says the same, from a worker and from the broker itself while the worker runs.
    let (server, [since, until]) = (worker.server(), [since, until].map(text));
    let range = ["--since", since.as_str(), "--until", until.as_str()];
    let by_server =
        decisions(&worker, &[&range[..], &["--server", "http://127.0.0.1:1", "--server", &server]].concat(), true)
            .await;
    assert_eq!((by_server.code, by_server.out == day), (0, true), "{}", by_server.err);
    let direct = decisions(&worker, &[&range[..], &["--out", "day.ndjson"]].concat(), false).await;
    assert_eq!((direct.code, direct.out.as_str()), (0, ""), "{}", direct.err);
    assert_eq!(fs::read_to_string(worker.dir().join("day.ndjson")).unwrap(), day);
    assert!(direct.err.contains(&format!("wrote {} decisions, ", day.lines().count())), "{}", direct.err);
    let nothing = ["--server", &server, "--format", "csv", "--id", "nobody", "--out", "nothing.csv"];
    let nothing = decisions(&worker, &nothing, true).await;
    assert!(nothing.code == 0 && nothing.err.contains("wrote 0 decisions, "), "a header is none: {}", nothing.err);

    let (_, answer) = worker.api("GET", "/api/decisions?limit=3&severity=LOW", AUDITOR, "").await;
    let newest: Vec<&str> =
        answer["decisions"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert!(newest.len() == 3 && answer["complete"] == true, "{answer}");
    let at = newest.iter().map(|id| all.iter().position(|one| one == id).unwrap());
    assert!(at.is_sorted_by(|later, earlier| later > earlier), "the newest first");

    let logs = worker.logs();
    let audits: Vec<&str> = logs.lines().filter(|line| line.contains("export decisions")).collect();
    assert!(audits.len() >= 9 && audits.iter().all(|line| line.contains("the-auditor")), "{audits:?}");
    assert!(audits.iter().any(|line| line.contains("complete, 30000 decisions")), "{audits:?}");
    assert_eq!(
        fs::read_dir(worker.dir().join("data")).unwrap().filter(|one| one.as_ref().unwrap().path().is_file()).count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_goes_into_splunk_by_the_pipeline_of_the_product_page() {
    let story = story(400, 43, 0);
    let worker = with_story(&story, "").await;
    let splunk = StandIn::start(Platform::Splunk, Script::accept()).await.unwrap();
    let document = export(&worker, "format=splunk").await;
    let request = client().post(format!("{}/services/collector/event", splunk.base_url()));
    let answer = request.header("Authorization", "Splunk madeUpToken").body(document).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("\"Success\""));
    assert_eq!(splunk.different_ids(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_in_the_middle_leaves_no_export_that_looks_whole_and_two_at_once_are_enough() {
    let story = story(3_000, 47, 8_000);
    let mut worker = with_story(&story, "").await;
    // More than sockets hold, so that neither can be sent whole while nobody reads.
    let mut first = ask(&worker, &format!("{PATH}?format=splunk")).await;
    let second = ask(&worker, &format!("{PATH}?format=splunk")).await;
    assert!(first.chunk().await.unwrap().is_some());
    let third = ask(&worker, &format!("{PATH}?format=csv")).await;
    assert_eq!((third.status().as_u16(), third.headers().contains_key("retry-after")), (429, true));
    drop(second);
    eventually("its place is free again", PATIENCE, async || {
        (ask(&worker, &format!("{PATH}?format=csv&tool=none")).await.status() == 200).then_some(())
    })
    .await;
    worker.kill();
    let end = loop {
        match first.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => break "complete",
            Err(_) => break "cut short",
        }
    };
    assert_eq!(end, "cut short");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_export_is_cut_short_fails_and_leaves_no_file() {
    // Goal: half an export on the wire is exit code 1. Method: a server that sends half of one.
    let worker = WorkerProcess::new(&token_of("auditor"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let half = async {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}5\r\n{{\"a\"}}\r\n").as_bytes()).await.unwrap();
        }
    };
    let commands = async {
        let said = decisions(&worker, &["--server", &server], true).await;
        assert_eq!((said.code, said.out.as_str()), (1, "{\"a\"}"), "{}", said.err);
        assert!(said.err.contains("cut short") && said.err.contains("not complete"), "{}", said.err);
        assert!(said.err.contains("the worker's log says why"), "{}", said.err);
        let said = decisions(&worker, &["--server", &server, "--out", "half.ndjson"], true).await;
        assert_eq!(said.code, 1, "{}", said.err);
    };
    tokio::join!(half, commands);
    let left = fs::read_dir(worker.dir()).unwrap().map(|one| one.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(left, ["interven-alerts.toml"], "neither the file nor what it was going to be");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_broker_gives_the_same_running_and_stopped() {
    let story = story(5_000, 53, 0);
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{}", token_of("auditor")));
    worker.start_ready().await;
    for some in story.published.chunks(2_000) {
        let body = String::from_utf8(some.join(&b"\n"[..])).unwrap();
        let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), body).await;
        assert!(matches!(answer, Some((202, _))), "{answer:?}");
    }
    until_logged(&worker, story.published.len()).await;
    let all = story.ids(i64::MIN, i64::MAX, |_| true);
    let document = export(&worker, "format=csv").await;
    assert_eq!(ids("csv", &document), all);
    let said = decisions(&worker, &["--data-dir", "data"], false).await;
    assert!(said.code == 1 && said.err.contains("--server"), "its store is in use: {}", said.err);
    let said = decisions(&worker, &[], false).await;
    assert!(said.code == 1 && said.err.contains("talk to it with `--server URL`"), "nor by its file: {}", said.err);
    assert_eq!(worker.terminate().await.0, 0);
    let said = decisions(&worker, &["--data-dir", "data", "--format", "csv"], false).await;
    assert_eq!((said.code, said.out == document), (0, true), "{}", said.err);
    let said = decisions(&worker, &["--format", "csv", "--since", "100d"], false).await;
    assert_eq!((said.code, said.out == document), (0, true), "by the configuration: {}", said.err);
    let said = decisions(&worker, &["--data-dir", "elsewhere"], false).await;
    assert!(said.code == 1 && !worker.dir().join("elsewhere").exists(), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_exported_is_said_and_never_an_empty_success() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("export"));
    let broker = on(rabbit, &prefix, "keep_decisions = \"none\"");
    let mut worker = WorkerProcess::new(&format!("{broker}{}", token_of("auditor")));
    worker.start_ready().await;
    let server = worker.server();
    let (status, answer) = worker.api("GET", &format!("{PATH}?format=csv"), AUDITOR, "").await;
    assert_eq!((status, &answer["error"]["code"]), (409, &"decisions_not_kept".into()), "{answer}");
    assert!(answer["error"]["hint"].as_str().unwrap().contains("keep_decisions"), "{answer}");
    for arguments in [&["--server", server.as_str()][..], &[]] {
        let said = decisions(&worker, arguments, true).await;
        assert!(said.code == 1 && said.out.is_empty() && said.err.contains("keep_decisions"), "{said:?}");
    }
    for (query, named) in [
        ("", "format"),
        ("format=xml", "ndjson"),
        ("format=csv&since=yesterday", "RFC 3339"),
        ("format=csv&since=2026-06-02T00:00:00Z&until=2026-06-01T00:00:00Z", "`until`"),
        ("format=csv&sinse=2026-06-02T00:00:00Z", "min_severity"),
        ("format=csv&decision=BLOCK", "REQUIRE_APPROVAL"),
        ("format=csv&format=json", "once"),
    ] {
        let (status, answer) = worker.api("GET", &format!("{PATH}?{query}"), AUDITOR, "").await;
        assert_eq!((status, &answer["error"]["code"]), (400, &"bad_query".into()), "{query}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(named), "{query}: {answer}");
    }
    for query in ["limit=0", "limit=501", "limit=x", "page=2"] {
        let (status, answer) = worker.api("GET", &format!("/api/decisions?{query}"), AUDITOR, "").await;
        assert_eq!(status, 400, "{query}: {answer}");
    }
    let both = ["--server", "http://127.0.0.1:1", "--data-dir", "data"];
    for arguments in [&["--format", "xml"][..], &["--since", "then"], &["--since", "1h", "--until", "2h"], &both] {
        assert_eq!(decisions(&worker, arguments, true).await.code, 2, "{arguments:?}");
    }
}
