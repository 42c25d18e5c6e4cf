//! A pool whose processes and connections fail.

use std::{fs, time::Duration};

use super::{Eye, traffic::decision};
use crate::support::{
    firewall::Publisher,
    rabbit::{Rabbit, url_at},
    relay::{Flow, Relay},
    scene::Scene,
    unique_name,
    worker::{PATIENCE, WorkerProcess},
};
use interven_alerts::stand_ins::{Platform, Script};

/// How many decisions a worker may hold.
const PREFETCH: usize = 20;

/// Two workers, each with a wire of its own to the broker.
pub(super) struct Torn {
    pub(super) workers: [WorkerProcess; 2],
    wires: [Relay; 2],
    publisher: Publisher,
    _scene: Scene,
}

impl Torn {
    pub(super) async fn start(rabbit: &Rabbit) -> Self {
        let (prefix, mut scene) = (unique_name("torn"), Scene::default());
        scene.add("chat", Platform::Slack, Script::accept(), "").await;
        let wires = [Relay::to(rabbit.port()).await, Relay::to(rabbit.port()).await];
        let mut workers = wires.each_ref().map(|wire| {
            let url = url_at(wire.port());
            let broker =
                format!("[broker]\nurl = \"{}\"\nprefix = \"{prefix}\"\nprefetch = {PREFETCH}\n", url.expose());
            WorkerProcess::with_metrics_port(&format!("{broker}{}", scene.channels()), None)
        });
        for worker in &mut workers {
            worker.start_ready().await;
        }
        Self { workers, wires, publisher: Publisher::new(rabbit.url(), &prefix), _scene: scene }
    }

    /// One trouble after the other: each is over when the next one begins.
    pub(super) async fn suffer(&mut self, eye: &Eye<'_>) {
        self.lose_the_broker(eye).await;
        self.flap(eye).await;
        self.go_down_and_come_back_damaged(eye).await;
        for worker in &mut self.workers {
            worker.kill();
        }
        eye.fires("NoWorkers", "").await;
    }

    async fn lose_the_broker(&mut self, eye: &Eye<'_>) {
        self.wires[1].set(Flow::Silent);
        self.wires[1].cut();
        eye.fires("WorkerWithoutBroker", r#"instance="torn-1""#).await;
        self.wires[1].set(Flow::Open);
        self.workers[1].until_ready(PATIENCE).await;
    }

    async fn flap(&mut self, eye: &Eye<'_>) {
        let cut = async {
            loop {
                self.workers[0].until_ready(PATIENCE).await;
                self.wires[0].cut();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            () = cut => {}
            () = eye.fires("BrokerFlapping", r#"instance="torn-0""#) => {}
        }
        self.workers[0].until_ready(PATIENCE).await;
    }

    async fn go_down_and_come_back_damaged(&mut self, eye: &Eye<'_>) {
        let worker = &mut self.workers[1];
        worker.kill();
        eye.fires("WorkerDown", r#"instance="torn-1""#).await;
        fs::write(worker.data().join("dead-letters/checkpoint"), [0x55; 4096]).unwrap();
        worker.start_ready().await;
        eye.fires("StoreDamaged", r#"instance="torn-1""#).await;
        for _ in 0..2 {
            worker.kill();
            // When a process has started is told in whole seconds.
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            worker.start_ready().await;
            let started = worker.metrics().await.sum("process_start_time_seconds", &[]);
            let seen = format!("process_start_time_seconds{{instance=\"torn-1\"}} == {started}");
            eye.prometheus.until(&seen, super::ALERT_LIMIT).await;
        }
        eye.fires("WorkerRestarting", r#"instance="torn-1""#).await;
    }

    /// A broker that is out of memory takes nothing more: what the workers read they cannot settle, and so they read no more.
    pub(super) async fn suffer_from_an_alarm(&mut self, rabbit: &Rabbit, eye: &Eye<'_>) {
        let decisions: Vec<_> = (0..PREFETCH * 5).map(|_| decision("chat", "DENY", "HIGH")).collect();
        self.publisher.publish_surely(&decisions, PATIENCE).await;
        rabbit.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
        for worker in &mut self.workers {
            worker.start().await;
        }
        tokio::join!(eye.fires("AcksNearPrefetch", ""), eye.fires("DecisionsNotTaken", ""));
    }
}
