//! Which letters are meant: the words of a query and of an order's body. Pure but for the reading of the body.
//!
//! Whatever is not understood is refused and named, because a word that is passed over would mean more letters than were asked
//! for, and they may be about to be deleted.

use std::{collections::BTreeSet, fmt::Display, str::FromStr};

use axum::{body::Body, http::StatusCode};
use serde::Deserialize;

use super::{ApiError, errand::Deed};
use crate::{
    dead_letters::{LetterFilter, LetterId},
    model::{ChannelId, DeathReason, Severity, Timestamp},
};

/// The largest body of an order, in bytes, and the most ids in it.
const BODY_BYTES_MAX: usize = 1024 * 1024;
const IDS_MAX: usize = 10_000;
/// And the most in a query.
const IDS_ASKED_MAX: usize = 100;

const HINT_QUERY: &str = "the keys are channel, reason, cause, decision, severity, since, until (RFC 3339), limit (1 to 1000), \
     before (an id, for the next page), bodies (false leaves them out) by_cause (true or false) and ids (some, with commas between them), each at most once";
const HINT_ORDER: &str = "send {\"ids\": [...]} with 1 to 10,000 ids, or {\"filter\": {...}} with channel, reason, cause, \
     decision, severity, since, until, up_to, limit; and \"dry_run\": true to be told alone. A purge of all needs {\"all\": true}";

fn bad(message: impl Into<String>, hint: &'static str) -> ApiError {
    let message: String = message.into().chars().take(300).collect();
    ApiError { status: StatusCode::BAD_REQUEST, code: "malformed", message, hint }
}

/// The id in a path.
pub(in crate::http) fn id(text: &str) -> Result<LetterId, ApiError> {
    let wrong = |_| bad(format!("`{}` is not the id of a dead letter", text.escape_debug()), "ids are UUIDs");
    text.parse().map_err(wrong)
}

/// What a query asks for.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http) struct Asked {
    pub(in crate::http) filter: LetterFilter,
    /// Letters that are older than this one.
    pub(in crate::http) before: Option<LetterId>,
    /// Whether the decisions themselves are wanted, which are most of an answer.
    pub(super) bodies: bool,
    pub(super) by_cause: bool,
}

impl Asked {
    pub(in crate::http) fn read(query: &str) -> Result<Self, ApiError> {
        let mut asked = Self { filter: LetterFilter::default(), before: None, bodies: true, by_cause: false };
        let mut seen = BTreeSet::new();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let filter = &mut asked.filter;
            match &*key {
                "channel" => filter.channel = Some(word(&key, &value)?),
                "reason" => filter.reason = Some(word(&key, &value)?),
                "cause" => filter.cause = Some(value.clone().into_owned()),
                "decision" => filter.decision = Some(value.clone().into_owned()),
                "severity" => filter.severity = Some(word(&key, &value)?),
                "since" => filter.since = Some(word(&key, &value)?),
                "until" => filter.until = Some(word(&key, &value)?),
                "ids" => filter.ids = ids(&value)?,
                "limit" => filter.limit = Some(limit(&value)?),
                "before" => asked.before = Some(word(&key, &value)?),
                "bodies" => asked.bodies = word(&key, &value)?,
                "by_cause" => asked.by_cause = word(&key, &value)?,
                unknown => return Err(bad(format!("there is no key `{}`", unknown.escape_debug()), HINT_QUERY)),
            }
            if !seen.insert(key.clone()) {
                return Err(bad(format!("`{key}` is given twice"), HINT_QUERY));
            }
        }
        if asked.by_cause && asked.before.is_some() {
            return Err(bad("`before` and `by_cause` do not go together: causes have no pages", HINT_QUERY));
        }
        Ok(asked)
    }
}

fn word<T: FromStr<Err: Display>>(key: &str, value: &str) -> Result<T, ApiError> {
    value.parse().map_err(|error| bad(format!("`{key}={}`: {error}", value.escape_debug()), HINT_QUERY))
}

