//! Every reply that the platforms are known to give, for tests that meet a worker with all of them.
//!
//! Source: `reference/platforms.md`; the class is the one of its tables.

use serde_json::json;

use super::{Platform, discord, slack, splunk, teams, telegram};
use crate::model::Reply;

/// What a reply calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The message is in.
    Success,
    /// Time may mend it.
    Transient,
    /// This message can never be accepted.
    Permanent,
    /// The destination is broken until somebody acts.
    Operator,
}

/// One reply of a platform.
#[derive(Clone, Debug)]
pub struct Entry {
    /// A name, different for each of a platform's entries.
    pub name: &'static str,
    /// What it calls for.
    pub class: Class,
    /// The reply.
    pub reply: Reply,
    /// Whether the platform has posted the message when it says this.
    pub taken: bool,
}

/// Every reply of the platform. Sending is the caller's business: `Step::Reply { reply, taken }`.
pub fn every_reply(platform: Platform) -> Vec<Entry> {
    let mut entries = match platform {
        Platform::Slack => slack_replies(),
        Platform::Discord => discord_replies(),
        Platform::Teams => teams_replies(),
        Platform::Telegram => telegram_replies(),
        Platform::Splunk => splunk_replies(),
        Platform::Datadog => datadog_replies(),
        Platform::Sumo => sumo_replies(),
        Platform::Siem => siem_replies(),
    };
    // What stands before every platform: proxies and load balancers.
    for (name, status) in [
        ("408 timeout", 408),
        ("500 bare", 500),
        ("502 gateway", 502),
        ("503 unavailable", 503),
        ("504 gateway timeout", 504),
    ] {
        entries.push(entry(name, Class::Transient, gateway(status)));
    }
    entries.push(entry("429 too many", Class::Transient, platform.too_many(1.0)));
    entries.push(entry("302 elsewhere", Class::Operator, gateway(302).with_header("location", "http://127.0.0.1:9/")));
    entries
}

/// A page as proxies show it.
fn gateway(status: u16) -> Reply {
    Reply::new(status, format!("<html><body><h1>{status}</h1></body></html>")).with_header("content-type", "text/html")
}

fn entry(name: &'static str, class: Class, reply: Reply) -> Entry {
    Entry { name, class, reply, taken: class == Class::Success }
}

fn taken(name: &'static str, class: Class, reply: Reply) -> Entry {
    Entry { name, class, reply, taken: true }
}

/// Replies of the form status and one word. The Web API's errors are in the same list: they are told apart by their 200.
fn slack_replies() -> Vec<Entry> {
    let mut entries = vec![entry("ok", Class::Success, super::text(200, "ok"))];
    for (status, word, class) in [
        (400, "invalid_payload", Class::Permanent),
        (400, "invalid_blocks", Class::Permanent),
        (400, "invalid_attachments", Class::Permanent),
        (400, "no_text", Class::Permanent),
        (400, "missing_text_or_fallback_or_attachments", Class::Permanent),
        (400, "too_many_attachments", Class::Permanent),
        (400, "user_not_found", Class::Operator),
        (403, "action_prohibited", Class::Operator),
        (403, "invalid_token", Class::Operator),
        (403, "posting_to_general_channel_denied", Class::Operator),
        (404, "channel_not_found", Class::Operator),
        (404, "no_service", Class::Operator),
        (404, "no_service_id", Class::Operator),
        (404, "no_active_hooks", Class::Operator),
        (404, "no_team", Class::Operator),
        (404, "team_disabled", Class::Operator),
        (410, "channel_is_archived", Class::Operator),
        (500, "rollup_error", Class::Transient),
    ] {
        entries.push(entry(word, class, super::text(status, word)));
    }
    for (name, word, class) in [
        ("api msg_too_long", "msg_too_long", Class::Permanent),
        ("api msg_blocks_too_long", "msg_blocks_too_long", Class::Permanent),
        ("api invalid_blocks", "invalid_blocks", Class::Permanent),
        ("api no_text", "no_text", Class::Permanent),
        ("api too_many_attachments", "too_many_attachments", Class::Permanent),
        ("api not_in_channel", "not_in_channel", Class::Operator),
        ("api channel_not_found", "channel_not_found", Class::Operator),
        ("api is_archived", "is_archived", Class::Operator),
        ("api restricted_action", "restricted_action", Class::Operator),
        ("api token_revoked", "token_revoked", Class::Operator),
        ("api account_inactive", "account_inactive", Class::Operator),
        ("api invalid_auth", "invalid_auth", Class::Operator),
        ("api missing_scope", "missing_scope", Class::Operator),
        ("api ekm_access_denied", "ekm_access_denied", Class::Operator),
        ("api service_unavailable", "service_unavailable", Class::Transient),
        ("api internal_error", "internal_error", Class::Transient),
    ] {
        entries.push(entry(name, class, slack::api_error(word)));
    }
    // "Some aspect of the operation may have succeeded."
    entries.push(taken("api fatal_error", Class::Transient, slack::api_error("fatal_error")));
    entries
}

