//! Channels deleted in a browser: how many wait is said first.

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use tokio::time::{Duration, timeout};
use uuid::Uuid;

use super::{
    Id, Visit,
    channels::{path, unknown},
    field, fields, id_of, lead,
};
use crate::{
    broker::Queue,
    console::{self, DeletePage, Section, Text, Tone},
    http::{
        channel_changes,
        channels::{as_json, find},
        guard::{Caller, Gate},
    },
    managed::{Condition, Refusal},
    model::ChannelId,
};

/// How long the broker is asked how many wait.
const COUNT_MAX: Duration = Duration::from_secs(2);

pub(super) async fn ask(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    id: Id,
) -> Response {
    let (id, visit) = (id_of(id), Visit::new(&gate, &caller, &headers));
    let Ok(shown) = find(&gate.inside, &id) else { return unknown(visit, &id) };
    let told = as_json(&shown, &gate.inside);
    let in_file = told["source"] == "file";
    let version = if in_file { &told["shadows"]["version"] } else { &told["version"] };
    let Some(version) = version.as_str().map(str::to_owned) else {
        let message = format!("The channel {id} is of the worker's configuration file, and is read-only here.");
        let hint = "Take it out of the file: what waits for it becomes dead letters then.";
        let title = "This channel is deleted in the file";
        return visit.notice(StatusCode::CONFLICT, title, Section::Channels, &message, hint);
    };
    let waits = waiting(&gate, &caller, &headers, shown.id).await;
    visit.page(&format!("Delete {id}?"), Some(Section::Channels), |frame| {
        console::html(&DeletePage { frame, id: Text::short(&id), waits, version, in_file })
    })
}

/// How many deliveries wait for it, in the queue and in all workers; `None` where that is not known.
async fn waiting(gate: &Gate, caller: &Caller, headers: &HeaderMap, id: ChannelId) -> Option<u64> {
    let credential = Gate::credential(caller, headers);
    // The numbers of the metrics are some seconds old, and whoever deletes goes by this one. But the broker counts none that another
    // worker has taken and not settled, and that one does.
    let (in_queue, pool) = tokio::join!(
        timeout(COUNT_MAX, gate.inside.broker.waiting(Queue::Lane(id.clone()))),
        gate.pool.channels(credential.as_ref())
    );
    let in_queue = in_queue.ok()?.ok()?;
    let told = pool.of.channels.iter().find(|told| told["id"] == id.as_str()).filter(|_| pool.unheard.is_empty())?;
    let [in_memory, seen] = ["memory", "lane_queue"].map(|place| told["waiting"][place].as_u64().unwrap_or(0));
    Some(in_queue.max(seen).saturating_add(in_memory))
}

pub(super) async fn delete(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    id: Id,
    body: Body,
) -> Response {
    let id = id_of(id);
    let Ok(channel) = id.parse::<ChannelId>() else { return unknown(Visit::new(&gate, &caller, &headers), &id) };
    let fields = fields(body).await.unwrap_or_default();
    let again = format!("{}/delete", path(&id));
    // Whoever has not seen what there is to delete has not confirmed it.
    let Some(version) = field(&fields, "version").and_then(|version| version.parse::<Uuid>().ok()) else {
        return lead(&gate, &again, Tone::Bad, "Nothing was deleted: the form did not say which version it is about.");
    };
    match channel_changes::delete_channel(&gate.inside, &caller, &channel, Condition::Version(version)).await {
        Ok(true) => lead(
            &gate,
            &path(&id),
            Tone::Good,
            &format!("The channel {id} that the file hid is deleted; the file's stays."),
        ),
        Ok(false) => {
            let text = format!("Channel {id} is deleted. What waited for it becomes dead letters (channel_removed).");
            lead(&gate, "/channels", Tone::Good, &text)
        }
        Err(Refusal::Changed(_)) => {
            let text = format!(
                "Nothing was deleted: somebody changed {id} meanwhile. Look at it, and delete it if it is still to go."
            );
            lead(&gate, &again, Tone::Bad, &text)
        }
        Err(Refusal::Unknown(_)) => lead(&gate, "/channels", Tone::Bad, &format!("Channel {id} is gone already.")),
        Err(refusal) => lead(&gate, &again, Tone::Bad, &format!("{refusal}. Hint: {}.", refusal.hint())),
    }
}
