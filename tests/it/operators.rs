//! Operators and a running pool: every worker is asked, and what they answer is told as if there were one.
//!
//! Letters are put into the stores of both workers before they start, so that what each has is known exactly.

mod console;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use interven_alerts::{
    dead_letters::{DeadLetter, Store, StoreOptions},
    model::{Clock, DeathReason, Decision, Delivery},
    stand_ins::{Platform, Script},
};
use serde_json::{Value, json};

use crate::support::{
    eventually,
    rabbit::Rabbit,
    scene::{PATIENT, Scene, on, token_of},
    unique_name,
    worker::{PATIENCE, Said, WorkerProcess},
};

const EVENT: &str = r#"{"id":"op-1","time":"2026-06-01T12:00:00Z","decision":"DENY","severity":"MEDIUM","agent":{"id":"agt_42","name":"production-langgraph"},"tool":"slack","operation":"post_message"}"#;

/// The pool's key, by which its workers know one another's sessions.
const KEY: &str = "a-key-of-operators-0123456789abcdef";

/// The letter of a delivery to `channel`. The body of an approval that has expired has its end in the past.
fn letter(id: &str, channel: &str, reason: DeathReason, approval: bool) -> DeadLetter {
    let now = Clock::System.now();
    let mut decision = json!({
        "id": id, "time": now, "decision": "DENY", "severity": "HIGH", "title": "Secret egress blocked",
        "agent": {"id": "agt_42"}, "tool": "slack", "operation": "post_message",
    });
    if approval {
        decision["decision"] = json!("REQUIRE_APPROVAL");
        decision["approval"] = json!({"id": format!("apr_{id}"), "expires_at": "2026-06-01T12:10:00Z"});
    }
    let decision = Decision::decode(Bytes::from(decision.to_string())).unwrap();
    let delivery = Delivery::new(Arc::new(decision), channel.parse().unwrap(), now);
    DeadLetter::of_delivery(&delivery, reason, "HTTP 400: invalid_payload", None, now)
}

fn refused(what: &str, count: usize) -> impl Iterator<Item = DeadLetter> {
    (0..count).map(move |number| letter(&format!("{what}-{number}"), "soc", DeathReason::Refused, false))
}

/// Puts letters into the store that a worker with this data directory will open.
async fn bury(data: &Path, letters: impl Iterator<Item = DeadLetter>) {
    let dir = data.join("dead-letters");
    std::fs::create_dir_all(&dir).unwrap();
    let (store, _) = Store::open(&dir, StoreOptions::default()).unwrap();
    for letter in letters {
        store.bury(letter).await.unwrap();
    }
    store.close().await;
}

/// Two workers on one broker in front of a strict Slack of 20 messages a second. The first has 30 letters of it and an approval that
/// has expired, the second 25, and 5 of another reason.
struct Stage {
    scene: Scene,
    pool: [WorkerProcess; 2],
    config: String,
    _data: [tempfile::TempDir; 2],
}

impl Stage {
    async fn set(what: &str) -> Self {
        let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name(what));
        let mut scene = Scene::default();
        let strict = Script::accept().strict_rate(20, Duration::from_secs(1));
        let keys = format!("min_severity = \"HIGH\"\nrate_limit = \"20/s\"\nburst = 1\n{PATIENT}");
        scene.add("soc", Platform::Slack, strict, &keys).await;
        let tokens = ["auditor", "analyst", "admin"].map(token_of).concat();
        let config = format!("{}{tokens}{}", on(rabbit, &prefix, ""), scene.channels());
        let data = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let late = [letter("late", "soc", DeathReason::ApprovalExpired, true)];
        bury(data[0].path(), refused("one", 30).chain(late)).await;
        let expired = (0..5).map(|number| letter(&format!("old-{number}"), "soc", DeathReason::Expired, false));
        bury(data[1].path(), refused("two", 25).chain(expired)).await;
        let worker =
            |at: usize| WorkerProcess::with_data_dir(&config, Some(data[at].path())).env("INTERVEN_ALERTS_KEY", KEY);
        let mut pool = [0, 1].map(worker);
        for worker in &mut pool {
            worker.start_ready().await;
        }
        Self { scene, pool, config, _data: data }
    }

    fn servers(&self) -> String {
        format!("{},{}", self.pool[0].server(), self.pool[1].server())
    }

    /// Runs a command that asks both workers, as somebody with this role.
    async fn ask(&self, role: &str, arguments: &[&str]) -> Said {
        self.ask_at(&self.servers(), role, arguments).await
    }

    async fn ask_at(&self, servers: &str, role: &str, arguments: &[&str]) -> Said {
        let token = format!("token-of-{role}");
        let env = [("INTERVEN_ALERTS_TOKEN", token.as_str()), ("INTERVEN_ALERTS_SERVER", servers)];
        self.pool[0].command_with(arguments, EVENT, &env).await
    }

    /// The same, done; what it printed as JSON.
    async fn json(&self, role: &str, arguments: &[&str]) -> Value {
        let said = self.ask(role, &[arguments, &["--json"]].concat()).await;
        assert_eq!(said.code, 0, "{said:?}");
        said.json()
    }

    /// How many letters both workers have.
    async fn letters(&self) -> usize {
        let listed = self.json("auditor", &["dead-letters", "list", "--limit", "1000"]).await;
        listed["letters"].as_array().unwrap().len()
    }
}

