//! Discord's incoming webhooks: limits are counted in characters, faults come as a tree that mirrors the message.

use serde_json::{Map, Value, json};

use super::{Ask, Judged, Platform, script::Allowance};
use crate::model::{Clock, Reply};

/// The most characters in all embeds of a message together. Source: Discord API reference, "Embed limits".
const EMBEDS_CHARS_MAX: usize = 6_000;

pub(super) fn judge(ask: &Ask<'_>) -> Judged {
    let mut judged = judge_message(ask);
    let allowance =
        ask.allowance.unwrap_or(Allowance { limit: 5, remaining: 4, reset_after: std::time::Duration::from_secs(2) });
    judged.reply = with_limits(judged.reply, allowance);
    judged
}

fn judge_message(ask: &Ask<'_>) -> Judged {
    let request = ask.request;
    // "Clients using an invalid user agent may be blocked."
    if request.header("user-agent").is_none_or(str::is_empty) {
        return Judged::refused(error(403, 40_333, "internal network error"));
    }
    let segments = request.segments();
    let path = match segments.as_slice() {
        ["api", version, rest @ ..] if version.starts_with('v') => rest,
        ["api", rest @ ..] => rest,
        _ => return Judged::refused(error(404, 0, "404: Not Found")),
    };
    let ["webhooks", id, token] = path else {
        return Judged::refused(error(404, 0, "404: Not Found"));
    };
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return Judged::refused(error(404, 10_015, "Unknown Webhook"));
    }
    if !ask.is_right(token) {
        return Judged::refused(error(401, 50_027, "Invalid Webhook Token"));
    }
    match request.method.as_str() {
        "GET" => {
            return Judged::aside(super::json(200, &json!({"id": id, "type": 1, "channel_id": "200000000000000001"})));
        }
        "POST" => {}
        _ => return Judged::refused(error(405, 0, "405: Method Not Allowed")),
    }
    let Ok(Value::Object(message)) = serde_json::from_slice::<Value>(&request.body) else {
        return Judged::refused(error(400, 50_109, "The request body contains invalid JSON."));
    };
    let mut faults = Faults(json!({}));
    check(&message, &mut faults);
    if faults.0.as_object().is_some_and(|tree| !tree.is_empty()) {
        let body = json!({"code": 50_035, "message": "Invalid Form Body", "errors": faults.0});
        return Judged::refused(super::json(400, &body));
    }
    let content = message.get("content").and_then(Value::as_str).unwrap_or("");
    let has = |key: &str| message.get(key).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if content.trim().is_empty() && !has("embeds") && !has("components") && !message.contains_key("poll") {
        return Judged::refused(error(400, 50_006, "Cannot send an empty message"));
    }
    let reply = if request.parameter("wait") == Some("true") {
        let number = 300_000_000_000_000_000 + ask.number;
        super::json(200, &json!({"id": number.to_string(), "channel_id": "200000000000000001", "content": content}))
    } else {
        Reply::new(204, "")
    };
    Judged::posted(reply, Platform::Discord, &Value::Object(message))
}

/// Faults as Discord returns them: at each field's place a list `_errors`.
struct Faults(Value);

impl Faults {
    fn note(&mut self, path: &[&str], code: &str, message: impl Into<String>) {
        let mut place = &mut self.0;
        for step in path {
            place = &mut place[*step];
        }
        let fault = json!({"code": code, "message": message.into()});
        match place.get_mut("_errors").and_then(Value::as_array_mut) {
            Some(list) => list.push(fault),
            None => place["_errors"] = json!([fault]),
        }
    }

    /// A string of at most `max` characters; returns how many it has.
    fn string(&mut self, value: Option<&Value>, required: bool, max: usize, path: &[&str]) -> usize {
        match value {
            None | Some(Value::Null) if required => {
                self.note(path, "BASE_TYPE_REQUIRED", "This field is required");
            }
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => {
                let count = text.trim().chars().count();
                if count == 0 && required {
                    self.note(path, "BASE_TYPE_REQUIRED", "This field is required");
                } else if count > max {
                    self.note(path, "BASE_TYPE_MAX_LENGTH", format!("Must be {max} or fewer in length."));
                }
                return count;
            }
            Some(_) => self.note(path, "STRING_TYPE_CONVERT", "Could not interpret as string."),
        }
        0
    }

    fn url(&mut self, value: Option<&Value>, path: &[&str]) {
        self.string(value, false, 2_048, path);
        if let Some(text) = value.and_then(Value::as_str)
            && url::Url::parse(text).is_err()
        {
            self.note(path, "URL_TYPE_INVALID_URL", "Not a well formed URL.");
        }
    }
}

