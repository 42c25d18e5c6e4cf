//! Who is in a run: a broker, four workers, ten channels of all five kinds, and the wires between them.

use std::{sync::Arc, time::Duration};

use futures_util::future::{join_all, join4};
use interven_alerts::stand_ins::{Platform, Script, StandIn};

use super::{
    files::Files,
    journal::{HEALED, Journal},
    oracle::{self, Evidence, Findings},
    plan::{ENDPOINT_WIRES, ENDPOINTS, Plan, WORKERS},
    press::{self, Ledger},
    stall::Watch,
    suffer,
};
use crate::support::{
    firewall::Publisher,
    rabbit::{Rabbit, url_at},
    relay::{Flow, Relay},
    scene::{ALL_EVENTS, Scene, door_at},
    tmpfs::Tmpfs,
    unique_name,
    worker::WorkerProcess,
};

/// How long it may take until nothing waits, once everything is healed: minutes of work on a loaded machine.
const QUIET_LIMIT: Duration = Duration::from_mins(3);

/// A channel of the run.
struct Part {
    id: &'static str,
    platform: Platform,
    /// Its own keys, up to the tables.
    keys: &'static str,
    /// Its tables.
    tables: &'static str,
}

const fn part(id: &'static str, platform: Platform, keys: &'static str, tables: &'static str) -> Part {
    Part { id, platform, keys, tables }
}

/// Waits short enough for a test, and tries enough for the worst of it.
const RETRY: &str = "[channel.retry]\nattempts = 1000\nfirst = \"50ms\"\nlongest = \"500ms\"\n";

/// The same, giving up soon.
const GIVES_UP: &str = "[channel.retry]\nattempts = 3\nfirst = \"50ms\"\nlongest = \"500ms\"\n";

/// Channels whose endpoints never fail: what holds them up is the worker's own doing. They fold nothing, so that every
/// delivery is seen.
const CALM: [Part; 3] = [
    part(
        "calm-slack",
        Platform::Slack,
        "rate_limit = \"none\"\nconcurrency = 2\n",
        "[channel.digest]\nenabled = false\n",
    ),
    part("calm-siem", Platform::Siem, "format = \"ocsf\"\n", ""),
    part(
        "calm-limited",
        Platform::Telegram,
        "min_severity = \"HIGH\"\nrate_limit = \"50/s\"\n",
        "[channel.digest]\nenabled = false\n",
    ),
];

/// Channels whose endpoints fail, those behind a wire first.
const TROUBLED: [Part; ENDPOINTS] = [
    part("splunk", Platform::Splunk, "batch = { events = 20, wait = \"100ms\" }\n", ""),
    part("discord", Platform::Discord, "rate_limit = \"100/s\"\nburst = 5\n", "[channel.digest]\nenabled = false\n"),
    part("teams", Platform::Teams, "rate_limit = \"none\"\nconcurrency = 4\n", "[channel.digest]\nover = 20\n"),
    part("slack", Platform::Slack, "rate_limit = \"none\"\nconcurrency = 4\n", "[channel.digest]\nenabled = false\n"),
    part(
        "slack-slow",
        Platform::Slack,
        "tools = [\"slack\", \"github.create_*\"]\nrate_limit = \"15/s\"\n",
        "[channel.digest]\nover = 5\n",
    ),
    part(
        "telegram",
        Platform::Telegram,
        "min_severity = \"HIGH\"\nrate_limit = \"30/s\"\n",
        "[channel.digest]\nover = 10\n",
    ),
    part(
        "sumo",
        Platform::Sumo,
        "format = \"cef\"\ncompression = \"gzip\"\nbatch = { events = 5, wait = \"100ms\" }\n",
        GIVES_UP,
    ),
];