fn discord_replies() -> Vec<Entry> {
    let mut entries = vec![
        entry("200 message", Class::Success, super::json(200, &json!({"id": "300", "channel_id": "200"}))),
        entry("204 unconfirmed", Class::Success, Reply::new(204, "")),
        entry("403 cloudflare page", Class::Operator, gateway(403)),
    ];
    for (name, status, code, message, class) in [
        ("10015 unknown webhook", 404, 10_015, "Unknown Webhook", Class::Operator),
        ("10003 unknown channel", 404, 10_003, "Unknown Channel", Class::Operator),
        ("50027 invalid token", 401, 50_027, "Invalid Webhook Token", Class::Operator),
        ("50013 no permission", 403, 50_013, "Missing Permissions", Class::Operator),
        ("50006 empty", 400, 50_006, "Cannot send an empty message", Class::Permanent),
        ("50109 invalid json", 400, 50_109, "The request body contains invalid JSON.", Class::Permanent),
        ("40005 too large", 413, 40_005, "Request entity too large", Class::Permanent),
        (
            "220001 forum",
            400,
            220_001,
            "Webhooks posted to forum channels must have a thread_name or thread_id",
            Class::Operator,
        ),
        (
            "40067 tag required",
            400,
            40_067,
            "A tag is required to create a forum post in this channel",
            Class::Operator,
        ),
        ("40333 blocked", 403, 40_333, "internal network error", Class::Operator),
        (
            "20028 channel write rate",
            429,
            20_028,
            "The channel you are writing has hit the write rate limit.",
            Class::Transient,
        ),
        ("40062 service resource", 429, 40_062, "Service resource is being rate limited.", Class::Transient),
        ("40004 sending disabled", 403, 40_004, "Send messages has been temporarily disabled", Class::Transient),
    ] {
        entries.push(entry(name, class, discord::error(status, code, message)));
    }
    let form = json!({"code": 50_035, "message": "Invalid Form Body",
        "errors": {"embeds": {"0": {"description": {"_errors": [{"code": "BASE_TYPE_MAX_LENGTH",
        "message": "Must be 4096 or fewer in length."}]}}}}});
    entries.push(entry("50035 invalid form", Class::Permanent, super::json(400, &form)));
    entries
}

fn teams_replies() -> Vec<Entry> {
    let mut entries = vec![
        entry("202 accepted", Class::Success, Reply::new(202, "")),
        entry("200 of a response action", Class::Success, Reply::new(200, "")),
    ];
    for (name, status, code, class) in [
        ("400 invalid content", 400, "InvalidRequestContent", Class::Permanent),
        ("413 too large", 413, "RequestEntityTooLarge", Class::Permanent),
        ("401 signature missing", 401, "DirectApiAuthorizationRequired", Class::Operator),
        ("403 forbidden", 403, "AuthorizationFailed", Class::Operator),
        ("404 no workflow", 404, "WorkflowNotFound", Class::Operator),
        ("500 internal", 500, "InternalServerError", Class::Transient),
    ] {
        entries.push(entry(name, class, teams::error(status, code, "See the code.")));
    }
    entries
}

fn telegram_replies() -> Vec<Entry> {
    let success = json!({"ok": true, "result": {"message_id": 42, "date": 1_780_000_000, "chat": {"id": -100, "type": "supergroup"}}});
    let mut entries = vec![entry("200 message", Class::Success, super::json(200, &success))];
    for (description, status, class) in [
        ("Bad Request: chat not found", 400, Class::Operator),
        ("Bad Request: chat_id is empty", 400, Class::Operator),
        ("Bad Request: message thread not found", 400, Class::Operator),
        ("Bad Request: not enough rights to send text messages to the chat", 400, Class::Operator),
        ("Bad Request: have no write access to the chat", 400, Class::Operator),
        ("Bad Request: TOPIC_CLOSED", 400, Class::Operator),
        ("Bad Request: can't parse entities: Unsupported start tag \"x\" at byte offset 12", 400, Class::Permanent),
        ("Bad Request: message is too long", 400, Class::Permanent),
        ("Bad Request: text is too long", 400, Class::Permanent),
        ("Bad Request: message text is empty", 400, Class::Permanent),
        ("Bad Request: Unsupported parse_mode", 400, Class::Permanent),
        ("Unauthorized", 401, Class::Operator),
        ("Unauthorized: invalid token specified", 401, Class::Operator),
        ("Forbidden: bot was kicked from the supergroup chat", 403, Class::Operator),
        ("Forbidden: bot is not a member of the channel chat", 403, Class::Operator),
        ("Forbidden: the group chat was deleted", 403, Class::Operator),
        ("Forbidden: bot was blocked by the user", 403, Class::Operator),
        ("Forbidden: user is deactivated", 403, Class::Operator),
        ("Not Found", 404, Class::Operator),
        ("Misdirected Request", 421, Class::Transient),
        ("Internal Server Error: restart", 500, Class::Transient),
    ] {
        entries.push(entry(description, class, telegram::error(status, description)));
    }
    // The new id comes with it, so the message may go there at once.
    let moved = json!({"ok": false, "error_code": 400, "description": "Bad Request: group chat was upgraded to a supergroup chat",
        "parameters": {"migrate_to_chat_id": -1_001_234_567_890_i64}});
    entries.push(entry("400 migrated", Class::Transient, super::json(400, &moved)));
    entries
}

