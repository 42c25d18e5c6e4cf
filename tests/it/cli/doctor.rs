//! `doctor` against what goes wrong on a first day: each finding says what is so and what to do, and the exit code says whether the
//! worker would do its work.
//!
//! Nothing here asks anybody but this machine: the address in the links is local, which the doctor says in passing.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
};

use interven_alerts::stand_ins::{Platform, Script};
use serde_json::Value;

use crate::support::{
    rabbit::Rabbit,
    scene::{Scene, on, token_of},
    unique_name,
    worker::{Said, WorkerProcess, run, run_plain},
};

const KEY: (&str, &str) = ("INTERVEN_ALERTS_KEY", "a-key-of-this-test-that-is-long-enough");

/// A directory with a configuration, in which the doctor is asked.
struct Room(tempfile::TempDir);

impl Room {
    /// `[http]` is local, on ports that are free at the time.
    fn new(config: &str) -> Self {
        Self::with_http("listen = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n", config)
    }

    fn with_http(http: &str, config: &str) -> Self {
        let room = Self(tempfile::tempdir().unwrap());
        let text = format!("data_dir = \"data\"\n[http]\npublic_url = \"http://127.0.0.1:8080\"\n{http}{config}");
        fs::write(room.path().join("interven-alerts.toml"), text).unwrap();
        room
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    async fn ask(&self, arguments: &[&str]) -> Said {
        let arguments = ["doctor"].iter().chain(arguments).map(ToString::to_string).collect();
        run(arguments, "", &[KEY], self.path()).await
    }

    /// The exit code, and what is found.
    async fn findings(&self) -> (i32, Vec<Value>) {
        let said = self.ask(&["--json"]).await;
        (said.code, said.json().as_array().unwrap().clone())
    }
}

fn part<'a>(findings: &'a [Value], name: &str) -> &'a Value {
    findings.iter().find(|one| one["part"] == name).unwrap_or_else(|| panic!("nothing of {name} in {findings:#?}"))
}

