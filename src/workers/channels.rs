//! The channels of many workers as those of one.
//!
//! Every worker tells its own view, and only the owner of a lane knows how it is; so of each channel the view that tells most is
//! shown, with how many workers see what.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A channel as a worker tells it.
pub type View = Map<String, Value>;

/// The states of a lane, what tells most first. A worker that cannot read a channel must be mended before anything that the others
/// see of it matters. What an operator decided holds for all workers; the others are the owner's alone.
const TELLING: [&str; 6] = ["unreadable", "stopped", "held", "paused", "probing", "flowing"];

/// What differs from worker to worker.
const OWN_VIEW: [&str; 6] = ["state", "why", "until", "paused_by", "waiting", "unreadable"];

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
    let Some((_, mut shown)) = views.into_iter().min_by_key(|(_, view)| rank(view)) else { return Value::Null };
    shown.insert(String::from("waiting"), json!({"memory": memory, "lane_queue": queue}));
    shown.insert(String::from("servers"), Value::Array(servers));
    Value::Object(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

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
