//! The two sides as processes of their own, so that each one's CPU time and memory can be read from the kernel.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use super::{CHANNELS, CONCURRENCY, Rabbit, prefetch, url_text};

/// Who drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// lapin and reqwest, and nothing in between.
    Floor,
    /// The worker.
    Worker,
}

/// A running side. It ends when dropped.
pub(super) struct Process {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    /// User and system time so far, in seconds. Source: proc(5), fields 14 and 15, at 100 ticks a second.
    pub(super) fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the process runs");
        let after_name = stat.rsplit_once(") ").expect("the name is in parentheses").1;
        let fields: Vec<f64> = after_name.split(' ').map(|field| field.trim().parse().unwrap_or(0.0)).collect();
        (fields[11] + fields[12]) / 100.0
    }

    /// Resident memory in megabytes.
    pub(super) fn resident_megabytes(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells it");
        line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<f64>().ok()).expect("a number") / 1024.0
    }
}

/// Starts one side on the decisions queue of `prefix`.
pub(super) fn start(side: Side, rabbit: &Rabbit, prefix: &str, sink: &str, batch: u64) -> Process {
    let directory = tempfile::tempdir().expect("a directory");
    let amqp = url_text(&rabbit.url());
    let mut command = match side {
        Side::Floor => {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            let numbers = [u64::from(prefetch().get()), u64::from(CONCURRENCY), batch].map(|number| number.to_string());
            command.args(["floor-process", &amqp, &format!("{prefix}.alerts.decisions"), sink]).args(numbers);
            command
        }
        Side::Worker => {
            let config = directory.path().join("bench.toml");
            fs::write(&config, configuration(&amqp, prefix, sink, batch, directory.path())).expect("a file");
            let mut command = Command::new(env!("CARGO_BIN_EXE_interven-alerts"));
            command.args(["run", "--log-level", "warn", "--config"]).arg(config);
            command
        }
    };
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the process starts");
    Process { child, _directory: directory }
}

/// Ten channels, one of which matches; everything on but the decisions log.
fn configuration(amqp: &str, prefix: &str, sink: &str, batch: u64, directory: &std::path::Path) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "data_dir = \"{}\"\n[broker]\nurl = \"{amqp}\"\nprefix = \"{prefix}\"\nprefetch = {}\nkeep_decisions = \"none\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n",
        directory.display(),
        prefetch(),
    );
    for channel in 0..CHANNELS {
        let agents = if channel == 0 { String::from("production-*") } else { format!("staging-{channel}-*") };
        write!(
            text,
            "[[channel]]\nid = \"siem-{channel}\"\nkind = \"siem\"\nurl = \"{sink}\"\nagents = [\"{agents}\"]\nconcurrency = {CONCURRENCY}\n\
             batch = {{ events = {batch}, bytes = \"900KB\", wait = \"50ms\" }}\n"
        )
        .expect("writing to a String never fails");
    }
    text
}