/// That `name` has this health, and says each of `words` somewhere.
fn expect(findings: &[Value], name: &str, health: &str, words: &[&str]) {
    let found = part(findings, name);
    let said = found.to_string();
    assert!(found["health"] == health && words.iter().all(|word| said.contains(word)), "{words:?} in {found:#}");
    assert!(health == "well" || found["hint"].is_string(), "it says what to do: {found:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_sound_configuration_the_doctor_says_what_is_wrong_with_it_and_ends_with_78() {
    let dir = tempfile::tempdir().unwrap();
    let said = run_plain(&["doctor"], dir.path()).await;
    assert_eq!(said.code, 78, "{said:?}");
    assert!(said.out.starts_with("FAIL  configuration  there is no configuration"), "{said:?}");
    assert!(said.out.contains("hint: give one with `--config FILE`") && said.out.contains("demo"), "{said:?}");
    fs::write(dir.path().join("interven-alerts.toml"), "data_dir = \"data\"\nunknown = 1\n[broker]\nprefetch = 0\n")
        .unwrap();
    let said = run_plain(&["doctor", "--json"], dir.path()).await;
    let findings = said.json();
    let ill: Vec<&str> = findings
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["health"] == "ill")
        .map(|one| one["says"].as_str().unwrap())
        .collect();
    assert!(said.code == 78 && ill.len() == 3, "{said:?}");
    assert!(ill[0].starts_with("interven-alerts.toml:2: unknown: "), "{ill:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_machine_with_the_embedded_broker_is_well_and_nothing_is_made_on_it() {
    let room = Room::new("");
    let (code, findings) = room.findings().await;
    assert_eq!(code, 0, "{findings:#?}");
    expect(&findings, "broker", "well", &["embedded"]);
    expect(&findings, "data_dir", "well", &["is not there yet"]);
    expect(&findings, "disk space", part(&findings, "disk space")["health"].as_str().unwrap(), &["free for data"]);
    expect(&findings, "access", "doubtful", &["nobody has a token", "interven-alerts token"]);
    expect(&findings, "public_url", "doubtful", &["this machine alone"]);
    expect(&findings, "clock", "doubtful", &["timedatectl"]);
    let names: Vec<_> = fs::read_dir(room.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["interven-alerts.toml"], "the doctor makes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_worker_is_recognised_by_its_store_and_its_ports() {
    let mut worker = WorkerProcess::new("");
    worker.start_ready().await;
    let api = worker.server().trim_start_matches("http://").to_owned();
    let here = format!("listen = \"{api}\"\nmetrics_listen = \"127.0.0.1:0\"\n");
    // The worker's own configuration, with the port that it got.
    let data: PathBuf = worker.dir().join("data");
    let own = Room::with_http(&here, "");
    let text = fs::read_to_string(own.path().join("interven-alerts.toml")).unwrap();
    let text = text.replace("data_dir = \"data\"", &format!("data_dir = \"{}\"", data.display()));
    fs::write(own.path().join("interven-alerts.toml"), text).unwrap();
    let (code, findings) = own.findings().await;
    assert_eq!(code, 0, "{findings:#?}");
    expect(&findings, "dead letters", "well", &["a running worker has the store"]);
    expect(&findings, "listen", "well", &["the running worker's"]);
    expect(&findings, "broker", "well", &["the running worker has it"]);
    // Another data directory is another worker, which cannot have the same port.
    let (code, findings) = Room::with_http(&here, "").findings().await;
    assert_eq!(code, 1, "{findings:#?}");
    expect(&findings, "listen", "ill", &["another worker's", "[http] listen"]);
    assert_eq!(worker.terminate().await.0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_cannot_be_asked_are_told_apart_and_break_nothing() {
    let mut worker = WorkerProcess::new("");
    worker.start_ready().await;
    let (there, other) = (worker.server(), format!("http://{}", from_another_time()));
    let nobody = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let unknown = "http://no-such-host.invalid:1";
    let urls = [&*there, &other, &nobody, unknown].map(|url| format!("\"{url}\"")).join(", ");
    let http = format!("listen = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\npeers = [{urls}]\n");
    let (code, findings) = Room::with_http(&http, "").findings().await;
    assert_eq!(code, 0, "{findings:#?}");
    let of = |url: &str| {
        let about = |one: &&Value| one["part"] == "peers" && one["says"].as_str().unwrap().starts_with(url);
        std::slice::from_ref(findings.iter().find(about).unwrap_or_else(|| panic!("nothing of {url}: {findings:#?}")))
    };
    expect(of(&there), "peers", "well", &["a worker answers"]);
    expect(of(&other), "peers", "doubtful", &["no worker's API", "metrics_listen"]);
    expect(of(&nobody), "peers", "doubtful", &["nobody answers", "refused", "is that worker up"]);
    expect(of(unknown), "peers", "doubtful", &["no address", "resolver"]);
    let clear = |one: &&Value| one["says"].as_str().unwrap().contains("travel to no-such-host.invalid in clear");
    assert_eq!(findings.iter().filter(clear).count(), 1, "{findings:#?}");
    assert_eq!(worker.terminate().await.0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_or_in_the_way_on_this_machine_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = format!("listen = \"{}\"\nmetrics_listen = \"127.0.0.1:0\"\n", taken.local_addr().unwrap());
    let room = Room::with_http(&http, "");
    fs::write(room.path().join("data"), "no directory").unwrap();
    let (code, findings) = room.findings().await;
    assert_eq!(code, 1, "{findings:#?}");
    let us = format!("(process {})", std::process::id());
    expect(&findings, "listen", "ill", &["is taken by", &us, "another port"]);
    expect(&findings, "data_dir", "ill", &["is no directory"]);
    let said = room.ask(&[]).await;
    assert!(said.code == 1 && said.err.contains("things are broken") && said.out.contains("FAIL  listen"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_locked_or_bare_is_told_apart() {
    let rabbit = tokio::task::block_in_place(Rabbit::shared);
    let down = Room::new("[broker]\nurl = \"amqp://guest:hush-hush@127.0.0.1:1/%2f\"\n");
    let locked = Room::new(&format!(
        "[broker]\nurl = \"{}\"\n",
        rabbit.url().expose().replace("guest:guest", "guest:hush-hush")
    ));
    let bare = Room::new(&on(rabbit, &unique_name("bare"), "declare = false"));
    let (down, locked, bare) = tokio::join!(down.findings(), locked.findings(), bare.findings());
    for ((code, findings), words) in [
        (&down, &["could not connect", "127.0.0.1:1", "check that the broker runs"][..]),
        (&locked, &["ACCESS_REFUSED", "check user and password"]),
        (&bare, &["NOT_FOUND", "declare = true"]),
    ] {
        assert_eq!(*code, 1, "{findings:#?}");
        expect(findings, "broker", "ill", words);
        assert!(!format!("{findings:?}").contains("hush-hush"), "{findings:#?}");
    }
}

/// An endpoint whose clock says 2030.
fn from_another_time() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let reply = b"HTTP/1.1 204 No Content\r\nDate: Tue, 01 Jan 2030 00:00:00 GMT\r\nConnection: close\r\n\r\n";
            drop(stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(reply)));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_dead_and_a_clock_that_is_wrong_are_broken() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let elsewhen = from_another_time();
    let siem = |id: &str, at: std::net::SocketAddr| {
        format!("[[channel]]\nid = \"{id}\"\nkind = \"siem\"\nurl = \"http://{at}/hush-hush\"\nformat = \"json\"\n")
    };
    let room = Room::new(&format!("{}{}", siem("dead", nobody), siem("alive", elsewhen)));
    let (code, findings) = room.findings().await;
    assert_eq!(code, 1, "{findings:#?}");
    expect(&findings, "channel dead", "ill", &["connection refused", "nobody listens there"]);
    expect(&findings, "channel alive", "well", &["answers"]);
    expect(&findings, "clock", "ill", &["s apart", "NTP"]);
    assert!(!format!("{findings:?}").contains("hush-hush"), "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_is_well_nothing_is_posted_and_the_doctor_is_content() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("doctor"));
    let mut scene = Scene::default();
    scene.add("slack", Platform::Slack, Script::accept(), "signing_secret = \"0123456789abcdef\"\n").await;
    scene.add("siem", Platform::Siem, Script::accept(), "").await;
    let room = Room::new(&format!("{}{}{}", on(rabbit, &prefix, ""), token_of("admin"), scene.channels()));
    let (code, findings) = room.findings().await;
    let doubtful: Vec<&Value> = findings.iter().filter(|one| one["health"] != "well").collect();
    // What this machine cannot help: a local address in the links, and perhaps a disk with little room.
    let expected = ["public_url", "disk space", "clock"];
    assert!(code == 0 && doubtful.iter().all(|one| expected.contains(&one["part"].as_str().unwrap())), "{doubtful:#?}");
    expect(&findings, "broker", "well", &["connected"]);
    expect(&findings, "key", "well", &["INTERVEN_ALERTS_KEY"]);
    expect(&findings, "channel slack", "well", &["answers"]);
    assert_eq!(scene.taken(), 0, "the doctor posts nothing");
    let said = room.ask(&[]).await;
    assert!(said.code == 0 && said.out.contains("ok    broker") && said.err.is_empty(), "{said:?}");
}
