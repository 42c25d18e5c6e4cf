//! Exports over the embedded broker, in this process: what is in them, and how they end.

use std::{collections::BTreeMap, path::Path};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{work::feed, *};
use crate::{
    broker::{
        BrokerError, Destination, Message, Record,
        embedded::{Embedded, EmbeddedSettings},
    },
    model::Clock,
};

/// The longest that anything here may take on a loaded machine.
const PATIENCE: Duration = Duration::from_mins(1);

struct House {
    exporter: Exporter,
    broker: Arc<dyn Broker>,
    stop: CancellationToken,
    tracker: TaskTracker,
    dir: tempfile::TempDir,
}

impl House {
    async fn open(kept: bool, limits: Limits, patience: Option<Duration>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keep_decisions = kept.then_some(Duration::from_hours(1));
        let settings = EmbeddedSettings { dir: dir.path().join("broker"), keep_decisions, lanes: Vec::new() };
        let broker = Embedded::open(settings, Clock::System, &TaskTracker::new()).await.unwrap();
        let broker = Arc::new(broker) as Arc<dyn Broker>;
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        std::fs::create_dir(dir.path().join("spill")).unwrap();
        let spill = Spill { dirs: vec![dir.path().join("spill")], leave_free: 0 };
        let terms = Terms { broker: Arc::clone(&broker), kept, spill, limits, patience, stop: stop.clone() };
        Self { exporter: Exporter::new(terms, &tracker), broker, stop, tracker, dir }
    }

    async fn append(&self, bodies: impl IntoIterator<Item = String>) {
        let bodies: Vec<String> = bodies.into_iter().collect();
        for some in bodies.chunks(500) {
            let publish = |(at, body): (usize, &String)| {
                let body = Bytes::from(body.clone());
                self.broker.publish(Message { to: Destination::Log(Log::Decisions), id: at.to_string(), body })
            };
            for confirm in join_all(some.iter().enumerate().map(publish)).await {
                confirm.unwrap();
            }
        }
    }

    async fn text(&self, query: &str, format: Format) -> (String, Report) {
        let mut export = self.exporter.export(asked(query), format).unwrap();
        let mut text = Vec::new();
        while let Some(piece) = export.next().await {
            text.extend_from_slice(&piece.unwrap());
        }
        (String::from_utf8(text).unwrap(), export.report().unwrap())
    }

    /// Waits until every task of every export has ended, and looks whether it left anything on the disk.
    async fn at_rest(&self) {
        self.tracker.close();
        timeout(PATIENCE, self.tracker.wait()).await.expect("a task goes on");
        assert_eq!(files(&self.dir.path().join("spill")), 0);
    }
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

fn asked(query: &str) -> Query {
    let mut asked = Asked::default();
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        assert!(asked.take(key, value).unwrap());
    }
    asked.try_into().unwrap()
}

fn decision(millis: i64, id: &str) -> String {
    let time = Timestamp::from_unix_millis(1_780_300_000_000 + millis);
    format!(
        r#"{{"id":"{id}","time":"{time}","decision":"DENY","severity":"HIGH","agent":{{"id":"agt_42"}},"tool":"slack","operation":"post_message","reasons":["{}"]}}"#,
        "X".repeat(200)
    )
}

