//! Dead letters: found by their cause, opened, replayed when the endpoint is well again, and gone.

use interven_alerts::{
    model::Reply,
    stand_ins::{Platform, Script, Step},
};
use serde_json::json;

use crate::support::{
    browser::Browser,
    eventually,
    scene::{ALL_EVENTS, IMPATIENT, PUBLISHER, PUBLISHER_TOKEN, Scene, token_of},
    turn_of_the_heavy,
    worker::{PATIENCE, WorkerProcess, post_events},
};

/// Publishes so many decisions and waits until each has died in both channels.
async fn let_die(worker: &WorkerProcess, count: usize) {
    let now = interven_alerts::model::Clock::System.now();
    for number in 0..count {
        let decision = json!({
            "id": format!("decision-{number}"), "time": now, "decision": "DENY", "severity": "HIGH", "risk": 0.71,
            "title": "Secret egress blocked: <b>three</b> API keys", "agent": {"id": "agt_42", "name": "production-langgraph"},
            "tool": "slack", "operation": "post_message", "reasons": ["PII_EGRESS", "SENSITIVE_DATA_EGRESS"],
        });
        let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), decision.to_string()).await.unwrap();
        assert_eq!(answer.0, 202, "{answer:?}");
    }
    let dead = async || {
        let (_, page) = worker.api("GET", "/api/dead-letters", "token-of-auditor", "").await;
        (page["letters"].as_array()?.len() == 2 * count).then_some(())
    };
    eventually("all have died", PATIENCE, dead).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_finds_why_letters_died_opens_one_and_replays_them_when_the_endpoint_is_well() {
    let _turn = turn_of_the_heavy().await;
    let mut scene = Scene::default();
    let refuses = Script::always(Step::Reply { reply: Reply::new(400, "invalid_blocks"), taken: false });
    scene.add("soc-slack", Platform::Slack, refuses, &format!("rate_limit = \"none\"\n{ALL_EVENTS}")).await;
    let fails = Script::always(Step::Reply { reply: Reply::new(503, "upstream is gone"), taken: false });
    scene.add("siem", Platform::Siem, fails, &format!("{ALL_EVENTS}{IMPATIENT}")).await;
    let tokens = ["auditor", "analyst", "admin"].map(token_of).concat();
    let config = format!("{PUBLISHER}{tokens}{}", scene.channels());
    let mut worker = WorkerProcess::new(&config);
    worker.start_ready().await;
    let_die(&worker, 3).await;

    let browser = Browser::start("dead-letters", true).await;
    browser.go(&format!("{}/dead-letters", worker.server())).await;
    browser.type_into("#token", "token-of-admin").await;
    browser.click("form .primary").await;
    let text = browser.until("6 dead letters").await;
    for says in ["refused", "exhausted", "invalid_blocks", "HTTP 503", "Test the channel."] {
        assert!(text.contains(says), "{says}: {text}");
    }
    browser.picture("list").await;
    // By the keyboard's way: the form narrows the list.
    browser.type_into("#reason", "exhausted").await;
    browser.click("#narrow").await;
    browser.until("3 dead letters found").await;
    browser.picture("narrowed").await;

    browser.click("td .button[href^='/dead-letters/0']").await;
    let text = browser.until("The last attempts").await;
    for says in
        ["DENY", "upstream is gone", "HTTP 503", "try later", "production-langgraph", "\"SENSITIVE_DATA_EGRESS\""]
    {
        assert!(text.contains(says), "{says}: {text}");
    }
    browser.picture("letter").await;
    scene.heal();
    browser.click("#replay").await;
    browser.until("Send 1 dead letter to siem again?").await;
    browser.picture("replay").await;
    browser.click("#confirm").await;
    browser.until("Replayed 1 dead letter.").await;
    browser.until("5 dead letters").await;
    let siem = scene.stand_in("siem");
    eventually("the letter is told", PATIENCE, async || (siem.different_ids() == 1).then_some(())).await;

    browser.click("#replay-all").await;
    browser.until("Send 5 dead letters to 2 destinations again?").await;
    browser.click("#back").await;
    browser.until("5 dead letters").await;
    browser.click("#purge-all").await;
    browser.until("Delete 5 dead letters for good?").await;
    browser.picture("purge").await;
    browser.click("#back").await;
    browser.click("#replay-all").await;
    browser.until("Send 5 dead letters").await;
    browser.click("#confirm").await;
    browser.until("There are no dead letters.").await;
    browser.picture("none").await;
    for channel in ["siem", "soc-slack"] {
        let told = async || (scene.stand_in(channel).different_ids() == 3).then_some(());
        eventually("every letter is told", PATIENCE, told).await;
    }

    // A peer that nobody answers for is named, and takes nothing away.
    worker.reconfigure(&format!("peers = [\"http://127.0.0.1:9\"]\n{config}"));
    worker.hang_up();
    browser.until("http://127.0.0.1:9 could not be asked").await;
    browser.picture("silent").await;
    assert!(browser.complaints().await.is_empty(), "{:?}", browser.complaints().await);
}
