//! No secret of the configuration is ever printed: not in a log at its loudest, not in metrics, dead letters or commands.
//!
//! Goal: as the sentence says, although every endpoint quotes the secrets back in every way that it can.
//! Method: secrets that appear nowhere else; then every stretch of eight characters of each of them is looked for in everything
//! that the program wrote.

use std::fmt::Write as _;

use bytes::Bytes;
use interven_alerts::{
    model::Reply,
    stand_ins::{Platform, Script, StandIn, Step},
};

use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{PATIENT, PUBLISHER, PUBLISHER_TOKEN, Scene, token_of},
    unique_name,
    worker::{PATIENCE, WorkerProcess, post_events},
};

/// So many characters in a row are a leak. A masked URL shows the last four.
const STRETCH: usize = 8;

/// A channel of each kind and way, its endpoint's path, and its secrets.
struct Case {
    id: &'static str,
    platform: Platform,
    keys: &'static str,
    secrets: &'static [&'static str],
}

const CASES: [Case; 9] = [
    Case {
        id: "slack",
        platform: Platform::Slack,
        keys: "kind = \"slack\"\nwebhook_url = \"{base}/services/T0A/B0B/kQ7vXw2mZr9LpT4nHd6s\"\n\
               signing_secret = \"8fGhJ3kLqW5eRtY7uIoP\"\n",
        secrets: &["kQ7vXw2mZr9LpT4nHd6s", "8fGhJ3kLqW5eRtY7uIoP"],
    },
    Case {
        id: "slack-bot",
        platform: Platform::Slack,
        keys: "kind = \"slack\"\nbot_token = \"xoxb-Vb6nM1xZaS9dFgHjKl2q\"\nchannel = \"C024BE91L\"\napi_url = \"{base}/api\"\n",
        secrets: &["xoxb-Vb6nM1xZaS9dFgHjKl2q"],
    },
    Case {
        id: "discord",
        platform: Platform::Discord,
        keys: "kind = \"discord\"\nwebhook_url = \"{base}/api/webhooks/100000000000000001/Ww3cTyU8iOp5lKjHgFdS\"\n",
        secrets: &["Ww3cTyU8iOp5lKjHgFdS"],
    },
    Case {
        id: "teams",
        platform: Platform::Teams,
        keys: "kind = \"teams\"\nwebhook_url = \"{base}/workflows/0a/triggers/manual/paths/invoke?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=mN4bVcX9zLkJ7hGfDsA1\"\n",
        secrets: &["mN4bVcX9zLkJ7hGfDsA1"],
    },
    Case {
        id: "telegram",
        platform: Platform::Telegram,
        keys: "kind = \"telegram\"\nbot_token = \"100001:pOiUy6TrEwQ2aSdFgHj3\"\nchat_id = 100001\napi_url = \"{base}\"\n",
        secrets: &["pOiUy6TrEwQ2aSdFgHj3"],
    },
    Case {
        id: "splunk",
        platform: Platform::Splunk,
        keys: "kind = \"siem\"\nurl = \"{base}/services/collector/event\"\nenvelope = \"splunk\"\n\
               headers = { Authorization = \"Splunk zXcVb8NmAsD4fGhJkL0w\" }\n",
        secrets: &["zXcVb8NmAsD4fGhJkL0w"],
    },
    Case {
        id: "datadog",
        platform: Platform::Datadog,
        keys: "kind = \"siem\"\nurl = \"{base}/api/v2/logs?dd-api-key=Hj5kLpO9iUyTrE7wQaSd\"\nenvelope = \"datadog\"\n\
               headers = { DD-API-KEY = \"6yHnBgT5rFvCdE4sWxZa\" }\n",
        secrets: &["Hj5kLpO9iUyTrE7wQaSd", "6yHnBgT5rFvCdE4sWxZa"],
    },
    Case {
        id: "sumo",
        platform: Platform::Sumo,
        keys: "kind = \"siem\"\nurl = \"{base}/receiver/v1/http/ZaVnC4dhaVqWeRtYuIoP3x\"\nenvelope = \"sumo\"\n",
        secrets: &["ZaVnC4dhaVqWeRtYuIoP3x"],
    },
    Case {
        id: "siem",
        platform: Platform::Siem,
        keys: "kind = \"siem\"\nurl = \"{base}/in/Rt6yUiOpLkJhGf3dSaQw\"\n\
               signing_secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n",
        secrets: &["Rt6yUiOpLkJhGf3dSaQw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    },
];

const AMQP_PASSWORD: &str = "Lp0oKi9jUh8yGt7fRd6e";

/// What the endpoint says: its secrets, as plain text and where a quotation is likely to be cut.
fn indiscreet(case: &Case, base: &str) -> Script {
    let url = case.keys.lines().find_map(|line| Some(line.split_once("_url = \"")?.1.trim_end_matches('"')));
    let url = url.unwrap_or_default().replace("{base}", base);
    let secrets = case.secrets.join(" and ");
    let escaped = url.replace('/', "\\/");
    let mut steps = Vec::new();
    for status in [500, 400, 503, 400] {
        let text = format!("denied: {secrets}; you asked {url} ({escaped})");
        steps.push(Step::Reply { reply: Reply::new(status, text), taken: false });
    }
    // However much stands before it, the cut falls somewhere into the secret.
    for before in (250..310).step_by(5) {
        for secret in case.secrets {
            let text = format!("{} {secret}", "x".repeat(before));
            steps.push(Step::Reply { reply: Reply::new(500, text), taken: false });
        }
    }
    for secret in case.secrets {
        let located = Reply::new(302, "").with_header("location", &format!("http://127.0.0.1:9/{secret}"));
        steps.push(Step::Reply { reply: located, taken: false });
    }
    let last = format!("no_service {secrets} {url}");
    steps.push(Step::Reply { reply: Reply::new(404, last), taken: false });
    Script::ordered(steps)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_ever_printed() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("secrets"));
    rabbit.ctl(&["add_user", &prefix, AMQP_PASSWORD]).await;
    rabbit.ctl(&["set_permissions", &prefix, ".*", ".*", ".*"]).await;
    let url = rabbit.url().expose().replace("guest:guest", &format!("{prefix}:{AMQP_PASSWORD}"));
    let mut scene = Scene::default();
    for case in &CASES {
        let stand_in = StandIn::start(case.platform, Script::accept()).await.unwrap();
        let base = stand_in.base_url();
        stand_in.set_script(indiscreet(case, &base));
        let keys = case.keys.replace("{base}", &base);
        let retry = PATIENT.replace("1000", "3");
        scene.add_with_door(
            case.id,
            stand_in,
            &format!("{keys}rate_limit = \"none\"\nconcurrency = 2\ntimeout = \"2s\"\n{retry}"),
        );
    }
    let people = token_of("auditor");
    let config = format!("[broker]\nurl = \"{url}\"\nprefix = \"{prefix}\"\n{PUBLISHER}{people}{}", scene.channels());
    let mut worker = WorkerProcess::new(&config).flags(&["--log-level", "trace"]);
    worker.start_ready().await;
    let messages: Vec<Bytes> = (0..40).map(|number| super::deny(&format!("secret-{number}"))).collect();
    Publisher::new(rabbit.url(), &prefix).publish_surely(&messages, PATIENCE).await;
    let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), String::from("{}")).await.unwrap();
    let wrong = post_events(&worker.server(), Some("ia_9iJnHuBgYvTfCrDxEsZw"), String::from("{}")).await.unwrap();
    eventually("every endpoint has said it all", PATIENCE, async || {
        let told = |id| scene.stand_in(id).counters().requests >= 12;
        CASES.iter().all(|case| told(case.id)).then_some(())
    })
    .await;

    let mut written = format!("{answer:?}{wrong:?}{}", worker.probe("/metrics").await.unwrap().1);
    written.push_str(&crate::access::everything_told(&worker, "token-of-auditor").await);
    // The secrets that cause errors of their own: a broker that says no, and an endpoint that is gone.
    rabbit.ctl(&["change_password", &prefix, "another-one"]).await;
    for command in [vec!["doctor"], vec!["doctor", "--json"]] {
        let said = worker.command(&command, "").await;
        write!(written, "{said:?}").unwrap();
    }
    assert_eq!(worker.terminate().await.0, 0);
    let event = String::from_utf8(super::deny("shown-1").to_vec()).unwrap();
    let mut commands: Vec<Vec<String>> =
        ["check", "check --json", "channels list", "channels list --json", "explain - --json"]
            .iter()
            .chain(&[
                "dead-letters list",
                "dead-letters list --json --limit 1000",
                "dead-letters list --by-cause",
                "dead-letters export",
            ])
            .map(|line| line.split(' ').map(str::to_owned).collect())
            .collect();
    for case in &CASES {
        for line in
            ["render - --channel ID", "render - --channel ID --json", "channels test ID", "channels test ID --json"]
        {
            commands.push(line.split(' ').map(|word| word.replace("ID", case.id)).collect());
        }
    }
    for case in &CASES {
        // For `channels test`, which asks once each.
        scene.stand_in(case.id).set_script(indiscreet(case, &scene.stand_in(case.id).base_url()));
    }
    for command in &commands {
        let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
        words.extend(["--log-level", "trace"]);
        let said = worker.command(&words, &event).await;
        assert!(said.code == 0 || command[1] == "test", "{command:?}: {said:?}");
        write!(written, "{command:?} {}\n{}\n", said.out, said.err).unwrap();
    }
    let letters = worker.dead_letters().await;
    assert!(letters.iter().any(|letter| letter.detail.contains("[secret]")), "the endpoints were not quoted");
    write!(written, "{letters:?}").unwrap();
    written.push_str(&worker.logs());

    let secrets = CASES.iter().flat_map(|case| case.secrets.iter().map(move |secret| (case.id, *secret)));
    let others = [("amqp", AMQP_PASSWORD), ("publisher", PUBLISHER_TOKEN), ("wrong token", "ia_9iJnHuBgYvTfCrDxEsZw")];
    let leaks: Vec<String> = secrets.chain(others).filter_map(|(id, secret)| leak(id, secret, &written)).collect();
    assert!(leaks.is_empty(), "{} secrets were printed:\n{}", leaks.len(), leaks.join("\n"));
    assert!(written.len() > 100_000, "a log at its loudest is longer than that");
}

/// The first stretch of `secret` that was written, with what stands around it.
fn leak(id: &str, secret: &str, written: &str) -> Option<String> {
    (0..=secret.len() - STRETCH).find_map(|start| {
        let at = written.find(&secret[start..start + STRETCH])?;
        let around: String = written[..at].chars().rev().take(200).collect::<Vec<_>>().into_iter().rev().collect();
        let after: String = written[at..].chars().take(60).collect();
        Some(format!("{id} ({secret}): ...{around}>>>{after}"))
    })
}
