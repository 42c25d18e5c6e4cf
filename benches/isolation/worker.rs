//! The worker as a process, its configuration, and the endpoints that are sick.

use std::{
    fmt::Write as _,
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use interven_alerts::{
    model::Reply,
    stand_ins::{Platform, Script, StandIn, Step},
};

use super::{HEALTHY, Rabbit};

/// The channels that are sick, for the names of their queues.
pub(super) const SICK: [&str; 4] = ["hanging", "failing", "gone", "limited"];

/// Endpoints at their worst.
pub(super) struct Sick {
    hanging: StandIn,
    failing: StandIn,
    gone: StandIn,
    limited: StandIn,
}

impl Sick {
    pub(super) async fn start() -> Self {
        let start = async |platform, script| StandIn::start(platform, script).await.expect("a port");
        let always = |status, word| Script::always(Step::Reply { reply: Reply::new(status, word), taken: false });
        Self {
            hanging: start(Platform::Siem, Script::always(Step::Hang { taken: false })).await,
            failing: start(Platform::Siem, always(503, "down")).await,
            gone: start(Platform::Slack, always(404, "no_service")).await,
            limited: start(Platform::Slack, Script::accept().strict_rate(1, Duration::from_secs(1))).await,
        }
    }

    /// Whether the limited lane has begun with what waits for it.
    pub(super) fn has_begun(&self) -> bool {
        self.limited.counters().taken > 0
    }

    fn configuration(&self) -> String {
        let [hanging, failing, gone, limited] =
            [&self.hanging, &self.failing, &self.gone, &self.limited].map(StandIn::url);
        let noisy = "agents = [\"noisy\"]";
        let one_by_one = "[channel.digest]\nenabled = false";
        [
            format!("id = \"hanging\"\nkind = \"siem\"\nurl = \"{hanging}\"\ntimeout = \"2s\"\n{noisy}"),
            format!("id = \"failing\"\nkind = \"siem\"\nurl = \"{failing}\"\n{noisy}"),
            format!("id = \"gone\"\nkind = \"slack\"\nwebhook_url = \"{gone}\"\n{noisy}"),
            format!(
                "id = \"limited\"\nkind = \"slack\"\nwebhook_url = \"{limited}\"\nagents = [\"noisy\", \"backlog\"]\n{one_by_one}"
            ),
        ]
        .map(|keys| format!("[[channel]]\n{keys}\n"))
        .concat()
    }
}

/// A running worker. It ends when dropped.
pub(super) struct Worker {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Worker {
    /// Starts one with the healthy channels, all at `url`, and the sick ones.
    pub(super) fn start(rabbit: &Rabbit, prefix: &str, url: &str, sick: Option<&Sick>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut text = format!(
            "data_dir = \"{}\"\n[broker]\nurl = \"{}\"\nprefix = \"{prefix}\"\nkeep_decisions = \"none\"\n\
             [http]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n",
            directory.path().display(),
            rabbit.url().expose(),
        );
        for channel in 0..HEALTHY {
            let keys = format!("id = \"healthy-{channel}\"\nkind = \"siem\"\nurl = \"{url}\"\nformat = \"json\"");
            writeln!(text, "[[channel]]\n{keys}\nagents = [\"calm\", \"noisy\"]")
                .expect("writing to a String never fails");
        }
        text.push_str(&sick.map_or_else(String::new, Sick::configuration));
        let config = directory.path().join("bench.toml");
        fs::write(&config, text).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_interven-alerts"));
        command.args(["run", "--log-level", "off", "--config"]).arg(config);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the process starts");
        Self { child, _directory: directory }
    }

    /// Resident memory in megabytes, at present.
    pub(super) fn resident_megabytes(&self) -> f64 {
        self.status("VmRSS:")
    }

    /// The most that its resident memory ever was.
    pub(super) fn peak_megabytes(&self) -> f64 {
        self.status("VmHWM:")
    }

    fn status(&self, line: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find(|one| one.starts_with(line)).expect("Linux tells it");
        line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<f64>().ok()).expect("a number") / 1024.0
    }
}
