//! `GET /api/decisions`: the newest decisions, a page at a time, and what became of each, channel by channel. The console's pages
//! show the same ([`look`]).
//!
//! What became of a decision comes out of another log, which may have lost something. So what is not known is said to be unknown,
//! and never taken from what is usual.

use std::collections::HashMap;

use axum::{
    Router,
    extract::{RawQuery, State},
    http::header,
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::time::Duration;

use super::{
    Inside, Shown,
    channels::UNREADABLE,
    exports::{read, refusal},
};
use crate::{
    delivery_log::{Account, Accounts, Became, Ended},
    export::{ExportError, LIMIT_MAX, Page, Query, QueryFault},
    lane::{LaneHandle, LaneState},
    model::{ChannelId, DeathReason, Ending, Timestamp},
};

/// How many decisions a page has where nobody said.
const LIMIT: usize = 50;

/// A delivery that has waited for longer than its channel lets it, and so much more, waits no longer: its ending is not recorded.
const WAITS_MORE: Duration = Duration::from_hours(1);

/// How long deliveries wait at most whose channel is not configured here.
const WAITS_ELSEWHERE: Duration = Duration::from_hours(24);

pub(super) fn routes(inside: Inside) -> Router {
    Router::new().route("/api/decisions", get(newest)).with_state(inside)
}

/// What became of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// No channel wanted it, when it was routed.
    Unrouted(Timestamp),
    /// It went to these channels.
    To {
        /// What became of it there.
        channels: Vec<Delivery>,
        /// When it was routed. Where that is not recorded, there may be further channels.
        routed_at: Option<Timestamp>,
    },
    /// Nothing was written down.
    NotRecorded,
    /// It could not be found out just now.
    Unknown,
}

impl Told {
    /// When it was routed, where that is recorded.
    pub(super) fn routed_at(&self) -> Option<Timestamp> {
        match self {
            Self::Unrouted(routed_at) => Some(*routed_at),
            Self::To { routed_at, .. } => *routed_at,
            Self::NotRecorded | Self::Unknown => None,
        }
    }
}

/// One delivery of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) channel: ChannelId,
    pub(super) standing: Standing,
}

/// How a delivery stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has ended.
    Ended(Ended),
    /// No ending is recorded.
    Waiting {
        /// Since when, where that is known.
        since: Option<Timestamp>,
        /// What its lane does at present, as this worker sees it; `None` where the channel is not configured here.
        lane: Option<&'static str>,
    },
    /// It cannot wait any more, and its ending is not recorded.
    NotRecorded,
    /// It could not be found out just now.
    Unknown,
}

/// A page of decisions, and what became of each, in the same order.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) page: Page,
    pub(super) told: Vec<Told>,
}

/// Looks for decisions, and for what became of them.
pub(super) async fn look(
    inside: &Inside,
    query: &Query,
    before: Option<u64>,
    limit: usize,
) -> Result<Looked, ExportError> {
    let page = inside.exporter.search(query, before, limit).await?;
    let wanted: Vec<(&str, Timestamp)> = page.decisions.iter().map(|found| (&*found.id, found.time)).collect();
    let accounts = inside.accounts.accounts(&wanted).await;
    let lanes = Lanes::of(&inside.channels.borrow(), inside.clock.now());
    let told = page.decisions.iter().map(|found| lanes.told(&found.id, &accounts)).collect();
    Ok(Looked { page, told })
}

/// The present lanes.
struct Lanes {
    lanes: HashMap<ChannelId, Lane>,
    now: Timestamp,
}

/// What is known of a lane.
struct Lane {
    /// What it does at present; `None` until the worker has reached the broker.
    state: Option<&'static str>,
    /// How long a delivery may wait in it; `None` where nothing is taken from it, and so nothing expires.
    max_age: Option<Duration>,
}

impl Lane {
    fn new(state: Option<&LaneState>, unreadable: bool, max_age: Duration) -> Self {
        // An operator paused it, or this worker only holds what it wants.
        let stands_still = unreadable || state == Some(&LaneState::Stopped);
        let state = if unreadable { Some(UNREADABLE) } else { state.map(LaneState::as_str) };
        Self { state, max_age: (!stands_still).then_some(max_age) }
    }
}

impl Lanes {
    fn of(shown: &[Shown], now: Timestamp) -> Self {
        let lane = |shown: &Shown| {
            let state = shown.lane.as_ref().map(LaneHandle::state);
            Lane::new(state.as_ref(), shown.unreadable, shown.max_age)
        };
        Self { lanes: shown.iter().map(|shown| (shown.id.clone(), lane(shown))).collect(), now }
    }

