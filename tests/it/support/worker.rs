//! The real program as a process: started on a configuration, asked over HTTP, killed in every way, started again.
//!
//! No worker outlives the tests: it is started as the brokers are (see `rabbit.rs`), and its directory goes the same way.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use interven_alerts::dead_letters::{DeadLetter, LetterFilter, Store, StoreOptions};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::Instant;

use super::{
    eventually,
    rabbit::{free_ports, mortal, root, spawn},
    unique_name,
};

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_interven-alerts");

/// The longest that a start or a stop may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A worker and its directory; it may run or not.
pub(crate) struct WorkerProcess {
    dir: PathBuf,
    data: PathBuf,
    metrics_port: u16,
    flags: Vec<String>,
    env: Vec<(&'static str, String)>,
    running: Option<Running>,
    starts: u32,
    client: reqwest::Client,
}

struct Running {
    child: Child,
    log: PathBuf,
    doors: Option<(SocketAddr, SocketAddr)>,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

impl WorkerProcess {
    /// A worker with this configuration; `data_dir` and the ports of `[http]` are set here. It does not run yet.
    pub(crate) fn new(config: &str) -> Self {
        Self::with_data_dir(config, None)
    }

    /// The same with its data in a directory of the caller's.
    pub(crate) fn with_data_dir(config: &str, data_dir: Option<&Path>) -> Self {
        interven_alerts::tls::install();
        let dir = root().join(unique_name("worker"));
        fs::create_dir_all(&dir).unwrap();
        let data = data_dir.map_or_else(|| dir.join("data"), Path::to_owned);
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        let (flags, env) = (Vec::new(), Vec::new());
        let worker = Self { dir, data, metrics_port: 0, flags, env, running: None, starts: 0, client };
        worker.reconfigure(config);
        worker
    }

    /// Puts another configuration in the place of its file, as an operator does it: written beside it, then renamed.
    pub(crate) fn reconfigure(&self, config: &str) {
        let text = format!(
            "data_dir = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:{}\"\n\
             public_url = \"https://alerts.example.com\"\nconsole_url = \"https://console.example.com\"\n{config}",
            self.data.display(),
            self.metrics_port
        );
        let beside = self.dir.join("interven-alerts.toml.new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.config()).unwrap();
    }

    /// A worker whose metrics are at the same port after every start, for somebody who looks again and again.
    pub(crate) fn with_metrics_port(config: &str, data_dir: Option<&Path>) -> Self {
        let mut worker = Self::with_data_dir(config, data_dir);
        worker.metrics_port = free_ports();
        worker.reconfigure(config);
        worker
    }

    /// Where [`Self::with_metrics_port`] shows its metrics.
    pub(crate) fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// Where its data is.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Asks it to read its configuration again.
    pub(crate) fn hang_up(&self) {
        signal(&self.running.as_ref().expect("it runs").child, Signal::SIGHUP);
    }

    /// Asks its API with a token; status and answer.
    pub(crate) async fn api(&self, method: &str, path: &str, token: &str, body: &str) -> (u16, serde_json::Value) {
        self.asking(method, path, token, body).await.expect("the API answers")
    }

    /// The same, of a worker that may be killed meanwhile: `None` when no answer came.
    pub(crate) fn asking(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: &str,
    ) -> impl Future<Output = Option<(u16, serde_json::Value)>> + Send + use<> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, format!("{}{path}", self.server())).bearer_auth(token);
        let request = request.body(body.to_owned());
        async move {
            let reply = request.send().await.ok()?;
            let status = reply.status().as_u16();
            Some((status, serde_json::from_slice(&reply.bytes().await.ok()?).unwrap_or_default()))
        }
    }

    /// GETs a path of its API with a token; status, headers and body as text.
    pub(crate) async fn get_text(&self, path: &str, token: &str) -> (u16, String) {
        let request = self.client.get(format!("{}{path}", self.server())).bearer_auth(token);
        let reply = request.send().await.expect("the API answers");
        let (status, headers) = (reply.status().as_u16(), format!("{:?}", reply.headers()));
        (status, format!("{headers} {}", reply.text().await.unwrap()))
    }

