//! Orders to replay and to purge, as workers are given them and as they tell what they did.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Server, Trouble, letters::PATH, refused, understand};
use crate::dead_letters::LetterFilter;

/// What one worker says at the end.
#[derive(Debug, Deserialize)]
pub struct Summary<T> {
    /// How many letters were meant.
    pub selected: u64,
    /// What was done.
    #[serde(flatten)]
    pub report: T,
    /// Why it stopped before its end.
    pub stopped: Option<String>,
}

/// What a purge did.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct PurgeReport {
    /// Letters that are gone.
    pub purged: u64,
}

/// Gives the order to one worker and waits for its end, which may be long in coming; `hear` is told how far it is. What it had done
/// before it failed is told as well.
pub async fn give<T: DeserializeOwned>(
    server: &Server,
    what: &str,
    body: &Value,
    mut hear: impl FnMut(&Value),
) -> (Option<Summary<T>>, Option<Trouble>) {
    match server.order(&format!("{PATH}/{what}"), body, |line| hear(&line["progress"])).await {
        Ok(last) => ended(&last),
        Err(trouble) => (None, Some(trouble)),
    }
}

/// What the last line of an order says.
pub fn ended<T: DeserializeOwned>(last: &Value) -> (Option<Summary<T>>, Option<Trouble>) {
    // An error at the end comes with what had been done before it.
    let trouble = last.get("error").map(|_| refused(http::StatusCode::OK, last.to_string().as_bytes()));
    match last.get("summary").cloned().map(understand::<Summary<T>>) {
        Some(Ok(summary)) => (Some(summary), trouble),
        Some(Err(trouble)) => (None, Some(trouble)),
        None => {
            let broke_off = || Trouble::Silent(String::from("it broke off in the middle of it"));
            (None, trouble.or_else(|| Some(broke_off())))
        }
    }
}

/// The order as the API reads it. `all` says that no filter is meant to be one.
pub fn order(filter: &LetterFilter, all: bool, dry_run: bool) -> Value {
    let LetterFilter { channel, reason, cause, decision, severity, since, until, up_to, limit, ids } = filter;
    let mut words = json!({
        "channel": channel, "reason": reason, "decision": decision, "severity": severity, "since": since, "until": until,
        "limit": limit,
    });
    if let Some(cause) = cause {
        // Only where it is meant, so that workers of before understand every other order.
        words["cause"] = json!(cause);
    }
    if let Some(up_to) = up_to {
        words["up_to"] = json!(up_to);
    }
    let is_empty = *filter == LetterFilter::default();
    let mut order = json!({"filter": words, "dry_run": dry_run});
    if !ids.is_empty() {
        order["ids"] = json!(ids);
    } else if all && is_empty {
        order["all"] = json!(true);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_no_more_than_was_chosen() {
        let soc = LetterFilter { channel: Some("soc".parse().unwrap()), limit: Some(3), ..LetterFilter::default() };
        let id: crate::dead_letters::LetterId = "0197a2b4-0000-7000-8000-000000000001".parse().unwrap();
        let some = order(&soc, true, true);
        assert_eq!((&some["filter"]["channel"], &some["filter"]["limit"]), (&json!("soc"), &json!(3)));
        assert_eq!((some.get("all"), some.get("ids"), &some["dry_run"]), (None, None, &json!(true)));
        let one = LetterFilter { ids: vec![id], ..LetterFilter::default() };
        assert_eq!(order(&one, false, true)["ids"], json!([id]));
        assert_eq!(order(&LetterFilter::default(), true, true)["all"], json!(true));
        assert_eq!(order(&LetterFilter::default(), false, true).get("all"), None);
    }

    #[test]
    fn what_was_done_before_it_failed_is_told_as_well() {
        let last =
            json!({"summary": {"selected": 9, "purged": 4, "stopped": null}, "error": {"message": "the disk is full"}});
        let (summary, trouble) = ended::<PurgeReport>(&last);
        assert_eq!(summary.map(|summary| (summary.selected, summary.report.purged)), Some((9, 4)));
        assert_eq!(trouble.as_ref().map(Trouble::why), Some("the disk is full"));
        let (summary, trouble) = ended::<PurgeReport>(&json!({"progress": {}}));
        assert!(summary.is_none() && trouble.is_some_and(|trouble| trouble.why().contains("broke off")));
    }
}
