//! What must hold whatever went wrong: every confirmed decision, for every channel that wants it, is told, folded, dead or
//! waiting. Asked from outside: the endpoints, the logs of the workers, their stores, the queues.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use interven_alerts::{
    channels::KINDS,
    config::{self, ChannelPlan},
    model::{ChannelId, DeathReason, Decision, Delivery, DeliveryId},
};

use super::{
    journal::{self, Journal},
    press::Ledger,
    stall::Watch,
};
use crate::support::{firewall::Publisher, scene::Scene, worker::WorkerProcess};

/// Of how many losses everything that is known is told.
const LOSSES_TOLD: usize = 5;

/// How many log lines are shown of a loss.
const LINES_TOLD: usize = 12;

/// A delivery, as the oracle counts them.
type Key = (ChannelId, String);

/// What a run is judged by.
pub(super) struct Evidence<'a> {
    pub(super) seed: u64,
    pub(super) ledger: &'a Ledger,
    pub(super) scene: &'a Scene,
    /// Channels that never failed, and what was seen of them.
    pub(super) watched: &'a [(&'static str, Watch)],
    /// All workers, stopped.
    pub(super) workers: &'a [WorkerProcess],
    pub(super) publisher: &'a mut Publisher,
    /// Where something may wait.
    pub(super) queues: &'a [String],
    pub(super) journal: &'a Journal,
    /// Whether it had become quiet before the workers were stopped.
    pub(super) quiet: bool,
}

/// What the oracle found.
pub(super) struct Findings {
    summary: String,
    faults: Vec<String>,
}

impl Findings {
    /// Panics, with everything that is known, where something was lost or is not as it should be.
    pub(super) fn assert_nothing_is_lost(&self) {
        println!("{}", self.summary);
        assert!(self.faults.is_empty(), "{}\n{}", self.summary, self.faults.join("\n"));
    }
}

/// Where the deliveries of a channel ended.
#[derive(Default)]
struct Tally {
    matched: u64,
    told: u64,
    folded: u64,
    dead: u64,
    waiting: u64,
    lost: u64,
    duplicates: u64,
}

pub(super) async fn judge(evidence: Evidence<'_>) -> Findings {
    let Evidence { seed, ledger, scene, watched, workers, publisher, queues, journal, quiet } = evidence;
    let config = config::load(&workers[0].config(), &|_| None, KINDS).expect("the configuration is sound");
    let channels = config.plan.channels;
    let logs: Vec<String> = workers.iter().map(WorkerProcess::logs).collect();
    let folded: HashSet<Key> = logs.iter().flat_map(|log| log.lines().filter_map(folding)).collect();
    let (dead, malformed, reasons) = letters(workers).await;
    let waiting = waiting(publisher, queues, &channels).await;

    let (mut faults, mut losses, mut tallies) = (Vec::new(), Vec::new(), Vec::new());
    let elsewhere = Elsewhere { folded, dead, waiting };
    for channel in &channels {
        let (tally, lost) = elsewhere.tally(channel, scene, ledger, &mut faults);
        losses.extend(lost);
        tallies.push(tally);
    }
    if !losses.is_empty() {
        faults.push(tell_losses(&losses, &logs, ledger, journal));
    }
    let unkept: Vec<&Bytes> = ledger.malformed.iter().filter(|body| !malformed.contains(*body)).collect();
    if !unkept.is_empty() {
        faults.push(format!("what could not be read was not kept as it came: {unkept:?}"));
    }
    if !quiet {
        faults.push(String::from("it did not become quiet: something still waits, or is held"));
    }
    if let Some(line) = logs.iter().flat_map(|log| log.lines()).find(|line| line.contains("panicked")) {
        faults.push(format!("a worker panicked: {line}"));
    }
    if !faults.is_empty() {
        faults.push(format!(
            "the run:\n{}the logs of the workers are kept in {}",
            journal.whole(),
            keep_logs(seed, workers).display()
        ));
    }
    let summary = summary(&channels, &tallies, &reasons, ledger, watched, journal);
    Findings { summary, faults }
}

/// Where a delivery can be that its endpoint has not been told of.
struct Elsewhere {
    folded: HashSet<Key>,
    dead: HashSet<Key>,
    waiting: HashSet<Key>,
}

