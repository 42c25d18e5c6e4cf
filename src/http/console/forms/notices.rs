//! Why there is no form to show, in words.

use axum::{http::StatusCode, response::Response};

use crate::{console::Section, http::console::Visit};

pub(super) fn no_such_kind(visit: Visit) -> Response {
    let (message, hint) = ("There is no such kind of channel.", "Choose one of those that there are.");
    visit.notice(StatusCode::NOT_FOUND, "There is no such kind", Section::Channels, message, hint)
}

pub(super) fn no_key(visit: Visit) -> Response {
    let message = "This worker has no key, and a channel with its secrets must not be kept unsealed on the broker.";
    let hint = "Set INTERVEN_ALERTS_KEY to the same secret text in every worker of the pool (openssl rand -base64 32 makes one), and restart them. Or write the channel into the configuration file.";
    visit.notice(StatusCode::SERVICE_UNAVAILABLE, "No channel can be added here", Section::Channels, message, hint)
}

pub(super) fn of_file(visit: Visit, id: &str) -> Response {
    let message = format!("The channel {id} is of the worker's configuration file, and is read-only here.");
    let hint = "Change it in the file: the worker takes a changed file over while it runs.";
    visit.notice(StatusCode::CONFLICT, "This channel is changed in the file", Section::Channels, &message, hint)
}

pub(super) fn unheard(visit: Visit, id: &str) -> Response {
    let message = format!("The channel {id} is of a kind that this worker does not know.");
    let hint = "A newer worker of the pool made it: edit it there.";
    visit.notice(StatusCode::CONFLICT, "This channel cannot be edited here", Section::Channels, &message, hint)
}

pub(super) fn too_large(visit: Visit) -> Response {
    let message = "The form is larger than a channel can be, or did not arrive whole. Nothing was done.";
    let hint = "Go back, and enter less.";
    visit.notice(StatusCode::PAYLOAD_TOO_LARGE, "Nothing was done", Section::Channels, message, hint)
}
