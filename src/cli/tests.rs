use std::{fmt::Write as _, path::Path};

use super::*;
use crate::{
    config::testing::KINDS,
    model::{Clock, Timestamp},
    settings::Outside,
};

const EVENT: &str = r#"{"id":"d-1","time":"2026-06-01T12:00:00Z","decision":"DENY","severity":"LOW","title":"Secret egress hush-hook-77",
    "agent":{"id":"agt_42","name":"prod\u001b[31m"},"tool":"slack","operation":"post_message"}"#;

const GOOD: &str = r#"
[http]
public_url = "https://alerts.example.com"
[[channel]]
id = "soc"
kind = "chat"
webhook_url = "https://chat.example/hooks/hush-hook-77-abcd"
token = "hush-hook-77"
min_severity = "HIGH"
[[channel]]
id = "all"
kind = "firehose"
webhook_url = "http://127.0.0.1:9/${HOOK}"
"#;

const FAULTY: &str = "[[channel]]\nid = \"a\"\nkind = \"chat\"\nwebhok_url = \"https://chat.example/hush-1\"\n";

/// What a command left behind.
struct Ran {
    code: u8,
    out: String,
    err: String,
}

/// Runs a command line in a directory that holds `config` as `interven-alerts.toml` and `event.json`.
fn ran(config: Option<&str>, line: &str, input: &str) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    if let Some(config) = config {
        std::fs::write(directory.path().join("interven-alerts.toml"), config).unwrap();
    }
    std::fs::write(directory.path().join("event.json"), EVENT).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut shell = Shell {
        env: &|name| (name == "HOOK").then(|| "hush-path-88".into()),
        kinds: KINDS,
        directory: directory.path().into(),
        clock: Clock::Virtual { from: Timestamp::UNIX_EPOCH, started: tokio::time::Instant::now() },
        input: &mut input.as_bytes(),
        out: &mut out,
        out_is_terminal: false,
        err: &mut err,
        color: false,
    };
    let argv = ["interven-alerts"].into_iter().chain(line.split_whitespace()).map(OsString::from);
    let code = run(argv, &mut shell);
    Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
}

#[test]
fn check_sums_a_good_configuration_up() {
    let Ran { code, out, err } = ran(Some(GOOD), "check", "");
    let expected = "\
interven-alerts.toml: no faults
  data      /var/lib/interven-alerts
  broker    embedded, decisions kept 30d
  listens   127.0.0.1:8080 (console, API), 127.0.0.1:9464 (metrics)
  links     https://alerts.example.com (approvals), https://alerts.example.com (decisions)
  tokens    0
  channels  2

CHANNEL  KIND      EVENTS                          SEVERITY     TOOLS  AGENTS  RATE         ENDPOINT
soc      chat      DENY,REQUIRE_APPROVAL,INCIDENT  HIGH and up  all    all     2/s burst 5  https://chat.example/...abcd
all      firehose  DENY,REQUIRE_APPROVAL,INCIDENT  all          all    all     none         http://127.0.0.1:9/...h-88
";
    assert_eq!((code, out.as_str(), err.as_str()), (0, expected, ""));
    let report = json(&ran(Some(GOOD), "check --json", "").out);
    assert_eq!((&report["ok"], &report["channels"][1]["id"]), (&true.into(), &"all".into()));
}

#[test]
fn check_shows_every_fault_with_its_line_and_exits_78() {
    let Ran { code, out, err } = ran(Some(FAULTY), "check", "");
    let expected = "\
error: interven-alerts.toml:1:1: channel.a.webhook_url: is missing
  1 | [[channel]]
    | ^
    = hint: copy it from the chat's settings
error: interven-alerts.toml:4:1: channel.a.webhok_url: is not a key that is known here
  4 | webhok_url = \"*****://****.*******/****-*\"
    | ^
    = hint: did you mean `webhook_url`?
warning: interven-alerts.toml:1:1: http: `http.public_url` is missing: links in cards point to http://127.0.0.1:8080
  1 | [[channel]]
    | ^
    = hint: set `public_url` in [http] to where analysts reach this worker
error: interven-alerts.toml: the configuration has 2 faults
";
    assert_eq!((code, out.as_str(), err.as_str()), (78, "", expected));
    let report = ran(Some(FAULTY), "check --json", "");
    assert_eq!((report.code, &json(&report.out)["faults"][1]["line"]), (78, &4.into()));
}

