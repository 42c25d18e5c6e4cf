//! A real Prometheus, with the rules and dashboards of `deploy/`, sees every trouble that there is an alert for, and none where all is well.
//!
//! Three pools of two workers each, on one real RabbitMQ, told apart by `namespace` as Kubernetes would: `well`, which is let alone and has
//! everything to do; `ill`, whose channels, stores and configurations fail; `torn`, whose processes and connections do. Nothing is faked:
//! an endpoint answers 404, a disk is full, a wire is cut, a process is killed. They suffer at the same time, because most alerts are about
//! time, and one after the other would take longer than anybody waits for a test.
//!
//! Time runs faster for the rules, and for nothing else (see deploy/test/hasten.py): a minute is two seconds.

mod ill;
mod torn;
mod traffic;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use interven_alerts::stand_ins::{Platform, Script};
use tokio::{process::Command, time::Instant};

use self::{ill::Ill, torn::Torn, traffic::Traffic};
use crate::{
    deploy::shell_lines,
    support::{
        firewall::Publisher,
        prometheus::{Prometheus, Target},
        rabbit::Rabbit,
        scene::{ALL_EVENTS, FAST, Scene, on, token_of},
        turn_of_the_heavy, unique_name,
        worker::WorkerProcess,
    },
};

/// How long an alert may take on a loaded machine: the slowest one takes a minute and some seconds.
const ALERT_LIMIT: Duration = Duration::from_mins(4);

/// Alerts whose cause needs a disk that can be filled, which takes root to mount. Where there is none, promtool alone tests their rules.
const OF_A_FULL_DISK: [&str; 2] = ["IntervenAlertsStoreNotWritable", "IntervenAlertsDeadLettersWaitOnBroker"];

/// What has no data where all is well, and must have none.
const EMPTY_IN_HEALTH: [&str; 2] = ["What fires now", "annotations"];

/// Looks at one pool with Prometheus' eyes.
struct Eye<'a> {
    prometheus: &'a Prometheus,
    namespace: &'static str,
    opened: Instant,
}

impl Eye<'_> {
    /// Waits until this alert fires, of what `labels` say; it may have ended since.
    async fn fires(&self, alert: &str, labels: &str) {
        let namespace = self.namespace;
        let series = format!(
            "ALERTS{{alertstate=\"firing\",namespace=\"{namespace}\",alertname=\"IntervenAlerts{alert}\",{labels}}}"
        );
        self.prometheus.until(&format!("last_over_time({series}[30m])"), ALERT_LIMIT).await;
        println!("{:5.1} s: in {namespace}, {alert} fires {labels}", self.opened.elapsed().as_secs_f64());
    }
}

/// The names of all alerts that have fired in a namespace, at any time.
async fn fired_in(prometheus: &Prometheus, namespace: &str) -> BTreeSet<String> {
    let query = format!("last_over_time(ALERTS{{alertstate=\"firing\",namespace=\"{namespace}\"}}[30m])");
    let fired = prometheus.query(&query).await;
    fired.into_iter().map(|mut labels| labels.remove("alertname").unwrap()).collect()
}

/// Asks every query of every dashboard; all but those `without` must have data.
async fn ask_panels(prometheus: &Prometheus, namespace: &str, channel: &str, without: &[&str]) {
    let mut command = Command::new("python3");
    command.arg(deploy("test/ask_panels.py")).args([&prometheus.url(), channel, "--namespace", namespace]);
    command.args(without.iter().flat_map(|title| ["--without", title]));
    let said = command.output().await.unwrap();
    assert!(said.status.success(), "in {namespace}: {}", String::from_utf8_lossy(&said.stderr));
}

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// Runs every command of RabbitMQ that the runbook names, as it is written there, on the broker's machine.
async fn run_what_the_runbook_asks_of_rabbitmq(rabbit: &Rabbit, prefix: &str, channel: &str) {
    let page = fs::read_to_string(deploy("runbook/README.md")).unwrap();
    let commands: BTreeSet<&str> = shell_lines(&page).filter(|text| text.starts_with("rabbitmq")).collect();
    assert!(commands.len() > 8, "only {commands:?}: has the way they are written changed?");
    // Whom the runbook gives rights to.
    rabbit.ctl(&["add_user", "USER", "secret"]).await;
    for command in commands {
        let filled = command.replace("interven", prefix).replace("CHANNEL", channel).replace("\\|", "|");
        let (well, said) = rabbit.shell(&filled).await;
        assert!(well, "{filled}: {said}");
    }
}

