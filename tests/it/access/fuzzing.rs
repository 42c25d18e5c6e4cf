//! The API against a fuzzer that has read its description: schemathesis, from PyPI.
//!
//! It sends what the description allows and what comes close to it, and holds every answer against the description: no 5xx, no
//! status, header, content type or body that is not described, no method that is not, and `Allow` where one is refused.

use std::{process::Stdio, time::Duration};

use interven_alerts::{
    model::{Clock, Reply, Timestamp},
    stand_ins::{Firewall, Platform, Script, Step},
};

use super::people;
use crate::support::{
    eventually, python,
    scene::{ALL_EVENTS, FAST, PATIENT, PUBLISHER, PUBLISHER_TOKEN, Scene},
    worker::{PATIENCE, WorkerProcess, post_events},
};

/// Everything but loopback, so that no channel that the fuzzer makes up reaches anybody.
const LOOPBACK_ONLY: &str = "[egress]\ndeny = [\"0.0.0.0/2\", \"64.0.0.0/3\", \"96.0.0.0/4\", \"112.0.0.0/5\", \
     \"120.0.0.0/6\", \"124.0.0.0/7\", \"126.0.0.0/8\", \"128.0.0.0/1\", \"100::/8\", \"2000::/3\", \"fc00::/7\", \"fe80::/10\"]\n";

/// What every answer is held to.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
     response_schema_conformance,unsupported_method,allow_header_conformance";

/// As many cases of an operation as fit into half a minute.
const CASES: &str = "50";

/// How long it may take on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_mins(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_fuzzer_makes_of_the_description_is_answered_as_described_and_never_with_a_5xx() {
    let mut scene = Scene::default();
    scene.add("soc", Platform::Slack, Script::accept(), &format!("{ALL_EVENTS}{FAST}{PATIENT}")).await;
    let refuse = Script::always(Step::Reply { reply: Reply::new(400, "no"), taken: false });
    let keys = format!("format = \"json\"\n{ALL_EVENTS}{PATIENT}");
    scene.add("refusing", Platform::Siem, refuse, &keys).await;
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{}{LOOPBACK_ONLY}{}", people(), scene.channels()));
    worker.start_ready().await;
    furnish(&worker).await;
    fuzz(&worker, "token-of-admin", &["--exclude-path", "/v1/events"]).await;
    fuzz(&worker, PUBLISHER_TOKEN, &["--include-path", "/v1/events"]).await;
    let panics: Vec<String> =
        worker.logs().lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect();
    assert!(panics.is_empty(), "{}", panics.join("\n"));
    assert_eq!(worker.probe("/livez").await.map(|(status, _)| status), Some(200));
}

/// Gives the worker something to tell: decisions, approvals in every state, dead letters.
async fn furnish(worker: &WorkerProcess) {
    let now = Clock::System.now();
    let asking = |id: &str, expires_at: Option<Timestamp>| {
        let decision = serde_json::json!({
            "id": format!("of-{id}"), "time": now, "decision": "REQUIRE_APPROVAL", "severity": "HIGH", "risk": 0.71,
            "title": "Secret egress blocked", "agent": {"id": "agt_42", "name": "production-langgraph"}, "tool": "slack",
            "operation": "post_message", "reasons": ["PII_EGRESS"], "src": "10.0.0.42",
            "approval": {"id": id, "expires_at": expires_at},
        });
        decision.to_string()
    };
    let mut firewall = Firewall::new(4, Clock::System);
    let mut events: Vec<String> = (0..20).map(|_| String::from_utf8(firewall.message().to_vec()).unwrap()).collect();
    let soon = now.plus(Duration::from_hours(1));
    events.extend([
        asking("apr_1", None),
        asking("apr_2", Some(soon)),
        asking("apr_3", Some(soon)),
        asking("apr_4", Some(now)),
    ]);
    let (status, answer) = post_events(&worker.server(), Some(PUBLISHER_TOKEN), events.join("\n")).await.unwrap();
    assert_eq!(status, 202, "{answer}");
    let admin = "token-of-admin";
    for (id, answer) in [("apr_1", "approve"), ("apr_2", "deny")] {
        eventually("it is answered", PATIENCE, async || {
            let body = format!(r#"{{"answer":"{answer}"}}"#);
            (worker.api("POST", &format!("/api/approvals/{id}"), admin, &body).await.0 == 200).then_some(())
        })
        .await;
    }
    eventually("there are dead letters", PATIENCE, async || {
        let (_, found) = worker.api("GET", "/api/dead-letters", admin, "").await;
        found["letters"].as_array().is_some_and(|letters| letters.len() >= 10).then_some(())
    })
    .await;
}

async fn fuzz(worker: &WorkerProcess, token: &str, which: &[&str]) {
    let mut command = tokio::process::Command::new(python::tool("schemathesis"));
    command.arg("run").arg(format!("{}/api/openapi.json", worker.server())).args(which);
    command.args(["--header", &format!("Authorization: Bearer {token}"), "--checks", CHECKS, "--max-examples", CASES]);
    // The same cases every time; no time limits of its own, which a slow machine would break by chance.
    command.arg("--generation-deterministic");
    command.args([
        "--phases",
        "examples,coverage,fuzzing",
        "--suppress-health-check",
        "all",
        "--request-timeout",
        "60",
    ]);
    command.args(["--no-color", "--workers", "1", "--warnings", "off"]);
    command.current_dir(worker.dir()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("the fuzzer ends").unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(said.contains("generated"), "it has tried nothing: {said}");
}
