//! Who may reach the API, as it is seen from outside: by browsers' cookies, by `curl`, and by a fuzzer that has read the
//! description. The table of roles and routes is held in `src/http/tests`.

mod fuzzing;
mod sessions;
mod trail;

use std::fmt::Write as _;

use crate::support::{scene::token_of, worker::WorkerProcess};

/// Everything that a caller with this token may GET of the API, with the heads of the answers. The description says what there is;
/// channels and dead letters give their ids.
pub(crate) async fn everything_told(worker: &WorkerProcess, token: &str) -> String {
    let (status, document) = worker.api("GET", "/api/openapi.json", token, "").await;
    assert_eq!(status, 200);
    let mut told = document.to_string();
    let (_, channels) = worker.api("GET", "/api/channels", token, "").await;
    let channels: Vec<String> =
        channels.as_array().unwrap().iter().map(|channel| channel["id"].as_str().unwrap().to_owned()).collect();
    let (_, letters) = worker.api("GET", "/api/dead-letters", token, "").await;
    let letters: Vec<String> = letters["letters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|letter| letter["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(!channels.is_empty() && !letters.is_empty(), "there is nothing to tell");
    for (path, item) in document["paths"].as_object().unwrap() {
        if item.get("get").is_none() {
            continue;
        }
        let ids: &[String] = match path.split('/').nth(2) {
            Some("channels") => &channels,
            Some("dead-letters") => &letters,
            _ => &[String::from("apr_1")],
        };
        let ids = if path.contains("{id}") { ids } else { &ids[..1] };
        for id in ids {
            let path = path.replace("{id}", id);
            for query in queries(&path) {
                let (status, answer) = worker.get_text(&format!("{path}{query}"), token).await;
                assert!(matches!(status, 200 | 404), "GET {path}{query}: {status} {answer}");
                writeln!(told, "GET {path}{query} {status} {answer}").unwrap();
            }
        }
    }
    told
}

/// What a path has to be asked with to tell everything.
fn queries(path: &str) -> &'static [&'static str] {
    match path {
        "/api/telemetry/decisions/export" => {
            &["?format=json", "?format=ndjson", "?format=csv", "?format=splunk", "?format=datadog"]
        }
        "/api/dead-letters" => &["", "?by_cause=true"],
        "/api/grants" => &["?agent=agt_42&tool=slack"],
        _ => &[""],
    }
}

/// The lines that let in one caller of each role but publishers.
fn people() -> String {
    ["auditor", "analyst", "admin"].map(token_of).concat()
}