    /// More flags for `run`.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// One more variable of its environment.
    pub(crate) fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("interven-alerts.toml")
    }

    /// Starts it and waits until it listens. It may not be ready by then.
    pub(crate) async fn start(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        self.starts += 1;
        let log = self.dir.join(format!("log-{}", self.starts));
        let mut command = mortal(PROGRAM);
        command.args(["run", "--log-format", "json", "--config"]).arg(self.config()).args(&self.flags);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stderr(File::create(&log).unwrap());
        self.running = Some(Running { child: spawn(command), log, doors: None });
        let doors = eventually("the worker listens", PATIENCE, async || {
            let running = self.running.as_mut().unwrap();
            let log = fs::read_to_string(&running.log).unwrap_or_default();
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("the worker has ended with {status}:\n{log}");
            }
            log.lines().find_map(listening)
        })
        .await;
        self.running.as_mut().unwrap().doors = Some(doors);
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start_ready(&mut self) {
        self.start().await;
        self.until_ready(PATIENCE).await;
    }

    /// Waits until `/readyz` says that it is ready.
    pub(crate) async fn until_ready(&self, limit: Duration) {
        eventually("the worker is ready", limit, async || {
            self.probe("/readyz").await.filter(|(status, _)| *status == 200)
        })
        .await;
    }

