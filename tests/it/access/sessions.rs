//! Sessions of a real worker: with `curl`, over a reload, a crash and a second worker, and in the audit.

use std::process::Stdio;

use interven_alerts::stand_ins::{Platform, Script, StandIn};

use super::people;
use crate::support::{
    eventually,
    rabbit::Rabbit,
    scene::{PATIENT, PUBLISHER, PUBLISHER_TOKEN, Scene, on, token_of},
    unique_name,
    worker::{PATIENCE, WorkerProcess, post_events},
};

/// Runs a line of a shell in the worker's directory, as an operator's cron does; what it printed.
async fn shell(worker: &WorkerProcess, line: &str) -> String {
    let mut command = tokio::process::Command::new("sh");
    command.args([
        "-e",
        "-c",
        &format!("command -v curl >/dev/null || {{ echo 'curl is missing: use tests/run' >&2; exit 9; }}\n{line}"),
    ]);
    command.env("URL", worker.server()).current_dir(worker.dir()).stdin(Stdio::null());
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The status of a request with the cookies in the jar.
async fn status(worker: &WorkerProcess, path: &str) -> String {
    shell(worker, &format!("curl -sS -b jar -o /dev/null -w '%{{http_code}}' \"$URL{path}\"")).await
}

const SIGN_IN: &str =
    "curl -sS -f -c jar -H 'content-type: application/json' -d '{\"token\":\"token-of-auditor\"}' $URL/api/session";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditors_cookie_file_pulls_the_evidence_into_splunk_with_curl() {
    // Goal: the cron of the product page works, word by word but for its addresses.
    let splunk = StandIn::start(Platform::Splunk, Script::accept()).await.unwrap();
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{}", people()));
    worker.start_ready().await;
    let events: Vec<String> = (0..3).map(|number| evidence(&format!("evidence-{number}"))).collect();
    let (status, _) = post_events(&worker.server(), Some(PUBLISHER_TOKEN), events.join("\n")).await.unwrap();
    assert_eq!(status, 202);
    shell(&worker, SIGN_IN).await;
    let jar = std::fs::read_to_string(worker.dir().join("jar")).unwrap();
    assert!(jar.contains("#HttpOnly_127.0.0.1\tFALSE\t/\tFALSE\t") && jar.contains("\tinterven_session\tv1."), "{jar}");
    let door = format!("{}/services/collector/event", splunk.base_url());
    let pull = format!(
        "curl -sS -b jar \"$URL/api/telemetry/decisions/export?format=splunk&since=2026-06-01T00:00:00Z&until=2026-06-02T00:00:00Z\" \
         | curl -sS -X POST \"{door}\" -H 'Authorization: Splunk token' --data-binary @-"
    );
    eventually("the decisions are in the log", PATIENCE, async || {
        let export = shell(&worker, "curl -sS -f -b jar \"$URL/api/telemetry/decisions/export?format=ndjson\"").await;
        (export.lines().count() == 3).then_some(())
    })
    .await;
    let said = shell(&worker, &pull).await;
    assert!(said.contains("Success"), "{said}");
    let told = (0..3).all(|number| splunk.times_received(&format!("evidence-{number}")) == 1);
    assert!(told, "{} requests", splunk.counters().requests);
}

/// A decision of the day that the product page pulls.
fn evidence(id: &str) -> String {
    let decision = serde_json::json!({
        "id": id, "time": "2026-06-01T12:00:00Z", "decision": "DENY", "severity": "HIGH", "agent": {"id": "agt_42"},
        "tool": "slack",
    });
    decision.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_outlives_a_crash_and_ends_with_its_token() {
    let mut worker = WorkerProcess::new(&people());
    worker.start_ready().await;
    shell(&worker, SIGN_IN).await;
    assert_eq!(status(&worker, "/api/channels").await, "200");
    worker.kill();
    worker.start_ready().await;
    assert_eq!(status(&worker, "/api/channels").await, "200");
    worker.reconfigure(&token_of("admin"));
    worker.hang_up();
    eventually("the session ends", PATIENCE, async || (status(&worker, "/api/channels").await == "401").then_some(()))
        .await;
    worker.reconfigure(&format!("[access]\nsession = \"1m\"\n{}", people()));
    worker.hang_up();
    let maximum = eventually("the new length counts", PATIENCE, async || {
        let head = shell(&worker, &format!("{} -D - -o /dev/null", SIGN_IN.replace(" -f", ""))).await;
        head.lines().find(|line| line.contains("Max-Age=60;")).map(str::to_owned)
    })
    .await;
    assert!(maximum.to_ascii_lowercase().starts_with("set-cookie: interven_session="), "{maximum}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_holds_in_the_pool_that_has_a_key_and_a_pool_without_one_is_told() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("sessions"));
    let config = format!("{}{}", on(rabbit, &prefix, ""), people());
    let key = ("INTERVEN_ALERTS_KEY", "correct horse battery staple");
    let mut one = WorkerProcess::new(&config).env(key.0, key.1);
    let mut other = WorkerProcess::new(&config).env(key.0, key.1);
    let mut alone = WorkerProcess::new(&config);
    for worker in [&mut one, &mut other, &mut alone] {
        worker.start_ready().await;
    }
    shell(&one, SIGN_IN).await;
    let jar = one.dir().join("jar");
    for (worker, expected) in [(&one, "200"), (&other, "200"), (&alone, "401")] {
        if worker.dir() != one.dir() {
            std::fs::copy(&jar, worker.dir().join("jar")).unwrap();
        }
        assert_eq!(status(worker, "/api/session").await, expected);
    }
    let told = |worker: &WorkerProcess| worker.logs().contains("a sign-in holds on this worker only");
    assert!(told(&alone) && !told(&one));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_tells_who_came_and_who_was_refused_and_never_the_token() {
    let mut scene = Scene::default();
    scene.add("soc", Platform::Slack, Script::accept(), PATIENT).await;
    let config = format!("[access]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{}{}", people(), scene.channels());
    let mut worker = WorkerProcess::new(&config);
    worker.start_ready().await;
    shell(&worker, SIGN_IN).await;
    shell(&worker, "curl -sS -f -b jar -X DELETE $URL/api/session").await;
    let failing = "curl -sS -o /dev/null -H 'x-forwarded-for: 203.0.113.9' -H 'content-type: application/json' -d '{\"token\":\"hunter2-hunter2\"}' $URL/api/session";
    for _ in 0..12 {
        shell(&worker, failing).await;
    }
    for _ in 0..5 {
        shell(&worker, "curl -sS -o /dev/null -H 'authorization: Bearer hunter3-hunter3' $URL/api/channels").await;
    }
    let lines = |logs: &str| -> Vec<String> {
        let lines = logs.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let lines = lines.filter(|line| line["target"] == "interven_alerts::audit");
        lines
            .map(|line| {
                let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
                [text("what"), text("who"), text("role"), text("from"), text("outcome")].join(" ")
            })
            .collect()
    };
    let logs = worker.logs();
    let told = lines(&logs);
    let count = |wanted: &str| told.iter().filter(|line| line.starts_with(wanted)).count();
    assert_eq!(count("sign_in the-auditor auditor 127.0.0.1 done"), 1, "{told:#?}");
    assert_eq!(count("sign_out the-auditor auditor 127.0.0.1 done"), 1, "{told:#?}");
    assert_eq!(count("sign_in - - 203.0.113.9 refused: the token is not known"), 10, "{told:#?}");
    assert_eq!(count("sign_in - - 203.0.113.9 refused: too many failures"), 1, "{told:#?}");
    assert_eq!(count("bearer_token - - 127.0.0.1 refused"), 1, "{told:#?}");
    assert!(!logs.contains("hunter2") && !logs.contains("hunter3"));
}
