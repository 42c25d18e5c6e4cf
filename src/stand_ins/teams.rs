//! A Teams Workflow: it answers 202 to nearly everything, and what it cannot post disappears inside the flow.
//!
//! That is the trap: a missing envelope, a card above 28 KB or of a version that Teams does not draw all look like success. The
//! stand-in answers as the real one does and records the message as swallowed, with the flow's own error.

use serde_json::{Value, json};

use super::{Ask, Judged, Platform};
use crate::model::Reply;

/// The most that the properties of a message may take, in bytes, after Teams has wrapped the card.
const MESSAGE_BYTES_MAX: usize = 28_672;

/// By how much the wrapping makes a card larger, in parts of 1,000: a request of 24,453 bytes became 28,897.
/// Source: MicrosoftDocs/msteams-docs#11274.
const WRAPPED_PERMILLE: usize = 1_182;

/// From how many bytes on the trigger itself refuses.
const REQUEST_BYTES_MAX: usize = 256 * 1024;

pub(super) fn judge(ask: &Ask<'_>) -> Judged {
    let request = ask.request;
    let known_path = matches!(
        request.segments().as_slice(),
        [.., "workflows", id, "triggers", "manual", "paths", "invoke"] if !id.is_empty()
    );
    if !known_path || request.method != "POST" {
        return Judged::refused(error(404, "WorkflowNotFound", "The workflow could not be found."));
    }
    if request.parameter("api-version").is_none_or(str::is_empty) {
        let message = "The api-version query parameter (?api-version=) is required for all requests.";
        return Judged::refused(error(400, "MissingApiVersionParameter", message));
    }
    let Some(signature) = request.parameter("sig") else {
        let message = "The request must be authenticated only by Shared Access scheme.";
        return Judged::refused(error(401, "DirectApiAuthorizationRequired", message));
    };
    if !ask.is_right(signature) {
        let message = "The authentication credentials are not valid.";
        return Judged::refused(error(401, "DirectApiInvalidAuthorization", message));
    }
    if request.body.len() > REQUEST_BYTES_MAX {
        return Judged::refused(error(413, "RequestEntityTooLarge", "The request entity is too large."));
    }
    let Ok(message) = serde_json::from_slice::<Value>(&request.body) else {
        return Judged::refused(error(400, "InvalidRequestContent", "The request content is not valid JSON."));
    };
    match flow(&message, request.body.len()) {
        Ok(()) => Judged::posted(Reply::new(202, ""), Platform::Teams, &message),
        Err(why) => Judged::swallowed(Reply::new(202, ""), why),
    }
}

/// What the flow makes of the message after the trigger has answered.
fn flow(message: &Value, bytes: usize) -> Result<(), String> {
    let attachments = message.get("attachments").and_then(Value::as_array).filter(|list| !list.is_empty());
    let Some(attachments) = attachments else {
        return Err("ExpressionEvaluationFailed: the foreach of attachments is of type Null".to_owned());
    };
    if message.get("type").and_then(Value::as_str) != Some("message") {
        return Err("the envelope is not of type message".to_owned());
    }
    let wrapped = bytes * WRAPPED_PERMILLE / 1_000;
    if wrapped > MESSAGE_BYTES_MAX {
        return Err(format!(
            "MessageSizeExceeded - Message properties size exceeded. Actual properties size {wrapped} bytes, maximum allowed 28672"
        ));
    }
    for attachment in attachments {
        if attachment.get("contentType").and_then(Value::as_str) != Some("application/vnd.microsoft.card.adaptive") {
            return Err("the attachment is no adaptive card".to_owned());
        }
        card(attachment.get("content").unwrap_or(&Value::Null))?;
    }
    Ok(())
}

fn card(card: &Value) -> Result<(), String> {
    if card.get("type").and_then(Value::as_str) != Some("AdaptiveCard") {
        return Err("the content is no AdaptiveCard".to_owned());
    }
    let version = card.get("version").and_then(Value::as_str).unwrap_or("");
    if !["1.0", "1.1", "1.2", "1.3", "1.4"].contains(&version) {
        return Err(format!("version {version:?} is drawn as \"card couldn't be displayed\""));
    }
    let body = card.get("body").and_then(Value::as_array).ok_or("the card has no body")?;
    body.iter().try_for_each(element)?;
    let actions = card.get("actions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    actions.iter().try_for_each(action)
}

fn element(element: &Value) -> Result<(), String> {
    let text = |key: &str| element.get(key).and_then(Value::as_str);
    match text("type") {
        Some("TextBlock") if text("text").is_none() => Err("a TextBlock has no text".to_owned()),
        Some("TextBlock") if element.get("wrap") != Some(&Value::Bool(true)) => {
            Err("a TextBlock does not wrap: its text is clipped".to_owned())
        }
        Some("FactSet") => {
            let facts = element.get("facts").and_then(Value::as_array).ok_or("a FactSet has no facts")?;
            let complete =
                |fact: &Value| ["title", "value"].iter().all(|key| fact.get(key).is_some_and(Value::is_string));
            if facts.iter().all(complete) { Ok(()) } else { Err("a fact lacks its title or value".to_owned()) }
        }
        Some("ActionSet") => {
            element.get("actions").and_then(Value::as_array).into_iter().flatten().try_for_each(action)
        }
        Some("TextBlock" | "Container" | "ColumnSet" | "Image" | "ImageSet" | "RichTextBlock") => Ok(()),
        other => Err(format!("{other:?} is no element of version 1.4")),
    }
}

fn action(action: &Value) -> Result<(), String> {
    match action.get("type").and_then(Value::as_str) {
        Some("Action.OpenUrl") => {
            let url = action.get("url").and_then(Value::as_str).unwrap_or("");
            if url.starts_with("https://") || url.starts_with("http://") {
                Ok(())
            } else {
                Err("an Action.OpenUrl has no http URL".to_owned())
            }
        }
        Some("Action.ShowCard" | "Action.ToggleVisibility") => Ok(()),
        other => Err(format!("{other:?} does not work through a webhook")),
    }
}

/// An error in the shape of Power Automate.
pub(super) fn error(status: u16, code: &str, message: &str) -> Reply {
    super::json(status, &json!({"error": {"code": code, "message": message}}))
}
