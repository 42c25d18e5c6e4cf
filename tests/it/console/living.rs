//! Pages that change by themselves, and somebody who is busy with one of them.

use serde_json::json;

use super::approving::{ask, worker};
use crate::support::{
    browser::Browser,
    eventually, turn_of_the_heavy,
    worker::{PATIENCE, WorkerProcess},
};

/// Puts a mark into the live part, which the next change takes away: it is not in what the worker sends.
const MARK: &str = "document.querySelector('#live').append(Object.assign(document.createElement('i'), {id: 'mark'}))";

async fn is_marked(browser: &Browser) -> bool {
    browser.run("return document.getElementById('mark') !== null").await.as_bool().unwrap()
}

async fn until_changed(browser: &Browser) {
    eventually("the page has changed", PATIENCE, async || (!is_marked(browser).await).then_some(())).await;
}

/// Waits until the page has been asked for three times more: it would have changed by then.
async fn three_looks(browser: &Browser) {
    let looks = async || {
        let count =
            "return performance.getEntriesByType('resource').filter((one) => one.initiatorType === 'fetch').length";
        browser.run(count).await.as_u64().unwrap()
    };
    let before = looks().await;
    eventually("the page looks again", PATIENCE, async || (looks().await >= before + 3).then_some(())).await;
}

/// An analyst's browser on this page.
async fn analyst(worker: &WorkerProcess, name: &str, path: &str) -> Browser {
    let browser = Browser::start(name, true).await;
    browser.go(&format!("{}{path}", worker.server())).await;
    browser.type_into("#token", "token-of-analyst").await;
    browser.click("form .primary").await;
    browser
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_long_a_button_is_held_down_it_does_its_deed_and_the_page_goes_on_changing_afterwards() {
    let _turn = turn_of_the_heavy().await;
    let worker = worker().await;
    for approval in ["apr_1", "apr_2"] {
        ask(&worker, approval).await;
    }
    let browser = analyst(&worker, "held", "/approvals/apr_1").await;
    browser.until("May this call be made?").await;
    browser.mouse_down("#approve").await;
    browser.run(MARK).await;
    three_looks(&browser).await;
    assert!(is_marked(&browser).await, "the button was taken away under the mouse");
    browser.mouse_up().await;
    browser.until("Approved by the-analyst in the console").await;

    browser.go(&format!("{}/approvals/apr_2", worker.server())).await;
    browser.until("May this call be made?").await;
    browser.tab_to("deny").await;
    browser.key("keyDown", " ").await;
    browser.run(MARK).await;
    three_looks(&browser).await;
    // The key comes up over another window, where this page does not hear it.
    browser.run("dispatchEvent(new Event('blur'))").await;
    until_changed(&browser).await;
    browser.key("keyUp", " ").await;
    browser.tab_to("deny").await;
    browser.key("keyDown", " ").await;
    browser.run(MARK).await;
    three_looks(&browser).await;
    browser.key("keyUp", " ").await;
    browser.until("Denied by the-analyst in the console").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marked_text_stays_marked_and_a_table_stays_where_it_was_moved_to() {
    let _turn = turn_of_the_heavy().await;
    let worker = worker().await;
    ask(&worker, "apr_1").await;
    let browser = analyst(&worker, "marked", "/approvals").await;
    browser.until("production-langgraph").await;
    browser.run("document.styleSheets[0].insertRule('table { min-width: 300rem }')").await;
    browser.run("document.querySelector('.table').scrollLeft = 120").await;
    browser.run(MARK).await;
    until_changed(&browser).await;
    assert_eq!(browser.run("return document.querySelector('.table').scrollLeft").await, json!(120));

    browser.run("getSelection().selectAllChildren(document.querySelector('#live td[data-is=Agent]'))").await;
    browser.run(MARK).await;
    three_looks(&browser).await;
    assert_eq!(browser.run("return getSelection().toString()").await, json!("production-langgraph"));
    browser.run("getSelection().removeAllRanges()").await;
    until_changed(&browser).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_whose_worker_is_gone_says_so_once_over_what_it_shows_and_takes_it_back() {
    const SHOWN: &str = "const bar = document.getElementById('overdue'); return bar.hidden ? '' : bar.innerText";
    const HEARD: &str = "return document.getElementById('news').textContent";
    let _turn = turn_of_the_heavy().await;
    let worker = worker().await;
    ask(&worker, "apr_1").await;
    let browser = analyst(&worker, "overdue", "/approvals").await;
    browser.until("production-langgraph").await;
    assert_eq!(browser.run(SHOWN).await, json!(""));
    let network =
        |offline: bool| json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
    browser.devtools("Network.enable", json!({})).await;
    browser.devtools("Network.emulateNetworkConditions", network(true)).await;
    browser.until("UTC: the worker does not answer. Trying again.").await;
    let shown = browser.run(SHOWN).await;
    assert!(shown.as_str().unwrap().starts_with("Not up to date since "), "{shown}");
    assert_eq!(browser.run(HEARD).await, shown);
    let faint = "return Number(getComputedStyle(document.getElementById('live')).opacity) < 1";
    assert_eq!(browser.run(faint).await, json!(true));
    // One word of others, of any length, makes no page wider than the window.
    browser.run("document.getElementById('main').append('W'.repeat(3000))").await;
    browser.picture("overdue").await;

    browser.devtools("Network.emulateNetworkConditions", network(false)).await;
    browser.until_gone("Not up to date").await;
    assert_eq!(browser.run(SHOWN).await, json!(""));
    assert_eq!(browser.run(faint).await, json!(false));
    assert_eq!(browser.run(HEARD).await, json!("Up to date again."));
}
