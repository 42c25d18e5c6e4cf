//! `[[channel]]`: the keys that every kind has, then the kind's own.

use std::{
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

use super::{
    plan::{ChannelPlan, DigestPlan},
    rate::parse_rate,
};
use crate::{
    channels::{Kind, Rate},
    model::{
        ChannelId, DecisionKind, Filter, RetryPlan, Severity,
        filter::{KindSet, Pattern},
        retry_plan::RetryNumbers,
    },
    settings::Settings,
};

/// Defaults. Source: contract 3.
const TIMEOUT: Duration = Duration::from_secs(10);
const DIGEST_OVER: NonZeroU32 = NonZeroU32::new(20).expect("20 is not zero");

/// Above this a lane's window ends before there is anything to fold: see `lane/task/window.rs`.
const DIGEST_OVER_MAX: NonZeroU32 = NonZeroU32::new(9_000).expect("9,000 is not zero");

/// The most sends under way at once in one lane.
const CONCURRENCY_MAX: u16 = 1_024;

/// The id; from then on faults call the table by it.
pub(super) fn read_id(s: &mut Settings<'_>) -> Option<ChannelId> {
    let text = s.require_text("id", "name the channel: id = \"soc-slack\"")?;
    if let Ok(id) = text.parse::<ChannelId>() {
        s.rename(format!("channel.{id}"));
        return Some(id);
    }
    let problem = "must be 1 to 64 characters of a-z, 0-9 and -".to_owned();
    s.fault_shown("id", problem, "write it as id = \"soc-slack\"");
    None
}

/// The whole channel. `None` when a fault was noted.
pub(super) fn read_channel(
    s: &mut Settings<'_>,
    id: Option<ChannelId>,
    kinds: &[&'static Kind],
) -> Option<ChannelPlan> {
    let fingerprint = s.fingerprint();
    let kind = read_kind(s, kinds);
    let filter = read_filter(s);
    let pace = read_pace(s);
    let timeout = s.duration("timeout", Duration::from_millis(100)..=Duration::from_mins(5)).unwrap_or(TIMEOUT);
    let concurrency = s.integer("concurrency", 1..=CONCURRENCY_MAX.into());
    let retry = s.table("retry", read_retry).unwrap_or_else(|| RetryPlan::try_from(RetryNumbers::default()).ok());
    let digest = s.table("digest", read_digest);
    let notices = s.boolean("notices").unwrap_or(false);
    let canary = s.duration_or_none("canary", Duration::from_mins(1)..=Duration::from_hours(7 * 24)).flatten();

    let Some(kind) = kind else {
        // Without a kind nobody knows which other keys belong here.
        s.pardon();
        return None;
    };
    let built = (kind.build)(s);
    if s.has("digest") && !kind.chat {
        let problem = format!("`{}` channels are read by machines and have no digests", kind.name);
        s.fault("digest", problem, "remove the section");
    }
    let events = filter.as_ref().map_or_else(Filter::default_events, |filter| filter.events);
    if kind.name == "slack" && events.contains(DecisionKind::RequireApproval) && !s.has("signing_secret") {
        let problem = "has no `signing_secret`, so approval cards come without Approve and Deny buttons".to_owned();
        s.warn(
            "",
            problem,
            "set `signing_secret` from the Slack app's page, or leave REQUIRE_APPROVAL out of `events`",
        );
    }
    let built = built?;
    let pace = pace.apply(s, built.pace)?;
    let concurrency = concurrency.and_then(|n| u16::try_from(n).ok()).unwrap_or(kind.concurrency);
    Some(ChannelPlan {
        id: id?,
        kind,
        filter: filter?,
        channel: built.channel,
        pace,
        timeout,
        concurrency: NonZeroU16::new(concurrency).unwrap_or(NonZeroU16::MIN),
        retry: retry?,
        digest: if kind.chat { digest.unwrap_or(Some(DigestPlan { over: DIGEST_OVER })) } else { None },
        notices,
        canary,
        fingerprint,
    })
}

fn read_kind(s: &mut Settings<'_>, kinds: &[&'static Kind]) -> Option<&'static Kind> {
    let names: Vec<&'static str> = kinds.iter().map(|kind| kind.name).collect();
    if !s.has("kind") {
        s.fault("kind", "is missing".to_owned(), &format!("write one of {}", names.join(", ")));
    }
    Some(kinds[s.choice("kind", &names)?])
}

