//! Messages in Slack that are changed, replaced and clicked on.

use serde_json::{Value, json};

use super::{
    super::{Platform, StandIn, client::post},
    start,
};

const BUTTON: &str = "v1.a.b";

fn card() -> Value {
    json!({"channel": "C1", "text": "t", "blocks": [{"type": "actions", "block_id": "b", "elements": [
        {"type": "button", "action_id": "approve", "text": {"type": "plain_text", "text": "Approve"}, "value": BUTTON}]}]})
}

async fn call(stand_in: &StandIn, method: &str, token: &str, body: &Value) -> Value {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let answer = post(stand_in, &format!("/api/{method}"), &headers, body.to_string().as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn a_bots_message_is_changed_by_the_same_bot_in_the_same_place_and_by_nobody_else() {
    let slack = start(Platform::Slack).await;
    let posted = call(&slack, "chat.postMessage", "xoxb-1", &card()).await;
    let update = |channel: &str, ts: &Value| json!({"channel": channel, "ts": ts, "text": "done", "blocks": []});
    let cases = [
        ("xoxb-1", update("C2", &posted["ts"]), "message_not_found"),
        ("xoxb-1", update("C1", &"1.2".into()), "message_not_found"),
        ("xoxb-1", json!({"channel": "C1", "text": "x"}), "message_not_found"),
        ("xoxb-2", update("C1", &posted["ts"]), "cant_update_message"),
    ];
    for (token, body, error) in cases {
        assert_eq!(call(&slack, "chat.update", token, &body).await["error"], error);
    }
    assert_eq!(slack.wall().messages()[0].buttons(), [("approve".to_owned(), BUTTON.to_owned())]);
    assert_eq!(call(&slack, "chat.update", "xoxb-1", &update("C1", &posted["ts"])).await["ok"], true);
    let message = &slack.wall().messages()[0];
    assert_eq!((message.versions.len(), message.buttons().len(), &message.now()["text"]), (2, 0, &json!("done")));
}

#[tokio::test]
async fn the_url_of_a_click_replaces_the_message_or_whispers_five_times_in_all() {
    let slack = start(Platform::Slack).await;
    let mut webhooks = card();
    webhooks.as_object_mut().unwrap().remove("channel");
    post(&slack, Platform::Slack.path(), &[], webhooks.to_string().as_bytes()).await.unwrap();
    let path = slack.wall().click(&slack.wall().messages()[0].ts);
    let reply = async |path: &str, body: Value| {
        let answer = post(&slack, path, &[], body.to_string().as_bytes()).await.unwrap();
        (answer.status, answer.body)
    };
    let whisper = json!({"response_type": "ephemeral", "replace_original": false, "text": "no"});
    let ok = (200, String::from("ok"));
    assert_eq!(reply(&path, whisper.clone()).await, ok);
    assert_eq!(slack.wall().messages()[0].versions.len(), 1);
    assert_eq!(reply(&path, json!({"replace_original": true, "text": "done", "blocks": []})).await, ok);
    assert_eq!(slack.wall().messages()[0].now()["text"], "done");
    // What cannot be shown is refused, and uses up nothing.
    assert_eq!(reply(&path, json!({"replace_original": true, "text": ""})).await.0, 400);
    for _ in 0..3 {
        assert_eq!(reply(&path, whisper.clone()).await, ok);
    }
    let (status, body) = reply(&path, whisper.clone()).await;
    assert!(status == 404 && body.contains("used_url"), "{body}");
    let (status, body) = reply("/actions/T0STANDIN/999/x", whisper).await;
    assert!(status == 404 && body.contains("expired_url"), "{body}");
    assert_eq!(slack.wall().whispers(), vec![(path, String::from("no")); 4]);
}
