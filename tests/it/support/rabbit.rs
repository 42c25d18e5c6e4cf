//! A real RabbitMQ of our own: on free ports of loopback, in a directory of its own, as root or not.
//!
//! No broker outlives the tests, however they end: each one, and its epmd, is started through `setpriv --pdeathsig KILL` from a
//! thread that lives as long as the process, so the kernel ends it with us. The directory is removed by a shell that waits for
//! the end of its standard input, which is the end of this process.
//!
//! Booting takes five seconds, so most tests share [`Rabbit::shared`] and keep apart by a prefix of their own; only those that
//! crash a broker have one to themselves.

use std::{
    fmt::Write as _,
    fs,
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use interven_alerts::{
    broker::{
        Broker as _, End, Log, Start,
        rabbitmq::{RabbitMq, RabbitSettings},
    },
    model::Secret,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Not the wrapper in `/usr/sbin`, which changes the user or refuses.
const BIN: &str = "/usr/lib/rabbitmq/bin";

/// The longest that a log may take to be read.
const LOG_LIMIT: Duration = Duration::from_secs(30);

/// The longest that a boot may take on a loaded machine.
const BOOT_LIMIT: Duration = Duration::from_mins(1);

/// A running RabbitMQ.
pub(crate) struct Rabbit {
    port: u16,
    dir: PathBuf,
    beam: Mutex<Option<Child>>,
    company: Arc<Company>,
}

/// What the nodes of one cluster share: the program that finds them, and the cookie that lets them in.
struct Company {
    epmd: Mutex<Child>,
    epmd_port: u16,
    home: PathBuf,
}

impl Company {
    /// Starts one for the node that is to be in `dir`.
    fn start(dir: &Path, epmd_port: u16) -> Arc<Self> {
        let home = dir.join("home");
        fs::create_dir_all(&home).unwrap();
        let mut epmd = mortal("/usr/bin/epmd");
        epmd.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]).env("HOME", &home);
        let epmd = Mutex::new(spawn(epmd));
        wait_for_port(epmd_port, dir);
        Arc::new(Self { epmd, epmd_port, home })
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        let mut epmd = self.epmd.lock().unwrap();
        epmd.kill().unwrap();
        epmd.wait().unwrap();
    }
}

