//! `run`: the worker, until it is told to stop, with the configuration that its file holds at each moment.

use std::{path::Path, pin::Pin, time::Duration};

use tokio::time::{Instant, MissedTickBehavior};
use tracing::{error, info, warn};

use super::{Exit, Failure, Global, Shell, config_file, runtime};
use crate::{
    app::{ReloadError, Reloaded, StartError, Worker},
    config::{Glimpse, LoadError, Sound},
    settings::Fault,
};

/// How often the configuration file is looked at. Two looks in a row must see the same before it is taken for whole.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  Run it on the configuration of this directory, or on another one:
    interven-alerts run
    interven-alerts run --config /etc/interven-alerts/interven-alerts.toml
  Log lines for a collector, and more of them from the lanes:
    interven-alerts run --log-format json --log-level info,interven_alerts::lane=debug

Signals:
  SIGTERM, SIGINT  stop in order, within `[shutdown] grace` (default 25s): no decision is taken any
                   more, sends under way are finished, the rest goes back to the broker
  a second one     stop at once; the broker hands out again what was under way
  SIGHUP           read the configuration again, now

Changes while it runs:
  A changed configuration file, or a changed file that it names, is taken over within seconds:
  channels, links, `[egress]` and access tokens. Nothing that waits is dropped. A faulty file is
  refused, every fault is logged, and the old configuration stays. Changes of `data_dir`,
  `[broker]`, the listening addresses and `[shutdown]` need a restart, which is said.

Looking at it:
  http://127.0.0.1:8080  the console and the API (`[http] listen`)
  http://127.0.0.1:9464  /livez, /readyz and /metrics (`[http] metrics_listen`)

Exit codes:
  0   stopped in order
  1   could not start, broke, or was stopped at once by a second signal
  78  faulty configuration")]
pub struct Args {}

/// Runs the command.
pub fn run(global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let path = config_file::find(global, shell)?;
    // Before it is read, so that what changes meanwhile is noticed.
    let watch = Watch::new(glimpse(&path, shell));
    let plan = config_file::load(global, shell)?;
    let clock = shell.clock;
    runtime(true)?.block_on(async move {
        // Before the start, which may take a while: a signal that comes meanwhile is not lost, not even for process 1 of a
        // container, for which signals without a handler do nothing.
        let mut signals = Signals::new()?;
        let worker = Worker::start(plan, clock).await.map_err(|error| start_failure(&error))?;
        let broken = serve(&worker, &mut signals, watch, &path, shell).await;
        let stopped_in_order = tokio::select! {
            () = worker.stop() => true,
            () = signals.stop() => false,
        };
        if broken {
            return Err(Failure::new("a part of the worker has ended unexpectedly")
                .hint("see the log above; start the worker again"));
        }
        if !stopped_in_order {
            return Err(Failure::new("stopped at once by a second signal")
                .hint("the broker hands out again what was under way"));
        }
        Ok(())
    })
}

pub(super) fn start_failure(error: &StartError) -> Failure {
    Failure::of(error).hint(error.hint()).exit(Exit::Failed)
}

/// When a sound configuration that could not be taken over is tried again.
const AGAIN: Duration = Duration::from_secs(30);

type Reloading = Pin<Box<dyn Future<Output = Result<Reloaded, ReloadError>>>>;

/// Keeps the configuration up to date until a signal asks for a stop (false), or a part of the worker has ended (true).
///
/// Files are read on this thread, which runs nothing of the worker.
async fn serve(worker: &Worker, signals: &mut Signals, mut watch: Watch, path: &Path, shell: &Shell<'_>) -> bool {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut reloading, mut asked): (Option<Reloading>, bool) = (None, false);
    let mut again: Option<Instant> = None;
    loop {
        if asked && reloading.is_none() {
            asked = false;
            info!("reading the configuration again");
            again = None;
            watch.tried(glimpse(path, shell));
            reloading = begin(worker, path, shell);
        }
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => return false,
                Signal::Reload => asked = true,
            },
            () = worker.broken() => return true,
            _ = looks.tick(), if reloading.is_none() => {
                if watch.look(glimpse(path, shell)) {
                    info!("the configuration has changed: reading it again");
                    again = None;
                    reloading = begin(worker, path, shell);
                }
            }
            result = done(&mut reloading) => {
                reloading = None;
                if let Err(error) = result {
                    worker.metrics().config_sound.set(0);
                    error!(%error, hint = error.hint(), again_in = ?AGAIN, "the new configuration could not be taken over; the old one stays for now");
                    again = Some(Instant::now() + AGAIN);
                }
            }
            () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() && reloading.is_none() => {
                // The file was sound: what it met may have passed.
                (again, asked) = (None, true);
            }
        }
    }
}