    fn told(&self, decision: &str, accounts: &Accounts) -> Told {
        match accounts.of(decision) {
            Some(account) if !account.is_empty() => self.of_account(account),
            Some(account) if account.complete => Told::NotRecorded,
            Some(_) | None => Told::Unknown,
        }
    }

    fn of_account(&self, account: &Account) -> Told {
        let delivery = |(channel, became): (&ChannelId, Became)| {
            let standing = match became {
                Became::Ended(ended) => Standing::Ended(ended),
                Became::Waiting(_) if !account.complete => Standing::Unknown,
                Became::Waiting(since) => self.waiting(channel, since),
            };
            Delivery { channel: channel.clone(), standing }
        };
        let channels: Vec<Delivery> = account.channels().map(delivery).collect();
        match (channels.is_empty(), account.routed_at) {
            (true, Some(routed_at)) => Told::Unrouted(routed_at),
            (_, routed_at) => Told::To { channels, routed_at },
        }
    }

    fn waiting(&self, channel: &ChannelId, since: Option<Timestamp>) -> Standing {
        let (lane, max_age) =
            self.lanes.get(channel).map_or((None, Some(WAITS_ELSEWHERE)), |lane| (lane.state, lane.max_age));
        let too_long =
            |max_age: Duration| since.is_none_or(|since| self.now.since(since) > max_age.saturating_add(WAITS_MORE));
        if max_age.is_some_and(too_long) { Standing::NotRecorded } else { Standing::Waiting { since, lane } }
    }
}

async fn newest(State(inside): State<Inside>, RawQuery(text): RawQuery) -> Response {
    let (mut limit, mut before) = (None, None);
    let own = |key: &str, value: &str| match key {
        "limit" => {
            let number = value.parse().ok().filter(|number| (1..=LIMIT_MAX).contains(number));
            let number = number.ok_or_else(|| QueryFault::new(key, format!("is no number from 1 to {LIMIT_MAX}")))?;
            limit = Some(number);
            Ok(true)
        }
        "before" => {
            let place = value.parse().map_err(|_| QueryFault::new(key, "is not what `older` of an answer says"))?;
            before = Some(place);
            Ok(true)
        }
        _ => Ok(false),
    };
    let query = match read(&text.unwrap_or_default(), "limit, before", own) {
        Ok(query) => query,
        Err(error) => return error.into_response(),
    };
    let Looked { page, told } = match look(&inside, &query, before, limit.unwrap_or(LIMIT)).await {
        Ok(looked) => looked,
        Err(error) => return refusal(&error),
    };
    // As they were published: reading them into a tree would cost digits of large numbers.
    let mut body = Vec::from(&b"{\"decisions\":["[..]);
    for (at, decision) in page.decisions.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&decision.body);
    }
    let deliveries: Value =
        page.decisions.iter().zip(&told).map(|(found, told)| as_json(&found.id, found.time, told)).collect();
    let rest = json!({
        "deliveries": deliveries, "complete": page.complete, "older": page.older,
        "looked_back_to": page.looked_back_to.map(Timestamp::to_rfc3339_millis),
    });
    body.extend_from_slice(b"],");
    // The one object goes on in the other.
    body.extend_from_slice(rest.to_string().trim_start_matches('{').as_bytes());
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

fn as_json(decision: &str, time: Timestamp, told: &Told) -> Value {
    let (recorded, channels) = match told {
        Told::Unrouted(_) => (Some(true), &[][..]),
        Told::To { channels, .. } => (Some(true), &channels[..]),
        Told::NotRecorded => (Some(false), &[][..]),
        Told::Unknown => (None, &[][..]),
    };
    let routed_at = told.routed_at();
    json!({
        "decision": decision, "recorded": recorded, "routed_at": routed_at.map(Timestamp::to_rfc3339_millis),
        "channels": channels.iter().map(|delivery| delivery_as_json(delivery, time)).collect::<Value>(),
    })
}