fn ids(listed: &Value) -> Vec<String> {
    listed["letters"].as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dead_letters_of_two_workers_are_one_list_for_who_looks() {
    let mut stage = Stage::set("looking").await;
    let listed = stage.json("auditor", &["dead-letters", "list", "--limit", "1000"]).await;
    let all = ids(&listed);
    assert_eq!((all.len(), &listed["next"]), (61, &Value::Null));
    assert!(all.is_sorted_by(|newer, older| newer > older), "newest first over both: {all:?}");
    let of = |at: usize| {
        let server = stage.pool[at].server();
        listed["letters"].as_array().unwrap().iter().filter(|letter| letter["server"] == server.as_str()).count()
    };
    assert_eq!((of(0), of(1)), (31, 30));
    let newest = stage.json("auditor", &["dead-letters", "list", "--limit", "7"]).await;
    assert_eq!((ids(&newest), newest["next"].as_str()), (all[..7].to_vec(), Some(all[6].as_str())));
    let said = stage.ask("auditor", &["dead-letters", "list"]).await;
    assert!(said.code == 0 && said.out.starts_with("WORKER") && said.out.lines().count() == 62, "{said:?}");

    let causes = stage.json("auditor", &["dead-letters", "list", "--by-cause"]).await;
    let counts: Vec<_> = causes.as_array().unwrap().iter().map(|cause| (&cause["reason"], &cause["count"])).collect();
    let (expired, approval) = (json!("expired"), json!("approval_expired"));
    assert_eq!(counts, [(&json!("refused"), &json!(55)), (&expired, &json!(5)), (&approval, &json!(1))]);

    let in_second =
        listed["letters"].as_array().unwrap().iter().find(|letter| letter["decision_id"] == "two-3").unwrap();
    let shown = stage.json("auditor", &["dead-letters", "show", in_second["id"].as_str().unwrap()]).await;
    assert_eq!((&shown["id"], &shown["server"]), (&in_second["id"], &stage.pool[1].server().into()));
    let said = stage.ask("auditor", &["dead-letters", "show", "0197a2b4-0000-7000-8000-000000000001"]).await;
    assert!(said.code == 1 && said.err.contains("no worker"), "{said:?}");

    let said = stage.ask("auditor", &["dead-letters", "export"]).await;
    let exported: Vec<DeadLetter> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(exported.iter().map(|letter| letter.id.to_string()).collect::<Vec<_>>(), all);

    // A worker that was named twice counts once.
    let twice = format!("{},{}", stage.servers(), stage.pool[1].server());
    let said = stage.ask_at(&twice, "auditor", &["dead-letters", "list", "--by-cause", "--json"]).await;
    assert_eq!((said.code, &said.json()[0]["count"]), (0, &json!(55)), "{said:?}");

    // What the others have is told when one is down, and who that is.
    let (second, servers) = (stage.pool[1].server(), stage.servers());
    stage.pool[1].kill();
    for (arguments, tells) in [
        (&["list", "--json"][..], 31),
        (&["list", "--by-cause", "--json"], 2),
        (&["export"], 31),
        (&["replay", "--dry-run", "--json"], 30),
    ] {
        let said = stage.ask_at(&servers, "analyst", &[&["dead-letters"], arguments].concat()).await;
        let count = match arguments {
            ["export"] => said.out.lines().count(),
            ["replay", ..] => usize::try_from(said.json()["replayed"].as_u64().unwrap()).unwrap(),
            [_, "--json"] => ids(&said.json()).len(),
            _ => said.json().as_array().unwrap().len(),
        };
        assert_eq!((said.code, count), (1, tells), "{arguments:?}: {said:?}");
        assert!(said.err.contains(&second) && said.err.contains("did not answer"), "{arguments:?}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_over_the_pool_keeps_the_limit_of_the_lane_and_says_what_it_left() {
    let stage = Stage::set("acting").await;
    let slack = stage.scene.stand_in("soc");
    let planned = stage.json("analyst", &["dead-letters", "replay", "--dry-run"]).await;
    assert_eq!((&planned["replayed"], &planned["skipped_expired"]), (&json!(60), &json!(1)), "{planned}");
    assert_eq!((stage.letters().await, slack.counters().requests), (61, 0), "a dry run did something");

    // The limit is the pool's: the newest ten are all in the second worker.
    let newest = stage.json("analyst", &["dead-letters", "replay", "--reason", "refused", "--limit", "10"]).await;
    assert_eq!((&newest["replayed"], newest["servers"].as_array().unwrap().len()), (&json!(10), 1), "{newest}");
    assert_eq!(newest["servers"][0]["server"], stage.pool[1].server());
    let said = stage.ask("analyst", &["dead-letters", "replay", "--channel", "soc"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.starts_with("replayed 50; skipped 1 whose approval has expired"), "{said:?}");
    assert!(said.err.contains("its approval has expired") && said.out.contains("WORKER"), "{said:?}");
    eventually("all are told", PATIENCE, async || (slack.different_ids() == 60).then_some(())).await;
    assert_eq!((slack.counters().violations, stage.scene.duplicates()), (0, 0), "the limit or a letter was broken");
    let replayed = async |at: usize| stage.pool[at].metrics().await.sum("replayed_total", &["channel=\"soc\""]);
    assert_eq!((replayed(0).await, replayed(1).await, stage.letters().await), (30, 30, 1));
    for worker in &stage.pool {
        let logs = worker.logs();
        let audit = |line: &&str| line.contains("interven_alerts::audit") && line.contains("replay_dead_letters");
        let done =
            |line: &&str| line.contains("the-analyst") && line.contains("channel=soc") && line.contains("replayed");
        assert!(logs.lines().filter(audit).any(|line| done(&line)), "the replay is in no audit line");
    }

    let purge = ["dead-letters", "purge", "--reason", "approval_expired"];
    let said = stage.ask("analyst", &purge).await;
    assert!(said.code == 1 && said.err.contains("may not purge"), "{said:?}");
    assert_eq!(stage.json("admin", &[&purge[..], &["--dry-run"]].concat()).await["purged"], 1);
    assert_eq!((stage.letters().await, &stage.json("admin", &purge).await["purged"]), (1, &json!(1)));
    assert_eq!(stage.letters().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_over_the_pool_says_what_the_file_says_and_wrong_usage_is_told() {
    let stage = Stage::set("explaining").await;
    let over_file = stage.pool[0].command(&["explain", "-", "--json"], EVENT).await;
    let over_pool = stage.json("auditor", &["explain", "-"]).await;
    assert_eq!((over_file.code, &over_file.json()), (0, &over_pool), "{over_file:?}");
    assert_eq!(over_pool[0]["filter"], "min_severity");
    let said = stage.ask("auditor", &["explain", "-"]).await;
    assert_eq!(said.out, stage.pool[0].command(&["explain", "-"], EVENT).await.out);

    let listed = stage.json("auditor", &["channels", "list"]).await;
    let channels = listed.as_array().unwrap();
    assert_eq!((channels.len(), channels[0]["servers"].as_array().unwrap().len()), (1, 2), "{listed}");
    let said = stage.ask("auditor", &["channels", "list"]).await;
    assert!(said.out.contains("WORKERS") && said.out.contains("2 flowing"), "{said:?}");

    let said = stage.ask("analyst", &["channels", "test", "soc"]).await;
    assert!(said.code == 0 && said.out.contains("soc: a worker posted a sample to http"), "{said:?}");
    let tested = stage.json("analyst", &["channels", "test", "soc"]).await;
    assert_eq!((&tested["outcome"], &tested["status"]), (&json!("delivered"), &json!(200)), "{tested}");
    assert_eq!(stage.scene.taken(), 2);
    let said = stage.ask("auditor", &["channels", "test", "soc"]).await;
    assert!(said.code == 1 && said.err.contains("may not test"), "{said:?}");

    let server = stage.pool[0].server();
    let data = stage.pool[0].dir().join("data").display().to_string();
    for (arguments, code, says) in [
        (&["dead-letters", "list", "--server", server.as_str(), "--data-dir", data.as_str()][..], 2, "both"),
        (&["dead-letters", "verify", "--server", server.as_str()], 2, "stopped worker"),
        (&["dead-letters", "purge", "--server", server.as_str()], 2, "no dead letter was chosen"),
        (&["dead-letters", "list", "--server", server.as_str()], 2, "INTERVEN_ALERTS_TOKEN"),
        (&["dead-letters", "list"], 1, "--server"),
    ] {
        let said = stage.pool[0].command(arguments, "").await;
        assert!(said.code == code && said.err.contains(says), "{arguments:?}: {said:?}");
    }
}