impl Elsewhere {
    /// Looks for every confirmed decision that a channel wants; what is nowhere is lost.
    fn tally(
        &self,
        channel: &ChannelPlan,
        scene: &Scene,
        ledger: &Ledger,
        faults: &mut Vec<String>,
    ) -> (Tally, Vec<Key>) {
        let endpoint = scene.stand_in(channel.id.as_str());
        let told = endpoint.received_ids();
        let (mut tally, mut losses) = (Tally::default(), Vec::new());
        for (_, decision) in ledger.confirmed.iter().filter(|(_, decision)| channel.filter.wants(decision)) {
            let key: Key = (channel.id.clone(), decision.id.to_string());
            tally.matched += 1;
            match told.get(&key.1) {
                Some(times) => {
                    tally.told += 1;
                    tally.duplicates += u64::from(*times) - 1;
                }
                None if self.folded.contains(&key) => tally.folded += 1,
                None if self.dead.contains(&key) => tally.dead += 1,
                None if self.waiting.contains(&key) => tally.waiting += 1,
                None => {
                    tally.lost += 1;
                    losses.push(key);
                }
            }
        }
        let strangers = strangers(channel, &told, ledger);
        if !strangers.is_empty() {
            faults.push(format!("{} was told what it does not want: {strangers:?}", channel.id));
        }
        let (counted, logged) =
            (endpoint.counters().folded, self.folded.iter().filter(|(id, _)| *id == channel.id).count());
        if counted < logged as u64 {
            faults.push(format!("{}: {logged} are folded, but its digests count only {counted}", channel.id));
        }
        (tally, losses)
    }
}

/// The delivery that a log line tells to be folded.
fn folding(line: &str) -> Option<Key> {
    // Most lines are of something else, and need not be parsed to know it.
    if !line.contains("\"folded\"") {
        return None;
    }
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line.get("message")? == "folded").then_some(())?;
    Some((line.get("channel")?.as_str()?.parse().ok()?, line.get("decision")?.as_str()?.to_owned()))
}

/// What is in the stores: deliveries, messages that were no decisions, and how many of each reason.
async fn letters(workers: &[WorkerProcess]) -> (HashSet<Key>, HashSet<Bytes>, BTreeMap<DeathReason, u64>) {
    let (mut dead, mut malformed, mut reasons) = (HashSet::new(), HashSet::new(), BTreeMap::new());
    for worker in workers {
        for letter in worker.dead_letters().await {
            *reasons.entry(letter.reason).or_default() += 1;
            match (letter.channel, letter.decision_id) {
                (Some(channel), Some(decision)) => {
                    dead.insert((channel, decision));
                }
                _ => {
                    malformed.insert(letter.body);
                }
            }
        }
    }
    (dead, malformed, reasons)
}

/// What waits on the broker: as deliveries, and as decisions that nobody has taken yet.
async fn waiting(publisher: &mut Publisher, queues: &[String], channels: &[ChannelPlan]) -> HashSet<Key> {
    let mut waiting = HashSet::new();
    for queue in queues {
        for body in publisher.take_all(queue).await.expect("the broker is there") {
            if let Ok(delivery) = Delivery::from_bytes(&body) {
                waiting.insert((delivery.channel, delivery.decision.id.to_string()));
            } else if let Ok(decision) = Decision::decode(body) {
                waiting.extend(channels.iter().map(|channel| (channel.id.clone(), decision.id.to_string())));
            }
        }
    }
    waiting
}

/// What an endpoint was told although its channel does not want it, or nobody ever published it.
fn strangers(channel: &ChannelPlan, told: &HashMap<String, u32>, ledger: &Ledger) -> Vec<String> {
    let published = ledger.confirmed.iter().map(|(_, decision)| decision).chain(&ledger.unconfirmed);
    let wanted: HashSet<&str> =
        published.filter(|decision| channel.filter.wants(decision)).map(|decision| &*decision.id).collect();
    told.keys().filter(|id| !wanted.contains(id.as_str())).take(LOSSES_TOLD).cloned().collect()
}