async fn done(reloading: &mut Option<Reloading>) -> Result<Reloaded, ReloadError> {
    match reloading {
        Some(reloading) => reloading.await,
        None => std::future::pending().await,
    }
}

fn glimpse(path: &Path, shell: &Shell<'_>) -> Glimpse {
    Glimpse::of(&shell.directory.join(path), shell.env)
}

/// Reads the file as at the start, and hands a sound configuration to the worker. Of a faulty one, every fault is told.
fn begin(worker: &Worker, path: &Path, shell: &Shell<'_>) -> Option<Reloading> {
    let reloading = read(worker, path, shell);
    if reloading.is_none() {
        worker.metrics().config_sound.set(0);
    }
    reloading
}

fn read(worker: &Worker, path: &Path, shell: &Shell<'_>) -> Option<Reloading> {
    let tell = |fault: &Fault| {
        let Fault { line, path: key, problem, hint, .. } = fault;
        error!(file = %path.display(), line, key, hint, "a fault in the new configuration: {problem}");
    };
    match config_file::load_file(path, shell) {
        Ok(Sound { plan, warnings }) => {
            for Fault { line, path: key, problem, hint, .. } in &warnings {
                warn!(file = %path.display(), line, key, hint, "the new configuration: {problem}");
            }
            Some(Box::pin(worker.reload(plan)))
        }
        Err(LoadError::Faulty(found)) => {
            found.faults.iter().for_each(tell);
            error!(file = %path.display(), faults = found.faults.len(), "the new configuration is faulty and was refused; the old one stays");
            None
        }
        Err(problem @ (LoadError::Read(_) | LoadError::TooLarge)) => {
            let (cause, hint) = (std::error::Error::source(&problem).map(ToString::to_string), problem.hint());
            error!(file = %path.display(), %problem, cause, hint, "the new configuration could not be read; the old one stays");
            None
        }
    }
}

/// Decides when the file is read again: when it has changed and is whole, once for each content.
struct Watch {
    tried: Glimpse,
    last: Glimpse,
}

impl Watch {
    fn new(now: Glimpse) -> Self {
        Self { tried: now, last: now }
    }

    /// Whether what is seen now is to be tried: it is not what was tried last, and stayed the same from one look to the next, so
    /// that nobody is in the middle of writing it.
    fn look(&mut self, now: Glimpse) -> bool {
        let whole = now == self.last;
        self.last = now;
        if !whole || now == self.tried {
            return false;
        }
        self.tried = now;
        true
    }

    /// This is tried for another reason.
    fn tried(&mut self, now: Glimpse) {
        self.tried = now;
    }
}

enum Signal {
    Stop,
    Reload,
}

/// The signals that ask for a stop, and the one that asks for another look at the configuration.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(|error| Failure::of(&error));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }

    /// The next signal that asks for a stop. A worker that stops reads no configuration any more.
    async fn stop(&mut self) {
        while matches!(self.next().await, Signal::Reload) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_tried_once_and_only_when_two_looks_agree() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        let write = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Glimpse::of(&file, &|_| None)
        };
        let (old, half, new) = (write("old"), write("ne"), write("new"));
        let mut watch = Watch::new(old);
        let looks = [(old, false), (half, false), (new, false), (new, true), (new, false), (half, false), (old, false)];
        for (at, (seen, tried)) in looks.into_iter().enumerate() {
            assert_eq!(watch.look(seen), tried, "look {at}");
        }
        assert!(watch.look(old), "going back is a change too");
        watch.tried(new);
        assert!(!watch.look(new) && !watch.look(new), "SIGHUP has tried it already");
    }
}
