//! What became of decisions, as any worker of a pool tells it: over the API and on the console's pages.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use interven_alerts::{
    model::{Clock, Reply, Timestamp},
    stand_ins::{Platform, Script, Step},
};
use serde_json::Value;

use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{ALL_EVENTS, PATIENT, PUBLISHER, PUBLISHER_TOKEN, Scene, on, token_of},
    turn_of_the_heavy, unique_name,
    worker::{PATIENCE, WorkerProcess, post_events},
};

const ANALYST: &str = "token-of-analyst";

fn decision(id: &str, kind: &str, severity: &str) -> Bytes {
    decision_of(Clock::System.now(), id, kind, severity)
}

fn decision_of(time: Timestamp, id: &str, kind: &str, severity: &str) -> Bytes {
    let json = format!(
        r#"{{"id":"{id}","time":"{time}","decision":"{kind}","severity":"{severity}","agent":{{"id":"agt_42","name":"production-langgraph"}},"tool":"github","operation":"create_issue","rule":{{"rev":12345678901234567890123}}}}"#
    );
    Bytes::from(json)
}

/// What became of each decision, by its id: the state in each channel, with the reason or the lane; or why there is none.
type Told = BTreeMap<String, BTreeMap<String, String>>;

async fn told(worker: &WorkerProcess, query: &str) -> Option<Told> {
    let (status, answer) = worker.asking("GET", &format!("/api/decisions?{query}"), ANALYST, "").await?;
    if status != 200 {
        return None;
    }
    let [decisions, deliveries] = ["decisions", "deliveries"].map(|key| answer[key].as_array().unwrap());
    assert_eq!(decisions.len(), deliveries.len(), "{answer}");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let each = decisions.iter().zip(deliveries).map(|(decision, became)| {
        assert_eq!(decision["id"], became["decision"], "{answer}");
        let channels = became["channels"].as_array().unwrap().iter().map(|one| {
            let more =
                text(&one["reason"]).or_else(|| text(&one["lane"])).map_or(String::new(), |more| format!(" {more}"));
            (text(&one["channel"]).unwrap(), format!("{}{more}", one["state"].as_str().unwrap()))
        });
        let recorded = &became["recorded"];
        let channels = if *recorded == Value::Bool(true) {
            channels.collect()
        } else {
            BTreeMap::from([(String::from("recorded"), recorded.to_string())])
        };
        (text(&became["decision"]).unwrap(), channels)
    });
    Some(each.collect())
}

fn as_told(lines: &[(&str, &[(&str, &str)])]) -> Told {
    let channels =
        |each: &[(&str, &str)]| each.iter().map(|(channel, state)| ((*channel).into(), (*state).into())).collect();
    lines.iter().map(|(id, each)| ((*id).into(), channels(each))).collect()
}