fn ids(value: &str) -> Result<Vec<LetterId>, ApiError> {
    let some: Vec<LetterId> = value.split(',').map(|one| word("ids", one)).collect::<Result<_, _>>()?;
    if some.len() > IDS_ASKED_MAX { Err(bad("`ids` has more than 100", HINT_QUERY)) } else { Ok(some) }
}

fn limit(value: &str) -> Result<usize, ApiError> {
    let limit = value.parse().ok().filter(|limit| (1..=LetterFilter::LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| bad(format!("`limit={}` is not 1 to 1000", value.escape_debug()), HINT_QUERY))
}

/// What is to be sent again or deleted.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http) struct Order {
    pub(in crate::http) filter: LetterFilter,
    /// Say what would happen, and do nothing.
    pub(super) dry_run: bool,
    /// What was ordered, for the audit.
    pub(super) words: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    ids: Option<Vec<LetterId>>,
    #[serde(default)]
    filter: Words,
    #[serde(default)]
    all: bool,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    channel: Option<ChannelId>,
    reason: Option<DeathReason>,
    cause: Option<String>,
    decision: Option<String>,
    severity: Option<Severity>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    up_to: Option<u64>,
    limit: Option<usize>,
}

impl Order {
    /// Reads an order's body. One to delete must say which letters, or that all are meant.
    pub(super) async fn read(body: Body, deed: Deed) -> Result<Self, ApiError> {
        let bytes = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
        Self::of(&bytes.map_err(|_| bad("the body is too large, or did not arrive whole", HINT_ORDER))?, deed)
    }

    /// The order in these bytes.
    pub(in crate::http) fn of(bytes: &[u8], deed: Deed) -> Result<Self, ApiError> {
        let Wire { ids, filter, all, dry_run } = serde_json::from_slice(bytes)
            .map_err(|error| bad(format!("the body is not an order: {error}"), HINT_ORDER))?;
        // An empty list is a script's that found nothing, and must not mean everything.
        if ids.as_ref().is_some_and(|ids| ids.is_empty() || ids.len() > IDS_MAX) {
            return Err(bad("`ids` has none, or more than 10,000", HINT_ORDER));
        }
        let Words { channel, reason, cause, decision, severity, since, until, up_to, limit } = filter;
        let ids = ids.unwrap_or_default();
        let filter = LetterFilter { channel, reason, cause, decision, severity, since, until, up_to, limit, ids };
        let chosen = filter != LetterFilter::default();
        if all && chosen {
            return Err(bad("`all` goes with neither ids nor a filter", HINT_ORDER));
        }
        if deed == Deed::Purge && !chosen && !all {
            return Err(bad("no dead letter was chosen", HINT_ORDER));
        }
        Ok(Self { words: in_words(&filter), filter, dry_run })
    }
}

