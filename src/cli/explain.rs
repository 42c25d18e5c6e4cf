//! `explain`: which channels would get a decision, and the first filter that says no of each other one.

use std::path::PathBuf;

use http::Method;
use serde_json::Value;

use super::{Failure, Global, Shell, config_file, event, place::Place, runtime, server, table};
use crate::{
    model::{Decision, filter::Explained},
    settings::printable,
    workers::{Unheard, understand},
};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  Ask about a decision in a file, or from another program:
    interven-alerts explain decision.json
    interven-alerts explain - < decision.json
  The same for another program:
    interven-alerts explain decision.json --json
  Ask running workers, which also know the channels that were made in the console:
    interven-alerts explain decision.json --server http://127.0.0.1:8080

Where:
  Without --server the channels are those of the configuration file; with it, those that running
  workers have. Where workers do not agree, each line says which of them say so.")]
pub struct Args {
    /// A file with one decision as JSON, or - for standard input
    #[arg(value_name = "EVENT.json|-")]
    event: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: server::Args,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    if Place::is_workers(&args.server, global) {
        let decision = event::read(&args.event, shell)?;
        return runtime(false)?.block_on(ask(args, &decision, shell));
    }
    let plan = config_file::load(global, shell)?;
    let decision = event::read(&args.event, shell)?;
    let answers = plan.channels.iter().map(|channel| Explained::of(&channel.id, &channel.filter, &decision));
    let answers = serde_json::to_value(answers.collect::<Vec<_>>()).map_err(|error| Failure::of(&error))?;
    print(answers.as_array().map_or(&[], Vec::as_slice), args, &decision, shell)
}

/// Asks running workers about the channels that they have.
async fn ask(args: &Args, decision: &Decision, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let servers = server::find(&args.server, shell).await?;
    let body: Value = serde_json::from_slice(decision.raw()).map_err(|error| Failure::of(&error))?;
    let (mut heard, mut unheard) = (Vec::new(), Vec::new());
    for (server, answer) in servers.ask_all(Method::POST, "/api/explain", Some(&body)).await {
        match answer.and_then(|answer| understand::<Vec<Value>>(answer.value)) {
            Ok(answers) => heard.push((server.name.clone(), answers)),
            Err(trouble) => unheard.push(Unheard::new(&server.name, trouble)),
        }
    }
    if !heard.is_empty() {
        print(&together(heard), args, decision, shell)?;
    }
    server::end(server::failures(unheard), shell)
}

/// The answers of all workers as one list. What not all of them say has the names of those that do.
fn together(heard: Vec<(String, Vec<Value>)>) -> Vec<Value> {
    let workers = heard.len();
    let mut told: Vec<(Value, Vec<String>)> = Vec::new();
    for (server, answers) in heard {
        for answer in answers {
            match told.iter_mut().find(|(known, _)| *known == answer) {
                Some((_, servers)) => servers.push(server.clone()),
                None => told.push((answer, vec![server.clone()])),
            }
        }
    }
    let answer = |(mut answer, servers): (Value, Vec<String>)| {
        if servers.len() < workers
            && let Some(fields) = answer.as_object_mut()
        {
            fields.insert(String::from("servers"), servers.into());
        }
        answer
    };
    told.into_iter().map(answer).collect()
}

fn print(answers: &[Value], args: &Args, decision: &Decision, shell: &mut Shell<'_>) -> Result<(), Failure> {
    if args.json {
        return shell.print_json(&answers);
    }
    let rows: Vec<Vec<String>> = answers.iter().map(row).collect();
    Ok(write!(shell.out, "{}\n{}", headline(decision), table::aligned(&rows))?)
}

/// The decision in one line. Its text is hostile, and a terminal obeys more than a card does.
fn headline(decision: &Decision) -> String {
    let Decision { id, kind, severity, agent, .. } = decision;
    printable(&format!("{id}: {kind} {severity}, {} by {}", decision.tool_name(), agent.label()))
}

fn row(answer: &Value) -> Vec<String> {
    let text = |key: &str| answer[key].as_str().unwrap_or_default();
    let says = if answer["matches"] == true {
        String::from("matches")
    } else {
        let wanted = if text("wanted").is_empty() { "nothing" } else { text("wanted") };
        printable(&format!("does not match: {} wants {wanted}, the decision has {}", text("filter"), text("found")))
    };
    let mut cells = vec![format!("  {}", printable(text("channel"))), says];
    if let Some(servers) = answer["servers"].as_array() {
        let servers: Vec<&str> = servers.iter().filter_map(Value::as_str).collect();
        cells.push(printable(&format!("(says {} alone)", servers.join(", "))));
    }
    cells
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_all_workers_say_is_told_once_and_what_some_say_names_them() {
        let soc = |matches: bool| json!({"channel": "soc", "matches": matches});
        let new = json!({"channel": "new", "matches": true});
        let agreed = together(vec![("a".into(), vec![soc(true)]), ("b".into(), vec![soc(true)])]);
        assert_eq!(agreed, [soc(true)]);
        let heard = vec![("a".into(), vec![soc(true), new.clone()]), ("b".into(), vec![soc(false), new.clone()])];
        let told = together(heard);
        assert_eq!((told.len(), &told[0]["servers"], &told[1]), (3, &json!(["a"]), &new));
        assert_eq!((&told[2]["servers"], &told[2]["matches"]), (&json!(["b"]), &json!(false)));
        assert!(row(&told[0])[2].contains("says a alone"));
    }
}
