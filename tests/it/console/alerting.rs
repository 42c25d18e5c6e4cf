//! A channel from its making to its end, on a real RabbitMQ: added by its form, tried, told, held when its endpoint breaks, mended,
//! and gone on with. The first page says at each step whether anyone is not being told.

use interven_alerts::{
    model::Reply,
    stand_ins::{Platform, Script, StandIn, Step},
};
use serde_json::json;

use crate::support::{
    browser::{Browser, ENTER, TAB},
    eventually,
    rabbit::Rabbit,
    scene::{PUBLISHER, PUBLISHER_TOKEN, on, token_of},
    turn_of_the_heavy, unique_name,
    worker::{PATIENCE, WorkerProcess, post_events},
};

const SIGNING: &str = "8f742231b10e8888abcd99eeeccc85a5";

async fn worker(broker: &str) -> WorkerProcess {
    let people = ["auditor", "analyst", "admin"].map(token_of).concat();
    let mut worker = WorkerProcess::new(&format!("{broker}{PUBLISHER}{people}"));
    worker = worker.env("INTERVEN_ALERTS_KEY", "the-key-of-this-pool-0123456789");
    worker.start_ready().await;
    worker
}

async fn publish(worker: &WorkerProcess, id: &str) {
    let event = json!({
        "id": id, "time": "2026-06-01T12:00:00Z", "decision": "DENY", "severity": "HIGH", "title": "Secret egress blocked",
        "agent": {"id": "agt_42", "name": "production-langgraph"}, "tool": "slack", "operation": "post_message",
    });
    let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), event.to_string()).await.unwrap();
    assert_eq!(answer.0, 202, "{answer:?}");
}

async fn sign_in(browser: &Browser, worker: &WorkerProcess, path: &str, role: &str) {
    browser.go(&format!("{}{path}", worker.server())).await;
    browser.type_into("#token", &format!("token-of-{role}")).await;
    browser.click("form .primary").await;
}

/// Waits until the endpoint has a card of this decision.
async fn until_card(slack: &StandIn, id: &str) {
    eventually("a card arrives", PATIENCE, async || (slack.times_received(id) > 0).then_some(())).await;
}

fn gone() -> Script {
    // Slack's word for a webhook that nobody will bring back.
    Script::always(Step::Reply { reply: Reply::new(404, "no_service"), taken: false })
}

/// Adds a channel by its form: what is wrong is said first, then it is tried, then saved.
async fn add(browser: &Browser, worker: &WorkerProcess, slack: &StandIn) {
    browser.go(&format!("{}/channels", worker.server())).await;
    browser.click("#add").await;
    browser.until("Where is somebody to be told?").await;
    browser.picture("kinds").await;
    browser.click("#add-slack").await;
    browser.until("Add a channel: Slack").await;
    browser.picture("form").await;
    browser.click("summary").await;
    browser.type_into("#rate_limit", "fast").await;
    browser.click("#save").await;
    browser.until("Nothing was saved: there are 3 problems").await;
    assert_eq!(browser.focus().await, "summary-of-faults", "what is wrong is read first");
    browser.picture("faults").await;
    browser.type_into("#id", "soc-slack").await;
    browser.clear("#rate_limit").await;
    browser.type_into("#webhook_url", &slack.url()).await;
    browser.type_into("#signing_secret", SIGNING).await;
    browser.click("#test").await;
    let page = browser.until("The endpoint has the test").await;
    assert!(page.contains("HTTP 200: ok"), "the endpoint's own words: {page}");
    browser.picture("tried").await;
    eventually("the card is there", PATIENCE, async || (slack.counters().taken == 1).then_some(())).await;
    browser.click("#save").await;
    browser.until("Channel soc-slack is made.").await;
    browser.until("What it wants is delivered.").await;
}