pub(super) fn read_filter(s: &mut Settings<'_>) -> Option<Filter> {
    let events = s.choices("events", &DecisionKind::ALL.map(DecisionKind::as_str));
    let events: Option<KindSet> = match events {
        Some(indexes) => Some(indexes.into_iter().map(|at| DecisionKind::ALL[at]).collect()),
        None if s.has("events") => None,
        None => Some(Filter::default_events()),
    };
    let min_severity = s.choice("min_severity", &Severity::ALL.map(Severity::as_str));
    let min_severity = min_severity.map_or(Severity::Low, |at| Severity::ALL[at]);
    let mut patterns = |key| s.texts(key).map(|texts| texts.iter().map(|text| Pattern::new(text)).collect::<Vec<_>>());
    let (tools, agents) = (patterns("tools"), patterns("agents"));

    let never = [
        ("events", events == Some(KindSet::default())),
        ("tools", tools.as_ref().is_some_and(Vec::is_empty)),
        ("agents", agents.as_ref().is_some_and(Vec::is_empty)),
    ];
    for (key, _) in never.into_iter().filter(|(_, never)| *never) {
        let hint = match key {
            "events" => "list those that it is to be told of: DENY, REQUIRE_APPROVAL and INCIDENT are the default",
            _ => "list some, or write * for all",
        };
        s.warn_shown(key, "has nothing in it, so no decision ever matches".to_owned(), hint);
    }
    for (key, patterns) in [("tools", &tools), ("agents", &agents)] {
        let padded = |pattern: &Pattern| pattern.as_str().trim() != pattern.as_str();
        if patterns.iter().flatten().any(padded) {
            let problem = "has a pattern that begins or ends with a space, which counts".to_owned();
            s.warn_shown(key, problem, "remove the space unless it is meant");
        }
    }
    Some(Filter { events: events?, min_severity, tools, agents })
}

fn read_retry(s: &mut Settings<'_>) -> Option<RetryPlan> {
    let default = RetryNumbers::default();
    let millisecond = Duration::from_millis(1);
    let (day, year) = (Duration::from_hours(24), Duration::from_hours(365 * 24));
    let attempts = s.integer("attempts", 1..=1_000).and_then(|n| u32::try_from(n).ok());
    let first = s.duration("first", millisecond..=day);
    let longest = s.duration("longest", millisecond..=day);
    let max_age = s.duration("max_age", millisecond..=year);
    // A wait that is given alone pulls the other one's default along, rather than to contradict it.
    let numbers = RetryNumbers {
        attempts: attempts.unwrap_or(default.attempts),
        first: first.unwrap_or_else(|| default.first.min(longest.unwrap_or(default.first))),
        longest: longest.unwrap_or_else(|| default.longest.max(first.unwrap_or(default.longest))),
        max_age: max_age.unwrap_or(default.max_age),
    };
    match RetryPlan::try_from(numbers) {
        Ok(plan) => Some(plan),
        Err(error) => {
            s.fault_shown("first", error.to_string(), error.hint());
            None
        }
    }
}

/// `None` inside where digests are turned off.
fn read_digest(s: &mut Settings<'_>) -> Option<DigestPlan> {
    let enabled = s.boolean("enabled").unwrap_or(true);
    let over = s.integer("over", 1..=1_000_000).and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new);
    if enabled && over.is_some_and(|over| over > DIGEST_OVER_MAX) {
        let problem = format!("is more than the {DIGEST_OVER_MAX} that a lane looks at, so this channel never folds");
        s.warn_shown("over", problem, "set `enabled` to false if that is meant, or write a smaller number");
    }
    enabled.then_some(DigestPlan { over: over.unwrap_or(DIGEST_OVER) })
}

/// What the operator says about the pace.
struct Pace {
    limit: Limit,
    burst: Option<u32>,
}

enum Limit {
    /// Nothing: the kind's own pace.
    OfKind,
    /// `rate_limit = "none"`.
    Lifted,
    /// A rate.
    Of(Rate),
    /// A fault was noted.
    Faulty,
}

fn read_pace(s: &mut Settings<'_>) -> Pace {
    let limit = match s.text("rate_limit") {
        None if s.has("rate_limit") => Limit::Faulty,
        None => Limit::OfKind,
        Some(text) if text == "none" => Limit::Lifted,
        Some(text) => parse_rate(&text).map_or_else(
            || {
                let hint = "write it as 1/s, 20/min or 5/2s (at most 24h), or none for no limit";
                s.fault_shown("rate_limit", "is not a rate".to_owned(), hint);
                Limit::Faulty
            },
            Limit::Of,
        ),
    };
    let burst = s.integer("burst", 1..=1_000_000).and_then(|n| u32::try_from(n).ok());
    Pace { limit, burst }
}

impl Pace {
    /// The pace in force, where `of_kind` is the kind's own. A burst without a rate goes to the kind's first rate.
    fn apply(self, s: &mut Settings<'_>, of_kind: Vec<Rate>) -> Option<Vec<Rate>> {
        let mut pace = match self.limit {
            Limit::OfKind => of_kind,
            Limit::Lifted => Vec::new(),
            Limit::Of(rate) => vec![rate],
            Limit::Faulty => return None,
        };
        match (self.burst, pace.first_mut()) {
            (Some(burst), Some(first)) => first.burst = burst,
            (Some(_), None) => {
                let problem = "means nothing to a channel without a limit".to_owned();
                s.fault_shown("burst", problem, "set `rate_limit`, or remove `burst`");
                return None;
            }
            (None, _) => {}
        }
        Some(pace)
    }
}
