//! The channels of many workers as those of one.
//!
//! Every worker tells its own view, and only the owner of a lane knows how it is; so of each channel the view that tells most is
//! shown, with how many workers see what. What each counts for itself is added up.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A channel as a worker tells it.
pub type View = Map<String, Value>;

/// The states of a lane, what tells most first. A worker that cannot read a channel must be mended before anything that the others
/// see of it matters. What an operator decided holds for all workers; the others are the owner's alone.
const TELLING: [&str; 6] = ["unreadable", "stopped", "held", "paused", "probing", "flowing"];

/// What differs from worker to worker.
const OWN_VIEW: [&str; 16] = [
    "state",
    "why",
    "since",
    "until",
    "paused_by",
    "waiting",
    "unreadable",
    "matched",
    "delivered",
    "folded",
    "dead",
    "attempts",
    "last_success",
    "dead_in_a_row",
    "last_death",
    "oldest_waiting",
];

/// What each worker counts for itself.
const COUNTED: [&str; 4] = ["matched", "delivered", "folded", "dead"];

/// Where a state stands among all: what tells most first.
pub fn rank(state: &str) -> usize {
    TELLING.iter().position(|known| *known == state).unwrap_or(TELLING.len())
}

/// The channels of all workers, each once, in the order in which they were heard of.
pub fn together(heard: Vec<(String, Vec<View>)>) -> Vec<Value> {
    let mut order: Vec<String> = Vec::new();
    let mut views: BTreeMap<String, Vec<(String, View)>> = BTreeMap::new();
    for (server, channels) in heard {
        for channel in channels {
            let id = channel.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
            if !views.contains_key(&id) {
                order.push(id.clone());
            }
            views.entry(id).or_default().push((server.clone(), channel));
        }
    }
    order.iter().filter_map(|id| views.remove(id)).map(one).collect()
}

/// One channel, as its workers see it.
fn one(views: Vec<(String, View)>) -> Value {
    let rank = |view: &View| rank(view.get("state").and_then(Value::as_str).unwrap_or_default());
    let waits = |view: &View, place: &str| view.get("waiting").and_then(|all| all[place].as_i64()).unwrap_or(0);
    // What a worker holds in memory is its own; the queue on the broker is the same one, seen by all.
    let memory: i64 = views.iter().map(|(_, view)| waits(view, "memory")).sum();
    let queue = views.iter().map(|(_, view)| waits(view, "lane_queue")).max().unwrap_or(0);
    let own = |(server, view): &(String, View)| {
        let mut own: View =
            OWN_VIEW.iter().filter_map(|key| Some(((*key).to_owned(), view.get(*key)?.clone()))).collect();
        own.insert(String::from("server"), json!(server));
        Value::Object(own)
    };
    let servers: Vec<Value> = views.iter().map(own).collect();
    let counts = counts(&views);
    let mut views: Vec<View> = views.into_iter().map(|(_, view)| view).collect();
    views.sort_by_key(rank);
    let mut views = views.into_iter();
    let Some(mut shown) = views.next() else { return Value::Null };
    // A worker that cannot read a channel knows little of what it is; another one does.
    for (key, value) in views.flatten() {
        shown.entry(key).or_insert(value);
    }
    shown.extend(counts);
    shown.insert(String::from("waiting"), json!({"memory": memory, "lane_queue": queue}));
    shown.insert(String::from("servers"), Value::Array(servers));
    Value::Object(shown)
}