/// When each of the lost was confirmed, what went wrong around then, and what the workers wrote of it.
fn tell_losses(losses: &[Key], logs: &[String], ledger: &Ledger, journal: &Journal) -> String {
    let mut text = format!("{} deliveries are lost, among them:\n", losses.len());
    for (channel, decision) in losses.iter().take(LOSSES_TOLD) {
        let delivery = DeliveryId::of(decision, channel).to_string();
        let confirmed = ledger.confirmed.iter().find(|(_, one)| *one.id == **decision).map(|(at, _)| *at);
        let at = confirmed.map_or(Duration::ZERO, |at| at - journal.began());
        writeln!(text, "{channel}, decision {decision}, delivery {delivery}, confirmed at {at:.2?}; around that:")
            .unwrap();
        text.push_str(&journal.between(at.saturating_sub(Duration::from_secs(3)), at + Duration::from_secs(5)));
        for (worker, log) in logs.iter().enumerate() {
            let lines: Vec<&str> = log
                .lines()
                .filter(|line| line.contains(&delivery) || (line.contains(decision) && line.contains(channel.as_str())))
                .collect();
            for line in &lines[lines.len().saturating_sub(LINES_TOLD)..] {
                writeln!(text, "  worker {worker}: {line}").unwrap();
            }
        }
    }
    text
}

/// Copies the logs to where they outlive this process.
fn keep_logs(seed: u64, workers: &[WorkerProcess]) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("interven-chaos-{seed}-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    for (number, worker) in workers.iter().enumerate() {
        fs::write(dir.join(format!("worker-{number}.log")), worker.logs()).unwrap();
    }
    dir
}

fn summary(
    channels: &[ChannelPlan],
    tallies: &[Tally],
    reasons: &BTreeMap<DeathReason, u64>,
    ledger: &Ledger,
    watched: &[(&'static str, Watch)],
    journal: &Journal,
) -> String {
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let mut text = format!(
        "{} decisions confirmed, {} not: {} deliveries, {} told, {} folded, {} dead, {} waiting, {} LOST, {} duplicates; dead by reason {reasons:?}\n",
        ledger.confirmed.len(),
        ledger.unconfirmed.len(),
        sum(|tally| tally.matched),
        sum(|tally| tally.told),
        sum(|tally| tally.folded),
        sum(|tally| tally.dead),
        sum(|tally| tally.waiting),
        sum(|tally| tally.lost),
        sum(|tally| tally.duplicates),
    );
    for (channel, tally) in channels.iter().zip(tallies) {
        let Tally { matched, told, folded, dead, waiting, lost, duplicates } = tally;
        writeln!(
            text,
            "  {:<16} {matched:>6} matched {told:>6} told {folded:>5} folded {dead:>5} dead {waiting:>5} waiting {lost:>3} lost {duplicates:>4} duplicates",
            channel.id.as_str(),
        )
        .unwrap();
    }
    let stalls = watched.iter().filter_map(|(id, watch)| {
        let filter = &channels.iter().find(|channel| channel.id.as_str() == *id)?.filter;
        let wanted = ledger.confirmed.iter().filter(|(_, decision)| filter.wants(decision));
        let wanted: Vec<_> = wanted.map(|(at, decision)| (*at, &*decision.id)).collect();
        Some((id, watch.longest_stall(&wanted)?))
    });
    match stalls.max_by_key(|(_, stall)| stall.lasted) {
        Some((id, stall)) => {
            let from = stall.from - journal.began();
            writeln!(
                text,
                "longest stall of a channel that never failed: {:.2?} ({id}, from {from:.2?}); meanwhile:",
                stall.lasted
            )
            .unwrap();
            text.push_str(&journal.between(from.saturating_sub(Duration::from_secs(2)), from + stall.lasted));
        }
        None => text.push_str("no channel that never failed ever had to wait\n"),
    }
    text.push_str("in the end:\n");
    text.push_str(&journal.since(journal::HEALED));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folded_delivery_is_found_in_the_log_by_its_decision_and_channel() {
        let line = r#"{"timestamp":"t","level":"DEBUG","message":"folded","channel":"soc","decision":"d-1"}"#;
        assert_eq!(folding(line), Some(("soc".parse().unwrap(), String::from("d-1"))));
        assert_eq!(folding(r#"{"message":"attempt","channel":"soc","decision":"d-1","next":"folded"}"#), None);
        assert_eq!(folding("the word \"folded\" in something else"), None);
    }
}