/// Everything in a run.
pub(super) struct Stage {
    seed: u64,
    rabbit: Arc<Rabbit>,
    wires: Vec<Relay>,
    endpoint_wires: Vec<Relay>,
    /// The calm channels first.
    scene: Scene,
    watched: Vec<(&'static str, Watch)>,
    workers: Vec<WorkerProcess>,
    /// The endpoint of a channel that comes and goes. What it was sent nobody can know, so nobody asks; the others must not care.
    guest: StandIn,
    disk: Option<Tmpfs>,
    prefix: String,
    publisher: Publisher,
    journal: Journal,
}

impl Stage {
    /// Starts everything, and waits until it works.
    pub(super) async fn raise(seed: u64) -> Self {
        let rabbit = Arc::new(tokio::task::block_in_place(|| Rabbit::start("", "[].")));
        let (mut scene, mut endpoint_wires) = (Scene::default(), Vec::new());
        for (at, part) in CALM.iter().chain(&TROUBLED).enumerate() {
            let endpoint = StandIn::start(part.platform, Script::accept()).await.unwrap();
            let mut port = endpoint.port();
            if (CALM.len()..CALM.len() + ENDPOINT_WIRES).contains(&at) {
                let wire = Relay::to(port).await;
                port = wire.port();
                endpoint_wires.push(wire);
            }
            let retry = if part.tables.contains("[channel.retry]") { "" } else { RETRY };
            let (door, keys, tables) = (door_at(part.platform, port), part.keys, part.tables);
            scene.add_with_door(
                part.id,
                endpoint,
                &format!("{door}{ALL_EVENTS}timeout = \"1s\"\n{keys}{retry}{tables}"),
            );
        }
        let watched = CALM.iter().map(|part| (part.id, Watch::on(scene.stand_in(part.id)))).collect();

        let prefix = unique_name("chaos");
        let disk = Tmpfs::mount(48);
        let (mut wires, mut workers) = (Vec::new(), Vec::new());
        for number in 0..WORKERS {
            let wire = Relay::to(rabbit.port()).await;
            let config = format!(
                "[shutdown]\ngrace = \"10s\"\n[broker]\nurl = \"{}\"\nprefix = \"{prefix}\"\nprefetch = 200\n{}",
                url_at(wire.port()).expose(),
                scene.channels()
            );
            let data = disk.as_ref().filter(|_| number + 1 == WORKERS).map(|disk| disk.path().join("data"));
            let worker = WorkerProcess::with_data_dir(&config, data.as_deref());
            workers.push(worker.flags(&["--log-level", "info,interven_alerts=debug"]));
            wires.push(wire);
        }
        join_all(workers.iter_mut().map(WorkerProcess::start_ready)).await;
        rabbit.remember_queues().await;
        let guest = StandIn::start(Platform::Slack, Script::accept()).await.unwrap();
        let publisher = Publisher::new(rabbit.url(), &prefix);
        let journal = Journal::new();
        Self { seed, rabbit, wires, endpoint_wires, scene, watched, workers, guest, disk, prefix, publisher, journal }
    }

    /// Everything goes wrong as planned, while decisions are published. In the end all is healed, and nothing waits any more.
    pub(super) async fn run(&mut self, plan: &Plan) -> (Ledger, bool) {
        let Self { journal, .. } = self;
        *journal = Journal::new();
        let journal = &*journal;
        let door = door_at(Platform::Slack, self.guest.port());
        let guest = format!("[[channel]]\nid = \"guest\"\n{door}rate_limit = \"5/s\"\n{RETRY}");
        let files = &Files::of(&self.workers, &guest);
        let publishing = press::publish(&mut self.publisher, self.seed, plan.length, journal);
        let workers = self.workers.iter_mut().zip(&plan.workers).enumerate();
        let workers =
            workers.map(|(number, (worker, track))| suffer::worker(worker, number, track, files, journal, plan.length));
        let wires = self.wires.iter().zip(&plan.wires).enumerate().map(|(number, (wire, track))| async move {
            suffer::wire(wire, &format!("wire of worker {number}"), track, journal).await;
        });
        let endpoints = self.scene.actors[CALM.len()..].iter_mut().zip(&plan.endpoints);
        let endpoints = endpoints.map(|(actor, track)| suffer::endpoint(&mut actor.stand_in, actor.id, track, journal));
        let endpoint_wires = self.endpoint_wires.iter().zip(&plan.endpoint_wires).zip(&TROUBLED);
        let endpoint_wires = endpoint_wires.map(|((wire, track), part)| async move {
            suffer::wire(wire, &format!("wire to {}", part.id), track, journal).await;
        });
        let machines = join4(
            join_all(workers),
            files.suffer(&plan.edits, journal),
            suffer::broker(&self.rabbit, &plan.broker, journal),
            suffer::disk(self.disk.as_ref(), &plan.disk, journal),
        );
        let wires = join4(join_all(wires), join_all(endpoint_wires), join_all(endpoints), publishing);
        let (_, (_, _, _, ledger)) = tokio::join!(machines, wires);
        journal.note(HEALED);
        let quiet = self.settle().await;
        (ledger, quiet)
    }

    /// Restarts every worker, so that what is held finds out that it is healed, waits until nothing waits, and stops them.
    async fn settle(&mut self) -> bool {
        self.wires.iter().chain(&self.endpoint_wires).for_each(|wire| wire.set(Flow::Open));
        self.scene.heal();
        for worker in &mut self.workers {
            worker.until_ready(QUIET_LIMIT).await;
        }
        self.journal.note("every worker is ready");
        join_all(self.workers.iter_mut().map(|worker| async {
            assert_eq!(worker.terminate().await.0, 0, "a stop in order ends well");
            worker.start_ready().await;
        }))
        .await;
        self.journal.note("every worker is started anew");
        let place = (&*self.rabbit, &*self.prefix);
        let quiet = press::is_quiet_within(QUIET_LIMIT, &self.workers, &mut self.publisher, place, &self.journal).await;
        self.journal.note(if quiet { "it is quiet" } else { "it does not become quiet" });
        join_all(self.workers.iter_mut().map(WorkerProcess::terminate)).await;
        quiet
    }

    /// Asks the oracle.
    pub(super) async fn judge(&mut self, (ledger, quiet): (Ledger, bool)) -> Findings {
        let evidence = Evidence {
            seed: self.seed,
            ledger: &ledger,
            scene: &self.scene,
            watched: &self.watched,
            workers: &self.workers,
            publisher: &mut self.publisher,
            queues: &self.rabbit.queues(&self.prefix).await,
            journal: &self.journal,
            quiet,
        };
        oracle::judge(evidence).await
    }
}