/// What all workers counted, as far as they tell it.
fn counts(views: &[(String, View)]) -> View {
    let told = |key: &'static str| views.iter().filter_map(move |(_, view)| view.get(key));
    let mut counts = View::new();
    for key in COUNTED {
        if told(key).next().is_some() {
            counts.insert(key.to_owned(), told(key).filter_map(Value::as_u64).sum::<u64>().into());
        }
    }
    let mut attempts: BTreeMap<String, u64> = BTreeMap::new();
    for (outcome, count) in told("attempts").filter_map(Value::as_object).flatten() {
        *attempts.entry(outcome.clone()).or_default() += count.as_u64().unwrap_or(0);
    }
    if !attempts.is_empty() {
        counts.insert(String::from("attempts"), json!(attempts));
    }
    // In UTC and to the millisecond, so that they sort as texts.
    for key in ["last_success", "last_death"] {
        if let Some(last) = told(key).filter_map(Value::as_str).max() {
            counts.insert(key.to_owned(), last.into());
        }
    }
    if let Some(oldest) = told("oldest_waiting").filter_map(Value::as_str).min() {
        counts.insert(String::from("oldest_waiting"), oldest.into());
    }
    // Each counts its own row, and what another worker delivers ends none of them: see which was last.
    if let Some(most) = told("dead_in_a_row").filter_map(Value::as_u64).max() {
        counts.insert(String::from("dead_in_a_row"), most.into());
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_worker_counts_is_added_up_and_a_worker_that_can_read_the_channel_says_what_it_is() {
        let of = |more: Value| {
            let mut view = view("flowing", 0, 0);
            view.extend(serde_json::from_value::<View>(more).unwrap());
            view
        };
        let one = of(
            json!({"delivered": 3, "dead": 1, "attempts": {"delivered": 3, "refused": 1}, "last_success": null, "kind": "slack"}),
        );
        let two = of(
            json!({"delivered": 4, "dead": 0, "attempts": {"delivered": 4}, "last_success": "2026-06-01T12:00:00.000Z"}),
        );
        let blind: View =
            serde_json::from_value(json!({"id": "soc", "state": "unreadable", "unreadable": "no key"})).unwrap();
        let soc = &together(vec![("a".into(), vec![one]), ("b".into(), vec![two]), ("c".into(), vec![blind])])[0];
        assert_eq!((&soc["delivered"], &soc["dead"]), (&json!(7), &json!(1)));
        assert_eq!(soc["attempts"], json!({"delivered": 7, "refused": 1}));
        assert_eq!(soc["last_success"], "2026-06-01T12:00:00.000Z");
        assert_eq!(
            (&soc["state"], &soc["unreadable"], &soc["kind"]),
            (&json!("unreadable"), &json!("no key"), &json!("slack"))
        );
        assert_eq!((&soc["servers"][1]["delivered"], soc.get("folded")), (&json!(4), None));
    }

    #[test]
    fn of_what_was_not_taken_and_what_waits_the_gravest_is_shown() {
        let of = |row: u64, death: Value, oldest: Value| {
            let mut view = view("flowing", 0, 0);
            let more = json!({"dead_in_a_row": row, "last_death": death, "oldest_waiting": oldest});
            view.extend(serde_json::from_value::<View>(more).unwrap());
            view
        };
        let one = of(4, json!("2026-06-01T12:00:00.000Z"), json!("2026-06-01T11:30:00.000Z"));
        let two = of(0, Value::Null, json!("2026-06-01T11:00:00.000Z"));
        let soc = &together(vec![("a".into(), vec![two]), ("b".into(), vec![one])])[0];
        assert_eq!((&soc["dead_in_a_row"], &soc["last_death"]), (&json!(4), &json!("2026-06-01T12:00:00.000Z")));
        assert_eq!(soc["oldest_waiting"], "2026-06-01T11:00:00.000Z");
    }

    fn view(state: &str, memory: i64, queue: i64) -> View {
        let view = json!({"id": "soc", "kind": "slack", "state": state, "why": state, "until": null, "paused_by": null,
            "waiting": {"memory": memory, "lane_queue": queue}});
        serde_json::from_value(view).unwrap()
    }

    #[test]
    fn of_each_channel_the_view_that_tells_most_is_shown_with_what_waits_in_the_whole_pool() {
        let mut other = view("flowing", 0, 0);
        other.insert(String::from("id"), json!("other"));
        let heard = vec![
            (String::from("a"), vec![view("flowing", 2, 7)]),
            (String::from("b"), vec![view("held", 3, 9), other]),
            (String::from("c"), vec![view("flowing", 0, 8)]),
        ];
        let channels = together(heard);
        assert_eq!(channels.len(), 2);
        let soc = &channels[0];
        assert_eq!((&soc["state"], &soc["why"]), (&json!("held"), &json!("held")));
        assert_eq!(soc["waiting"], json!({"memory": 5, "lane_queue": 9}), "every worker sees the same queue");
        assert_eq!(soc["servers"][1]["server"], "b");
    }

    #[test]
    fn a_channel_that_one_worker_cannot_read_is_told_before_all_else() {
        let seen = |states: &[&str]| {
            let heard = states.iter().map(|state| ((*state).to_owned(), vec![view(state, 0, 0)])).collect();
            together(heard)[0]["state"].clone()
        };
        assert_eq!(seen(&["flowing", "unreadable", "held"]), "unreadable");
        assert_eq!(seen(&["flowing", "stopped", "held"]), "stopped");
        assert_eq!(seen(&["flowing", "of a later version"]), "flowing");
    }
}
