//! Slack's own code makes signatures that we accept, and accepts those that the tests make.

use std::process::Command;

use interven_alerts::{
    model::Clock,
    stand_ins::{Platform, Script},
};
use serde_json::Value;

use super::{SECRET, client, deliver, live, sign};
use crate::support::{python, scene::Scene, worker::WorkerProcess};

/// Signs its argument, and says what Slack's verifier makes of a signature of ours.
const SCRIPT: &str = r#"
import json, sys
from slack_sdk.signature import SignatureVerifier
secret, timestamp, body, ours = sys.argv[1:]
verifier = SignatureVerifier(secret)
print(json.dumps({
    "signature": verifier.generate_signature(timestamp=timestamp, body=body),
    "ours_is_valid": verifier.is_valid(body=body, timestamp=timestamp, signature=ours),
}))
"#;

fn signed_by_slack(timestamp: &str, body: &str) -> String {
    let ours = sign(SECRET, timestamp, body);
    let output =
        Command::new(python::tool("python3")).args(["-c", SCRIPT, SECRET, timestamp, body, &ours]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["ours_is_valid"], true, "the signatures of these tests are not Slack's");
    said["signature"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_slacks_sdk_signs_is_accepted_and_refused_when_a_byte_is_changed() {
    let mut scene = Scene::default();
    scene.add("soc", Platform::Slack, Script::accept(), &live()).await;
    let mut worker = WorkerProcess::new(&scene.channels());
    worker.start_ready().await;
    let client = client();
    for body in [
        "payload=%7B%22type%22%3A%22block_actions%22%2C%22actions%22%3A%5B%5D%7D",
        "payload=%7B%22type%22%3A%22shortcut%22%2C%22user%22%3A%7B%22name%22%3A%22J%C3%BCrgen+%F0%9F%99%82%22%7D%7D",
        "ssl_check=1&token=xyzz0WbapA4vBCDEFasx0q6G",
    ] {
        let timestamp = Clock::System.now().unix_seconds().to_string();
        let tag = tokio::task::block_in_place(|| signed_by_slack(&timestamp, body));
        assert_eq!(deliver(&client, &worker, &timestamp, &tag, body.to_owned()).await, Some(200), "{body}");
        let tampered = body.replacen('1', "2", 1).replacen("type", "tYpe", 1);
        assert_ne!(tampered, body);
        assert_eq!(deliver(&client, &worker, &timestamp, &tag, tampered).await, Some(401), "{body}");
        let later = (Clock::System.now().unix_seconds() + 1).to_string();
        assert_eq!(deliver(&client, &worker, &later, &tag, body.to_owned()).await, Some(401), "{body}");
    }
}