impl Rabbit {
    /// The broker that all tests share. Nobody may stop it.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Rabbit> = OnceLock::new();
        SHARED.get_or_init(|| Self::start("", "[]."))
    }

    /// A broker for one test, with more lines for `rabbitmq.conf` and an `advanced.config`.
    pub(crate) fn start(conf: &str, advanced: &str) -> Self {
        Self::start_in(None, conf, advanced, "[].")
    }

    /// The same with RabbitMQ's plugin for Prometheus, and where that listens.
    pub(crate) fn start_with_metrics() -> (Self, u16) {
        let port = free_ports();
        let conf = format!("prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {port}\n");
        (Self::start_in(None, &conf, "[].", "[rabbitmq_prometheus]."), port)
    }

    /// A cluster of this many nodes. The first one boots alone, the others join it while they boot.
    pub(crate) fn cluster(nodes: usize) -> Vec<Self> {
        let first = Self::start("", "[].");
        let conf = format!(
            "cluster_formation.peer_discovery_backend = classic_config\n\
             cluster_formation.classic_config.nodes.1 = {}\n",
            first.node()
        );
        let company = &first.company;
        let others: Vec<Self> = std::thread::scope(|scope| {
            let booting: Vec<_> = (1..nodes)
                .map(|_| scope.spawn(|| Self::start_in(Some(Arc::clone(company)), &conf, "[].", "[].")))
                .collect();
            booting.into_iter().map(|node| node.join().unwrap()).collect()
        });
        std::iter::once(first).chain(others).collect()
    }

    /// The bodies of all that is in a log at present, of the pool with this prefix.
    pub(crate) async fn records(&self, prefix: &str, log: Log) -> Vec<Bytes> {
        let settings = RabbitSettings {
            urls: vec![self.url()],
            prefix: prefix.to_owned(),
            declare: false,
            keep_decisions: Some(Duration::from_hours(1)),
            lanes: Vec::new(),
        };
        let broker = RabbitMq::connect(settings, &TaskTracker::new()).unwrap();
        broker.ready(LOG_LIMIT).await.unwrap();
        let mut records = broker.read(log, Start::First, End::Present);
        let mut found = Vec::new();
        while let Some(record) = tokio::time::timeout(LOG_LIMIT, records.recv()).await.expect("the log ends in time") {
            found.push(record.unwrap().body);
        }
        broker.close().await;
        found
    }

    fn start_in(company: Option<Arc<Company>>, conf: &str, advanced: &str, plugins: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            Path::new(BIN).join("rabbitmq-server").exists(),
            "these tests need RabbitMQ, and {BIN}/rabbitmq-server is not there: `apt-get install rabbitmq-server`"
        );
        let port = free_ports();
        let dir = root().join(format!("{}-{port}", COUNT.fetch_add(1, Ordering::Relaxed)));
        for part in ["mnesia", "log", "schema", "gen", "etc"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        let mut text = String::new();
        writeln!(text, "listeners.tcp.default = 127.0.0.1:{port}").unwrap();
        text.push_str(
            "log.console = false\ndisk_free_limit.absolute = 50MB\nvm_memory_high_watermark.absolute = 2GB\n",
        );
        text.push_str(conf);
        fs::write(dir.join("etc/rabbitmq.conf"), text).unwrap();
        fs::write(dir.join("etc/advanced.config"), advanced).unwrap();
        fs::write(dir.join("etc/enabled_plugins"), plugins).unwrap();
        let company = company.unwrap_or_else(|| Company::start(&dir, port + 2));
        let rabbit = Self { port, dir, beam: Mutex::new(None), company };
        rabbit.boot();
        rabbit
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its name in a cluster.
    pub(crate) fn node(&self) -> String {
        format!("t{}@localhost", self.port)
    }

    /// The URL to connect to.
    pub(crate) fn url(&self) -> Secret {
        url_at(self.port)
    }

    /// Starts it again on the same data.
    pub(crate) fn boot(&self) {
        let mut command = mortal(&format!("{BIN}/rabbitmq-server"));
        self.environment(&mut command);
        let mut beam = spawn(command);
        let deadline = Instant::now() + BOOT_LIMIT;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = beam.try_wait().unwrap();
            assert!(ended.is_none(), "the broker ended while booting; its log ends so:\n{}", self.log_end());
            assert!(Instant::now() < deadline, "the broker does not boot; its log ends so:\n{}", self.log_end());
            std::thread::sleep(Duration::from_millis(50));
        }
        *self.beam.lock().unwrap() = Some(beam);
    }

    /// The last lines that it logged.
    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.dir.join(format!("log/{}.log", self.node()))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Crashes it.
    pub(crate) fn crash(&self) {
        self.stop(Signal::SIGKILL);
    }

    /// Asks it to stop, and waits.
    pub(crate) fn terminate(&self) {
        self.stop(Signal::SIGTERM);
    }

    fn stop(&self, signal: Signal) {
        if let Some(mut beam) = self.beam.lock().unwrap().take() {
            kill(Pid::from_raw(beam.id().cast_signed()), signal).unwrap();
            beam.wait().unwrap();
        }
    }

    /// Runs `rabbitmqctl` and returns what it printed.
    pub(crate) async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(format!("{BIN}/rabbitmqctl"));
        self.environment(&mut command);
        command.args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {}{}\nthe broker's log ends so:\n{}",
            text(&output.stdout),
            text(&output.stderr),
            self.log_end()
        );
        text(&output.stdout)
    }

    /// Makes it remember its queues. RabbitMQ 3.10 writes down which queues and streams it has made only after a while, and
    /// one that is killed before that finds some of them without a leader for ever, whatever anybody does.
    pub(crate) async fn remember_queues(&self) {
        self.ctl(&["eval", "lists:foreach(fun dets:sync/1, dets:all())."]).await;
    }

    /// The queues whose names begin with `prefix`, without the logs, which keep what was read.
    pub(crate) async fn queues(&self, prefix: &str) -> Vec<String> {
        let text = self.ctl(&["-q", "list_queues", "--no-table-headers", "name", "type"]).await;
        let rows = text.lines().filter_map(|line| line.split_once('\t'));
        let ours = rows.filter(|(name, kind)| name.starts_with(prefix) && kind.trim() != "stream");
        ours.map(|(name, _)| name.to_owned()).collect()
    }

    /// The node that leads a queue, as the cluster says; `None` while it has no leader, or is not there.
    pub(crate) async fn leader_of(&self, queue: &str) -> Option<String> {
        let text = self.ctl(&["-q", "list_queues", "--no-table-headers", "name", "leader"]).await;
        let leader = text.lines().find_map(|line| line.strip_prefix(queue)?.strip_prefix('\t'))?.trim();
        (!leader.is_empty()).then(|| leader.to_owned())
    }

    /// What the broker knows of a queue: messages ready, and unacknowledged.
    pub(crate) async fn counts(&self, queue: &str) -> (u64, u64) {
        let columns = ["name", "messages_ready", "messages_unacknowledged"];
        let text = self.ctl(&[&["-q", "list_queues", "--no-table-headers"], columns.as_slice()].concat()).await;
        let mut row = text
            .lines()
            .find_map(|line| line.strip_prefix(queue)?.strip_prefix('\t'))
            .unwrap_or_else(|| panic!("no queue `{queue}` in:\n{text}"))
            .split('\t');
        let mut number = || row.next().unwrap().trim().parse().unwrap();
        (number(), number())
    }

    /// How many messages a quorum queue holds at this moment, handed out or not, and how long their bodies are together. What
    /// `list_queues` says is some seconds old.
    pub(crate) async fn weight(&self, queue: &str) -> (u64, u64) {
        let ask = format!(
            "{{ok, {{_, All}}, _}} = ra:local_query({{'%2F_{queue}', node()}}, fun rabbit_fifo:overview/1), \
             [maps:get(Key, All) || Key <- [num_messages, enqueue_message_bytes, checkout_message_bytes]]."
        );
        let said = self.ctl(&["eval", &ask]).await;
        let numbers: Vec<u64> =
            said.trim().trim_matches(['[', ']']).split(',').map(|number| number.parse().unwrap()).collect();
        (numbers[0], numbers[1] + numbers[2])
    }

    fn environment(&self, command: &mut Command) {
        let (dir, port) = (&self.dir, self.port);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        for (name, value) in [
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null"),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1"),
            ("ERL_EPMD_ADDRESS", "127.0.0.1"),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}"),
            ("LANG", "C.UTF-8"),
            ("ERL_CRASH_DUMP_SECONDS", "0"),
            // The start script then `exec`s, so that our child is the broker itself.
            ("detached", "1"),
        ] {
            command.env(name, value);
        }
        for (name, path) in [
            ("RABBITMQ_MNESIA_BASE", "mnesia"),
            ("RABBITMQ_LOG_BASE", "log"),
            ("RABBITMQ_PID_FILE", "pid"),
            ("RABBITMQ_SCHEMA_DIR", "schema"),
            ("RABBITMQ_GENERATED_CONFIG_DIR", "gen"),
            ("RABBITMQ_CONFIG_FILE", "etc/rabbitmq.conf"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "etc/advanced.config"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "etc/enabled_plugins"),
        ] {
            command.env(name, dir.join(path));
        }
        command.env("HOME", &self.company.home);
        command.env("RABBITMQ_NODENAME", self.node());
        command.env("RABBITMQ_NODE_PORT", port.to_string());
        command.env("RABBITMQ_DIST_PORT", (port + 1).to_string());
        command.env("ERL_EPMD_PORT", self.company.epmd_port.to_string());
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        self.crash();
    }
}

