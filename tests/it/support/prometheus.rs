//! A real Prometheus of our own, on a free port of loopback and in a directory of its own, with the configuration and the rules of
//! `deploy/prometheus`: the addresses are other ones, and time runs faster (see deploy/test/hasten.py).

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Child,
    sync::Mutex,
    time::Duration,
};

use tokio::{process::Command, time::Instant};

use super::{
    eventually,
    rabbit::{free_ports, mortal, root, spawn},
    unique_name,
};

/// Not on the search path of everybody. Source: the package `prometheus` of Debian.
const PROGRAM: &str = "/usr/bin/prometheus";

/// How long it may take to start on a loaded machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// What Prometheus scrapes.
pub(crate) struct Target {
    pub(crate) port: u16,
    pub(crate) namespace: &'static str,
    pub(crate) instance: &'static str,
}

/// The labels of one value of a query.
pub(crate) type Labels = BTreeMap<String, String>;

/// A running Prometheus, which ends when dropped.
pub(crate) struct Prometheus {
    port: u16,
    child: Mutex<Child>,
    log: PathBuf,
    client: reqwest::Client,
}

/// `deploy/prometheus/prometheus.yml` with these workers and this RabbitMQ in it, scraping every second.
fn configured(workers: &[Target], rabbit: u16) -> String {
    let mut text = fs::read_to_string(deploy("prometheus/prometheus.yml")).unwrap();
    let mut put = |old: &str, new: &str| {
        assert_eq!(text.matches(old).count(), 1, "`{old}` in deploy/prometheus/prometheus.yml");
        text = text.replace(old, new);
    };
    put("scrape_interval: 15s", "scrape_interval: 1s");
    put("evaluation_interval: 15s", "evaluation_interval: 1s");
    put("rabbitmq:15692", &format!("127.0.0.1:{rabbit}"));
    let mut found = String::from("static_configs:\n");
    for Target { port, namespace, instance } in workers {
        let labels = format!("{{ namespace: {namespace}, instance: {instance} }}");
        writeln!(found, "      - {{ targets: [\"127.0.0.1:{port}\"], labels: {labels} }}").unwrap();
    }
    put("dns_sd_configs:\n      - names: [workers]\n        type: A\n        port: 9464\n", &found);
    text
}

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

impl Prometheus {
    /// Starts one that scrapes these workers, and RabbitMQ's plugin at `rabbit`.
    pub(crate) async fn start(workers: &[Target], rabbit: u16) -> Self {
        assert!(
            Path::new(PROGRAM).exists(),
            "{PROGRAM} is not there: run the tests with `tests/run`, which installs it"
        );
        let dir = root().join(unique_name("prometheus"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("prometheus.yml"), configured(workers, rabbit)).unwrap();
        let hasten =
            Command::new("python3").arg(deploy("test/hasten.py")).arg(dir.join("rules")).output().await.unwrap();
        assert!(hasten.status.success(), "{hasten:?}");
        let (port, log) = (free_ports(), dir.join("log"));
        let mut command = mortal(PROGRAM);
        command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.stderr(fs::File::create(&log).unwrap());
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        let prometheus = Self { port, child: Mutex::new(spawn(command)), log, client };
        eventually("Prometheus is ready", START_LIMIT, async || {
            let ended = prometheus.child.lock().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "Prometheus has ended:\n{}", prometheus.log());
            let reply = prometheus.client.get(format!("{}/-/ready", prometheus.url())).send().await.ok()?;
            reply.status().is_success().then_some(())
        })
        .await;
        prometheus
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    async fn ask(&self, path: &str) -> serde_json::Value {
        let reply = self.client.get(format!("{}/api/v1/{path}", self.url())).send().await.unwrap();
        let text = reply.text().await.unwrap();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// The series that a query gives now.
    pub(crate) async fn query(&self, query: &str) -> Vec<Labels> {
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let data = self.ask(&format!("query?query={query}")).await;
        let samples = data["result"].as_array().unwrap().iter();
        samples.map(|sample| serde_json::from_value(sample["metric"].clone()).unwrap()).collect()
    }

    /// The names of all alerts that it has rules for.
    pub(crate) async fn alerts(&self) -> Vec<String> {
        let data = self.ask("rules?type=alert").await;
        let groups = data["groups"].as_array().unwrap().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
        rules.map(|rule| rule["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until a query gives something.
    pub(crate) async fn until(&self, query: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.query(query).await.is_empty() {
            if Instant::now() >= deadline {
                let alerts = self.query("max by (alertname, alertstate, namespace, channel, instance) (ALERTS)").await;
                let alerts: Vec<_> = alerts.into_iter().map(|labels| format!("{labels:?}")).collect();
                panic!("{query}: nothing within {limit:?}. Its alerts are:\n{}", alerts.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
