//! A Sumo Logic HTTP source: lines of text or JSON, the URL is the credential.

use super::{Ask, Judged, ids};
use crate::model::Reply;

/// The largest body, inflated, in bytes.
const BODY_BYTES_MAX: usize = 1_000_000;

pub(super) fn judge(ask: &Ask<'_>) -> Judged {
    let request = ask.request;
    let segments = request.segments();
    let code = match segments.as_slice() {
        ["receiver", "v1", "http", code] => Some(*code),
        ["receiver", "v1", "http"] => request.header("x-sumo-token"),
        _ => return Judged::refused(super::text(404, "Not Found")),
    };
    if !code.is_some_and(|code| ask.is_right(code)) {
        return Judged::refused(super::text(401, "Unauthorized"));
    }
    if request.method != "POST" {
        return Judged::refused(super::text(405, "Method Not Allowed"));
    }
    let Some(body) = ask.inflated() else { return Judged::refused(super::text(400, "Bad Request")) };
    if body.len() > BODY_BYTES_MAX {
        return Judged::refused(super::text(413, "Payload Too Large"));
    }
    let Ok(lines) = std::str::from_utf8(&body) else { return Judged::refused(super::text(400, "Bad Request")) };
    let ids = lines.lines().filter_map(ids::in_text).collect();
    Judged::taken(Reply::new(200, ""), ids)
}
