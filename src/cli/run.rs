//! `run`: the worker, until it is told to stop.

use super::{Exit, Failure, Global, Shell, config_file, runtime};
use crate::app::{StartError, Worker};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  interven-alerts run --config /etc/interven-alerts/interven-alerts.toml
  interven-alerts run --log-format json

SIGTERM and SIGINT stop the worker in order, within `[shutdown] grace`: it stops taking decisions, finishes the sends under way
and hands the rest to the broker. A second signal stops it at once; the broker then hands out again what was under way.

Probes are on `[http] metrics_listen`: /livez, /readyz, /metrics.")]
pub struct Args {}

/// Runs the command.
pub fn run(global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let plan = config_file::load(global, shell)?;
    let clock = shell.clock;
    runtime(true)?.block_on(async move {
        // Before the start, which may take a while: a signal that comes meanwhile is not lost, not even for process 1 of a
        // container, for which signals without a handler do nothing.
        let mut signals = Signals::new()?;
        let worker = Worker::start(plan, clock).await.map_err(|error| start_failure(&error))?;
        let broken = tokio::select! {
            () = signals.next() => false,
            () = worker.broken() => true,
        };
        let stopped_in_order = tokio::select! {
            () = worker.stop() => true,
            () = signals.next() => false,
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
    let exit = match error {
        StartError::Listen { .. } | StartError::Store(_) | StartError::Broker(_) | StartError::Client(_) => {
            Exit::Failed
        }
    };
    Failure::of(error).hint(error.hint()).exit(exit)
}

/// The signals that ask for a stop, and the one that must not be taken for that.
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

    async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                // Left alone, it would end the process without order.
                _ = self.hangup.recv() => {
                    tracing::error!("SIGHUP: this version takes a changed configuration over by a restart only; nothing was changed");
                }
            }
        }
    }
}
