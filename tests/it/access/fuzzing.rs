//! The API against a fuzzer that has read its description: schemathesis, from PyPI.
//!
//! It sends what the description allows and what comes close to it, and holds every answer against the description: no 5xx, no
//! status, header, content type or body that is not described, no method that is not, and `Allow` where one is refused.

use std::{process::Stdio, time::Duration};

use interven_alerts::stand_ins::{Platform, Script};

use super::{people, python_tool};
use crate::support::{
    eventually,
    scene::{PATIENT, PUBLISHER, PUBLISHER_TOKEN, Scene},
    worker::{PATIENCE, WorkerProcess},
};

/// Everything but loopback, so that no channel that the fuzzer makes up reaches anybody.
const LOOPBACK_ONLY: &str = "[egress]\ndeny = [\"0.0.0.0/2\", \"64.0.0.0/3\", \"96.0.0.0/4\", \"112.0.0.0/5\", \
     \"120.0.0.0/6\", \"124.0.0.0/7\", \"126.0.0.0/8\", \"128.0.0.0/1\", \"100::/8\", \"2000::/3\", \"fc00::/7\", \"fe80::/10\"]\n";

/// What every answer is held to.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
     response_schema_conformance,unsupported_method,allow_header_conformance";

/// As many cases of an operation as fit into half a minute.
const CASES: &str = "25";

/// How long it may take on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_mins(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_fuzzer_makes_of_the_description_is_answered_as_described_and_never_with_a_5xx() {
    let mut scene = Scene::default();
    scene.add("soc", Platform::Slack, Script::accept(), PATIENT).await;
    scene.add("firehose", Platform::Siem, Script::accept(), &format!("format = \"json\"\n{PATIENT}")).await;
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{}{LOOPBACK_ONLY}{}", people(), scene.channels()));
    worker.start_ready().await;
    eventually("the approvals are known", PATIENCE, async || {
        (worker.api("GET", "/api/approvals", "token-of-admin", "").await.0 != 503).then_some(())
    })
    .await;
    fuzz(&worker, "token-of-admin", &["--exclude-path", "/v1/events"]).await;
    fuzz(&worker, PUBLISHER_TOKEN, &["--include-path", "/v1/events"]).await;
    let panics: Vec<String> =
        worker.logs().lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect();
    assert!(panics.is_empty(), "{}", panics.join("\n"));
    assert_eq!(worker.probe("/livez").await.map(|(status, _)| status), Some(200));
}

async fn fuzz(worker: &WorkerProcess, token: &str, which: &[&str]) {
    let mut command = tokio::process::Command::new(python_tool("schemathesis"));
    command.arg("run").arg(format!("{}/api/openapi.json", worker.server())).args(which);
    command.args(["--header", &format!("Authorization: Bearer {token}"), "--checks", CHECKS, "--max-examples", CASES]);
    // The same cases every time; no time limits of its own, which a slow machine would break by chance.
    command.args(["--seed", "4", "--generation-deterministic", "--generation-database", "none"]);
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