/// The choice in one line.
pub(in crate::http) fn in_words(filter: &LetterFilter) -> String {
    const IDS_NAMED_MAX: usize = 10;
    let LetterFilter { channel, reason, cause, decision, severity, since, until, up_to, limit, ids } = filter;
    let named = ids.iter().take(IDS_NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>().join(",");
    let more = ids.len().checked_sub(IDS_NAMED_MAX).filter(|more| *more > 0);
    let parts = [
        (!ids.is_empty()).then(|| format!("ids={named}{}", more.map_or_else(String::new, |more| format!(",+{more}")))),
        channel.as_ref().map(|channel| format!("channel={channel}")),
        reason.map(|reason| format!("reason={reason}")),
        cause.as_ref().map(|cause| format!("cause={}", cause.escape_debug().take(200).collect::<String>())),
        decision.as_ref().map(|id| format!("decision={}", id.escape_debug().take(128).collect::<String>())),
        severity.map(|severity| format!("severity={severity}")),
        since.map(|since| format!("since={since}")),
        until.map(|until| format!("until={until}")),
        up_to.map(|up_to| format!("up_to={up_to}")),
        limit.map(|limit| format!("limit={limit}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { String::from("all") } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0197a2b4-0000-7000-8000-000000000001";

    #[test]
    fn a_query_says_which_letters_are_meant() {
        let query = format!(
            "channel=soc&reason=refused&cause=HTTP+400:+%23&decision=a%20b&severity=HIGH&since=2026-06-01T00:00:00Z&until=2026-06-02T00:00:00Z&limit=7&before={ID}"
        );
        let Asked { filter, before, bodies, by_cause } = Asked::read(&query).unwrap();
        let wanted = LetterFilter {
            channel: Some("soc".parse().unwrap()),
            reason: Some(DeathReason::Refused),
            cause: Some(String::from("HTTP 400: #")),
            decision: Some(String::from("a b")),
            severity: Some(Severity::High),
            since: Some("2026-06-01T00:00:00Z".parse().unwrap()),
            until: Some("2026-06-02T00:00:00Z".parse().unwrap()),
            up_to: None,
            limit: Some(7),
            ids: Vec::new(),
        };
        assert_eq!((filter, before, bodies, by_cause), (wanted, Some(ID.parse().unwrap()), true, false));
        assert_eq!(Asked::read("").unwrap().filter, LetterFilter::default());
        assert!(!Asked::read("bodies=false").unwrap().bodies);
        assert!(Asked::read("by_cause=true").unwrap().by_cause);
        assert_eq!(Asked::read(&format!("ids={ID},{ID}")).unwrap().filter.ids.len(), 2);
    }

    #[test]
    fn what_is_not_understood_is_refused_and_named() {
        for (query, names) in [
            ("chanel=soc", "chanel"),
            ("channel=UPPER", "channel"),
            ("reason=boredom", "boredom"),
            ("severity=high", "severity"),
            ("since=yesterday", "since"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=-1", "limit"),
            ("before=1", "before"),
            ("by_cause=maybe", "by_cause"),
            ("ids=", "ids"),
            ("ids=1", "ids"),
            ("channel=a&channel=b", "twice"),
            ("by_cause=true&before=0197a2b4-0000-7000-8000-000000000001", "by_cause"),
        ] {
            let error = Asked::read(query).unwrap_err();
            assert_eq!(error.status, StatusCode::BAD_REQUEST);
            assert!(error.message.contains(names), "{query}: {}", error.message);
        }
        assert!(id("x").is_err() && id(ID).is_ok());
    }

    #[test]
    fn an_order_to_delete_says_what_and_an_empty_list_is_never_everything() {
        let order = |body: &str, deed| Order::of(body.as_bytes(), deed);
        let one = format!(r#"{{"ids":["{ID}"],"dry_run":true}}"#);
        let Order { filter, dry_run, words } = order(&one, Deed::Purge).unwrap();
        assert_eq!((filter.ids.len(), dry_run, words), (1, true, format!("ids={ID}")));
        let some = order(r#"{"filter":{"channel":"soc","limit":3}}"#, Deed::Purge).unwrap();
        assert_eq!((some.words.as_str(), some.filter.limit, some.dry_run), ("channel=soc limit=3", Some(3), false));
        assert_eq!(order(r#"{"all":true}"#, Deed::Purge).unwrap().words, "all");
        assert_eq!(order("{}", Deed::Replay).unwrap().filter, LetterFilter::default());
        for bad in ["{}", r#"{"filter":{}}"#, r#"{"dry_run":true}"#] {
            assert!(order(bad, Deed::Purge).is_err(), "{bad}");
        }
        for bad in [
            "",
            "[]",
            r#"{"ids":[]}"#,
            r#"{"ids":["x"]}"#,
            r#"{"filter":{"chanel":"soc"}}"#,
            r#"{"filter":{"limit":-1}}"#,
            r#"{"all":true,"filter":{"channel":"soc"}}"#,
            r#"{"dryrun":true}"#,
        ] {
            assert!(order(bad, Deed::Replay).is_err() && order(bad, Deed::Purge).is_err(), "{bad}");
        }
    }
}
