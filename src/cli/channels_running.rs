//! `channels list` and `channels test` over running workers, their views put together by [`crate::workers::channels`].

use http::Method;
use serde_json::{Value, json};

use super::{Failure, Shell, channels_test, server, table};
use crate::{
    model::verdict::Outcome,
    settings::printable,
    workers::{
        Unheard,
        channels::{View, rank, together},
        understand,
    },
};

/// Shows what every worker has and does. What some answered is printed even if others are silent.
pub(super) async fn list(args: &server::Args, json: bool, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let servers = server::find(args, shell).await?;
    let (mut heard, mut unheard, mut away) = (Vec::new(), Vec::new(), false);
    for (server, answer) in servers.ask_all(Method::GET, "/api/channels", None).await {
        if answer.as_ref().is_ok_and(|answer| answer.broker_away) {
            let what = "the broker is not connected: nobody is told of new decisions, and what is shown may be old";
            shell.say("warning", &format!("{}: {what}", server.name));
            away = true;
        }
        match answer.and_then(|answer| understand::<Vec<View>>(answer.value)) {
            Ok(channels) => heard.push((server.name.clone(), channels)),
            Err(trouble) => unheard.push(Unheard::new(&server.name, trouble)),
        }
    }
    let channels = together(heard);
    if json {
        shell.print_json(&channels)?;
    } else if !channels.is_empty() {
        write!(shell.out, "{}", overview(&channels, servers.several()))?;
    }
    server::end(server::failures(unheard), shell)?;
    // It was said above.
    if away { Err(Failure::new("")) } else { Ok(()) }
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
    known.sort_by_key(|state| rank(state));
    let count = |state: &&str| format!("{} {}", states.iter().filter(|one| *one == state).count(), printable(state));
    known.iter().map(count).collect::<Vec<_>>().join(", ")
}

/// Lets a running worker post the sample: the first one that has the channel.
pub(super) async fn test(args: &channels_test::Args, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let servers = server::find(&args.server, shell).await?;
    let id: String = url::form_urlencoded::byte_serialize(args.channel.as_bytes()).collect();
    let answer = servers.ask_any(Method::POST, &format!("/api/channels/{id}/test"), &json!({})).await;
    let answer = answer.map_err(|(server, trouble)| server::failure(&server, trouble))?;
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
    fn a_table_of_several_workers_says_how_many_see_what() {
        let channel = json!({"id": "soc", "kind": "slack", "state": "held", "why": "no_service",
            "waiting": {"memory": 5, "lane_queue": 9},
            "servers": [{"state": "flowing"}, {"state": "held"}, {"state": "flowing"}, {"state": "unreadable"}]});
        let table = overview(&[channel], true);
        assert!(table.contains("1 unreadable, 1 held, 2 flowing"), "{table}");
        assert!(!overview(&[json!({"id": "soc"})], false).contains("WORKERS"));
    }
}