/// Decisions in no order, a tenth of them twice, several at each moment.
fn shuffled(count: i64) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut bodies: Vec<String> = (0..count).map(|n| decision(n / 3, &format!("d-{}", n * 7_919 % count))).collect();
    let twice: Vec<String> = bodies.iter().step_by(10).cloned().collect();
    bodies.extend(twice);
    random.shuffle(&mut bodies);
    bodies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_decision_of_the_range_is_there_once_and_in_order_whatever_the_order_of_the_log() {
    // Goal: the same with everything in memory, and with nearly nothing in memory and several levels of runs.
    for limits in [Limits::default(), Limits { chunk_bytes: 20_000, fan_in: 3 }] {
        let house = House::open(true, limits, None).await;
        let bodies = shuffled(3_000);
        house.append(bodies.clone()).await;
        house.append([String::from("no decision at all"), String::from("{}")]).await;
        let (from, until) =
            (Timestamp::from_unix_millis(1_780_300_000_100), Timestamp::from_unix_millis(1_780_300_000_900));
        let (text, report) = house.text(&format!("since={from}&until={until}"), Format::Ndjson).await;
        let mut expected = BTreeMap::new();
        for body in &bodies {
            let value: serde_json::Value = serde_json::from_str(body).unwrap();
            let time: Timestamp = value["time"].as_str().unwrap().parse().unwrap();
            if (from..until).contains(&time) {
                expected.insert((time, value["id"].as_str().unwrap().to_owned()), body.clone());
            }
        }
        assert_eq!(expected.len(), 2_400);
        assert!(text.lines().eq(expected.values()), "not the same, or not in the same order");
        assert_eq!((report.decisions, report.unreadable, report.scanned), (2_400, 2, 3_302));
        assert!(report.duplicates > 100 && (report.spilled_bytes > 0) == (limits.chunk_bytes < 1 << 20), "{report:?}");
        let (text, _) = house.text("", Format::Json).await;
        assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&text).unwrap().len(), 3_000);
        let (text, report) = house.text("until=2020-01-01T00:00:00Z", Format::Datadog).await;
        assert_eq!((text.as_str(), report.decisions), ("[]\n", 0));
        house.at_rest().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_ahead_of_the_brokers_clock_is_found_and_an_end_in_the_past_is_not_the_end_of_the_scan() {
    let house = House::open(true, Limits::default(), None).await;
    let now = Clock::System.now().unix_millis() - 1_780_300_000_000;
    let minutes = |count: i64| now + count * 60_000;
    house
        .append([decision(minutes(10), "ahead"), decision(minutes(-30), "late"), decision(minutes(-90), "later")])
        .await;
    let at = |millis| Timestamp::from_unix_millis(1_780_300_000_000 + millis);
    let (text, _) = house.text(&format!("since={}", at(minutes(9))), Format::Ndjson).await;
    assert!(text.contains("\"ahead\"") && text.lines().count() == 1, "{text}");
    let (text, _) =
        house.text(&format!("since={}&until={}", at(minutes(-100)), at(minutes(-29))), Format::Ndjson).await;
    let ids: Vec<&str> = text.lines().map(|line| &line[7..11]).collect();
    assert_eq!(ids, ["late", "late"], "{text}");
    assert!(text.starts_with(r#"{"id":"later""#), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_nothing_or_goes_away_holds_nothing_and_keeps_only_two_places() {
    let limits = Limits { chunk_bytes: 50_000, fan_in: 3 };
    let house = House::open(true, limits, Some(Duration::from_millis(300))).await;
    house.append(shuffled(3_000)).await;
    let idle = house.exporter.export(asked(""), Format::Json).unwrap();
    let gone = house.exporter.export(asked(""), Format::Json).unwrap();
    assert!(matches!(house.exporter.export(asked(""), Format::Json), Err(ExportError::Busy { under_way: 2 })));
    drop(gone);
    house.tracker.close();
    timeout(PATIENCE, house.tracker.wait()).await.expect("an export that nobody takes goes on");
    let mut idle = idle;
    let mut last = None;
    while let Some(piece) = idle.next().await {
        last = Some(piece);
    }
    assert!(matches!(last, Some(Err(ExportError::Died | ExportError::Stuck(_)))), "{last:?}");
    assert!(idle.report().is_none());
    house.tracker.reopen();
    let (text, _) = house.text("", Format::Ndjson).await;
    assert_eq!(text.lines().count(), 3_000, "the places are free again");
    house.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_log_or_in_a_worker_that_stops_there_is_no_export_rather_than_an_empty_one() {
    let house = House::open(false, Limits::default(), None).await;
    let error = house.exporter.export(asked(""), Format::Csv).unwrap_err();
    assert!(matches!(error, ExportError::NotKept) && error.hint().contains("keep_decisions"));
    assert!(matches!(house.exporter.search(&asked(""), None, 5).await, Err(ExportError::NotKept)));
    let house = House::open(true, Limits::default(), None).await;
    house.stop.cancel();
    assert!(matches!(house.exporter.export(asked(""), Format::Csv), Err(ExportError::Stopping)));
    assert!(matches!(house.exporter.search(&asked(""), None, 5).await, Err(ExportError::Stopping)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_is_told_before_anything_is_read() {
    let house = House::open(true, Limits::default(), None).await;
    assert!(house.exporter.reachable().await.is_ok());
    house.broker.close().await;
    let error = house.exporter.reachable().await.unwrap_err();
    assert!(
        matches!(error, ExportError::Away) && error.to_string().ends_with("the broker is not connected"),
        "{error}"
    );
    assert!(matches!(house.exporter.search(&asked(""), None, 5).await, Err(ExportError::Away)));
}

#[tokio::test]
async fn only_the_end_of_the_log_is_the_end() {
    // Goal: a log that closes because the worker stops, or fails, is never taken for one that was read to its end.
    let end = async |records: Vec<Result<Record, BrokerError>>, stop: CancellationToken| {
        let (from, log) = mpsc::channel(8);
        for record in records {
            from.send(record).await.unwrap();
        }
        drop(from);
        let ((parts, _kept), (into, mut fed)) = (mpsc::channel(1), mpsc::channel(8));
        feed(log, into, parts, stop).await;
        let mut last = None;
        while let Some(feed) = fed.recv().await {
            last = Some(feed);
        }
        last
    };
    let record = || Ok(Record { offset: 1, body: Bytes::from_static(b"{}") });
    let failed = || Err(BrokerError { what: "no".into(), hint: "", source: None });
    let stopped = CancellationToken::new();
    stopped.cancel();
    assert!(matches!(end(vec![record()], CancellationToken::new()).await, Some(Feed::End)));
    assert!(matches!(end(vec![], CancellationToken::new()).await, Some(Feed::End)));
    let lost = end(vec![record(), failed()], CancellationToken::new()).await;
    assert!(matches!(lost, Some(Feed::Failed(ExportError::Broker(_)))));
    assert!(matches!(end(vec![], stopped).await, Some(Feed::Failed(ExportError::Stopping))));
}

/// An export whose other end the test holds.
fn by_hand(format: Format) -> (mpsc::Sender<Result<Part, ExportError>>, Export) {
    let (sender, parts) = mpsc::channel(4);
    (sender, Export { format, parts, fillers: 0, begun: false, report: None, over: false })
}

#[tokio::test]
async fn a_task_that_is_gone_without_a_word_is_a_failure_and_not_an_end() {
    let (parts, mut export) = by_hand(Format::Ndjson);
    parts.send(Ok(Part::Bytes(Bytes::from_static(b"{}\n")))).await.unwrap();
    drop(parts);
    assert!(export.next().await.unwrap().is_ok());
    assert!(matches!(export.next().await, Some(Err(ExportError::Died))));
    assert!(export.next().await.is_none() && export.report().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_is_filled_with_what_changes_nothing() {
    for (format, document) in [(Format::Csv, crate::formats::csv::HEADER), (Format::Json, "[]\n")] {
        let (parts, mut export) = by_hand(format);
        let mut sent = Vec::new();
        let mut wait = async || export.next_or_filler(Duration::from_secs(10)).await.transpose().unwrap();
        for _ in 0..5 {
            sent.extend_from_slice(&wait().await.expect("a filler"));
        }
        assert_eq!(sent.len(), 5);
        parts.send(Ok(Part::Bytes(Bytes::from_static(document.as_bytes())))).await.unwrap();
        parts.send(Ok(Part::Done(Report::default()))).await.unwrap();
        while let Some(piece) = wait().await {
            sent.extend_from_slice(&piece);
        }
        assert_eq!(String::from_utf8(sent).unwrap().trim_start_matches(' '), document);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_are_found_from_the_end_also_where_few_match() {
    let house = House::open(true, Limits::default(), None).await;
    let rare = decision(0, "rare").replace("agt_42", "agt_7");
    house.append(std::iter::once(rare).chain((1..2_497).map(|n| decision(n, &format!("d-{n}"))))).await;
    for n in 2_497..2_500 {
        house.append(std::iter::once(decision(n, &format!("d-{n}")))).await;
    }
    let newest = house.exporter.search(&asked(""), None, 3).await.unwrap();
    assert!(newest.complete && newest.older.is_some());
    assert_eq!(ids(&newest), ["d-2499", "d-2498", "d-2497"]);
    // A place that the log has not reached, as an old link names it, or somebody made it up.
    for before in [10_000, u64::MAX] {
        let found = house.exporter.search(&asked(""), Some(before), 3).await.unwrap();
        assert_eq!((ids(&found), found.complete), (ids(&newest), true), "{before}");
    }
    for query in ["agent=agt_7", "id=rare", "id=rare&id=another"] {
        let found = house.exporter.search(&asked(query), None, 3).await.unwrap();
        assert!(found.complete && found.older.is_none(), "{query}");
        assert_eq!(ids(&found), ["rare"], "{query}");
    }
}

fn ids(page: &Page) -> Vec<String> {
    page.decisions.iter().map(|found| found.id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_turns_the_pages_sees_everything_that_was_asked_for_once() {
    // Goal: no decision falls between two pages, also where several looks make one page and a look holds several.
    let house = House::open(true, Limits::default(), None).await;
    let agent = |n: i64| if n % 4 == 0 { "agt_9" } else { "agt_42" };
    house.append((0..7_000).map(|n| decision(n, &format!("d-{n}")).replace("agt_42", agent(n)))).await;
    for (query, every, limit) in [("", 1, 450), ("agent=agt_9", 4, 500)] {
        let all: Vec<usize> = {
            let whole = house.text(query, Format::Ndjson).await.0;
            whole.lines().map(number).collect()
        };
        assert_eq!(all.len(), 7_000 / every, "{query}");
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = house.exporter.search(&asked(query), before, limit).await.unwrap();
            assert!(page.complete && page.decisions.len() <= limit);
            seen.extend(page.decisions.iter().map(|found| number(std::str::from_utf8(&found.body).unwrap())));
            before = page.older;
            if before.is_none() {
                break;
            }
        }
        // Appended together, they came in in some order.
        seen.sort_unstable();
        assert_eq!(seen, all, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_of_time_is_searched_by_the_decisions_own_time_whenever_they_came_in() {
    // Goal: `until` in the past finds what came in late behind a queue that stood still, and `since` ends the search.
    let house = House::open(true, Limits::default(), None).await;
    let at = |seconds: i64, id: &str| decision(seconds * 1_000, id);
    for n in 0..300 {
        house.append(std::iter::once(at(n * 60, &format!("d-{n}")))).await;
    }
    // All of it came in today, long after its time.
    let time = |minute: i64| Timestamp::from_unix_millis(1_780_300_000_000 + minute * 60_000);
    let query = |since: i64, until: i64| asked(&format!("since={}&until={}", time(since), time(until)));
    let page = house.exporter.search(&query(100, 103), None, 50).await.unwrap();
    assert!(page.complete && page.older.is_none());
    assert_eq!(ids(&page), ["d-102", "d-101", "d-100"]);
    let page = house.exporter.search(&query(100, 200), None, 60).await.unwrap();
    assert_eq!((page.decisions.len(), &*page.decisions[0].id), (60, "d-199"));
    let page = house.exporter.search(&query(100, 200), page.older, 60).await.unwrap();
    assert_eq!((page.decisions.len(), page.older, &*page.decisions[39].id), (40, None, "d-100"));
    for (since, until) in [(-50, 0), (300, 400), (9_000_000, 9_000_001)] {
        let page = house.exporter.search(&query(since, until), None, 50).await.unwrap();
        assert!(page.decisions.is_empty() && page.older.is_none() && page.complete, "{since} to {until}");
    }
}

/// The number of a decision.
fn number(body: &str) -> usize {
    serde_json::from_str::<serde_json::Value>(body).unwrap()["id"].as_str().unwrap()[2..].parse().unwrap()
}

#[test]
fn a_file_is_called_by_what_is_in_it() {
    for (query, format, name) in [
        ("", Format::Json, "decisions.json"),
        ("since=2026-06-01T00:00:00Z", Format::Csv, "decisions_20260601T000000Z.csv"),
        ("until=2026-06-02T00:00:00.5Z", Format::Ndjson, "decisions_until_20260602T000000.500Z.ndjson"),
        (
            "since=2026-06-01T00:00:00Z&until=2026-06-02T00:00:00Z",
            Format::Splunk,
            "decisions_20260601T000000Z_20260602T000000Z.splunk.ndjson",
        ),
    ] {
        assert_eq!(file_name(&asked(query), format), name);
    }
}
