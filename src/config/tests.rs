use std::{path::Path, time::Duration};

use super::{testing::KINDS, *};
use crate::model::{DecisionKind, Egress, Filter, Role, Severity, retry_plan::RetryNumbers};

fn env(name: &str) -> Option<String> {
    match name {
        "HOOK" => Some("https://chat.example/hooks/hush-1".into()),
        "AMQP_PASSWORD" => Some("hush-2".into()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Sound, Faulty> {
    parse(text, &Outside::new(&env, Path::new("")), KINDS)
}

/// `line path: problem`, a line each.
fn shown(faults: &[Fault]) -> String {
    faults.iter().flat_map(|f| [f.line.to_string(), format!(" {}: {}\n", f.path, f.problem)]).collect()
}

fn sound(text: &str) -> Plan {
    read(text).unwrap_or_else(|faulty| panic!("{}", shown(&faulty.faults))).plan
}

#[test]
fn an_empty_file_has_the_defaults_of_the_contract() {
    let Sound { plan, warnings } = read("").unwrap();
    assert_eq!(plan.data_dir, Path::new("/var/lib/interven-alerts"));
    let month = Some(Duration::from_hours(720));
    let BrokerPlan::Embedded { prefetch, keep_decisions } = plan.broker else { panic!("{:?}", plan.broker) };
    assert_eq!((prefetch.get(), keep_decisions), (1_000, month));
    assert_eq!(plan.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(plan.http.metrics_listen.to_string(), "127.0.0.1:9464");
    assert_eq!(plan.links.public, "http://127.0.0.1:8080");
    assert_eq!(plan.links.console, plan.links.public);
    assert_eq!(plan.access.tokens, []);
    assert_eq!(plan.approvals.grant, Duration::from_mins(10));
    assert_eq!(plan.shutdown_grace, Duration::from_secs(25));
    assert_eq!(plan.egress, Egress::default());
    assert!(plan.channels.is_empty());
    let warned: Vec<&str> = warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(warned, ["http", "channel"]);
}

#[test]
fn a_channel_has_the_defaults_of_the_contract_and_of_its_kind() {
    let plan = sound(
        "[[channel]]\nid = \"a\"\nkind = \"chat\"\nwebhook_url = \"${HOOK}\"\n\
         [[channel]]\nid = \"b\"\nkind = \"firehose\"\nwebhook_url = \"${HOOK}\"\n",
    );
    let [chat, firehose] = plan.channels.as_slice() else { panic!("{plan:?}") };
    assert_eq!(
        chat.filter,
        Filter { events: Filter::default_events(), min_severity: Severity::Low, tools: None, agents: None }
    );
    assert_eq!(show_pace(&chat.pace), "2/s burst 5");
    assert_eq!(show_pace(&firehose.pace), "none");
    assert_eq!((chat.concurrency.get(), firehose.concurrency.get()), (1, 16));
    assert_eq!(chat.timeout, Duration::from_secs(10));
    assert_eq!(Ok(chat.retry), RetryNumbers::default().try_into());
    assert_eq!((chat.digest.map(|digest| digest.over.get()), firehose.digest), (Some(20), None));
    assert_eq!((chat.notices, chat.canary), (false, None));
    assert_ne!(chat.fingerprint, firehose.fingerprint);
}

#[test]
fn every_key_of_the_contract_is_read() {
    let plan = sound(
        r#"
        data_dir = "/d"
        [broker]
        urls = ["amqp://u:${AMQP_PASSWORD}@a:5672/%2f", "amqps://u:p@b/%2F"]
        prefix = "acme"
        prefetch = 7
        declare = false
        keep_decisions = "none"
        [http]
        listen = "0.0.0.0:80"
        metrics_listen = "[::]:81"
        public_url = "https://alerts.example.com/"
        console_url = "https://app.example.com"
        [[access.token]]
        name = "soc-lead"
        role = "admin"
        sha256 = "E3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        [approvals]
        grant = "5m"
        [shutdown]
        grace = "1m"
        [egress]
        deny = ["10.1.2.3/8", "192.168.0.1"]
        allow_http = true
        [[channel]]
        id = "soc"
        kind = "chat"
        webhook_url = "http://plain.example/x"
        events = ["ALLOW"]
        min_severity = "HIGH"
        tools = ["slack", "github.create_*"]
        agents = ["agt_42"]
        rate_limit = "20/min"
        burst = 4
        timeout = "3s"
        concurrency = 2
        notices = true
        canary = "1h"
        retry = { attempts = 3, first = "2s", longest = "1m", max_age = "2h" }
        digest.over = 5
        [[channel]]
        id = "quiet"
        kind = "chat"
        webhook_url = "${HOOK}"
        rate_limit = "none"
        digest = { enabled = false }
        "#,
    );
    let BrokerPlan::RabbitMq { urls, prefix, prefetch, declare, keep_decisions } = &plan.broker else { panic!() };
    assert_eq!(urls[0].expose(), "amqp://u:hush-2@a:5672/%2f");
    assert_eq!((urls.len(), prefix.as_str(), prefetch.get(), *declare, *keep_decisions), (2, "acme", 7, false, None));
    assert_eq!((plan.http.listen.port(), plan.http.metrics_listen.to_string()), (80, "[::]:81".into()));
    assert_eq!(plan.links.public, "https://alerts.example.com");
    assert_eq!(plan.links.console, "https://app.example.com");
    let [token] = plan.access.tokens.as_slice() else { panic!() };
    assert_eq!(
        (token.name.as_str(), token.role, token.sha256[0], token.sha256[31]),
        ("soc-lead", Role::Admin, 0xe3, 0x55)
    );
    assert_eq!(plan.approvals.grant, Duration::from_mins(5));
    assert_eq!(plan.shutdown_grace, Duration::from_mins(1));
    assert!(!plan.egress.permits("10.9.9.9".parse().unwrap()) && !plan.egress.permits("192.168.0.1".parse().unwrap()));
    let [soc, quiet] = plan.channels.as_slice() else { panic!() };
    assert_eq!(soc.filter.events.iter().collect::<Vec<_>>(), [DecisionKind::Allow]);
    assert_eq!(soc.filter.min_severity, Severity::High);
    assert_eq!(soc.filter.tools.as_ref().unwrap().len(), 2);
    assert_eq!(soc.filter.agents.as_ref().unwrap()[0].as_str(), "agt_42");
    assert_eq!(show_pace(&soc.pace), "20/min burst 4");
    assert_eq!((soc.timeout, soc.concurrency.get()), (Duration::from_secs(3), 2));
    assert_eq!((soc.notices, soc.canary), (true, Some(Duration::from_hours(1))));
    assert_eq!(
        (soc.retry.attempts().get(), soc.retry.first(), soc.retry.longest(), soc.retry.max_age()),
        (3, Duration::from_secs(2), Duration::from_mins(1), Duration::from_hours(2),)
    );
    assert_eq!(soc.digest.unwrap().over.get(), 5);
    assert_eq!((quiet.digest, quiet.pace.len()), (None, 0));
}

const FAULTY: &str = r#"
data_dri = "/d"
[broker]
url = "http://u:hush-3@rabbit/"
prefix = "a b"
prefetch = 0
[http]
listen = "localhost"
metrics_listen = "127.0.0.1:8080"
public_url = "alerts.example.com"
[[access.token]]
name = "a b"
sha256 = "hush-4"
[shutdown]
grace = "soon"
[egress]
deny = ["10.0.0.0/33"]
[[channel]]
kind = "chat"
webhook_url = "http://chat.example/hush-5"
[[channel]]
id = "Soc"
kind = "chta"
webhook_url = "${HOOK}"
anything = 1
[[channel]]
id = "twice"
kind = "firehose"
webhok_url = "https://chat.example/hush-6"
events = ["DENY", "DENYED"]
min_severity = "high"
rate_limit = "fast"
burst = 0
timeout = "1d"
[channel.retry]
attempts = 0
first = "10m"
[channel.digest]
over = 20
[[channel]]
id = "twice"
kind = "firehose"
webhook_url = "${HOOK}"
burst = 3
token = "${MISSING}"
"#;

#[test]
fn a_grant_lasts_from_a_second_to_a_day() {
    for (grant, good) in [("1s", true), ("24h", true), ("0s", false), ("25h", false), ("none", false)] {
        let faults = read(&format!("[approvals]\ngrant = \"{grant}\"\n")).map_err(|faulty| shown(&faulty.faults));
        assert_eq!(faults.is_ok(), good, "{grant}");
    }
    let faulty = read("[approvals]\ngrants = \"5m\"\n").unwrap_err();
    assert_eq!(shown(&faulty.faults), "2 approvals.grants: is not a key that is known here\n");
}

#[test]
fn one_run_reports_every_fault_with_its_line() {
    let faulty = read(FAULTY).unwrap_err();
    let expected = "\
2 data_dri: is not a key that is known here
4 broker.url: must begin with amqp:// or amqps://
5 broker.prefix: must be at most 64 letters, digits, `.`, `_` and `-`
6 broker.prefetch: must be from 1 to 65535
8 http.listen: is not an IP address with a port
9 http.metrics_listen: `listen` is 127.0.0.1:8080, too
10 http.public_url: is not a URL: it names no scheme
11 access.token[0].role: is missing
12 access.token[0].name: must be 1 to 64 letters, digits, `.`, `_`, `@` and `-`
13 access.token[0].sha256: is not a SHA-256 in 64 hexadecimal digits
15 shutdown.grace: is not a duration
17 egress.deny: `10.0.0.0/33` is not a network
18 channel[0].id: is missing
20 channel[0].webhook_url: plain http would show secrets and decisions to everyone on the way
22 channel[1].id: must be 1 to 64 characters of a-z, 0-9 and -
23 channel[1].kind: `chta` is not one of chat, firehose
26 channel.twice.webhook_url: is missing
29 channel.twice.webhok_url: is not a key that is known here
30 channel.twice.events: `DENYED` is not one of ALLOW, DENY, SANITIZE, REQUIRE_APPROVAL, INCIDENT
31 channel.twice.min_severity: `high` is not one of LOW, MEDIUM, HIGH, CRITICAL
32 channel.twice.rate_limit: is not a rate
33 channel.twice.burst: must be from 1 to 1000000
34 channel.twice.timeout: must be from 100ms to 5m
36 channel.twice.retry.attempts: must be from 1 to 1000
38 channel.twice.digest: `firehose` channels are read by machines and have no digests
41 channel.twice.id: the id `twice` is taken by the channel whose id is on line 27
44 channel.twice.burst: means nothing to a channel without a limit
45 channel.twice.token: the environment variable `MISSING` is not set
";
    assert_eq!(shown(&faulty.faults), expected);
    assert!(faulty.faults.iter().all(|fault| !fault.hint.is_empty()), "each fault says what to do");
    let suggestions: Vec<&str> =
        faulty.faults.iter().map(|f| f.hint.as_str()).filter(|hint| hint.starts_with("did")).collect();
    assert_eq!(
        suggestions,
        [
            "did you mean `data_dir`?",
            "did you mean \"chat\"?",
            "did you mean `webhook_url`?",
            "did you mean \"DENY\"?",
            "did you mean \"HIGH\"?",
        ]
    );
}

#[test]
fn no_secret_is_in_a_fault_or_in_the_debug_print_of_a_plan() {
    let faulty = read(FAULTY).unwrap_err();
    let mut printed: String = faulty.faults.iter().map(|fault| fault.show("f.toml")).collect();
    printed += format!("{faulty:?}").as_str();
    let plan = sound(
        "[broker]\nurl = \"amqp://u:${AMQP_PASSWORD}@a\"\n[[channel]]\nid = \"a\"\nkind = \"chat\"\nwebhook_url = \"${HOOK}\"\ntoken = \"hush-7\"\n",
    );
    printed += format!("{plan:?} {plan:#?}").as_str();
    assert!(!printed.contains("hush"), "{printed}");
    let scrubbed = plan.scrubber().scrub("hush-2 and https://chat.example/hooks/hush-1 and /hooks/hush-1 and hush-7");
    assert!(!scrubbed.contains("hush"), "{scrubbed}");
}

#[test]
fn what_looks_wrong_but_works_is_a_warning() {
    let Sound { warnings, .. } = read(
        "[broker]\nurl = \"embedded\"\ndeclare = true\n[http]\nlisten = \"0.0.0.0:8080\"\n[[channel]]\nid = \"a\"\nkind = \"chat\"\n\
         webhook_url = \"${HOOK}\"\nevents = []\ntools = [\" slack\"]\nagents = []\n",
    )
    .unwrap();
    let expected = "\
3 broker.declare: means nothing to the embedded broker
4 http: `http.public_url` is missing: links in cards point to http://localhost:8080
5 http.listen: is reachable from elsewhere, but nobody has a token
10 channel.a.events: is an empty list, so no decision ever matches
11 channel.a.tools: has a pattern that begins or ends with a space, which counts
12 channel.a.agents: is an empty list, so no decision ever matches
";
    assert_eq!(shown(&warnings), expected);
}

#[test]
fn peers_are_plain_addresses_of_apis_and_what_is_wrong_with_one_is_said_without_its_password() {
    let plan = sound("[http]\npeers = [\"http://interven-alerts-headless:8080\", \"https://b.example/alerts\"]\n");
    let peers: Vec<&str> = plan.peers.iter().map(url::Url::as_str).collect();
    assert_eq!(peers, ["http://interven-alerts-headless:8080/", "https://b.example/alerts"]);
    assert!(sound("").peers.is_empty());
    let many = (0..65).map(|number| format!("\"http://w{number}\"")).collect::<Vec<_>>().join(", ");
    for (list, problem) in [
        ("\"worker:8080\"", "URL 1 must begin with http:// or https://"),
        ("\"http://a\", \"nonsense\"", "URL 2 is not a URL: relative URL without a base"),
        ("\"http://u:hush-3@a\"", "URL 1 holds credentials, and workers are asked with those of whoever looks"),
        ("\"http://a/?x=1\"", "URL 1 has more than a host, a port and a path"),
        ("\"http://a\", \"http://a/\"", "URL 2 is there twice"),
        (&many, "names more than 64 workers"),
    ] {
        let faulty = read(&format!("[http]\npeers = [{list}]\n")).unwrap_err();
        assert_eq!(shown(&faulty.faults), format!("2 http.peers: {problem}\n"));
        assert!(faulty.faults.iter().all(|fault| !format!("{fault:?}").contains("hush") && !fault.hint.is_empty()));
    }
    assert!(read("[http]\npeers = \"http://a\"\n").is_err());
    // Without the pool's key, nobody's session is known to the others.
    let warned = |env: &dyn Fn(&str) -> Option<String>| {
        let text = "[http]\npublic_url = \"https://a.example\"\npeers = [\"http://a\"]\n";
        let Sound { warnings, .. } = parse(text, &Outside::new(env, Path::new("")), KINDS).unwrap();
        shown(&warnings).contains("http.peers: there is no INTERVEN_ALERTS_KEY")
    };
    assert!(warned(&|_| None));
    assert!(!warned(&|name| (name == "INTERVEN_ALERTS_KEY").then(|| String::from("0123456789abcdef"))));
}

#[test]
fn a_peer_that_is_asked_in_clear_over_a_network_of_others_is_warned_about() {
    let warnings = |peers: &str| {
        let text = format!("[http]\npublic_url = \"https://a.example\"\npeers = [{peers}]\n");
        let env = |name: &str| (name == "INTERVEN_ALERTS_KEY").then(|| String::from("0123456789abcdef"));
        let Sound { mut warnings, .. } = parse(&text, &Outside::new(&env, Path::new("")), KINDS).unwrap();
        warnings.retain(|warning| warning.path == "http.peers");
        shown(&warnings)
    };
    for (peers, hosts) in [
        ("\"http://b.example:8080\"", &["b.example"][..]),
        ("\"http://10.1.2.3:8080\", \"https://b.example\"", &["10.1.2.3"]),
        ("\"http://[fd00::1]\", \"http://b.example.\"", &["[fd00::1]", "b.example."]),
        ("\"https://b.example\", \"http://127.0.0.1:9\", \"http://[::1]:9\", \"http://localhost\"", &[]),
        // One network's own names.
        ("\"http://workers:8080\", \"http://w-0.w.alerts.svc\", \"http://w.alerts.svc.cluster.local:8080\"", &[]),
    ] {
        let expected =
            hosts.iter().map(|host| format!("3 http.peers: tokens and sessions travel to {host} in clear\n"));
        assert_eq!(warnings(peers), expected.collect::<String>(), "{peers}");
    }
}

#[test]
fn a_broker_section_without_a_url_is_a_fault_rather_than_an_empty_store() {
    let faulty = read("[broker]\nprefetch = 5\n").unwrap_err();
    assert_eq!(shown(&faulty.faults), "1 broker: the section has no `url`\n");
}

#[test]
fn a_fingerprint_follows_the_environment_and_ignores_layout() {
    let print = |text: &str, token: &str| {
        let token = token.to_owned();
        let env = move |name: &str| (name == "T").then(|| token.clone());
        parse(text, &Outside::new(&env, Path::new("")), KINDS).unwrap().plan.channels[0].fingerprint.clone()
    };
    let text =
        "[[channel]]\nid = \"a\"\nkind = \"chat\"\nwebhook_url = \"https://h/${T}\"\n[channel.retry]\nattempts = 3\n";
    let moved = "# c\ndata_dir = \"/d\"\n[[channel]]\nretry.attempts = 3\nkind = 'chat'\nwebhook_url = \"https://h/${T}\"\nid = \"a\"\n";
    assert_eq!(print(text, "x"), print(moved, "x"));
    assert_ne!(print(text, "x"), print(text, "y"));
    assert_ne!(print(text, "x"), print(&text.replace("= 3", "= 4"), "x"));
}

#[test]
fn every_real_kind_is_built_from_its_sample_and_knows_its_keys_even_when_one_is_faulty() {
    for kind in crate::channels::KINDS {
        let sample = kind.sample.replace("{base}", "http://127.0.0.1:9");
        let file = |body: &str| format!("[[channel]]\nid = \"a\"\nkind = \"{}\"\n{body}", kind.name);
        if let Err(faulty) = parse(&file(&sample), &Outside::nothing(), crate::channels::KINDS) {
            panic!("{}: {}", kind.name, shown(&faulty.faults));
        }
        // A kind that gives up at its first fault would have its other keys reported as unknown.
        for line in sample.lines() {
            let Some((key, _)) = line.split_once('=') else { continue };
            let broken = sample.replace(line, &format!("{key}= 1979-05-27"));
            // A template may hold anything, a date included.
            let Err(faulty) = parse(&file(&broken), &Outside::nothing(), crate::channels::KINDS) else { continue };
            let unknown = faulty.faults.iter().find(|fault| fault.problem.contains("is not a key"));
            assert!(unknown.is_none(), "{}: {key} faulty, then {unknown:?}", kind.name);
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]
    #[test]
    fn no_text_makes_parsing_panic(noise in "(?s).{0,80}", cut in 0..900_usize, at in 0..900_usize) {
        // A file that almost makes sense reaches further than noise does.
        let mut text: String = FAULTY.chars().take(at).collect();
        text.push_str(&noise);
        text.extend(FAULTY.chars().skip(cut));
        std::hint::black_box(read(&text).is_ok());
        std::hint::black_box(read(&noise).is_ok());
    }
}
