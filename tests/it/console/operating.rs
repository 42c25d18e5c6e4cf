//! Channels: looked at, tried, paused and resumed, and seen to fail.

use interven_alerts::{
    model::Reply,
    stand_ins::{Platform, Script, Step},
};

use crate::support::{
    browser::Browser,
    scene::{ALL_EVENTS, PUBLISHER, PUBLISHER_TOKEN, Scene, token_of},
    turn_of_the_heavy,
    worker::{WorkerProcess, post_events},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_analyst_tries_a_channel_pauses_it_and_sees_it_held_when_its_endpoint_is_gone() {
    let _turn = turn_of_the_heavy().await;
    let mut scene = Scene::default();
    scene.add("soc-slack", Platform::Slack, Script::accept(), ALL_EVENTS).await;
    scene.add("siem", Platform::Splunk, Script::accept(), ALL_EVENTS).await;
    let tokens = ["auditor", "analyst"].map(token_of).concat();
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{tokens}{}", scene.channels()));
    worker.start_ready().await;
    let browser = Browser::start("operating", true).await;
    browser.go(&format!("{}/channels", worker.server())).await;
    browser.type_into("#token", "token-of-analyst").await;
    browser.click("form .primary").await;
    browser.until("soc-slack").await;

    browser.click("#test-soc-slack").await;
    // The endpoint's own words.
    browser.until("soc-slack has the test: “HTTP 200: ok”").await;
    browser.picture("tried").await;
    browser.click("#pause-soc-slack").await;
    browser.until("Channel soc-slack is paused").await;
    browser.until("by the-analyst").await;
    browser.click("#resume-soc-slack").await;
    browser.until("Channel soc-slack is resumed").await;

    // Slack's word for a webhook that nobody will bring back.
    let gone = Script::always(Step::Reply { reply: Reply::new(404, "no_service"), taken: false });
    scene.stand_in("soc-slack").set_script(gone);
    let event =
        r#"{"id":"1","time":"2026-06-01T12:00:00Z","decision":"DENY","severity":"HIGH","agent":{"id":"a"},"tool":"t"}"#;
    let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), event.to_owned()).await.unwrap();
    assert_eq!(answer.0, 202, "{answer:?}");
    browser.until("held").await;
    browser.picture("held").await;
    scene.heal();
    browser.click("#resume-soc-slack").await;
    browser.until("Channel soc-slack is resumed").await;
    browser.until_gone("held").await;
    browser.until_gone("probing").await;
    assert!(browser.complaints().await.is_empty(), "{:?}", browser.complaints().await);
}