fn check(message: &Map<String, Value>, faults: &mut Faults) {
    faults.string(message.get("content"), false, 2_000, &["content"]);
    faults.url(message.get("avatar_url"), &["avatar_url"]);
    faults.string(message.get("username"), false, 80, &["username"]);
    if let Some(name) = message.get("username").and_then(Value::as_str) {
        let name = name.to_lowercase();
        if name.trim().is_empty() {
            faults.note(&["username"], "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 80 in length.");
        }
        for word in ["clyde", "discord"] {
            if name.contains(word) {
                faults.note(&["username"], "USERNAME_INVALID_CONTAINS", format!("Username cannot contain \"{word}\""));
            }
        }
    }
    if let Some(mentions) = message.get("allowed_mentions") {
        for (parsed, list) in [("users", "users"), ("roles", "roles")] {
            let listed = mentions.get(list).and_then(Value::as_array).is_some_and(|ids| !ids.is_empty());
            let all = mentions
                .get("parse")
                .and_then(Value::as_array)
                .is_some_and(|kinds| kinds.iter().any(|kind| kind == parsed));
            if listed && all {
                let text = format!("parse:[\"{parsed}\"] and {list}: [ids...] are mutually exclusive.");
                faults.note(&["allowed_mentions"], "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE", text);
            }
        }
    }
    let Some(embeds) = message.get("embeds").filter(|embeds| !embeds.is_null()) else { return };
    let Some(embeds) = embeds.as_array() else {
        return faults.note(&["embeds"], "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType");
    };
    if embeds.len() > 10 {
        faults.note(&["embeds"], "BASE_TYPE_BAD_LENGTH", "Must be 10 or fewer in length.");
    }
    let sum: usize =
        embeds.iter().enumerate().map(|(index, embed)| check_embed(embed, &index.to_string(), faults)).sum();
    if sum > EMBEDS_CHARS_MAX {
        faults.note(&["embeds"], "MAX_EMBED_SIZE_EXCEEDED", "Embed size exceeds maximum size of 6000");
    }
}

/// Notes what is wrong with an embed and returns how many characters count against the sum.
fn check_embed(embed: &Value, index: &str, faults: &mut Faults) -> usize {
    let mut sum = 0;
    for (key, max) in [("title", 256), ("description", 4_096)] {
        sum += faults.string(embed.get(key), false, max, &["embeds", index, key]);
    }
    faults.url(embed.get("url"), &["embeds", index, "url"]);
    sum += faults.string(embed.pointer("/footer/text"), false, 2_048, &["embeds", index, "footer", "text"]);
    sum += faults.string(embed.pointer("/author/name"), false, 256, &["embeds", index, "author", "name"]);
    if let Some(color) = embed.get("color")
        && color.as_u64().is_none_or(|color| color > 0xFF_FF_FF)
    {
        faults.note(
            &["embeds", index, "color"],
            "NUMBER_TYPE_MAX",
            "int value should be less than or equal to 16777215.",
        );
    }
    if let Some(time) = embed.get("timestamp")
        && time.as_str().is_none_or(|time| time.parse::<crate::model::Timestamp>().is_err())
    {
        faults.note(&["embeds", index, "timestamp"], "DATE_TIME_TYPE_PARSE", "Could not parse. Should be ISO8601.");
    }
    let fields = embed.get("fields").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if fields.len() > 25 {
        faults.note(&["embeds", index, "fields"], "BASE_TYPE_BAD_LENGTH", "Must be 25 or fewer in length.");
    }
    for (number, field) in fields.iter().enumerate() {
        let number = number.to_string();
        for (key, max) in [("name", 256), ("value", 1_024)] {
            sum += faults.string(field.get(key), true, max, &["embeds", index, "fields", &number, key]);
        }
    }
    sum
}

/// An error in Discord's shape.
pub(super) fn error(status: u16, code: u32, message: &str) -> Reply {
    super::json(status, &json!({"message": message, "code": code}))
}

/// "Too many": the body knows fractions of a second, the `Retry-After` header (set by the caller) does not.
pub(super) fn too_many(seconds: f64) -> Reply {
    let body = json!({"message": "You are being rate limited.", "retry_after": seconds, "global": false});
    super::json(429, &body)
        .with_header("x-ratelimit-limit", "5")
        .with_header("x-ratelimit-remaining", "0")
        .with_header("x-ratelimit-reset-after", &format!("{seconds:.3}"))
        .with_header("x-ratelimit-bucket", "standin")
        .with_header("x-ratelimit-scope", "user")
}

fn with_limits(reply: Reply, allowance: Allowance) -> Reply {
    let now = Clock::System.now();
    let reset = now.plus(allowance.reset_after).unix_millis();
    reply
        .with_header("x-ratelimit-limit", &allowance.limit.to_string())
        .with_header("x-ratelimit-remaining", &allowance.remaining.to_string())
        .with_header("x-ratelimit-reset", &format!("{}.{:03}", reset / 1_000, reset % 1_000))
        .with_header("x-ratelimit-reset-after", &format!("{:.3}", allowance.reset_after.as_secs_f64()))
        .with_header("x-ratelimit-bucket", "standin")
}