/// Two workers with everything to do.
struct Well {
    prefix: String,
    workers: [WorkerProcess; 2],
    _scene: Scene,
    _traffic: Traffic,
}

impl Well {
    async fn start(rabbit: &Rabbit) -> Self {
        let (prefix, mut scene) = (unique_name("well"), Scene::default());
        scene.add("chat", Platform::Slack, Script::accept(), "rate_limit = \"20/s\"\ncanary = \"5m\"\n").await;
        scene.add("siem", Platform::Siem, Script::accept(), &format!("format = \"ocsf\"\n{FAST}{ALL_EVENTS}")).await;
        let config = format!("{}{}{}", on(rabbit, &prefix, ""), token_of("analyst"), scene.channels());
        let mut workers = [(); 2].map(|()| WorkerProcess::with_metrics_port(&config, None));
        for worker in &mut workers {
            worker.start_ready().await;
        }
        let mut publisher = Publisher::new(rabbit.url(), &prefix);
        publisher.listen_for_answers(&format!("{prefix}.firewall")).await;
        let traffic = Traffic::with_answers(publisher, &["slack", "github"], workers[0].server());
        Self { prefix, workers, _scene: scene, _traffic: traffic }
    }

    /// Nothing has fired, at any time, and every page shows numbers.
    async fn assert_well(&self, prometheus: &Prometheus) {
        ask_panels(prometheus, "well", "chat", &EMPTY_IN_HEALTH).await;
        let none: BTreeSet<String> = BTreeSet::new();
        assert_eq!(fired_in(prometheus, "well").await, none, "in a pool that is well");
        // What is said of no pool in particular would be said here.
        assert_eq!(fired_in(prometheus, "").await, none, "of no pool");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_alert_fires_in_its_trouble_and_none_in_a_pool_that_is_well_and_every_panel_has_data() {
    let _turn = turn_of_the_heavy().await;
    let (rabbit, plugin) = tokio::task::block_in_place(Rabbit::start_with_metrics);
    let (well, mut ill, mut torn) = tokio::join!(Well::start(&rabbit), Ill::start(&rabbit), Torn::start(&rabbit));
    let target =
        |namespace, instance, worker: &WorkerProcess| Target { port: worker.metrics_port(), namespace, instance };
    let targets = [
        target("well", "well-0", &well.workers[0]),
        target("well", "well-1", &well.workers[1]),
        target("ill", "ill-0", &ill.workers[0]),
        target("ill", "ill-1", &ill.workers[1]),
        target("torn", "torn-0", &torn.workers[0]),
        target("torn", "torn-1", &torn.workers[1]),
    ];
    let prometheus = Prometheus::start(&targets, plugin).await;
    // Whatever grows from now on has been seen at zero.
    let all = targets.len() + 1;
    prometheus.until(&format!("sum(count_over_time(up[1m]) >= bool 4) == {all}"), ALERT_LIMIT).await;
    let (prometheus, opened) = (&prometheus, Instant::now());
    let [ill_eye, torn_eye] = ["ill", "torn"].map(|namespace| Eye { prometheus, namespace, opened });

    tokio::join!(
        ill.suffer(&ill_eye),
        torn.suffer(&torn_eye),
        run_what_the_runbook_asks_of_rabbitmq(&rabbit, &well.prefix, "chat"),
    );
    ask_panels(prometheus, "ill", "slow", &[]).await;
    well.assert_well(prometheus).await;

    // From here on the broker itself is in trouble, and so everybody.
    torn.suffer_from_an_alarm(&rabbit, &torn_eye).await;
    rabbit.crash();
    ill_eye.fires("BrokerDown", "").await;

    let mut fired = fired_in(prometheus, "ill").await;
    fired.extend(fired_in(prometheus, "torn").await);
    if ill.is_without_disk() {
        fired.extend(OF_A_FULL_DISK.map(str::to_owned));
    }
    let silent: Vec<_> = prometheus.alerts().await.into_iter().filter(|alert| !fired.contains(alert)).collect();
    assert!(silent.is_empty(), "there are alerts that no trouble here makes fire: {silent:?}");
}