fn delivery_as_json(delivery: &Delivery, time: Timestamp) -> Value {
    let channel = &delivery.channel;
    match &delivery.standing {
        Standing::Ended(Ended { ending, at, tries, reason }) => json!({
            "channel": channel, "state": ending.as_str(), "at": at.to_rfc3339_millis(), "tries": tries,
            "latency_seconds": (*ending != Ending::Dead).then(|| at.since(time).as_secs_f64()),
            "reason": reason.map(DeathReason::as_str),
        }),
        Standing::Waiting { since, lane } => json!({
            "channel": channel, "state": "waiting", "since": since.map(Timestamp::to_rfc3339_millis), "lane": lane,
        }),
        Standing::NotRecorded => json!({"channel": channel, "state": "not_recorded"}),
        Standing::Unknown => json!({"channel": channel, "state": "unknown"}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_millis(1_000 * second)
    }

    #[test]
    fn a_delivery_waits_only_for_as_long_as_its_channel_lets_it() {
        // Goal: "waiting" is never said of what cannot wait any more, and always of what nobody takes from its queue.
        let ids = ["soc", "paused", "unreadable", "gone"].map(|id| id.parse::<ChannelId>().unwrap());
        let [soc, paused, unreadable, gone] = &ids;
        let held = LaneState::Held { until: tokio::time::Instant::now(), why: String::new() };
        let lane = |state: &LaneState, unreadable| Lane::new(Some(state), unreadable, Duration::from_hours(2));
        let lanes = |now| Lanes {
            lanes: HashMap::from([
                (soc.clone(), lane(&held, false)),
                (paused.clone(), lane(&LaneState::Stopped, false)),
                (unreadable.clone(), lane(&LaneState::Stopped, true)),
            ]),
            now: at(now),
        };
        let waiting = |lane| Standing::Waiting { since: Some(at(0)), lane };
        let hour = 3_600;
        for (channel, now, standing) in [
            (soc, 1, waiting(Some("held"))),
            (soc, 3 * hour, waiting(Some("held"))),
            (soc, 3 * hour + 1, Standing::NotRecorded),
            (gone, 3 * hour + 1, waiting(None)),
            (gone, 25 * hour + 1, Standing::NotRecorded),
            (paused, 1_000 * hour, waiting(Some("stopped"))),
            (unreadable, 1_000 * hour, waiting(Some("unreadable"))),
        ] {
            assert_eq!(lanes(now).waiting(channel, Some(at(0))), standing, "{channel} at {now}");
        }
        assert_eq!(lanes(1).waiting(soc, None), Standing::NotRecorded, "since when is not recorded");
    }

    #[test]
    fn what_is_not_known_is_said_to_be_unknown_and_what_is_not_there_not_recorded() {
        let lanes = Lanes { lanes: HashMap::new(), now: at(1) };
        let told = |account| lanes.told("d", &Accounts::by_hand([("d", account)]));
        let with = |mut account: Account, complete| {
            account.complete = complete;
            account
        };
        let nothing = |complete| with(Account::default(), complete);
        assert_eq!(lanes.told("d", &Accounts::default()), Told::Unknown);
        assert_eq!(told(nothing(false)), Told::Unknown);
        assert_eq!(told(nothing(true)), Told::NotRecorded);
        let routed = |channels: &[&str], complete| {
            let channels = channels.iter().map(|id| id.parse().unwrap());
            with(Account::routed(at(0), channels), complete)
        };
        assert_eq!(told(routed(&[], true)), Told::Unrouted(at(0)));
        let to = |standing| {
            let delivery = Delivery { channel: "soc".parse().unwrap(), standing };
            Told::To { channels: vec![delivery], routed_at: Some(at(0)) }
        };
        assert_eq!(told(routed(&["soc"], false)), to(Standing::Unknown));
        assert_eq!(told(routed(&["soc"], true)), to(Standing::Waiting { since: Some(at(0)), lane: None }));
    }

    #[test]
    fn a_program_reads_what_a_person_sees() {
        let soc: ChannelId = "soc".parse().unwrap();
        let ended = |ending, reason| Standing::Ended(Ended { ending, at: at(12), tries: 2, reason });
        let json = |standing| delivery_as_json(&Delivery { channel: soc.clone(), standing }, at(10));
        let delivered = json(ended(Ending::Delivered, None));
        assert_eq!((&delivered["state"], &delivered["latency_seconds"]), (&json!("delivered"), &json!(2.0)));
        let dead = json(ended(Ending::Dead, Some(DeathReason::Refused)));
        assert_eq!(
            (&dead["reason"], &dead["latency_seconds"], &dead["tries"]),
            (&json!("refused"), &json!(null), &json!(2))
        );
        assert_eq!(json(Standing::NotRecorded), json!({"channel": "soc", "state": "not_recorded"}));
        let unrouted = as_json("d", at(1), &Told::Unrouted(at(1)));
        assert_eq!((&unrouted["recorded"], &unrouted["channels"]), (&json!(true), &json!([])));
        assert_eq!(as_json("d", at(1), &Told::Unknown)["recorded"], json!(null));
        assert_eq!(as_json("d", at(1), &Told::NotRecorded)["recorded"], json!(false));
    }
}
