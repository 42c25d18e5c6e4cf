//! Decisions: searched in the browser, with what became of each, and one of them whole.

use interven_alerts::{
    model::{Clock, Reply},
    stand_ins::{Platform, Script, Step},
};

use crate::support::{
    browser::Browser,
    scene::{ALL_EVENTS, PUBLISHER, PUBLISHER_TOKEN, Scene, token_of},
    turn_of_the_heavy,
    worker::{WorkerProcess, post_events},
};

fn decision(id: &str, kind: &str, severity: &str, tool: &str) -> String {
    let time = Clock::System.now();
    format!(
        r#"{{"id":"{id}","time":"{time}","decision":"{kind}","severity":"{severity}","risk":0.71,"title":"Secret egress blocked","agent":{{"id":"agt_42","name":"production-langgraph"}},"tool":"{tool}","operation":"post_message","reasons":["PII_EGRESS"],"src":"10.0.0.42","policy":{{"name":"egress","rev":12345678901234567890}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_searches_for_a_decision_and_sees_who_was_told_of_it_and_who_was_not() {
    let _turn = turn_of_the_heavy().await;
    let mut scene = Scene::default();
    let refuse = Step::Reply { reply: Reply::new(400, "invalid_payload"), taken: false };
    let gone = Step::Reply { reply: Reply::new(404, "no_service"), taken: false };
    scene.add("siem", Platform::Splunk, Script::accept(), &format!("{ALL_EVENTS}min_severity = \"MEDIUM\"\n")).await;
    scene.add("soc-slack", Platform::Slack, Script::always(refuse), "events = [\"DENY\"]\n").await;
    scene.add("soc-teams", Platform::Slack, Script::always(gone), "events = [\"INCIDENT\"]\n").await;
    let tokens = ["auditor", "analyst"].map(token_of).concat();
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{tokens}{}", scene.channels()));
    worker.start_ready().await;
    let publish = async |event: String| {
        let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), event).await.unwrap();
        assert_eq!(answer.0, 202, "{answer:?}");
    };
    publish(decision("d-deny", "DENY", "HIGH", "slack")).await;
    publish(decision("d-incident", "INCIDENT", "CRITICAL", "github")).await;
    publish(decision("d-allow", "ALLOW", "LOW", "jira")).await;

    let browser = Browser::start("searching", true).await;
    browser.go(&format!("{}/decisions", worker.server())).await;
    browser.type_into("#token", "token-of-auditor").await;
    browser.click("form .primary").await;
    // The list lives: nobody loads the page anew until all is told.
    for told in ["siem: delivered", "soc-slack: dead", "soc-teams: waiting", "no channel wanted it"] {
        browser.until(told).await;
    }
    browser.picture("list").await;

    browser.click("details summary").await;
    browser.type_into("#tool", "slack.post_*").await;
    browser.click("#kind-DENY").await;
    browser.picture("form").await;
    browser.click("#search").await;
    browser.until_gone("jira").await;
    let page = browser.until("soc-slack: dead").await;
    assert!(!page.contains("github") && page.contains("ndjson"), "{page}");
    let url = browser.url().await;
    assert!(url.contains("tool=slack.post_") && url.contains("decision=DENY"), "a search can be kept: {url}");

    browser.click("td a").await;
    let page = browser.until("Who was told").await;
    for word in ["refused", "its dead letter", "As it was published", "12345678901234567890", "delivered"] {
        assert!(page.contains(word), "{word} in {page}");
    }
    browser.picture("decision").await;

    browser.go(&format!("{}/decisions?agent=nobody-*", worker.server())).await;
    browser.until("No such decision in this time").await;
    browser.go(&format!("{}/decisions?since=2026-06-02T00:00&until=2026-06-01T00:00", worker.server())).await;
    browser.until("is not before Until (UTC)").await;
    browser.picture("faulty").await;
    // By the id alone, as the link of a card has it.
    browser.go(&format!("{}/decisions/d-incident", worker.server())).await;
    browser.until("soc-teams").await;
    assert!(browser.complaints().await.is_empty(), "{:?}", browser.complaints().await);
}
