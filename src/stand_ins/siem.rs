//! Any SIEM with a webhook: CEF or JSON, one event, lines of them or an array, on any path.
//!
//! Where its credential is a `whsec_...`, it checks Standard Webhooks signatures; any other credential is what the
//! `Authorization` header must hold.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Ask, Judged, ids};
use crate::model::{Clock, Reply};

/// How far a signature's timestamp may be off, in seconds. Source: Standard Webhooks 1.0.0, reference libraries.
const TOLERANCE_SECONDS: u64 = 300;

pub(super) fn judge(ask: &Ask<'_>) -> Judged {
    if ask.request.method != "POST" {
        return Judged::refused(error(405, "method not allowed"));
    }
    let admitted = match ask.credential {
        None => Ok(()),
        Some(secret) if secret.starts_with("whsec_") => signature(ask, secret),
        Some(right) if ask.request.header("authorization") == Some(right) => Ok(()),
        Some(_) => Err("wrong credentials"),
    };
    if let Err(why) = admitted {
        return Judged::refused(error(401, why));
    }
    let Some(body) = ask.inflated() else { return Judged::refused(error(415, "unsupported content encoding")) };
    let Ok(body) = std::str::from_utf8(&body) else { return Judged::refused(error(400, "not UTF-8")) };
    let json_expected = ask.request.header("content-type").is_some_and(|kind| kind.contains("json"));
    // Operators may send JSON under a type of their own; CEF never begins like it.
    let json_expected = json_expected || body.trim_start().starts_with(['{', '[']);
    let records = if json_expected { json_records(body) } else { cef_records(body) };
    match records {
        Ok(ids) => Judged::taken(super::json(200, &json!({"status": "ok"})), ids),
        Err(why) => Judged::refused(error(400, &why)),
    }
}

fn json_records(body: &str) -> Result<Vec<String>, String> {
    if let Ok(Value::Array(records)) = serde_json::from_str(body) {
        return Ok(records.iter().filter_map(ids::in_record).collect());
    }
    let mut ids = Vec::new();
    let mut count = 0_u32;
    for record in serde_json::Deserializer::from_str(body).into_iter::<Value>() {
        let record = record.map_err(|error| format!("record {count}: {error}"))?;
        if !record.is_object() {
            return Err(format!("record {count} is no object"));
        }
        ids.extend(ids::in_record(&record));
        count += 1;
    }
    if count == 0 { Err("no record".to_owned()) } else { Ok(ids) }
}

fn cef_records(body: &str) -> Result<Vec<String>, String> {
    let mut ids = Vec::new();
    let mut count = 0_u32;
    for line in body.lines().filter(|line| !line.is_empty()) {
        check_cef(line).map_err(|why| format!("line {count}: {why}"))?;
        ids.extend(ids::in_text(line));
        count += 1;
    }
    if count == 0 { Err("no event".to_owned()) } else { Ok(ids) }
}

/// Whether a line is CEF: seven header fields, a severity from 0 to 10, an extension of `key=value`.
fn check_cef(line: &str) -> Result<(), &'static str> {
    let header = line.strip_prefix("CEF:").ok_or("does not begin with `CEF:`")?;
    let mut fields = vec![String::new()];
    let mut characters = header.chars();
    let mut extension = "";
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | '|')) => fields.last_mut().map_or((), |field| field.push(escaped)),
                Some(_) | None => return Err("a backslash in the header escapes nothing"),
            },
            '|' if fields.len() == 7 => {
                extension = characters.as_str();
                break;
            }
            '|' => fields.push(String::new()),
            other => fields.last_mut().map_or((), |field| field.push(other)),
        }
    }
    let [version, vendor, product, _, class, name, severity] = fields.as_slice() else {
        return Err("the header has fewer than seven fields");
    };
    if version != "0" || vendor.is_empty() || product.is_empty() || class.is_empty() || name.is_empty() {
        return Err("a field of the header is empty or the version is not 0");
    }
    if !severity.parse::<u8>().is_ok_and(|severity| severity <= 10) {
        return Err("the severity is not from 0 to 10");
    }
    let key = extension.split('=').next().unwrap_or("");
    if extension.contains(|c: char| c.is_control())
        || key.is_empty()
        || !key.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        return Err("the extension is not a list of key=value");
    }
    Ok(())
}

/// Checks the headers of Standard Webhooks 1.0.0.
fn signature(ask: &Ask<'_>, secret: &str) -> Result<(), &'static str> {
    let header = |name: &str| ask.request.header(name).ok_or("a webhook header is missing");
    let (id, timestamp, signatures) =
        (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
    let sent: i64 = timestamp.parse().map_err(|_| "webhook-timestamp is not a whole number")?;
    if Clock::System.now().unix_seconds().abs_diff(sent) > TOLERANCE_SECONDS {
        return Err("webhook-timestamp is too far off");
    }
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).map_err(|_| "the secret is not base64")?;
    let verified =
        signatures.split(' ').filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok()).any(|given| {
            let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return false };
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(&ask.request.body);
            mac.verify_slice(&given).is_ok()
        });
    if verified { Ok(()) } else { Err("no signature is right") }
}

fn error(status: u16, why: &str) -> Reply {
    super::json(status, &json!({"error": why}))
}
