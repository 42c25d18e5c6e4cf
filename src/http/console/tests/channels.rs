//! What the pages of the channels say: where nothing is wanted, and what is wrong with a form.

use super::*;

#[tokio::test]
async fn a_channel_that_wants_nothing_is_shown_with_a_warning() {
    let house = House::open().await;
    let says = "</span> none: no decision ever matches</span>";
    for (events, warned) in [(json!([]), true), (json!(["DENY"]), false)] {
        house.show("soc", json!({"id": "soc", "kind": "slack", "source": "file", "events": events}));
        for path in ["/channels", "/channels/soc"] {
            let page = look(&house, "auditor", path).await;
            assert_eq!(page.contains(says), warned, "{path}: {page}");
        }
    }
}

#[tokio::test]
async fn a_form_with_a_fault_says_what_was_not_done() {
    let house = House::open().await;
    let admin = signed_in(&house, "admin").await;
    for (action, says) in
        [("test", "Nothing was sent: there is 1 problem"), ("save", "Nothing was saved: there is 1 problem")]
    {
        let body = format!("id=Not+An+Id&events=DENY&chat_id=1&action={action}");
        let page = send(&house, "POST /add-channel/telegram", &format!("{admin}{OURS}"), &body).await;
        assert!(page.status == 422 && page.body.contains(says), "{}", page.body);
    }
}

#[tokio::test]
async fn who_may_not_do_something_is_told_so_in_a_sentence_and_not_in_the_marks_of_a_terminal() {
    let house = House::open().await;
    let auditor = signed_in(&house, "auditor").await;
    let page = send(&house, "POST /channels/soc/pause", &format!("{auditor}{OURS}"), "").await;
    assert!(page.status == 403 && page.body.contains("has the role “auditor”"), "{}", page.body);
    assert!(!page.body.contains('`'), "{}", page.body);
}