#[test]
fn an_excerpt_shows_what_is_no_secret_and_a_variable_has_no_line() {
    let text = "\
data_dir = 12345
[broker]
url = \"amqp://hush:hush@127.0.0.1\"
prefetch = \"many\"
[http]
listen = \"localhost:80\"
public_url = \"alerts.example.com\"
[[access.token]]
name = \"me\"
role = \"admin\"
sha256 = \"ivt_hush\"
[[channel]]
id = \"SOC\"
kind = \"chat\"
webhook_url = \"ftp://hush/${NAME}\"
rate_limit = \"often\"
";
    let env = |name: &str| (name == "INTERVEN_ALERTS_KEY").then(|| String::from("hush"));
    let faulty = crate::config::parse(text, &Outside::new(&env, Path::new("")), KINDS).unwrap_err();
    let shown: String = faulty.faults.iter().chain(&faulty.warnings).map(|fault| fault.show("f")).collect();
    for part in [
        "1 | data_dir = *****\n",
        "prefetch = \"many\"\n",
        "write one from 1 to 65535, without quotes\n",
        "listen = \"localhost:80\"\n",
        "public_url = \"alerts.example.com\"\n",
        "sha256 = \"***_****\"\n",
        "id = \"SOC\"\n",
        "webhook_url = \"***://****/${NAME}\"\n",
        "rate_limit = \"often\"\n",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(shown.starts_with("the environment variable INTERVEN_ALERTS_KEY: a key has at least 16"), "{shown}");
    assert!(!shown.contains("hush") && !shown.contains("`http.public_url` is missing"), "{shown}");
}

#[test]
fn a_missing_or_unreadable_configuration_says_where_it_was_looked_for() {
    let Ran { code, err, .. } = ran(None, "check", "");
    assert!(code == 78 && err.contains("hint: give one with `--config FILE`"), "{err}");
    let Ran { code, err, .. } = ran(None, "explain event.json --config nowhere.toml", "");
    assert!(
        code == 78 && err.starts_with("error: nowhere.toml: could not read") && err.contains("caused by: "),
        "{err}"
    );
}

#[test]
fn explain_tells_the_first_filter_that_says_no_with_both_values() {
    let expected = "\
d-1: DENY LOW, slack.post_message by prod [31m
  soc  does not match: min_severity wants HIGH, the decision has LOW
  all  matches
";
    for (line, input) in [("explain event.json", ""), ("explain -", EVENT)] {
        let Ran { code, out, err } = ran(Some(GOOD), line, input);
        assert_eq!((code, out.as_str(), err.as_str()), (0, expected, ""));
    }
    let answers = json(&ran(Some(GOOD), "explain event.json --json", "").out);
    let expected = serde_json::json!([
        {"channel": "soc", "matches": false, "filter": "min_severity", "wanted": "HIGH", "found": "LOW"},
        {"channel": "all", "matches": true},
    ]);
    assert_eq!(answers, expected);
}

#[test]
fn what_is_no_decision_is_a_failure_with_its_cause() {
    let Ran { code, err, .. } = ran(Some(GOOD), "explain -", "{}");
    assert!(code == 1 && err.starts_with("error: standard input holds no decision\ncaused by: "), "{err}");
    let Ran { code, err, .. } = ran(Some(GOOD), "explain absent.json", "");
    assert!(code == 1 && err.starts_with("error: could not read the decision from absent.json\ncaused by: "), "{err}");
}

#[test]
fn render_prints_the_exact_body_with_secrets_masked() {
    let Ran { code, out, err } = ran(Some(GOOD), "render event.json --channel soc", "");
    assert_eq!((code, out.as_str()), (0, r#"{"text":"DENY Secret egress [secret]"}"#));
    assert!(err.starts_with("note: soc would not get this decision"), "{err}");
    assert_eq!(ran(Some(GOOD), "render event.json --channel all --plain", "").out, "DENY Secret egress [secret]");
    let shown = json(&ran(Some(GOOD), "render event.json --channel soc --json", "").out);
    let expected = serde_json::json!({
        "channel": "soc", "kind": "chat", "endpoint": "https://chat.example/...abcd",
        "headers": {"authorization": "[secret]"}, "body": {"text": "DENY Secret egress [secret]"},
    });
    assert_eq!(shown, expected);
    let Ran { code, err, .. } = ran(Some(GOOD), "render event.json --channel nobody", "");
    assert_eq!((code, err.as_str()), (1, "error: there is no channel `nobody`\nhint: there are soc, all\n"));
}

#[test]
fn a_token_is_random_and_its_hash_is_what_the_configuration_takes() {
    use sha2::Digest as _;
    let made = json(&ran(None, "token soc-lead --role admin --json", "").out);
    let token = made["token"].as_str().unwrap();
    assert_eq!(made["sha256"], crate::model::hex(&sha2::Sha256::digest(token)));
    assert!(token.starts_with("ivt_") && token.len() == 4 + 43, "{token}");
    let plan = crate::config::parse(made["toml"].as_str().unwrap(), &Outside::nothing(), KINDS).unwrap().plan;
    assert_eq!(
        (plan.access.tokens[0].name.as_str(), plan.access.tokens[0].role),
        ("soc-lead", crate::model::Role::Admin)
    );
    assert_ne!(token, json(&ran(None, "token soc-lead --role admin --json", "").out)["token"].as_str().unwrap());
    let text = ran(None, "token soc-lead --role auditor", "").out;
    assert!(
        text.contains("shown this once:\n\nivt_") && text.contains("[[access.token]]\nname = \"soc-lead\"\n"),
        "{text}"
    );
}

#[test]
fn wrong_usage_exits_2_and_help_exits_0() {
    for line in [
        "",
        "chek",
        "check --what",
        "token a\"b --role admin",
        "token a --role king",
        "check --log-level lapin=loud",
        "check --log-level wran",
    ] {
        let Ran { code, err, out } = ran(Some(GOOD), line, "");
        assert!(code == 2 && !err.is_empty() && out.is_empty(), "{line}: {code} {err}");
    }
    for line in ["--help", "--version", "check --help", "channels list --help"] {
        let Ran { code, err, out } = ran(None, line, "");
        assert!(code == 0 && err.is_empty() && !out.is_empty(), "{line}: {code} {err}");
    }
}

#[test]
fn completions_exist_for_common_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let Ran { code, out, .. } = ran(None, &format!("completions {shell}"), "");
        assert!(code == 0 && out.contains("interven-alerts"), "{shell}");
    }
}

#[test]
fn no_secret_is_in_anything_that_a_command_prints() {
    let mut printed = String::new();
    for config in [GOOD, FAULTY] {
        for line in [
            "check",
            "check --json",
            "channels list",
            "channels list --json",
            "explain event.json --json",
            "render event.json --channel soc",
            "render event.json --channel all --json",
        ] {
            let Ran { out, err, .. } = ran(Some(config), line, "");
            // `explain` quotes the decision, which is not ours to mask.
            write!(printed, "{line}\n{out}\n{err}\n").unwrap();
        }
    }
    for secret in ["hush-hook", "hush-path", "hush-1"] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
}

/// The example with every `#key = value` line taken in. Prose has a space after its `#`.
fn example_with_everything(example: &str) -> String {
    let line = |line: &str| {
        line.strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()))
            .unwrap_or(line)
            .to_owned()
            + "\n"
    };
    example.lines().map(line).collect()
}