/// Lets the endpoint refuse one decision, which becomes a dead letter, and sends it again from its page.
async fn refuse_and_replay(browser: &Browser, worker: &WorkerProcess, slack: &StandIn) {
    slack.set_script(Script::always(Step::Reply { reply: Reply::new(400, "invalid_payload"), taken: false }));
    publish(worker, "d-refused").await;
    let dead = |count| async move {
        eventually("so many are dead", PATIENCE, async || {
            (worker.metrics().await.sum("dead_letters", &["channel=\"soc-slack\""]) == count).then_some(())
        })
        .await;
    };
    dead(1).await;
    slack.set_script(Script::accept());
    browser.until("Everyone is being told; 1 thing to look at.").await;
    browser.until("1 dead letter in this worker's store").await;
    browser.go(&format!("{}/dead-letters?channel=soc-slack", worker.server())).await;
    browser.until("invalid_payload").await;
    browser.picture("dead-letters").await;
    browser.click("#replay-all").await;
    browser.until("again?").await;
    browser.picture("replay").await;
    browser.click("#confirm").await;
    until_card(slack, "d-refused").await;
    dead(0).await;
    browser.go(&format!("{}/", worker.server())).await;
    browser.until("Everyone is being told.").await;
}

/// Edits it, which keeps its secrets, and deletes it, with a count first.
async fn edit_and_delete(browser: &Browser, worker: &WorkerProcess, slack: &StandIn) {
    browser.click("#edit").await;
    browser.until("Edit soc-slack").await;
    browser.picture("edit").await;
    browser.click("#tools").await;
    browser.type_into("#tools", "slack.post_*").await;
    browser.click("#save").await;
    browser.until("Channel soc-slack is saved.").await;
    browser.until("tools slack.post_*").await;
    publish(worker, "d-4").await;
    until_card(slack, "d-4").await;
    browser.picture("channel").await;

    browser.click("#pause").await;
    browser.until("Channel soc-slack is paused").await;
    publish(worker, "d-5").await;
    eventually("it waits", PATIENCE, async || {
        let labels = ["channel=\"soc-slack\"", "where=\"lane_queue\""];
        (worker.metrics().await.sum("deliveries_waiting", &labels) == 1).then_some(())
    })
    .await;
    browser.click("#remove").await;
    browser.until("1 delivery waits for it.").await;
    browser.picture("delete").await;
    browser.click("#delete").await;
    browser.until("Channel soc-slack is deleted.").await;
    eventually("what waited is dead", PATIENCE, async || {
        (worker.metrics().await.sum("dead_letters", &["reason=\"channel_removed\""]) == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_is_added_tried_told_held_mended_paused_edited_and_deleted_in_a_browser() {
    let _turn = turn_of_the_heavy().await;
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("alerting"));
    let slack = StandIn::start(Platform::Slack, Script::accept()).await.unwrap();
    let worker = worker(&on(rabbit, &prefix, "")).await;
    let at = |path: &str| format!("{}{path}", worker.server());
    let browser = Browser::start("alerting", true).await;
    sign_in(&browser, &worker, "/", "admin").await;
    browser.until("There is no channel: nobody is told of anything.").await;

    add(&browser, &worker, &slack).await;

    // Told; then the endpoint breaks, and the page says so by itself.
    publish(&worker, "d-1").await;
    until_card(&slack, "d-1").await;
    slack.set_script(gone());
    publish(&worker, "d-2").await;
    browser.until("The endpoint refuses until somebody mends it or the channel.").await;
    browser.until("no_service").await;
    eventually("one waits", PATIENCE, async || {
        let labels = ["channel=\"soc-slack\"", "where=\"lane_queue\""];
        (worker.metrics().await.sum("deliveries_waiting", &labels) == 1).then_some(())
    })
    .await;
    browser.picture("held").await;
    browser.go(&at("/")).await;
    browser.until("soc-slack is held: nobody is told there since").await;
    browser.picture("overview-held").await;
    browser.go(&at("/channels")).await;
    browser.until("held").await;
    browser.picture("channels").await;

    // Mended, and tried again.
    slack.set_script(Script::accept());
    browser.click("#open-soc-slack").await;
    browser.until("nobody is told here since").await;
    browser.click("#resume").await;
    browser.until("Channel soc-slack is resumed.").await;
    browser.until("What it wants is delivered.").await;
    until_card(&slack, "d-2").await;
    browser.go(&at("/")).await;
    browser.until("Everyone is being told.").await;
    browser.picture("overview").await;

    refuse_and_replay(&browser, &worker, &slack).await;

    // Paused with a reason that everybody sees, and resumed.
    browser.go(&at("/channels/soc-slack")).await;
    browser.type_into("#why", "Slack is being moved today").await;
    browser.click("#pause").await;
    browser.until("Channel soc-slack is paused").await;
    browser.until("Reason: Slack is being moved today").await;
    browser.picture("paused").await;
    publish(&worker, "d-3").await;
    browser.click("#resume").await;
    browser.until("Channel soc-slack is resumed.").await;
    until_card(&slack, "d-3").await;

    edit_and_delete(&browser, &worker, &slack).await;
    browser.go(&at("/nothing")).await;
    browser.until("There is nothing here").await;
    browser.picture("nothing").await;
    let complaints = browser.complaints().await;
    let broken: Vec<&String> =
        complaints.iter().filter(|line| !line.contains("422") && !line.contains("404")).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_scripts_a_channel_is_added_tried_paused_and_resumed_all_the_same() {
    let _turn = turn_of_the_heavy().await;
    let slack = StandIn::start(Platform::Slack, Script::accept()).await.unwrap();
    let worker = worker("").await;
    let browser = Browser::start("alerting-without-scripts", false).await;
    sign_in(&browser, &worker, "/add-channel/slack", "admin").await;
    browser.type_into("#id", "soc-slack").await;
    browser.type_into("#webhook_url", &slack.url()).await;
    browser.click("#test").await;
    browser.until("The endpoint has the test").await;
    browser.click("#save").await;
    browser.until("Channel soc-slack is made.").await;
    publish(&worker, "d-1").await;
    until_card(&slack, "d-1").await;
    browser.type_into("#why", "Slack is being moved").await;
    browser.click("#pause").await;
    browser.until("Reason: Slack is being moved").await;
    browser.click("#resume").await;
    browser.until("Channel soc-slack is resumed.").await;
    slack.set_script(gone());
    publish(&worker, "d-2").await;
    eventually("it is held", PATIENCE, async || {
        let (_, told) = worker.api("GET", "/api/channels/soc-slack", "token-of-auditor", "").await;
        (told["state"] == "held").then_some(())
    })
    .await;
    browser.go(&format!("{}/channels/soc-slack", worker.server())).await;
    browser.until("no_service").await;
    slack.set_script(Script::accept());
    browser.click("#resume").await;
    browser.until("Channel soc-slack is resumed.").await;
    until_card(&slack, "d-2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_keyboard_alone_somebody_signs_in_approves_and_adds_a_channel() {
    let _turn = turn_of_the_heavy().await;
    let slack = StandIn::start(Platform::Slack, Script::accept()).await.unwrap();
    let worker = worker("").await;
    let now = interven_alerts::model::Clock::System.now();
    let event = json!({
        "id": "d-1", "time": now, "decision": "REQUIRE_APPROVAL", "severity": "HIGH", "agent": {"id": "agt_42"},
        "tool": "slack", "approval": {"id": "apr_7", "expires_at": now.plus(std::time::Duration::from_hours(1))},
    });
    let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), event.to_string()).await.unwrap();
    assert_eq!(answer.0, 202, "{answer:?}");
    let known =
        async || (worker.api("GET", "/api/approvals/apr_7", "token-of-auditor", "").await.0 == 200).then_some(());
    eventually("the approval is known", PATIENCE, known).await;
    let browser = Browser::start("keyboard", true).await;
    browser.go(&format!("{}/approvals/apr_7", worker.server())).await;
    browser.until("Access token").await;
    // The first thing that the sign-in asks for has the focus already.
    eventually("the token is asked for", PATIENCE, async || (browser.focus().await == "token").then_some(())).await;
    browser.press("token-of-admin").await;
    browser.press(ENTER).await;
    browser.until("May this call be made?").await;
    browser.tab_to("approve").await;
    browser.press(ENTER).await;
    browser.until("Approved by the-admin in the console").await;

    browser.go(&format!("{}/channels", worker.server())).await;
    browser.tab_to("add").await;
    browser.press(ENTER).await;
    browser.until("Where is somebody to be told?").await;
    browser.tab_to("add-slack").await;
    browser.press(ENTER).await;
    browser.until("Add a channel: Slack").await;
    // The fields come one after the other, as they are read.
    browser.tab_to("id").await;
    browser.press("soc-slack").await;
    browser.press(TAB).await;
    assert_eq!(browser.focus().await, "webhook_url");
    browser.press(&slack.url()).await;
    browser.tab_to("save").await;
    browser.press(ENTER).await;
    browser.until("Channel soc-slack is made.").await;
}
