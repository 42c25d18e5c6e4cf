//! The first page: is anyone not being told?

use std::time::Duration;

use axum::{Extension, extract::State, http::HeaderMap, response::Response};

use super::{Visit, approvals, channels, views::views};
use crate::{
    approvals::State as Standing,
    console::{self, Counts, OverviewPage, Section, Text},
    http::guard::{Caller, Gate},
    model::{DecisionKind, Severity, Timestamp},
};

/// How many approvals the page has.
const APPROVALS: usize = 10;

/// How long an endpoint may keep its channel waiting before the page says so: most mend by themselves within this.
const LONG: Duration = Duration::from_mins(5);

pub(super) async fn show(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let waiting = approvals::some(&gate, Some(Standing::Waiting), 0..APPROVALS);
    let more_wait = waiting.after();
    let (known, now) = (gate.inside.approvals.known(), gate.inside.clock.now());
    let credential = Gate::credential(&caller, &headers);
    let (lanes, dead) = tokio::join!(gate.pool.channels(credential.as_ref()), gate.pool.total(credential.as_ref()));
    let told = lanes.of.channels;
    let views = views(lanes.of.workers, lanes.unheard.iter().chain(&dead.unheard));
    let since = |told: &serde_json::Value| told["since"].as_str().and_then(|since| since.parse::<Timestamp>().ok());
    let long = told.iter().filter(|told| since(told).is_some_and(|since| now.since(since) >= LONG));
    let long = long.filter_map(|told| told["id"].as_str()).map(Text::short).collect();
    let channels = told.iter().map(|told| channels::channel(told, now)).collect();
    let counts = Counts { dead_letters: dead.of, ..counts(&gate) };
    Visit::new(&gate, &caller, &headers).page("Overview", Some(Section::Overview), |frame| {
        console::html(&OverviewPage { frame, waiting: waiting.list, more_wait, known, channels, long, views, counts })
    })
}

/// What this worker counts.
fn counts(gate: &Gate) -> Counts {
    let metrics = &gate.inside.metrics;
    let kinds = DecisionKind::ALL.into_iter().map(DecisionKind::as_str);
    let labels = kinds.flat_map(|kind| Severity::ALL.map(|severity| [kind, severity.as_str()]));
    Counts {
        connected: metrics.broker_connected.get() == 1,
        sound: metrics.config_sound.get() == 1,
        dead_letters: gate.inside.store.counts().values().sum(),
        decisions: labels.map(|labels| metrics.decisions.with_label_values(&labels).get()).sum(),
        critical_unrouted: metrics.unrouted.with_label_values(&[Severity::Critical.as_str()]).get(),
    }
}
