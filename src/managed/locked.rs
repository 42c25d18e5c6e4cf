//! A channel that exists and cannot be read here. It wants its decisions, and says nothing.
//!
//! Its lane is stopped, so what is routed to it waits on the broker, until a worker that can read the channel tells it.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value};

use super::writing::toml_text;
use crate::{
    channels::{Channel, Endpoint, KINDS, Kind, Occasion, Parcel, form::Form, judging},
    config::{self, ChannelPlan},
    model::{
        ChannelId, Delivery, Filter, Reply, RetryPlan, Secret, Severity, Verdict, filter::KindSet,
        retry_plan::RetryNumbers,
    },
};

/// What stands for the kind where even that is unknown here.
static UNKNOWN: Kind =
    Kind { name: "unknown", concurrency: 1, chat: false, sample: "", form: &Form::NONE, build: |_| None };

/// The keys of a channel that everybody may read, because who cannot read the rest must route by them.
pub(super) const OPEN_KEYS: [&str; 5] = ["kind", "events", "min_severity", "tools", "agents"];

/// A channel of which only `open` is known.
///
/// # Panics
/// Never: the defaults of a retry plan are a retry plan, which a test shows.
pub(super) fn plan(id: &ChannelId, open: &Map<String, Value>, version: &str) -> ChannelPlan {
    let name = open.get("kind").and_then(Value::as_str);
    let kind = KINDS.iter().copied().find(|kind| Some(kind.name) == name).unwrap_or(&UNKNOWN);
    ChannelPlan {
        id: id.clone(),
        kind,
        filter: filter(open),
        channel: Arc::new(Locked),
        pace: Vec::new(),
        timeout: Duration::from_secs(10),
        concurrency: NonZeroU16::MIN,
        retry: RetryPlan::try_from(RetryNumbers::default()).expect("the defaults are a retry plan"),
        digest: None,
        notices: false,
        canary: None,
        fingerprint: format!("locked {version}"),
    }
}

/// What it wants. Where that cannot be read either, everything: too much can be told, too little is lost.
fn filter(open: &Map<String, Value>) -> Filter {
    let everything = || Filter { events: KindSet::all(), min_severity: Severity::Low, tools: None, agents: None };
    let keys = open.iter().filter(|(key, _)| *key != "kind").map(|(key, value)| (key.clone(), value.clone()));
    let Ok(text) = toml_text(&keys.collect()) else { return everything() };
    let reading = config::parse_filter(&text);
    if reading.faults.is_empty() { reading.value.flatten().unwrap_or_else(everything) } else { everything() }
}

/// See the module. Nobody renders by it: its lane never sends.
#[derive(Debug)]
struct Locked;

impl Channel for Locked {
    fn render(&self, _: &Delivery, _: &Occasion<'_>) -> Parcel {
        let nowhere = url::Url::parse("https://unreadable.invalid/").expect("it is a URL");
        Parcel { endpoint: Endpoint::new(nowhere), headers: HeaderMap::new(), body: Bytes::new() }
    }

    fn judge(&self, reply: &Reply) -> Verdict {
        judging::by_status(reply)
    }

    fn secrets(&self) -> Vec<Secret> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::DecisionKind;

    #[test]
    fn a_channel_that_cannot_be_read_wants_what_it_wanted_and_everything_where_that_is_not_known() {
        let of = |open: Value| plan(&"soc".parse().unwrap(), open.as_object().unwrap(), "1");
        let known = of(json!({"kind": "slack", "events": ["INCIDENT"], "min_severity": "HIGH", "tools": ["a.*"]}));
        assert_eq!(known.kind.name, "slack");
        assert_eq!(known.filter.events.iter().collect::<Vec<_>>(), [DecisionKind::Incident]);
        assert_eq!((known.filter.min_severity, known.filter.tools.map(|tools| tools.len())), (Severity::High, Some(1)));
        assert_eq!(of(json!({"kind": "slack"})).filter.events, Filter::default_events());
        let newer = of(json!({"kind": "pager", "events": ["SOMETHING_NEW"]}));
        assert_eq!((newer.kind.name, newer.filter.events), ("unknown", KindSet::all()));
    }
}
