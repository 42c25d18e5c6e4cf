//! Slack: incoming webhooks, `chat.postMessage`, `chat.update`, and the `response_url` that answers a click.
//!
//! The same message is refused in two languages: webhooks answer a status and one word, the Web API answers 200 and
//! `"ok": false`.

use serde_json::{Value, json};

use super::{Ask, Judged, Platform, slack_blocks};
use crate::model::Reply;

/// The most attachments of a message.
const ATTACHMENTS_MAX: usize = 100;

/// Where the numbering of `ts` begins.
const TS_FIRST: u64 = 1_780_000_000;

pub(super) fn judge(ask: &Ask<'_>) -> Judged {
    let request = ask.request;
    if request.method != "POST" {
        return Judged::refused(super::text(405, "method_not_allowed"));
    }
    match request.segments().as_slice() {
        ["services", team, hook, token] => webhook(ask, team, hook, token),
        ["services", ..] => Judged::refused(super::text(404, "no_team")),
        ["actions", _, _, _] => response_url(ask),
        [.., method @ ("chat.postMessage" | "chat.update")] => web_api(ask, method == &"chat.update"),
        _ => Judged::refused(super::text(404, "not_found")),
    }
}

fn webhook(ask: &Ask<'_>, team: &str, hook: &str, token: &str) -> Judged {
    if !team.starts_with('T') {
        return Judged::refused(super::text(404, "no_team"));
    }
    if !hook.starts_with('B') || !ask.is_right(token) {
        return Judged::refused(super::text(404, "no_service"));
    }
    let Ok(message) = serde_json::from_slice::<Value>(&ask.request.body) else {
        return Judged::refused(super::text(400, "invalid_payload"));
    };
    if !message.is_object() {
        return Judged::refused(super::text(400, "invalid_payload"));
    }
    match check(&message) {
        Ok(()) => {
            ask.wall.post("", &ts(ask), None, &message);
            Judged::posted(super::text(200, "ok"), Platform::Slack, &message)
        }
        // Webhooks have one word for everything that is wrong with blocks.
        Err(Fault { error: "msg_blocks_too_long", .. }) => Judged::refused(super::text(400, "invalid_blocks")),
        Err(fault) => Judged::refused(super::text(400, fault.error)),
    }
}

fn web_api(ask: &Ask<'_>, update: bool) -> Judged {
    let failure = |error: &str| Judged::refused(super::json(200, &json!({"ok": false, "error": error})));
    let Some(token) = ask.request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")) else {
        return failure("not_authed");
    };
    if !token.starts_with("xoxb-") || !ask.is_right(token) {
        return failure("invalid_auth");
    }
    let Ok(message) = serde_json::from_slice::<Value>(&ask.request.body) else {
        return failure("invalid_json");
    };
    let Some(channel) = message.get("channel").and_then(Value::as_str).filter(|channel| !channel.is_empty()) else {
        return failure("channel_not_found");
    };
    if let Err(fault) = check(&message) {
        let mut body = json!({"ok": false, "error": fault.error});
        if !fault.details.is_empty() {
            body["response_metadata"] = json!({"messages": fault.details});
        }
        return Judged::refused(super::json(200, &body));
    }
    if update {
        let ts = message.get("ts").and_then(Value::as_str).unwrap_or_default();
        return match ask.wall.update(channel, ts, token, &message) {
            Ok(()) => Judged::aside(super::json(200, &json!({"ok": true, "channel": channel, "ts": ts}))),
            Err(word) => failure(word),
        };
    }
    let ts = ts(ask);
    ask.wall.post(channel, &ts, Some(token), &message);
    Judged::posted(super::json(200, &json!({"ok": true, "channel": channel, "ts": ts})), Platform::Slack, &message)
}

/// The name of the message that a request makes.
fn ts(ask: &Ask<'_>) -> String {
    format!("{}.{:06}", TS_FIRST + ask.number, 100)
}

/// What is posted to the `response_url` of a click: it changes a card or whispers, it is no card of its own.
fn response_url(ask: &Ask<'_>) -> Judged {
    let message = match serde_json::from_slice::<Value>(&ask.request.body) {
        Ok(message) if message.is_object() => message,
        Ok(_) | Err(_) => return Judged::refused(super::text(400, "invalid_payload")),
    };
    if message.get("delete_original") != Some(&Value::Bool(true))
        && let Err(fault) = check(&message)
    {
        return Judged::refused(super::text(400, fault.error));
    }
    match ask.wall.reply(&ask.request.path, &message) {
        Ok(()) => Judged::aside(super::text(200, "ok")),
        Err(word) => Judged::refused(super::json(404, &json!({"ok": false, "error": word}))),
    }
}

/// What is wrong with a message.
struct Fault {
    error: &'static str,
    details: Vec<String>,
}

fn check(message: &Value) -> Result<(), Fault> {
    let fault = |error| Err(Fault { error, details: Vec::new() });
    let text = message.get("text").and_then(Value::as_str).unwrap_or("");
    let blocks = message.get("blocks").filter(|blocks| !blocks.is_null());
    let attachments = message.get("attachments").and_then(Value::as_array);
    if attachments.is_some_and(|list| list.len() > ATTACHMENTS_MAX) {
        return fault("too_many_attachments");
    }
    if text.is_empty() && blocks.is_none() && attachments.is_none_or(Vec::is_empty) {
        return fault("no_text");
    }
    if let Some(blocks) = blocks {
        let details = slack_blocks::faults(blocks);
        if !details.is_empty() {
            return Err(Fault { error: "invalid_blocks", details });
        }
        if slack_blocks::characters(blocks) > slack_blocks::MESSAGE_CHARS_MAX {
            return fault("msg_blocks_too_long");
        }
    }
    Ok(())
}

/// The replies of Slack that say what `error` says, in the Web API's language.
pub(super) fn api_error(error: &str) -> Reply {
    super::json(200, &json!({"ok": false, "error": error}))
}
