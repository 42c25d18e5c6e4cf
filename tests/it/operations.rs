//! What an operator relies on beside the deliveries: metrics that add up, secrets that stay secret, a full disk that loses
//! nothing.

use std::{fs, process::Command, time::Duration};

use bytes::Bytes;
use interven_alerts::{
    broker::{Broker as _, Queue},
    model::{Clock, Reply},
    stand_ins::{Firewall, Platform, Script, StandIn, Step, every_reply},
};

use crate::{
    main_job::{ALL_EVENTS, Told, at_rest, configuration, publish, publisher, retries},
    support::{
        eventually,
        process::{Worker, sum},
        rabbit::Rabbit,
    },
};

/// Every metric of contract 8, without the prefix.
const CATALOGUE: [&str; 22] = [
    "decisions_total",
    "decisions_unrouted_total",
    "malformed_total",
    "deliveries_matched_total",
    "deliveries_total",
    "deliveries_waiting",
    "attempts_total",
    "attempt_duration_seconds",
    "delivery_latency_seconds",
    "lane_state",
    "lane_wait_seconds_total",
    "dead_letters",
    "dead_letters_total",
    "replayed_total",
    "broker_connected",
    "broker_reconnects_total",
    "acks_waiting",
    "approvals_total",
    "approval_latency_seconds",
    "config_reload_success_timestamp_seconds",
    "build_info",
    "dead_letters_waiting",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_there_and_the_deliveries_add_up() {
    let rabbit = Rabbit::shared();
    let refuse =
        every_reply(Platform::Discord).into_iter().find(|entry| entry.name.contains("50035")).expect("in the table");
    let sometimes = Script::weighted(4, [(3, Step::Accept), (1, Step::Reply { reply: refuse.reply, taken: false })]);
    let unsure =
        Script::weighted(5, [(3, Step::Accept), (1, Step::Reply { reply: Reply::new(503, ""), taken: false })]);
    let told = [
        Told::new("discord", Platform::Discord, sometimes, &format!("{ALL_EVENTS}\nrate_limit = \"none\"")).await,
        Told::new("siem", Platform::Siem, unsure, &format!("{ALL_EVENTS}\n{}", retries(50))).await,
        Told::new("nobody", Platform::Siem, Script::accept(), "agents = [\"no-such-agent\"]").await,
    ];
    let worker = Worker::new(&configuration(Some((rabbit, "metrics")), &told));
    worker.start_ready().await;
    let broker = publisher(rabbit, "metrics").await;
    let mut firewall = Firewall::new(21, Clock::System);
    for number in 0..200 {
        publish(&broker, &number.to_string(), firewall.message()).await;
    }
    publish(&broker, "malformed", Bytes::from_static(b"{}")).await;
    eventually("all decisions were read", Duration::from_secs(30), async || {
        (worker.metric(&["interven_alerts_decisions_total"]).await > 199.5).then_some(())
    })
    .await;
    at_rest(&worker, &broker, Duration::from_mins(1)).await;
    let text = worker.get("/metrics").await.unwrap().1;
    for name in CATALOGUE {
        assert!(text.contains(&format!("# TYPE interven_alerts_{name} ")), "{name} is missing");
    }
    for one in &told {
        let channel = format!("channel=\"{}\"", one.id);
        let matched = sum(&text, &["deliveries_matched_total", &channel]);
        let ended = sum(&text, &["deliveries_total{", &channel]);
        assert!((matched - ended).abs() < 0.5, "{}: {matched} matched, {ended} ended", one.id);
        let received = f64::from(u32::try_from(one.stand_in.different_ids()).unwrap());
        assert!((sum(&text, &["deliveries_total{", &channel, "delivered"]) - received).abs() < 0.5, "{}", one.id);
        assert!((sum(&text, &["lane_state", &channel]) - 1.0).abs() < 0.1, "a lane is in one state");
    }
    assert!(sum(&text, &["deliveries_matched_total", "nobody"]) < 0.5);
    assert!((sum(&text, &["malformed_total"]) - 1.0).abs() < 0.1);
    let letters = sum(&text, &["interven_alerts_dead_letters{"]);
    assert!(letters > 1.5 && (letters - sum(&text, &["interven_alerts_dead_letters_total{"])).abs() < 0.5, "{letters}");
    assert_eq!(worker.get("/nothing-here").await.unwrap().0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_seen_in_logs_metrics_dead_letters_or_answers() {
    // Goal: a secret is nowhere but on its own wire. Method: endpoints that send every secret back at us, all logging on,
    // and a search through everything that an operator can see.
    const SECRETS: [&str; 7] = [
        "SecretOfSlackWebhook77",
        "5ecre70f51ackS1gn1ng77",
        "SecretOfDiscordHook77",
        "SecretOfTeamsSignature77",
        "SecretOfTelegramBot77abcdefghijklmno",
        "SecretOfSplunkToken77",
        "whsec_U2VjcmV0T2ZTdGFuZGFyZFdlYmhvb2tzNzc3Nzc3",
    ];
    let rabbit = Rabbit::shared();
    let echo =
        |status| Step::Reply { reply: Reply::new(status, format!("you sent {}", SECRETS.join(" and "))), taken: false };
    let endpoint =
        StandIn::start(Platform::Siem, Script::ordered([echo(500), echo(400), echo(503), echo(429), echo(422)]))
            .await
            .unwrap();
    endpoint.set_script(Script::weighted(1, [(2, echo(500)), (8, echo(400)), (1, echo(404))]));
    let base = endpoint.base_url();
    let limits = format!("{ALL_EVENTS}\nrate_limit = \"none\"\ntimeout = \"2s\"\n{}\n", retries(2));
    let text = format!(
        "[broker]\nurl = \"{}\"\nprefix = \"secrets\"\n\
         [[channel]]\nid = \"slack\"\nkind = \"slack\"\nwebhook_url = \"{base}/services/T0/B0/{}\"\nsigning_secret = \"{}\"\n{limits}\
         [[channel]]\nid = \"discord\"\nkind = \"discord\"\nwebhook_url = \"{base}/api/webhooks/123456789/{}\"\n{limits}\
         [[channel]]\nid = \"teams\"\nkind = \"teams\"\nwebhook_url = \"{base}/workflows/1/triggers/manual/paths/invoke?api-version=1&sig={}\"\n{limits}\
         [[channel]]\nid = \"telegram\"\nkind = \"telegram\"\napi_url = \"{base}\"\nbot_token = \"100001:{}\"\nchat_id = 5\n{limits}\
         [[channel]]\nid = \"splunk\"\nkind = \"siem\"\nurl = \"{base}/services/collector/event\"\nenvelope = \"splunk\"\nheaders = {{ Authorization = \"Splunk {}\" }}\nsigning_secret = \"{}\"\n{limits}",
        rabbit.url().expose(),
        SECRETS[0],
        SECRETS[1],
        SECRETS[2],
        SECRETS[3],
        SECRETS[4],
        SECRETS[5],
        SECRETS[6],
    );
    let worker = Worker::new(&text);
    worker.start_at("trace");
    worker.ready().await;
    let broker = publisher(rabbit, "secrets").await;
    let mut firewall = Firewall::new(31, Clock::System);
    for number in 0..60 {
        publish(&broker, &number.to_string(), firewall.message()).await;
    }
    eventually("every channel has failed, and letters are dead", Duration::from_secs(30), async || {
        let text = worker.get("/metrics").await?.1;
        let tried = ["slack", "discord", "teams", "telegram", "splunk"]
            .iter()
            .all(|id| sum(&text, &["attempts_total", &format!("channel=\"{id}\"")]) > 0.5);
        (tried && sum(&text, &["dead_letters_total"]) > 0.5).then_some(())
    })
    .await;
    let metrics = worker.get("/metrics").await.unwrap().1;
    assert!(worker.terminate(Duration::from_secs(30)).await.success());
    let event = worker.config.with_file_name("event.json");
    fs::write(&event, firewall.message()).unwrap();
    let event = event.to_str().unwrap();
    let mut seen = vec![("the log", worker.log_text()), ("the metrics", metrics)];
    let commands: [&[&str]; 9] = [
        &["dead-letters", "export"],
        &["dead-letters", "list", "--json"],
        &["dead-letters", "list", "--by-cause"],
        &["channels", "list", "--json"],
        &["check"],
        &["explain", event, "--json"],
        &["render", event, "--channel", "splunk", "--json"],
        &["channels", "test", "telegram"],
        &["doctor"],
    ];
    for arguments in commands {
        let output = worker.run(arguments);
        let text = [output.stdout, output.stderr].concat();
        assert!(!text.is_empty(), "{arguments:?}");
        seen.push((arguments[0], String::from_utf8_lossy(&text).into_owned()));
    }
    assert!(seen[0].1.contains("you sent") && seen[2].1.contains("you sent"), "the endpoints' words are told");
    for (place, text) in &seen {
        for secret in SECRETS {
            let at = text.find(secret);
            assert!(
                at.is_none(),
                "{secret} is seen in {place}: {:?}",
                at.map(|at| text[at.saturating_sub(200)..].chars().take(300).collect::<String>())
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_letters_wait_on_the_broker_and_the_worker_says_so() {
    let rabbit = Rabbit::shared();
    let told = [Told::new("siem", Platform::Siem, Script::accept(), ALL_EVENTS).await];
    let worker = Worker::new(&configuration(Some((rabbit, "full")), &told));
    fs::create_dir(worker.data_dir()).unwrap();
    let Some(_disk) = SmallDisk::mount(&worker.data_dir()) else {
        println!("SKIPPED: a small disk can be mounted by root only");
        return;
    };
    worker.start_ready().await;
    let ballast = worker.data_dir().join("ballast");
    fs::write(&ballast, vec![0; 48 << 20]).unwrap();
    let broker = publisher(rabbit, "full").await;
    for number in 0..20 {
        publish(&broker, &number.to_string(), Bytes::from(format!("no decision {number}"))).await;
    }
    eventually(
        "the worker says that it cannot write, and the letters wait on the broker",
        Duration::from_mins(1),
        async || {
            let (status, body) = worker.get("/readyz").await?;
            let waiting = broker.waiting(Queue::Dead).await.ok()?;
            (status == 503 && body.contains("dead-letter store") && waiting == 20).then_some(())
        },
    )
    .await;
    fs::remove_file(&ballast).unwrap();
    eventually("with room again, the letters are in the store", Duration::from_mins(1), async || {
        let kept = worker.metric(&["interven_alerts_dead_letters{", "malformed"]).await;
        (kept > 19.5 && broker.waiting(Queue::Dead).await.ok()? == 0).then_some(())
    })
    .await;
    worker.ready().await;
    assert!(worker.terminate(Duration::from_secs(30)).await.success());
}

/// A disk of 64 MB, gone when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(at).output().ok()?;
        mounted.status.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a worker that is still writing must not keep the disk.
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}