/// The URL of a broker of ours at this port of 127.0.0.1: its own, or that of a wire to it.
pub(crate) fn url_at(port: u16) -> Secret {
    Secret::new(format!("amqp://guest:guest@127.0.0.1:{port}/%2f?heartbeat=5"))
}

/// A command that the kernel kills when the thread that starts it ends; [`spawn`] sees to it that this is the process's end.
///
/// It says nothing and is told nothing, unless the caller changes that.
pub(super) fn mortal(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Starts a command from a thread that never ends.
pub(super) fn spawn(mut command: Command) -> Child {
    type Errand = (Command, mpsc::SyncSender<Child>);
    static PARENT: OnceLock<Mutex<mpsc::Sender<Errand>>> = OnceLock::new();
    let parent = PARENT.get_or_init(|| {
        let (errands, inbox) = mpsc::channel::<Errand>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                answer.send(command.spawn().expect("setpriv of util-linux starts it")).unwrap();
            }
        });
        Mutex::new(errands)
    });
    command.process_group(0);
    let (answer, child) = mpsc::sync_channel(1);
    parent.lock().unwrap().send((command, answer)).unwrap();
    child.recv().expect("it was started")
}

/// The directory of everything that this process starts, which goes when the process does.
pub(super) fn root() -> &'static Path {
    static ROOT: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (root, _) = ROOT.get_or_init(|| {
        let root = tempfile::Builder::new().prefix("interven-it-").tempdir().unwrap().keep();
        let mut janitor = Command::new("sh");
        // The brokers need a moment to die, and would write on into a directory that is being removed.
        janitor.args(["-c", "cat >/dev/null; sleep 0.5; rm -rf \"$0\""]).arg(&root);
        janitor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let janitor = janitor.spawn().expect("sh starts");
        (root, janitor)
    });
    root
}

/// Three free ports in a row: AMQP, distribution, epmd. They are below those that the system gives to whoever asks for any, or
/// somebody's connection would sit on one of them while its broker is being restarted.
pub(super) fn free_ports() -> u16 {
    // Ports that were given out, so that two brokers that start at once do not get the same.
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap();
    loop {
        let port = fastrand::u16(10_000..32_000);
        let free = (0..=2).all(|step| TcpListener::bind(("127.0.0.1", port + step)).is_ok());
        if free && given.iter().all(|other| other.abs_diff(port) > 2) {
            given.push(port);
            return port;
        }
    }
}

fn wait_for_port(port: u16, dir: &Path) {
    let deadline = Instant::now() + BOOT_LIMIT;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on port {port}; the broker's log is in {}", dir.display());
        std::thread::sleep(Duration::from_millis(50));
    }
}
