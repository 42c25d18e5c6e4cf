//! Approvals as the firewall and the analysts see them: many answers to one question over several workers, and one of them counts.

mod answering;
mod embedded;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use interven_alerts::model::Clock;
use serde_json::{Value, json};

use crate::support::{eventually, scene::token_of, worker::WorkerProcess};

/// The tokens of everybody who answers, and of one who only looks.
fn tokens() -> String {
    ["analyst", "admin", "auditor"].map(token_of).concat()
}

/// How long a broker that boots on a loaded machine, and workers that find it again, may take.
const LONG: Duration = Duration::from_mins(2);

const ANALYSTS: [(&str, &str); 2] = [("the-analyst", "token-of-analyst"), ("the-admin", "token-of-admin")];
const LOOKS: &str = "token-of-auditor";

/// A decision of now that asks for this approval.
fn asks(approval: &str, tool: &str, lasts: Duration) -> Bytes {
    let now = Clock::System.now();
    let printable: String = approval.chars().filter(char::is_ascii_alphanumeric).collect();
    let value = json!({
        "id": format!("decision-{printable}"), "time": now, "decision": "REQUIRE_APPROVAL", "severity": "HIGH", "risk": 0.71,
        "title": "Secret egress", "agent": {"id": "agt_42", "name": "production"}, "tool": tool,
        "operation": "post_message", "reasons": ["PII_EGRESS"], "approval": {"id": approval, "expires_at": now.plus(lasts)},
    });
    value.to_string().into()
}

async fn look(worker: &WorkerProcess, approval: &str) -> (u16, Value) {
    worker.api("GET", &format!("/api/approvals/{approval}"), LOOKS, "").await
}

/// Waits until every worker knows what is asked for.
async fn until_asked(workers: &[WorkerProcess], approval: &str) {
    for worker in workers {
        let known = async || (look(worker, approval).await.0 == 200).then_some(());
        eventually("the approval is known", LONG, known).await;
    }
}

/// One answer among many: what was sent, and what came back.
#[derive(Clone, Debug)]
struct Given {
    who: &'static str,
    answer: &'static str,
    reply: Option<(u16, Value)>,
}

/// Sends so many answers at once, by turns to these workers, of both sorts and by several people. `each` hears how many have come
/// back.
async fn answer_all(
    workers: &[WorkerProcess],
    approval: &str,
    count: usize,
    mut each: impl FnMut(usize),
) -> Vec<Given> {
    let mut under_way: FuturesUnordered<_> = (0..count)
        .map(|number| {
            let (who, token) = ANALYSTS[number / 2 % 2];
            let answer = if number % 2 == 0 { "approve" } else { "deny" };
            let body = json!({"answer": answer}).to_string();
            let worker = &workers[number / 4 % workers.len()];
            let asking = worker.asking("POST", &format!("/api/approvals/{approval}"), token, &body);
            async move { Given { who, answer, reply: asking.await } }
        })
        .collect();
    let mut all = Vec::with_capacity(count);
    while let Some(one) = under_way.next().await {
        all.push(one);
        each(all.len());
    }
    all
}

/// Those that came back with this status.
fn with_status(given: &[Given], status: u16) -> Vec<&Given> {
    given.iter().filter(|one| one.reply.as_ref().is_some_and(|(had, _)| *had == status)).collect()
}

/// Waits until every worker says that it was answered and published, and checks that all say the same; what they say.
async fn until_agreed(workers: &[WorkerProcess], approval: &str) -> Value {
    let mut all = Vec::new();
    for worker in workers {
        let said = eventually("the answer is published", LONG, async || {
            let (status, said) = look(worker, approval).await;
            (status == 200 && said["published"] == true).then_some(said)
        })
        .await;
        assert_eq!(said["state"], "answered", "{said}");
        all.push(said);
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "the workers disagree: {all:#?}");
    // What is granted follows from the answer, in every worker.
    let tool = all[0]["decision"]["tool"].as_str().unwrap().to_owned();
    for worker in workers {
        let (status, grant) = grant(worker, &tool, Some("post_message")).await;
        if all[0]["answer"]["answer"] == "approved" {
            assert_eq!((status, &grant["expires_at"]), (200, &all[0]["grant"]["expires_at"]), "{grant}");
            assert_eq!((&grant["approval_id"], &grant["by"]), (&all[0]["id"], &all[0]["answer"]["by"]), "{grant}");
        } else {
            assert_eq!((status, &grant["error"]["code"]), (404, &json!("no_grant")), "{grant}");
        }
    }
    all.swap_remove(0)
}

async fn grant(worker: &WorkerProcess, tool: &str, operation: Option<&str>) -> (u16, Value) {
    let operation = operation.map_or(String::new(), |operation| format!("&operation={operation}"));
    worker.api("GET", &format!("/api/grants?agent=agt_42&tool={tool}{operation}"), LOOKS, "").await
}

/// Checks what the firewall got: one answer, and no other one, however often.
fn assert_one_answer(got: &[Bytes], said: &Value, copies: usize) {
    let first: Value = serde_json::from_slice(got.first().expect("an answer")).unwrap();
    assert!(got.iter().all(|body| body == &got[0]), "different answers: {got:?}");
    assert!(got.len() <= copies, "{} copies: {got:?}", got.len());
    assert_eq!((&first["approval_id"], &first["decision_id"]), (&said["id"], &said["decision"]["id"]));
    assert_eq!((&first["answer"], &first["by"]), (&said["answer"]["answer"], &said["answer"]["by"]));
    assert_eq!((&first["at"], &first["via"]), (&said["answer"]["at"], &said["answer"]["via"]));
    assert_eq!(first["grant"], said["grant"]);
}
