//! The worker as a process of its own: started, killed, restarted and looked at from outside, as an operator would.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Output},
    sync::Mutex,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use super::{
    eventually,
    rabbit::{mortal, spawn},
};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_interven-alerts");

/// How long a worker may take to be ready: it may wait for a broker that is still booting.
const READY_LIMIT: Duration = Duration::from_mins(1);

/// A worker's place on the machine: its configuration, its ports, its log. The process in it comes and goes.
pub(crate) struct Worker {
    pub(crate) config: PathBuf,
    log: PathBuf,
    pub(crate) api: u16,
    pub(crate) metrics: u16,
    child: Mutex<Option<Child>>,
    _directory: tempfile::TempDir,
}

impl Worker {
    /// A place for a worker with this configuration. `data_dir` and `[http]` are written by us; `text` is everything else.
    pub(crate) fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (api, metrics) = (free_port(), free_port());
        let config = directory.path().join("worker.toml");
        let data_dir = directory.path().join("data");
        let head = format!(
            "data_dir = {:?}\n[http]\nlisten = \"127.0.0.1:{api}\"\nmetrics_listen = \"127.0.0.1:{metrics}\"\n\
             public_url = \"https://alerts.example.com\"\nconsole_url = \"https://console.example.com\"\n",
            data_dir.display().to_string(),
        );
        fs::write(&config, format!("{head}{text}")).unwrap();
        Self { config, log: directory.path().join("log"), api, metrics, child: Mutex::new(None), _directory: directory }
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.config.with_file_name("data")
    }

    /// The directory of its dead letters.
    pub(crate) fn dead_letters(&self) -> PathBuf {
        self.data_dir().join("dead-letters")
    }

    /// Starts the process.
    pub(crate) fn start(&self) {
        self.start_at("info,interven_alerts=debug");
    }

    /// Starts the process with this log level.
    pub(crate) fn start_at(&self, level: &str) {
        let mut command = mortal("sh");
        // The shell becomes the worker, so that its process id is ours; the log survives restarts.
        command.args(["-c", "exec \"$0\" run --config \"$1\" --log-level \"$3\" 2>>\"$2\""]);
        command.arg(PROGRAM).arg(&self.config).arg(&self.log).arg(level);
        *self.child.lock().unwrap() = Some(spawn(command));
    }

    /// Starts the process and waits until it says that it is ready.
    pub(crate) async fn start_ready(&self) {
        self.start();
        self.ready().await;
    }

    pub(crate) async fn ready(&self) {
        let limit = READY_LIMIT;
        let ready = async || (self.get("/readyz").await?.0 == 200).then_some(());
        let what = format!("the worker is ready; its log ends: {}", self.log_tail());
        eventually(&what, limit, ready).await;
    }

    /// kill -9.
    pub(crate) fn crash(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn terminate(&self, limit: Duration) -> ExitStatus {
        let mut child = self.child.lock().unwrap().take().expect("the worker runs");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the worker did not stop within {limit:?}: {}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Status and body of a page of the metrics listener; `None` while nobody answers.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        http(self.metrics, &format!("GET {path} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n\r\n")).await
    }

    /// Status and body of a POST to the API listener.
    pub(crate) async fn post(&self, path: &str, token: &str, body: &str) -> Option<(u16, String)> {
        let head = format!("POST {path} HTTP/1.1\r\nhost: worker\r\nauthorization: Bearer {token}\r\n");
        http(self.api, &format!("{head}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())).await
    }

    /// The sum of all series whose name and labels contain each of `parts`; zero where there is none.
    pub(crate) async fn metric(&self, parts: &[&str]) -> f64 {
        let text = self.get("/metrics").await.map_or(String::new(), |(_, body)| body);
        sum(&text, parts)
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a command of the program with this configuration, to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        run(arguments, &[("INTERVEN_ALERTS_CONFIG", self.config.to_str().unwrap())], "")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the worker's log ends:\n{}", self.log_tail());
        }
        self.crash();
    }
}

/// Runs the program to its end with these variables and this standard input.
pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };
    let mut command = Command::new(PROGRAM);
    command.args(arguments).envs(environment.iter().copied()).current_dir(Path::new("/"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A program that does not read its input must not keep the test.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// The sum of all series in `text` whose name and labels contain each of `parts`.
pub(crate) fn sum(text: &str, parts: &[&str]) -> f64 {
    let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    series
        .filter(|(name, _)| parts.iter().all(|part| name.contains(part)))
        .filter_map(|(_, value)| value.parse::<f64>().ok())
        .sum()
}

async fn http(port: u16, request: &str) -> Option<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.ok()?;
        let reply = String::from_utf8_lossy(&reply).into_owned();
        let (head, body) = reply.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await.ok().flatten()
}

fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap();
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if !given.contains(&port) {
            given.push(port);
            return port;
        }
    }
}