async fn until_told(worker: &WorkerProcess, query: &str, expected: &Told) {
    let mut last = None;
    let what = format!("{query} tells what became of all");
    let told = tokio::time::timeout(Duration::from_mins(2), async {
        loop {
            let now = told(worker, query).await;
            if now.as_ref() == Some(expected) {
                return;
            }
            last = now.or(last.take());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(told.await.is_ok(), "{what}:\n{last:#?}\nand should be\n{expected:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_worker_tells_where_each_decision_was_told_and_if_not_why_not() {
    let _turn = turn_of_the_heavy().await;
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("became"));
    let mut scene = Scene::default();
    let refuse = Step::Reply { reply: Reply::new(400, "invalid_payload"), taken: false };
    let gone = Step::Reply { reply: Reply::new(404, "no_service"), taken: false };
    scene.add("siem", Platform::Splunk, Script::accept(), &format!("{ALL_EVENTS}min_severity = \"MEDIUM\"\n")).await;
    scene.add("soc-refuses", Platform::Slack, Script::always(refuse), "events = [\"DENY\"]\n").await;
    scene.add("soc-gone", Platform::Slack, Script::always(gone), "events = [\"INCIDENT\"]\n").await;
    let tokens = ["auditor", "analyst"].map(token_of).concat();
    let config = format!("{}{tokens}{PUBLISHER}{}", on(rabbit, &prefix, ""), scene.channels());
    let [mut one, mut other] = [&config, &config].map(|config| WorkerProcess::new(config));
    one.start_ready().await;
    other.start_ready().await;

    let mut firewall = Publisher::new(rabbit.url(), &prefix);
    let decisions = [
        decision("accepted", "ALLOW", "MEDIUM"),
        decision("refused", "DENY", "HIGH"),
        decision("held", "INCIDENT", "CRITICAL"),
        decision("unwanted", "ALLOW", "LOW"),
    ];
    firewall.publish_surely(&decisions, PATIENCE).await;
    let siem = ("siem", "delivered");
    let mut expected = as_told(&[
        ("accepted", &[siem]),
        ("refused", &[siem, ("soc-refuses", "dead refused")]),
        ("held", &[siem, ("soc-gone", "waiting held")]),
        ("unwanted", &[]),
    ]);
    // The lane is held where it is consumed; the other worker sees it flow.
    let mut elsewhere = as_told(&[
        ("accepted", &[siem]),
        ("refused", &[siem, ("soc-refuses", "dead refused")]),
        ("held", &[siem, ("soc-gone", "waiting flowing")]),
        ("unwanted", &[]),
    ]);
    for worker in [&one, &other] {
        eventually("the worker tells what became of all", Duration::from_mins(1), async || {
            let now = told(worker, "").await?;
            (now == expected || now == elsewhere).then_some(())
        })
        .await;
        let (_, page) = worker.get_text("/decisions", ANALYST).await;
        for word in ["siem: delivered", "soc-refuses: dead", "soc-gone: waiting", "no channel wanted it"] {
            assert!(page.contains(word), "{word} in {page}");
        }
    }

    every_filter_and_every_page_is_kept(&one, &other).await;
    let (_, page) = one.get_text("/decisions/refused", ANALYST).await;
    for word in ["/dead-letters?decision=refused", "<code>refused</code>", "12345678901234567890123", "delivered"] {
        assert!(page.contains(word), "{word} in {page}");
    }
    let (status, page) = one.get_text("/decisions/nobody%22%3E%3Cscript%3E", ANALYST).await;
    assert!(status == 404 && !page.contains("><script>") && page.contains("There is no decision"), "{page}");

    // One that says it is of 1970 takes nothing from the others, and is told of itself.
    let ancient = [decision_of(Timestamp::UNIX_EPOCH, "ancient", "INCIDENT", "CRITICAL")];
    firewall.publish_surely(&ancient, PATIENCE).await;
    for (expected, lane) in [(&mut expected, "held"), (&mut elsewhere, "flowing")] {
        let waiting = format!("waiting {lane}");
        expected.extend(as_told(&[("ancient", &[siem, ("soc-gone", &waiting)])]));
    }

    // A restart changes nothing of it, whoever tells.
    for worker in [&mut one, &mut other] {
        worker.terminate().await;
        worker.start_ready().await;
    }
    for worker in [&one, &other] {
        eventually("the worker tells it all again", Duration::from_mins(1), async || {
            let now = told(worker, "").await?;
            (now == expected || now == elsewhere).then_some(())
        })
        .await;
    }

    // What waited is delivered, and what was dead is delivered at the second time of asking.
    scene.heal();
    for worker in [&one, &other] {
        let (status, answer) = worker.api("POST", "/api/channels/soc-gone/resume", ANALYST, "").await;
        assert_eq!(status, 200, "{answer}");
        let order = r#"{"filter":{"decision":"refused"}}"#;
        let (status, answer) = worker.api("POST", "/api/dead-letters/replay", ANALYST, order).await;
        assert_eq!(status, 200, "{answer}");
    }
    let healed = as_told(&[
        ("accepted", &[siem]),
        ("refused", &[siem, ("soc-refuses", "delivered")]),
        ("held", &[siem, ("soc-gone", "delivered")]),
        ("ancient", &[siem, ("soc-gone", "delivered")]),
        ("unwanted", &[]),
    ]);
    for worker in [&one, &other] {
        until_told(worker, "", &healed).await;
        assert_eq!(worker.metrics().await.sum("delivery_records_lost_total", &[]), 0);
    }
}

/// Every filter of the API and of the page, and a page at a time.
async fn every_filter_and_every_page_is_kept(one: &WorkerProcess, other: &WorkerProcess) {
    for (query, ids) in [
        ("decision=DENY,INCIDENT", &["held", "refused"][..]),
        ("min_severity=CRITICAL", &["held"]),
        ("id=unwanted", &["unwanted"]),
        ("agent=production-*&tool=github.create_*&severity=LOW,MEDIUM", &["accepted", "unwanted"]),
        ("agent=agt_1", &[]),
    ] {
        let found: Vec<String> = told(other, query).await.unwrap().into_keys().collect();
        assert_eq!(found, ids, "{query}");
        let (_, page) = other.get_text(&format!("/decisions?{query}"), ANALYST).await;
        for id in ["accepted", "refused", "held", "unwanted"] {
            // The page's severities are those of `min_severity` alone.
            if !query.contains("severity=LOW") {
                assert_eq!(
                    page.contains(&format!("/decisions/{id}?at=")),
                    ids.contains(&id),
                    "{query}: {id} in {page}"
                );
            }
        }
    }
    let (mut seen, mut before) = (Vec::new(), String::new());
    for _ in 0..4 {
        let (_, answer) = one.api("GET", &format!("/api/decisions?limit=1{before}"), ANALYST, "").await;
        seen.push(answer["decisions"][0]["id"].as_str().unwrap().to_owned());
        before = format!("&before={}", answer["older"]);
        assert_eq!(answer["older"].is_null(), seen.len() == 4, "{answer}");
    }
    seen.sort();
    assert_eq!(seen, ["accepted", "held", "refused", "unwanted"]);
    // Nobody waits for what comes after the end.
    let (status, answer) = one.api("GET", "/api/decisions?before=9000000000000000000", ANALYST, "").await;
    assert_eq!((status, answer["decisions"].as_array().map(Vec::len)), (200, Some(4)), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_holds_up_no_delivery_and_what_became_of_it_is_told_when_it_is_back() {
    // Goal: deliveries do not wait for their records, and records outlive a broker that is away.
    // Method: the broker dies as soon as the endpoint has everything, so that the last records are still in the worker's memory.
    let _turn = turn_of_the_heavy().await;
    let (rabbit, prefix) = (tokio::task::block_in_place(|| Rabbit::start("", "[].")), unique_name("became"));
    let mut scene = Scene::default();
    scene.add("siem", Platform::Splunk, Script::accept(), &format!("{ALL_EVENTS}{PATIENT}")).await;
    let mut worker =
        WorkerProcess::new(&format!("{}{}{}", on(&rabbit, &prefix, ""), token_of("analyst"), scene.channels()));
    worker.start_ready().await;
    let mut firewall = Publisher::new(rabbit.url(), &prefix);
    let some = |name: &str| (0..40).map(|n| decision(&format!("{name}-{n}"), "DENY", "HIGH")).collect::<Vec<_>>();
    let (before, after) = (some("before"), some("after"));
    firewall.publish_surely(&before, PATIENCE).await;
    let has = async |count: u32| {
        let taken = || u32::try_from(scene.stand_in("siem").received_ids().len()).unwrap();
        eventually("the endpoint has them", Duration::from_mins(1), async || (taken() >= count).then_some(())).await;
    };
    has(40).await;
    rabbit.remember_queues().await;
    // Once more, because that took its time.
    firewall.publish_surely(&[decision("last", "DENY", "HIGH")], PATIENCE).await;
    has(41).await;
    rabbit.crash();
    eventually("the worker misses the broker", Duration::from_mins(1), async || {
        (worker.metrics().await.sum("broker_connected", &[]) == 0).then_some(())
    })
    .await;
    tokio::task::block_in_place(|| rabbit.boot());
    firewall.publish_surely(&after, Duration::from_mins(1)).await;
    has(81).await;
    let ids = (0..40).flat_map(|n| [format!("before-{n}"), format!("after-{n}")]).chain([String::from("last")]);
    let expected: Told = ids.map(|id| (id, BTreeMap::from([("siem".into(), "delivered".into())]))).collect();
    until_told(&worker, "limit=100", &expected).await;
    assert_eq!(worker.metrics().await.sum("delivery_records_lost_total", &[]), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_log_may_not_be_made_everything_is_told_all_the_same_and_the_doctor_knows() {
    // Goal: a program that makes the contract's topology, and no more, keeps working.
    let _turn = turn_of_the_heavy().await;
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("became"));
    let mut scene = Scene::default();
    scene.add("siem", Platform::Splunk, Script::accept(), ALL_EVENTS).await;
    let config =
        |more: &str| format!("{}{}{PUBLISHER}{}", on(rabbit, &prefix, more), token_of("analyst"), scene.channels());
    let mut maker = WorkerProcess::new(&config(""));
    maker.start_ready().await;
    maker.terminate().await;
    let log = format!("{prefix}.alerts.log.deliveries");
    rabbit.ctl(&["delete_queue", &log]).await;
    let mut worker = WorkerProcess::new(&config("declare = false"));
    worker.start_ready().await;
    let event = String::from_utf8(decision("d", "DENY", "HIGH").to_vec()).unwrap();
    let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), event).await.unwrap();
    assert_eq!(answer.0, 202, "{answer:?}");
    eventually("the endpoint has it", PATIENCE, async || {
        scene.stand_in("siem").received_ids().contains_key("d").then_some(())
    })
    .await;
    eventually("nothing is known of it", PATIENCE, async || {
        let told = told(&worker, "").await?;
        (told == as_told(&[("d", &[("recorded", "null")])])).then_some(())
    })
    .await;
    let (_, page) = worker.get_text("/decisions", ANALYST).await;
    assert!(page.contains("not known") && !page.contains("delivered"), "{page}");
    eventually("the log says so", PATIENCE, async || {
        worker.logs().contains("what becomes of deliveries cannot be written down").then_some(())
    })
    .await;
    assert_eq!(worker.logs().matches("what becomes of deliveries cannot be written down").count(), 1);
    assert!(!worker.logs().contains("the log of the deliveries could not be read"), "that it is lacking was known");
    let doctor = worker.command(&["doctor"], "").await;
    assert!(doctor.out.contains(&log) && doctor.code == 0, "{doctor:?}");
    let (code, took) = worker.terminate().await;
    assert!(code == 0 && took < PATIENCE, "{code} after {took:?}");
}
