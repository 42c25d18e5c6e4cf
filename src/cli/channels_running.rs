//! `channels list` and `channels test` over running workers.
//!
//! Every worker tells its own view, and only the owner of a lane knows how it is; so of each channel the view that tells most is
//! shown, with how many workers see what.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Map, Value, json};

use super::{
    Failure, Shell, channels_test,
    server::{self, Servers},
    table,
};
use crate::{model::verdict::Outcome, settings::printable};

/// A channel as a worker tells it.
type View = Map<String, Value>;

/// The states of a lane, what tells most first. What an operator decided holds for all workers; the others are the owner's alone.
const TELLING: [&str; 5] = ["stopped", "held", "paused", "probing", "flowing"];

/// What differs from worker to worker.
const OWN_VIEW: [&str; 5] = ["state", "why", "until", "paused_by", "waiting"];

/// Shows what every worker has and does. What some answered is printed even if others are silent.
pub(super) async fn list(args: &server::Args, json: bool, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let servers = Servers::find(args, shell).await?;
    let (mut heard, mut failures) = (Vec::new(), Vec::new());
    for (server, answer) in servers.ask_all(Method::GET, "/api/channels", None).await {
        match answer.and_then(server::understand::<Vec<View>>) {
            Ok(channels) => heard.push((server.name.clone(), channels)),
            Err(trouble) => failures.push(trouble.failure(&server.name)),
        }
    }
    let channels = together(heard);
    if json {
        shell.print_json(&channels)?;
    } else if !channels.is_empty() {
        write!(shell.out, "{}", overview(&channels, servers.several()))?;
    }
    server::end(failures, shell)
}

/// The channels of all workers, each once, in the order in which they were heard of.
fn together(heard: Vec<(String, Vec<View>)>) -> Vec<Value> {
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
    let rank = |view: &View| {
        let state = view.get("state").and_then(Value::as_str).unwrap_or_default();
        TELLING.iter().position(|known| *known == state).unwrap_or(TELLING.len())
    };
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

/// What lanes do, as a table for people.
fn overview(channels: &[Value], several: bool) -> String {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            printable(&other.to_string())
        }
    };
    let number = |value: &Value| value.as_i64().unwrap_or(0).to_string();
    let row = |channel: &Value| {
        let paused_by = &channel["paused_by"]["name"];
        let by = if paused_by.is_null() { String::new() } else { format!("paused by {}", text(paused_by)) };
        let why =
            [by, text(&channel["why"])].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        let mut cells = vec![
            text(&channel["id"]),
            text(&channel["kind"]),
            text(&channel["state"]),
            number(&channel["waiting"]["memory"]),
            number(&channel["waiting"]["lane_queue"]),
            text(&channel["until"]),
            why,
        ];
        if several {
            cells.insert(3, seen(&channel["servers"]));
        }
        cells
    };
    let mut head = ["CHANNEL", "KIND", "STATE", "IN MEMORY", "IN QUEUE", "UNTIL", "WHY"].map(str::to_owned).to_vec();
    if several {
        head.insert(3, String::from("WORKERS"));
    }
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(channels.iter().map(row)).collect();
    table::aligned(&rows)
}

/// How many workers see which state: `1 held, 3 flowing`.
fn seen(servers: &Value) -> String {
    let states: Vec<&str> =
        servers.as_array().into_iter().flatten().map(|one| one["state"].as_str().unwrap_or("unknown")).collect();
    let mut known: Vec<&str> = Vec::new();
    for state in &states {
        if !known.contains(state) {
            known.push(state);
        }
    }
    known.sort_by_key(|state| TELLING.iter().position(|known| known == state));
    let count = |state: &&str| format!("{} {}", states.iter().filter(|one| *one == state).count(), printable(state));
    known.iter().map(count).collect::<Vec<_>>().join(", ")
}

/// Lets a running worker post the sample: the first one that has the channel.
pub(super) async fn test(args: &channels_test::Args, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let servers = Servers::find(&args.server, shell).await?;
    let id: String = url::form_urlencoded::byte_serialize(args.channel.as_bytes()).collect();
    let answer = servers.ask_any(Method::POST, &format!("/api/channels/{id}/test"), &json!({})).await?;
    print_answer(&args.channel, args.json, &answer, shell)
}

/// Prints what a running worker says about its test: `{outcome, status, took_ms, answer, endpoint, meaning}`.
fn print_answer(channel: &str, json: bool, answer: &Value, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let text = |key: &str| answer[key].as_str().map(printable).unwrap_or_default();
    let outcome = text("outcome");
    if json {
        shell.print_json(answer)?;
    } else {
        let status = answer["status"].as_u64().map_or_else(|| String::from("no reply"), |code| format!("HTTP {code}"));
        let said = text("answer");
        let took = answer["took_ms"].as_u64().unwrap_or(0);
        let channel = printable(channel);
        let endpoint = answer["endpoint"].as_str().map_or_else(String::new, |to| format!(" to {}", printable(to)));
        let meaning = answer["meaning"].as_str().map_or_else(|| outcome.clone(), printable);
        writeln!(
            shell.out,
            "{channel}: a worker posted a sample{endpoint}\n  reply    {status} after {took} ms: {}\n  verdict  {meaning}",
            // The worker's words begin with the status, too.
            said.strip_prefix(&format!("{status}: ")).unwrap_or(&said)
        )?;
    }
    if [Outcome::Delivered, Outcome::Accepted].iter().any(|good| good.as_str() == outcome) {
        Ok(())
    } else {
        Err(Failure::new(format!("the sample was not delivered to `{}`", printable(channel))))
    }
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
    fn the_answer_to_a_test_is_told_and_one_that_was_not_delivered_is_a_failure() {
        let tell = |answer: Value| {
            let (mut input, mut out, mut err) = (&b""[..], Vec::new(), Vec::new());
            let mut shell = Shell {
                env: &|_| None,
                kinds: &[],
                directory: std::path::PathBuf::new(),
                clock: crate::model::Clock::System,
                input: &mut input,
                out: &mut out,
                out_is_terminal: false,
                err: &mut err,
                color: false,
            };
            let done = print_answer("soc", false, &answer, &mut shell).is_ok();
            (done, String::from_utf8(out).unwrap())
        };
        let (done, told) = tell(json!({"outcome": "delivered", "status": 200, "took_ms": 12, "answer": "ok"}));
        assert!(done && told.contains("HTTP 200 after 12 ms: ok") && told.contains("delivered"), "{told}");
        let (_, said) = tell(json!({"outcome": "delivered", "status": 200, "took_ms": 12, "answer": "HTTP 200: ok"}));
        assert_eq!(said, told, "the status is said once");
        let (done, told) = tell(json!({"outcome": "broken", "status": null, "took_ms": 3, "answer": "dns \u{1b}[2J"}));
        assert!(!done && told.contains("no reply") && !told.contains('\u{1b}'), "{told}");
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
        let table = overview(&channels, true);
        assert!(table.contains("1 held, 2 flowing") && table.contains("1 flowing"), "{table}");
        assert!(!overview(&channels, false).contains("WORKERS"));
    }
}