fn splunk_replies() -> Vec<Entry> {
    let mut entries: Vec<Entry> = [
        ("0 success", 200, 0, "Success", Class::Success),
        ("24 approaching capacity", 200, 24, "Queue approaching capacity", Class::Success),
        ("25 ack channel approaching capacity", 200, 25, "ACK Channel approaching capacity", Class::Success),
        ("1 token disabled", 403, 1, "Token disabled", Class::Operator),
        ("2 token required", 401, 2, "Token is required", Class::Operator),
        ("3 invalid authorization", 401, 3, "Invalid authorization", Class::Operator),
        ("4 invalid token", 403, 4, "Invalid token", Class::Operator),
        ("5 no data", 400, 5, "No data", Class::Permanent),
        ("6 invalid data format", 400, 6, "Invalid data format", Class::Permanent),
        ("7 incorrect index", 400, 7, "Incorrect index", Class::Operator),
        ("8 internal error", 500, 8, "Internal server error", Class::Transient),
        ("9 busy", 503, 9, "Server is busy", Class::Transient),
        ("10 channel missing", 400, 10, "Data channel is missing", Class::Operator),
        ("11 channel invalid", 400, 11, "Invalid data channel", Class::Operator),
        ("12 event required", 400, 12, "Event field is required", Class::Permanent),
        ("13 event blank", 400, 13, "Event field cannot be blank", Class::Permanent),
        ("14 ack disabled", 400, 14, "ACK is disabled", Class::Operator),
        ("15 indexed fields", 400, 15, "Error in handling indexed fields", Class::Permanent),
        ("16 query authorization", 400, 16, "Query string authorization is not enabled", Class::Operator),
        ("23 shutting down", 503, 23, "Server is shutting down", Class::Transient),
        ("26 at capacity", 429, 26, "Queue at capacity", Class::Transient),
        ("27 ack channel at capacity", 429, 27, "ACK Channel at capacity", Class::Transient),
    ]
    .into_iter()
    .map(|(name, status, code, text, class)| entry(name, class, splunk::reply(status, code, text)))
    .collect();
    let missing = json!({"text": "The requested URL was not found on this server.", "code": 404});
    entries.push(entry("404 wrong path", Class::Operator, super::json(404, &missing)));
    entries.push(entry("413 too large", Class::Permanent, super::text(413, "Content-Length is too large")));
    entries.push(entry("415 encoding", Class::Operator, super::text(415, "Unsupported Media Type")));
    entries
}

fn datadog_replies() -> Vec<Entry> {
    let mut entries = vec![entry("202 accepted", Class::Success, super::json(202, &json!({})))];
    for (name, status, title, class) in [
        ("400 bad request", 400, "Bad Request", Class::Permanent),
        ("401 no key", 401, "Unauthorized", Class::Operator),
        ("403 wrong key", 403, "Forbidden", Class::Operator),
        ("413 too large", 413, "Payload Too Large", Class::Permanent),
    ] {
        entries.push(entry(name, class, super::datadog::error(status, title)));
    }
    entries
}

fn sumo_replies() -> Vec<Entry> {
    vec![
        entry("200 ok", Class::Success, Reply::new(200, "")),
        entry("401 wrong code", Class::Operator, super::text(401, "Unauthorized")),
        // Accepted, but the server ran out of time: part or all of it may be in.
        taken("408 accepted and timed out", Class::Transient, super::text(408, "Request Timeout")),
    ]
}

fn siem_replies() -> Vec<Entry> {
    vec![
        entry("200 ok", Class::Success, super::json(200, &json!({"status": "ok"}))),
        entry("201 created", Class::Success, Reply::new(201, "")),
        entry("204 nothing to say", Class::Success, Reply::new(204, "")),
        entry("400 bad request", Class::Permanent, super::json(400, &json!({"error": "bad request"}))),
        entry("413 too large", Class::Permanent, Reply::new(413, "")),
        entry("422 unprocessable", Class::Permanent, super::json(422, &json!({"error": "no such field"}))),
        entry("401 unauthorized", Class::Operator, Reply::new(401, "")),
        entry("403 forbidden", Class::Operator, Reply::new(403, "")),
        entry("404 not found", Class::Operator, Reply::new(404, "")),
        entry("410 gone", Class::Operator, Reply::new(410, "")),
        entry("425 too early", Class::Transient, Reply::new(425, "")),
        taken("500 after taking it", Class::Transient, Reply::new(500, "")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_has_replies_of_every_class_under_different_names() {
        for platform in Platform::ALL {
            let entries = every_reply(platform);
            for class in [Class::Success, Class::Transient, Class::Operator] {
                assert!(entries.iter().any(|entry| entry.class == class), "{platform:?} {class:?}");
            }
            for (index, entry) in entries.iter().enumerate() {
                assert!(entries[..index].iter().all(|other| other.name != entry.name), "{platform:?} {}", entry.name);
                assert!(entry.taken || entry.class != Class::Success, "{platform:?} {}", entry.name);
            }
        }
    }
}
