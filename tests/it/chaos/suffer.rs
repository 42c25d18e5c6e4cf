//! How each victim suffers its track of the plan, and how it is healed after each bout.

use std::{sync::Arc, time::Duration};

use interven_alerts::stand_ins::{Class, Entry, Platform, Script, StandIn, Step, every_reply};
use tokio::time::{Instant, sleep};

use super::{
    files::Files,
    journal::Journal,
    plan::{Bout, Death, Fault, Mood},
};
use crate::support::{
    rabbit::Rabbit,
    relay::{Flow, Relay},
    tmpfs::Tmpfs,
    worker::WorkerProcess,
};

/// How often it is looked whether a worker still runs.
const LOOK: Duration = Duration::from_millis(200);

/// A worker is killed or stopped, and started again. One that ends by itself is started again too, as an orchestrator would.
pub(super) async fn worker(
    worker: &mut WorkerProcess,
    number: usize,
    track: &[Bout<Death>],
    files: &Files,
    journal: &Journal,
    until: Duration,
) {
    for bout in track {
        watch_over(worker, number, files, journal, journal.began() + bout.at).await;
        match bout.what {
            Death::Killed => {
                journal.note(format!("worker {number}: killed"));
                worker.kill();
            }
            Death::Asked => {
                journal.note(format!("worker {number}: asked to stop"));
                let (code, took) = worker.terminate().await;
                journal.note(format!("worker {number}: stopped after {took:.1?} with {code}"));
                assert_eq!(code, 0, "a stop in order ends well, whatever else goes wrong");
            }
        }
        sleep(bout.lasts).await;
        files.start(worker).await;
        journal.note(format!("worker {number}: started again"));
    }
    watch_over(worker, number, files, journal, journal.began() + until).await;
}

async fn watch_over(worker: &mut WorkerProcess, number: usize, files: &Files, journal: &Journal, until: Instant) {
    let mut known = files.edition().await;
    while Instant::now() < until {
        if let Some(status) = worker.ended_by_itself() {
            journal.note(format!("worker {number}: ended by itself with {status}, and is started again"));
            files.start(worker).await;
        }
        let edition = files.edition().await;
        // Half of them are told of a changed file, the others see it.
        if edition != known && number.is_multiple_of(2) {
            worker.hang_up();
        }
        known = edition;
        sleep(LOOK.min(until - Instant::now())).await;
    }
}

/// The broker is killed or stopped, and boots again.
pub(super) async fn broker(rabbit: &Arc<Rabbit>, track: &[Bout<Death>], journal: &Journal) {
    for bout in track {
        journal.reaches(bout.at).await;
        journal.note(format!("broker: {:?}", bout.what));
        let (rabbit, what, lasts) = (Arc::clone(rabbit), bout.what, bout.lasts);
        let suffering = tokio::task::spawn_blocking(move || {
            match what {
                Death::Killed => rabbit.crash(),
                Death::Asked => rabbit.terminate(),
            }
            std::thread::sleep(lasts);
            rabbit.boot();
        });
        suffering.await.unwrap();
        journal.note("broker: there again");
    }
}

/// A wire breaks.
pub(super) async fn wire(wire: &Relay, name: &str, track: &[Bout<Fault>], journal: &Journal) {
    for bout in track {
        journal.reaches(bout.at).await;
        let lasts = match bout.what {
            Fault::Cut | Fault::HalfClosed(_) => String::new(),
            Fault::Silent | Fault::Slow(_) => format!(" for {:.1?}", bout.lasts),
        };
        journal.note(format!("{name}: {:?}{lasts}", bout.what));
        match bout.what {
            Fault::Cut => wire.cut(),
            Fault::HalfClosed(side) => wire.end(side),
            Fault::Silent => wire.set(Flow::Silent),
            Fault::Slow(delay) => wire.set(Flow::Slow(delay)),
        }
        journal.reaches(bout.at + bout.lasts).await;
        wire.set(Flow::Open);
    }
}

/// An endpoint fails.
pub(super) async fn endpoint(endpoint: &mut StandIn, id: &str, track: &[Bout<Mood>], journal: &Journal) {
    for bout in track {
        journal.reaches(bout.at).await;
        journal.note(format!("{id}: {:?} for {:.1?}", bout.what, bout.lasts));
        match script(endpoint.platform(), bout.what) {
            Some(script) => endpoint.set_script(script),
            None => endpoint.stop().await,
        }
        journal.reaches(bout.at + bout.lasts).await;
        endpoint.restart().await.expect("its port is free");
        endpoint.set_script(Script::accept());
    }
}

/// A disk is full.
pub(super) async fn disk(disk: Option<&Tmpfs>, track: &[Bout<()>], journal: &Journal) {
    let Some(disk) = disk else { return };
    for bout in track {
        journal.reaches(bout.at).await;
        journal.note(format!("disk: full for {:.1?}", bout.lasts));
        disk.fill();
        journal.reaches(bout.at + bout.lasts).await;
        disk.free();
        journal.note("disk: free");
    }
}

/// What an endpoint of this platform does in this mood; `None` where it is not there to do anything.
fn script(platform: Platform, mood: Mood) -> Option<Script> {
    let reply = |entry: Entry| Step::Reply { reply: entry.reply, taken: entry.taken };
    let mixed = |seed: u64, wanted: fn(&Entry) -> bool| {
        let mut steps = vec![(15, Step::Accept)];
        steps.extend(breaks().map(|step| (1, step)));
        steps.extend(every_reply(platform).into_iter().filter(wanted).map(|entry| (1, reply(entry))));
        Script::weighted(seed, steps)
    };
    let script = match mood {
        Mood::Away => return None,
        Mood::Hangs(taken) => Script::always(Step::Hang { taken }),
        Mood::Resets(taken) => Script::always(Step::Reset { taken }),
        Mood::Garbage(taken) => Script::always(Step::Garbage { taken }),
        Mood::Throttles => Script::always(Step::RateLimited { retry_after: Duration::from_secs(1) }),
        Mood::Fails(seed) => mixed(seed, |entry| entry.class != Class::Operator),
        Mood::Everything(seed) => mixed(seed, |_| true),
        Mood::Broken(throw) => {
            let mut entries: Vec<Entry> =
                every_reply(platform).into_iter().filter(|entry| entry.class == Class::Operator).collect();
            let at = usize::try_from(throw % entries.len() as u64).expect("less than a length");
            Script::always(reply(entries.swap_remove(at)))
        }
    };
    Some(script)
}

/// Every way in which an endpoint does not answer.
fn breaks() -> impl Iterator<Item = Step> {
    let both = [false, true]
        .into_iter()
        .flat_map(|taken| [Step::Hang { taken }, Step::Reset { taken }, Step::Garbage { taken }]);
    both.chain([Step::Slow(Duration::from_millis(300))])
}