    /// Kills it as a crash would: nothing of it gets to run any more.
    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        signal(&running.child, Signal::SIGKILL);
        running.child.wait().unwrap();
    }

    /// Asks it to stop, without waiting.
    pub(crate) fn ask_to_stop(&self) {
        signal(&self.running.as_ref().expect("it runs").child, Signal::SIGTERM);
    }

    /// Asks it to stop and waits; its exit code, and how long it took.
    pub(crate) async fn terminate(&mut self) -> (i32, Duration) {
        let asked = Instant::now();
        self.ask_to_stop();
        let code = self.ended(Duration::from_mins(1)).await;
        (code, asked.elapsed())
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self, limit: Duration) -> i32 {
        let mut running = self.running.take().expect("it runs");
        let status = eventually("the worker stops", limit, async || running.child.try_wait().unwrap()).await;
        status.code().unwrap_or_else(|| panic!("ended by a signal: {status}"))
    }

    /// Its status, if it has ended although nobody asked it to. It may be started again then.
    pub(crate) fn ended_by_itself(&mut self) -> Option<ExitStatus> {
        let status = self.running.as_mut()?.child.try_wait().unwrap()?;
        self.running = None;
        Some(status)
    }

    fn doors(&self) -> (SocketAddr, SocketAddr) {
        self.running.as_ref().and_then(|running| running.doors).expect("it runs")
    }

    /// Where its API listens.
    pub(crate) fn server(&self) -> String {
        format!("http://{}", self.doors().0)
    }

    /// Asks the metrics side; `None` when nobody answers.
    pub(crate) async fn probe(&self, path: &str) -> Option<(u16, String)> {
        let reply = self.client.get(format!("http://{}{path}", self.doors().1)).send().await.ok()?;
        let status = reply.status().as_u16();
        Some((status, reply.text().await.ok()?))
    }

    /// Its metrics.
    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::read(&self.probe("/metrics").await.expect("the metrics are there").1)
    }

    /// Everything that it wrote, over all starts.
    pub(crate) fn logs(&self) -> String {
        (1..=self.starts)
            .map(|start| fs::read_to_string(self.dir.join(format!("log-{start}"))).unwrap_or_default())
            .collect()
    }

    /// Runs another command of the program on the same configuration, with `input` on its standard input.
    pub(crate) async fn command(&self, arguments: &[&str], input: &str) -> Said {
        self.command_with(arguments, input, &[]).await
    }

    /// The same with variables of the environment.
    pub(crate) async fn command_with(&self, arguments: &[&str], input: &str, env: &[(&str, &str)]) -> Said {
        // The configuration is found in its directory. A flag would count for more than a variable that names workers.
        run(arguments.iter().map(ToString::to_string).collect(), input, env, &self.dir).await
    }

    /// Every dead letter in the store of the stopped worker.
    pub(crate) async fn dead_letters(&self) -> Vec<DeadLetter> {
        assert!(self.running.is_none(), "a running worker owns its store");
        let dir = self.data.join("dead-letters");
        let (store, report) =
            tokio::task::spawn_blocking(move || Store::open(&dir, StoreOptions::default())).await.unwrap().unwrap();
        assert!(report.incidents.is_empty(), "the store was damaged: {:?}", report.incidents);
        let filter = LetterFilter { limit: Some(LetterFilter::LIMIT_MAX), ..LetterFilter::default() };
        let (mut letters, mut next) = (Vec::new(), None);
        loop {
            let page = store.list(&filter, next).await.unwrap();
            assert!(page.damaged.is_empty(), "damaged letters: {:?}", page.damaged);
            letters.extend(page.letters);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        store.close().await;
        letters
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            // The directory goes with the process, and the log's end is what one wants to see.
            let logs = self.logs();
            let lines: Vec<&str> = logs.lines().collect();
            eprintln!("the worker's log ended so:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// Posts events to the API of the worker at `server`; the status and the answer, or `None` when none came.
pub(crate) async fn post_events(server: &str, token: Option<&str>, body: String) -> Option<(u16, String)> {
    interven_alerts::tls::install();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
    let mut request = client.post(format!("{server}/v1/events")).body(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let reply = request.send().await.ok()?;
    Some((reply.status().as_u16(), reply.text().await.ok()?))
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

/// The addresses in the log line that tells them.
fn listening(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line.get("message")? == "listening").then_some(())?;
    let address = |key: &str| line.get(key)?.as_str()?.parse().ok();
    Some((address("api")?, address("metrics")?))
}

/// Runs the program as a command, in `dir`.
pub(crate) async fn run(arguments: Vec<String>, input: &str, env: &[(&str, &str)], dir: &Path) -> Said {
    let mut command = mortal(PROGRAM);
    command.args(arguments).current_dir(dir).envs(env.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let mut child = spawn(command);
        let mut stdin = child.stdin.take().unwrap();
        // Written beside the reading, so that neither side waits for the other; a command that reads nothing closes it.
        let writing = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        output
    });
    let output = tokio::time::timeout(Duration::from_mins(1), output).await.expect("the command ends").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    Said { code, out: text(&output.stdout), err: text(&output.stderr) }
}

/// Runs a command of the program in a bare directory.
pub(crate) async fn run_plain(arguments: &[&str], dir: &Path) -> Said {
    run(arguments.iter().map(ToString::to_string).collect(), "", &[], dir).await
}

/// What Prometheus would read.
#[derive(Debug)]
pub(crate) struct Metrics {
    series: BTreeMap<String, String>,
}

impl Metrics {
    fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.trim_start_matches("interven_alerts_").to_owned(), value.to_owned()))
        });
        Self { series: series.collect() }
    }

    /// The sum of the series with this name, without the prefix, that hold all of `labels` (`channel="soc"`). They count things,
    /// so they are whole numbers.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let of = |series: &str| series == name || series.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        let wanted = self.series.iter().filter(|(series, _)| of(series));
        let wanted = wanted.filter(|(series, _)| labels.iter().all(|label| series.contains(label)));
        wanted.map(|(series, value)| value.parse::<u64>().unwrap_or_else(|_| panic!("{series} is {value}"))).sum()
    }

    /// Whether there is a series of this name with this label.
    pub(crate) fn shows(&self, name: &str, label: &str) -> bool {
        self.series.keys().any(|series| series.split('{').next() == Some(name) && series.contains(label))
    }

    /// Whether there is a series of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.series.keys().any(|series| series.split('{').next() == Some(name))
    }
}
