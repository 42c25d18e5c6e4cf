//! Several workers on one broker with one configuration, each a process: they join, leave and crash while the others work.
//!
//! Every limited lane has one owner in the pool at any time. Nobody announces who it is, so [`Pool::owner`] looks at who sends.

use std::time::Duration;

use futures_util::future::join_all;
use interven_alerts::dead_letters::DeadLetter;

use super::{
    eventually,
    worker::{PATIENCE, WorkerProcess},
};

/// The workers of one pool.
pub(crate) struct Pool {
    config: String,
    /// Those that run, the longest-serving first.
    running: Vec<WorkerProcess>,
    /// Those that left or crashed: their stores are looked into at the end.
    gone: Vec<WorkerProcess>,
}

impl Pool {
    /// Starts `size` workers with this configuration and waits until all are ready.
    pub(crate) async fn start(config: String, size: usize) -> Self {
        let mut running: Vec<_> = (0..size).map(|_| WorkerProcess::new(&config)).collect();
        join_all(running.iter_mut().map(WorkerProcess::start_ready)).await;
        Self { config, running, gone: Vec::new() }
    }

    /// The workers that run, the longest-serving first.
    pub(crate) fn workers(&self) -> &[WorkerProcess] {
        &self.running
    }

    /// One more worker joins; it is ready when this returns.
    pub(crate) async fn join(&mut self) {
        let mut worker = WorkerProcess::new(&self.config);
        worker.start_ready().await;
        self.running.push(worker);
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, at: usize) {
        let mut worker = self.running.remove(at);
        worker.kill();
        self.gone.push(worker);
    }

    /// SIGTERM, and waits for the end, which must be in order; how long it took.
    pub(crate) async fn leave(&mut self, at: usize) -> Duration {
        let mut worker = self.running.remove(at);
        let (code, took) = worker.terminate().await;
        assert_eq!(code, 0, "a worker that was asked to leave ended with {code}");
        self.gone.push(worker);
        took
    }

    /// Which worker sends for this channel at present. The lane must have something to send.
    pub(crate) async fn owner(&self, channel: &str) -> usize {
        let label = format!("channel=\"{channel}\"");
        let before = self.each("attempts_total", &[&label]).await;
        eventually("somebody sends", PATIENCE, async || {
            self.each("attempts_total", &[&label]).await.iter().zip(&before).position(|(now, before)| now > before)
        })
        .await
    }

    /// The sum of some series, for each worker that runs.
    pub(crate) async fn each(&self, name: &str, labels: &[&str]) -> Vec<u64> {
        join_all(self.running.iter().map(async |worker| worker.metrics().await.sum(name, labels))).await
    }

    /// The sum of some series over all workers that run.
    pub(crate) async fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        self.each(name, labels).await.iter().sum()
    }

    /// Everybody leaves, one after another; the dead letters of all workers that there ever were.
    pub(crate) async fn end(&mut self) -> Vec<DeadLetter> {
        while !self.running.is_empty() {
            self.leave(0).await;
        }
        let mut letters = Vec::new();
        for worker in &self.gone {
            letters.extend(worker.dead_letters().await);
        }
        letters
    }
}
