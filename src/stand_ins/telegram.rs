//! Telegram's `sendMessage`: lengths count after the entities are parsed, and one bad `<` refuses the whole message.

use serde_json::{Value, json};

use super::{Ask, Judged, Platform, entities};
use crate::model::{Clock, Reply};

/// The most characters of a message, after entity parsing. Source: tdlib, `message_text_length_max`.
const TEXT_CHARS_MAX: usize = 4_096;

/// The most bytes of the text as it is sent. Source: tdlib, `clean_input_string`.
const TEXT_BYTES_MAX: usize = 32_768;

pub(super) fn judge(ask: &Ask<'_>) -> Judged {
    let segments = ask.request.segments();
    let [bot, method] = segments.as_slice() else { return Judged::refused(error(404, "Not Found")) };
    let Some((id, secret)) = bot.strip_prefix("bot").and_then(|token| token.split_once(':')) else {
        return Judged::refused(error(404, "Not Found"));
    };
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) || secret.is_empty() {
        return Judged::refused(error(401, "Unauthorized: invalid token specified"));
    }
    if !ask.is_right(&format!("{id}:{secret}")) {
        return Judged::refused(error(401, "Unauthorized"));
    }
    match *method {
        "getMe" => Judged::aside(super::json(200, &json!({"ok": true, "result": {"id": 1, "is_bot": true}}))),
        "sendMessage" => send(ask),
        _ => Judged::refused(error(404, "Not Found")),
    }
}

fn send(ask: &Ask<'_>) -> Judged {
    let Ok(message) = serde_json::from_slice::<Value>(&ask.request.body) else {
        return bad("can't parse JSON object");
    };
    let chat = match message.get("chat_id") {
        Some(Value::Number(id)) if id.is_i64() => id.clone().into(),
        Some(Value::String(name)) if !name.is_empty() => match name.parse::<i64>() {
            Ok(id) => json!(id),
            Err(_) if name.starts_with('@') => json!(name),
            Err(_) => return bad("chat not found"),
        },
        Some(_) => return bad("chat not found"),
        None => return bad("chat_id is empty"),
    };
    let text = message.get("text").and_then(Value::as_str).unwrap_or("");
    if text.len() > TEXT_BYTES_MAX {
        return bad("text is too long");
    }
    let mode = message.get("parse_mode").and_then(Value::as_str).unwrap_or("").to_ascii_lowercase();
    let shown = match mode.as_str() {
        "" => text.to_owned(),
        "html" => match entities::parse_html(text) {
            Ok(shown) => shown,
            Err(why) => return bad(&format!("can't parse entities: {why}")),
        },
        // Nobody of ours writes Markdown, and letting it pass unparsed would hide that somebody began to.
        _ => return bad("Unsupported parse_mode"),
    };
    let shown = shown.trim();
    if shown.is_empty() {
        return bad("message text is empty");
    }
    if shown.chars().count() > TEXT_CHARS_MAX {
        return bad("message is too long");
    }
    if let Some(markup) = message.get("reply_markup")
        && let Err(why) = check_keyboard(markup)
    {
        return bad(&why);
    }
    let result = json!({"message_id": ask.number + 1, "date": Clock::System.now().unix_seconds(), "text": shown,
        "chat": {"id": chat, "type": "supergroup"}});
    Judged::posted(super::json(200, &json!({"ok": true, "result": result})), Platform::Telegram, &message)
}

fn check_keyboard(markup: &Value) -> Result<(), String> {
    let wrong = "can't parse inline keyboard button";
    let rows = markup.get("inline_keyboard").and_then(Value::as_array).ok_or("object expected as reply markup")?;
    for row in rows {
        for button in row.as_array().ok_or("field \"inline_keyboard\" must be an Array of Arrays")? {
            let text = button.get("text").and_then(Value::as_str).unwrap_or("");
            if text.is_empty() {
                return Err(format!("{wrong}: Field \"text\" must be of type String"));
            }
            let url = button.get("url").and_then(Value::as_str);
            let data = button.get("callback_data").and_then(Value::as_str);
            match (url, data) {
                (Some(url), None) if url::Url::parse(url).is_ok() => {}
                (Some(url), None) => {
                    return Err(format!("inline keyboard button URL '{url}' is invalid: Wrong HTTP URL"));
                }
                (None, Some(data)) if (1..=64).contains(&data.len()) => {}
                (None, Some(_)) => return Err("BUTTON_DATA_INVALID".to_owned()),
                (Some(_), Some(_)) | (None, None) => {
                    return Err(format!("{wrong}: Text buttons are unallowed in the inline keyboard"));
                }
            }
        }
    }
    Ok(())
}

fn bad(why: &str) -> Judged {
    Judged::refused(error(400, &format!("Bad Request: {why}")))
}

/// An error in the Bot API's shape.
pub(super) fn error(status: u16, description: &str) -> Reply {
    super::json(status, &json!({"ok": false, "error_code": status, "description": description}))
}

/// "Too many": whole seconds, in words and in `parameters`.
pub(super) fn too_many(seconds: &str) -> Reply {
    let parameters = json!({"retry_after": seconds.parse::<u64>().unwrap_or(1)});
    let description = format!("Too Many Requests: retry after {seconds}");
    super::json(429, &json!({"ok": false, "error_code": 429, "description": description, "parameters": parameters}))
}