#[test]
fn the_example_configuration_has_no_faults_as_it_is_and_with_everything_taken_in() {
    let example = include_str!("../../deploy/interven-alerts.example.toml");
    let env = |name: &str| {
        Some(match name {
            "SLACK_WEBHOOK" => "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX".into(),
            "DISCORD_WEBHOOK" => "https://discord.com/api/webhooks/123456789012345678/abcdefghijklmnop".into(),
            "TEAMS_WORKFLOW_URL" => {
                "https://prod-1.westeurope.logic.azure.com/workflows/abc/triggers/manual/paths/invoke?sig=x".into()
            }
            "TELEGRAM_BOT_TOKEN" => "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0".into(),
            "SLACK_BOT_TOKEN" => "xoxb-0123456789-abcdefghij".into(),
            other => format!("value-of-{other}"),
        })
    };
    for text in [example.to_owned(), example_with_everything(example)] {
        let outside = Outside::new(&env, Path::new(""));
        let faults = crate::config::parse(&text, &outside, crate::channels::KINDS)
            .err()
            .map_or(Vec::new(), |faulty| faulty.faults);
        for fault in faults {
            // A kind that this build does not have cannot be read; every other fault is the example's.
            let kind = text.lines().nth(fault.line - 1).and_then(|line| line.split('"').nth(1)).unwrap_or_default();
            let unknown = !crate::channels::KINDS.iter().any(|known| known.name == kind);
            assert!(fault.path.rsplit('.').next() == Some("kind") && unknown, "{}", fault.show("example"));
        }
    }
    assert!(example_with_everything(example).lines().filter(|line| line.starts_with("kind = ")).count() >= 6);
}
