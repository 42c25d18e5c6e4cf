//! The commands as an operator runs them: processes, exit codes, pipes; on RabbitMQ and on the embedded broker.

mod doctor;
mod help;
mod hygiene;

use std::{fs, time::Duration};

use bytes::Bytes;
use interven_alerts::{
    model::{Clock, Reply},
    stand_ins::{Firewall, Platform, Script, Step},
};
use serde_json::Value;

use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{ALL_EVENTS, FAST, PATIENT, PUBLISHER, PUBLISHER_TOKEN, Scene, on, token_of},
    unique_name,
    worker::{PATIENCE, WorkerProcess, run_plain},
};

const EVENT: &str = r#"{"id":"cli-1","time":"2026-06-01T12:00:00Z","decision":"DENY","severity":"MEDIUM","title":"Secret egress blocked","agent":{"id":"agt_42","name":"production-langgraph"},"tool":"slack","operation":"post_message","reasons":["SECRET_DETECTED"]}"#;

fn event(id: &str) -> String {
    EVENT.replace("cli-1", id)
}

/// A slack that refuses every card, whatever its form, and a discord that takes them.
async fn one_refuses() -> Scene {
    let mut scene = Scene::default();
    let refuse = Step::Reply { reply: Reply::new(400, "invalid_payload"), taken: false };
    scene.add("soc-slack", Platform::Slack, Script::always(refuse), &format!("{FAST}{PATIENT}")).await;
    scene.add("dev-discord", Platform::Discord, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    scene
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_says_what_kind_of_failure_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = "data_dir = \"data\"\nunknown = 1\n[[channel]]\nid = \"UPPER\"\nkind = \"slak\"\n[[channel]]\nid = \"two\"\n\
         kind = \"discord\"\nwebhook_url = \"http://example.com/x\"\nrate_limit = \"often\"\n";
    fs::write(dir.path().join("faulty.toml"), faulty).unwrap();
    let good = format!(
        "data_dir = \"{}/data\"\n[http]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n",
        dir.path().display()
    );
    fs::write(dir.path().join("good.toml"), good).unwrap();
    let cases: &[(&str, i32)] = &[
        ("", 2),
        ("--help", 0),
        ("--version", 0),
        ("nonsense", 2),
        ("run --no-such-flag", 2),
        ("run --log-level lane=loudest", 2),
        ("token", 2),
        ("token soc --role emperor", 2),
        ("token soc --role admin", 0),
        ("completions bash", 0),
        ("check --config good.toml", 0),
        ("check --config faulty.toml", 78),
        ("check --config missing.toml", 78),
        ("run --config faulty.toml", 78),
        ("channels list --config faulty.toml", 78),
        ("publish missing.ndjson --config good.toml", 1),
        ("explain missing.json --config good.toml", 1),
        ("channels test nobody --config good.toml", 1),
        ("dead-letters list --config good.toml", 1),
        ("dead-letters list --reason boredom --config good.toml", 2),
        ("dead-letters purge --config good.toml", 2),
        ("dead-letters show no-uuid --config good.toml", 2),
        ("publish - --rate 0 --config good.toml", 2),
    ];
    for (line, code) in cases {
        let said = run_plain(&line.split_whitespace().collect::<Vec<_>>(), dir.path()).await;
        assert_eq!(said.code, *code, "`{line}`: {said:?}");
        // Results to one side, trouble to the other.
        let loud = if *code == 0 { &said.out } else { &said.err };
        assert!(!loud.is_empty(), "`{line}`: {said:?}");
    }
    let said = run_plain(&["check", "--config", "faulty.toml"], dir.path()).await;
    for part in
        ["unknown", "1 to 64", "slak", "slack", "not a rate", "plain http", "faulty.toml:2", "faulty.toml:4", "hint"]
    {
        assert!(said.err.contains(part), "{part} in {}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publish_takes_every_sound_line_and_names_the_others() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("publish"));
    let mut scene = Scene::default();
    scene.add("siem", Platform::Siem, Script::accept(), &format!("format = \"json\"\n{ALL_EVENTS}{PATIENT}")).await;
    let mut worker = WorkerProcess::new(&format!(
        "{}{PUBLISHER}{}{}",
        on(rabbit, &prefix, ""),
        token_of("auditor"),
        scene.channels()
    ));
    worker.start_ready().await;
    let mut firewall = Firewall::new(21, Clock::System);
    let mut lines: Vec<String> = (0..50).map(|_| String::from_utf8(firewall.message().to_vec()).unwrap()).collect();
    let decisions: Vec<Bytes> = lines.iter().map(|line| Bytes::from(line.clone())).collect();
    lines.insert(7, String::from("{\"id\":\"half"));
    lines.insert(20, String::new());
    lines.insert(30, String::from("\u{1b}[2Jno JSON"));
    fs::write(worker.dir().join("decisions.ndjson"), lines.join("\n")).unwrap();

    let said = worker.command(&["publish", "decisions.ndjson"], "").await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out.contains("published 50") && said.err.contains("line 8") && said.err.contains("line 31"),
        "{said:?}"
    );
    assert!(!said.err.contains('\u{1b}'), "a terminal would obey: {said:?}");
    scene.until_told(&Scene::expected(&worker.config(), &decisions), PATIENCE).await;

    let said = worker.command(&["publish", "-", "--json", "--rate", "200"], &format!("{}\n", event("piped-1"))).await;
    assert_eq!((said.code, said.json()), (0, serde_json::json!({"published": 1, "faulty": 0})), "{said:?}");
    let token = [("INTERVEN_ALERTS_TOKEN", PUBLISHER_TOKEN)];
    let server = worker.server();
    let through = ["publish", "-", "--server", server.as_str()];
    let said = worker.command_with(&through, &event("served-1"), &token).await;
    assert_eq!(said.code, 0, "{said:?}");
    let said = worker.command_with(&through, &event("served-2"), &[("INTERVEN_ALERTS_TOKEN", "wrong")]).await;
    assert!(said.code == 1 && said.err.contains("not known") && !said.err.contains('{'), "{said:?}");
    // A token of another role: whoever published so far meant to, and hears with what it can be done.
    let said =
        worker.command_with(&through, &event("served-2"), &[("INTERVEN_ALERTS_TOKEN", "token-of-auditor")]).await;
    assert!(said.code == 1 && said.err.contains("hint: use a token of the role publisher"), "{said:?}");
    let ids = ["piped-1", "served-1"];
    eventually("they are told", PATIENCE, async || {
        ids.iter().all(|id| scene.stand_in("siem").times_received(id) == 1).then_some(())
    })
    .await;
    assert_eq!(scene.stand_in("siem").times_received("served-2"), 0);

    // Of several workers, the first one that answers takes it; and a flag counts for more than a variable.
    let several = format!("http://127.0.0.1:9,{server}");
    let said = worker.command_with(&["publish", "-", "--server", &several], &event("served-4"), &token).await;
    assert_eq!(said.code, 0, "{said:?}");
    let nowhere = [("INTERVEN_ALERTS_TOKEN", PUBLISHER_TOKEN), ("INTERVEN_ALERTS_SERVER", "http://127.0.0.1:9")];
    let by_file = ["publish", "-", "--config", "interven-alerts.toml"];
    let said = worker.command_with(&by_file, &event("by-file"), &nowhere).await;
    assert_eq!(said.code, 0, "{said:?}");
    let ids = ["served-4", "by-file"];
    eventually("they are told", PATIENCE, async || {
        ids.iter().all(|id| scene.stand_in("siem").times_received(id) == 1).then_some(())
    })
    .await;
    let said = worker.command_with(&["publish", "-"], &event("nowhere"), &nowhere).await;
    assert!(said.code == 1 && said.err.contains("127.0.0.1:9 did not answer"), "{said:?}");
    worker.kill();
    let said = worker.command_with(&through, &event("served-3"), &token).await;
    assert!(said.code == 1 && said.err.contains("did not answer") && said.err.contains("hint: check"), "{said:?}");
    let said = worker.command_with(&through, &event("served-3"), &[]).await;
    assert!(said.code == 2 && said.err.contains("there is no token"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_and_render_tell_what_the_worker_does() {
    let mut scene = Scene::default();
    scene.add("high", Platform::Slack, Script::accept(), "min_severity = \"HIGH\"\n").await;
    scene.add("tools", Platform::Teams, Script::accept(), "tools = [\"github.*\"]\n").await;
    scene.add("agents", Platform::Telegram, Script::accept(), "agents = [\"staging-*\"]\n").await;
    scene.add("events", Platform::Discord, Script::accept(), "events = [\"INCIDENT\"]\n").await;
    scene.add("mine", Platform::Siem, Script::accept(), "format = \"ocsf\"\ncompression = \"gzip\"\n").await;
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{}", scene.channels()));
    let said = worker.command(&["explain", "-", "--json"], EVENT).await;
    let says: Vec<(String, Value)> = said
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["channel"].as_str().unwrap().to_owned(), one["filter"].clone()))
        .collect();
    let wanted = [
        ("high", "min_severity".into()),
        ("tools", "tools".into()),
        ("agents", "agents".into()),
        ("events", "events".into()),
        ("mine", Value::Null),
    ];
    assert_eq!(says, wanted.map(|(id, filter): (&str, Value)| (id.to_owned(), filter)));
    let said = worker.command(&["explain", "-"], EVENT).await;
    assert!(said.out.contains("MEDIUM") && said.out.contains("HIGH") && said.out.contains("github.*"), "{said:?}");

    // The body that is shown is the body that is sent.
    let said = worker.command(&["render", "-", "--channel", "mine"], EVENT).await;
    let shown: Value = said.json();
    worker.start_ready().await;
    let answer = crate::support::worker::post_events(&worker.server(), Some(PUBLISHER_TOKEN), EVENT.to_owned()).await;
    assert!(matches!(answer, Some((202, _))), "{answer:?}");
    eventually("it is told", PATIENCE, async || (scene.taken() == 1).then_some(())).await;
    let mut sent: Value = serde_json::from_slice(&scene.stand_in("mine").kept()[0].body).unwrap();
    let mut shown = shown;
    for one in [&mut sent, &mut shown] {
        // The only field that depends on the moment.
        if let Some(metadata) = one["metadata"].as_object_mut() {
            metadata.retain(|key, _| !key.contains("time"));
        }
    }
    assert_eq!(shown, sent);
}

/// What happens to dead letters from death to delivery, on one kind of broker.
async fn a_life_after_death(broker: &str, mut publish: impl AsyncFnMut(&WorkerProcess, &[String])) {
    let scene = one_refuses().await;
    let mut worker = WorkerProcess::new(&format!("{broker}{PUBLISHER}{}", scene.channels()));
    worker.start_ready().await;
    let events: Vec<String> = (0..6).map(|number| event(&format!("dead-{number}"))).collect();
    publish(&worker, &events).await;
    eventually("six are dead and six are told", PATIENCE, async || {
        let dead = worker.metrics().await.sum("dead_letters", &["channel=\"soc-slack\""]);
        (dead == 6 && scene.taken() == 6).then_some(())
    })
    .await;

    let said = worker.command(&["dead-letters", "list"], "").await;
    assert!(said.code == 1 && said.err.contains("in use"), "a running worker owns its store: {said:?}");
    assert!(said.err.contains("ask that with `--server"), "{said:?}");
    let said = worker.command(&["dead-letters", "verify"], "").await;
    assert!(said.code == 1 && said.err.contains("hint: a worker uses it: stop that first\n"), "{said:?}");
    let said = worker.command(&["dead-letters", "verify", "--server", &worker.server()], "").await;
    assert!(said.code == 2 && said.err.contains("of a stopped worker alone"), "{said:?}");
    assert_eq!(worker.terminate().await.0, 0);

    let list = async |worker: &WorkerProcess, more: &[&str]| -> Vec<Value> {
        let said = worker.command(&[&["dead-letters", "list", "--json"], more].concat(), "").await;
        assert_eq!(said.code, 0, "{said:?}");
        said.json()["letters"].as_array().unwrap().clone()
    };
    let letters = list(&worker, &[]).await;
    assert_eq!(letters.len(), 6);
    for (filter, count) in [
        (&["--channel", "soc-slack"][..], 6),
        (&["--channel", "dev-discord"], 0),
        (&["--reason", "refused"], 6),
        (&["--reason", "expired"], 0),
        (&["--decision", "dead-3"], 1),
        (&["--severity", "MEDIUM"], 6),
        (&["--severity", "HIGH"], 0),
        (&["--since", "2020-01-01T00:00:00Z"], 6),
        (&["--until", "2020-01-01T00:00:00Z"], 0),
        (&["--limit", "2"], 2),
    ] {
        assert_eq!(list(&worker, filter).await.len(), count, "{filter:?}");
    }
    let said = worker.command(&["dead-letters", "list", "--by-cause", "--json"], "").await;
    let causes = said.json();
    assert_eq!((causes.as_array().unwrap().len(), &causes[0]["count"]), (1, &6.into()), "{said:?}");
    let id = letters[0]["id"].as_str().unwrap();
    let said = worker.command(&["dead-letters", "show", id], "").await;
    let tries = said.out.lines().filter(|line| line.contains("HTTP 400 at ") && line.contains(": invalid_payload"));
    assert!(tries.clone().count() >= 2, "each try and the last reply have their lines: {said:?}");
    assert!(tries.clone().all(|line| line.matches("HTTP 400").count() == 1), "and say the status once: {said:?}");
    assert_eq!(worker.command(&["dead-letters", "show", id, "--json"], "").await.json()["id"], letters[0]["id"]);

    let said = worker.command(&["dead-letters", "export"], "").await;
    assert_eq!(said.out.lines().count(), 6);
    fs::write(worker.dir().join("letters.ndjson"), format!("{}no letter\n", said.out)).unwrap();
    let said = worker.command(&["dead-letters", "purge", "--all", "--dry-run"], "").await;
    assert!(said.code == 0 && said.out.contains("would purge 6"), "{said:?}");
    let said = worker.command(&["dead-letters", "purge", id, "--json"], "").await;
    assert_eq!((said.json()["purged"].as_u64(), list(&worker, &[]).await.len()), (Some(1), 5));
    let said = worker.command(&["dead-letters", "import", "letters.ndjson"], "").await;
    assert!(said.code == 1 && said.out.contains("imported 1, already there 5, faulty 1"), "{said:?}");
    assert!(said.err.contains("line 7"), "{said:?}");
    let said = worker.command(&["dead-letters", "verify", "--json"], "").await;
    assert_eq!((said.code, said.json()["letters"].as_u64()), (0, Some(6)), "{said:?}");

    let said = worker.command(&["dead-letters", "replay", "--all", "--dry-run"], "").await;
    assert!(said.code == 0 && said.out.contains("would replay 6"), "{said:?}");
    assert_eq!(list(&worker, &[]).await.len(), 6);
    let said = worker.command(&["dead-letters", "replay", "--decision", "dead-3"], "").await;
    assert!(said.code == 0 && said.out.contains("replayed 1"), "{said:?}");
    assert_eq!(list(&worker, &[]).await.len(), 5);
    scene.heal();
    worker.start_ready().await;
    let slack = scene.stand_in("soc-slack");
    eventually("the replayed one is told", PATIENCE, async || (slack.times_received("dead-3") == 1).then_some(()))
        .await;
    assert_eq!((slack.different_ids(), worker.terminate().await.0), (1, 0));
    let said = worker.command(&["dead-letters", "replay", "--channel", "soc-slack", "--json"], "").await;
    assert_eq!((said.code, said.json()["replayed"].as_u64()), (0, Some(5)), "{said:?}");
    worker.start_ready().await;
    eventually("all are told", PATIENCE, async || (slack.different_ids() == 6).then_some(())).await;
    assert_eq!(worker.terminate().await.0, 0);
    assert!(list(&worker, &[]).await.is_empty());
    let said = worker.command(&["dead-letters", "list"], "").await;
    assert_eq!((said.code, said.out.trim()), (0, "no dead letters"));
    assert_eq!(scene.duplicates(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_live_again_through_rabbitmq() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("letters"));
    let mut publisher = Publisher::new(rabbit.url(), &prefix);
    a_life_after_death(&on(rabbit, &prefix, ""), async |_, events: &[String]| {
        let events: Vec<Bytes> = events.iter().map(|event| Bytes::from(event.clone())).collect();
        publisher.publish_surely(&events, PATIENCE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_live_again_through_the_embedded_broker() {
    a_life_after_death("", async |worker: &WorkerProcess, events: &[String]| {
        let server = worker.server();
        let arguments = ["publish", "-", "--server", server.as_str()];
        let token = [("INTERVEN_ALERTS_TOKEN", PUBLISHER_TOKEN)];
        let said = worker.command_with(&arguments, &events.join("\n"), &token).await;
        assert_eq!(said.code, 0, "{said:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let began = tokio::time::Instant::now();
    let said = run_plain(&["demo"], dir.path()).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("nothing was lost"), "{said:?}");
    assert!(!said.out.contains(['\u{1b}', '\r']), "nobody watches: {said:?}");
    let headings: Vec<&str> = said.out.lines().filter(|line| line.starts_with("== ")).collect();
    let different: std::collections::BTreeSet<&str> = headings.iter().copied().collect();
    assert!(headings.len() == different.len() && headings.len() >= 4, "each heading once: {headings:?}");
    assert!(began.elapsed() < Duration::from_mins(1));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the demo leaves nothing behind");
}
