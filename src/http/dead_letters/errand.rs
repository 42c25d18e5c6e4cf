//! An errand: a replay or a purge, which may be of one letter or of a million.
//!
//! It is a task of its own, in batches, so that the general time limit of requests does not cut it and a caller that goes away
//! never ends it in the middle of a batch: it stops after that, and what was confirmed is out of the store. What it holds is the
//! ids (16 bytes a letter) and one batch. Replayed letters go to the queues of their lanes, where the lane's own pace holds.
//!
//! Who accepts `application/x-ndjson` gets a line of progress each second and the summary last. Everybody else gets the summary
//! alone; while that is long in coming, line breaks, which JSON allows, show that the connection lives.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json,
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use uuid::Uuid;

use super::{ApiError, Caller, Inside, Order, trouble};
use crate::{
    dead_letters::{Burial, DeadLetterError, LetterId, Replay, ReplayReport, replay::BATCH_LETTERS},
    http::guard::audit,
    model::ChannelId,
    workers::letters::Doing,
};

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How long the summary alone is waited for before the answer begins, so that an errand that fails at once has a status of its
/// own; and how often a line break is sent from then on.
const SUMMARY_MAX: Duration = Duration::from_secs(15);
const BREAK_EVERY: Duration = Duration::from_secs(15);
/// Letters that are deleted together.
const PURGE_BATCH: usize = 1_024;

/// What is said of an errand that did not come to its end.
const LOST: &str = "ended unexpectedly";

const NDJSON: &str = "application/x-ndjson";

/// What is done to letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Deed {
    Replay,
    Purge,
}

impl Deed {
    /// Its word in paths.
    pub(in crate::http) const fn as_str(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Purge => "purge",
        }
    }

    /// Its name in audit lines.
    pub(in crate::http) const fn audited(self) -> &'static str {
        match self {
            Self::Replay => "replay_dead_letters",
            Self::Purge => "purge_dead_letters",
        }
    }
}

/// One errand. Its place is free again when it is done.
pub(super) struct Errand {
    pub(super) inside: Inside,
    pub(super) deed: Deed,
    pub(super) order: Order,
    pub(super) caller: Caller,
    pub(super) worker: Uuid,
    /// Where those who look see how far it is.
    pub(super) doing: Arc<watch::Sender<Option<Doing>>>,
    pub(super) _place: OwnedSemaphorePermit,
}

/// An errand that is under way.
pub(in crate::http) struct Begun {
    task: JoinHandle<Outcome>,
    progress: watch::Receiver<Progress>,
    /// Goes with whoever waits for it: when nobody does any more, the errand is told to stop.
    caller_is_there: DropGuard,
}

/// How far it is. `of` is there when the letters have been found.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Progress {
    of: Option<u64>,
    seen: u64,
    done: u64,
}

/// What it did.
#[derive(Debug, Serialize)]
struct Summary {
    worker: Uuid,
    dry_run: bool,
    /// How many letters were meant.
    selected: u64,
    #[serde(flatten)]
    report: Report,
    /// Why it stopped before its end.
    stopped: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Report {
    Replay(ReplayReport),
    Purge { purged: u64 },
}

/// What it did, and what ended it before its end.
struct Outcome {
    summary: Summary,
    trouble: Option<DeadLetterError>,
}

/// Whether the caller wants progress.
pub(super) fn wants_lines(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|kind| kind.split(';').next().unwrap_or(kind).trim() == NDJSON)
}

impl Begun {
    /// Answers as it goes.
    pub(super) async fn answer(self, by_lines: bool) -> Response {
        let Self { mut task, progress, caller_is_there } = self;
        if by_lines {
            let following = Following::new(task, Some(progress), PROGRESS_EVERY, caller_is_there);
            return ([(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON))], following.into_body()).into_response();
        }
        match tokio::time::timeout(SUMMARY_MAX, &mut task).await {
            Ok(Ok(Outcome { summary, trouble: None })) => Json(summary).into_response(),
            Ok(Ok(Outcome { trouble: Some(error), .. })) => trouble(&error).into_response(),
            Ok(Err(_)) => lost().into_response(),
            Err(_) => {
                let following = Following::new(task, None, BREAK_EVERY, caller_is_there);
                let json = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, json)], following.into_body()).into_response()
            }
        }
    }

    /// Waits for its end: the last line of an answer by lines.
    pub(in crate::http) async fn end(self) -> serde_json::Value {
        let Self { task, caller_is_there: _there, .. } = self;
        last(task.await)
    }
}

/// What the last line of an answer says.
fn last(outcome: Result<Outcome, tokio::task::JoinError>) -> serde_json::Value {
    match outcome {
        Ok(Outcome { summary, trouble: None }) => serde_json::json!({"summary": summary}),
        Ok(Outcome { summary, trouble: Some(error) }) => {
            serde_json::json!({"summary": summary, "error": trouble(&error).as_json()})
        }
        Err(_) => serde_json::json!({"error": lost().as_json()}),
    }
}

fn lost() -> ApiError {
    ApiError {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        code: "failed",
        message: format!("it has {LOST}"),
        hint: "look at the worker's log, and ask for the dead letters that are left",
    }
}

/// An answer that goes along with its errand.
struct Following {
    /// Gone when its outcome was told.
    task: Option<JoinHandle<Outcome>>,
    /// Where lines are wanted.
    progress: Option<watch::Receiver<Progress>>,
    ticks: Interval,
    _caller_is_there: DropGuard,
}

impl Following {
    fn new(
        task: JoinHandle<Outcome>,
        progress: Option<watch::Receiver<Progress>>,
        every: Duration,
        caller_is_there: DropGuard,
    ) -> Self {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { task: Some(task), progress, ticks, _caller_is_there: caller_is_there }
    }

    fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, |mut following| async {
            let part = following.next().await?;
            Some((Ok::<Bytes, Infallible>(part), following))
        }))
    }

    async fn next(&mut self) -> Option<Bytes> {
        let task = self.task.as_mut()?;
        let outcome = tokio::select! {
            biased;
            outcome = task => outcome,
            _ = self.ticks.tick() => {
                let now = self.progress.as_ref().map(|progress| *progress.borrow());
                return Some(now.map_or_else(|| Bytes::from_static(b"\n"), |now| line(&serde_json::json!({"progress": now}))));
            }
        };
        self.task = None;
        let last = match outcome {
            Ok(Outcome { summary, trouble: None }) if self.progress.is_none() => serde_json::json!(summary),
            other => last(other),
        };
        Some(line(&last))
    }
}

fn line(value: &serde_json::Value) -> Bytes {
    format!("{value}\n").into()
}

impl Errand {
    pub(super) fn begin(self, tasks: &TaskTracker) -> Begun {
        let stop = self.inside.draining.child_token();
        let (told, progress) = watch::channel(Progress::default());
        let caller_is_there = stop.clone().drop_guard();
        self.show();
        Begun { task: tasks.spawn(self.run(told, stop)), progress, caller_is_there }
    }

    /// Lets others see it, unless it changes nothing.
    fn show(&self) {
        if self.order.dry_run {
            return;
        }
        self.doing.send_replace(Some(Doing {
            what: self.deed.as_str().to_owned(),
            by: self.caller.name.clone(),
            order: self.order.words.clone(),
            begun: self.inside.clock.now(),
            of: None,
            seen: 0,
            done: 0,
            ended: None,
            outcome: None,
        }));
    }

    /// Tells how far it is, to who waits for it and to who looks.
    fn tell(&self, told: &watch::Sender<Progress>, now: Progress) {
        told.send_replace(now);
        self.see(|doing| (doing.of, doing.seen, doing.done) = (now.of, now.seen, now.done));
    }

    fn see(&self, change: impl FnOnce(&mut Doing)) {
        if !self.order.dry_run {
            self.doing.send_modify(|doing| {
                if let Some(doing) = doing {
                    change(doing);
                }
            });
        }
    }

    async fn run(self, told: watch::Sender<Progress>, stop: CancellationToken) -> Outcome {
        let what = self.deed.audited();
        if !self.order.dry_run {
            audit(&self.caller, what, &self.order.words, "begun");
        }
        let mut summary = Summary {
            worker: self.worker,
            dry_run: self.order.dry_run,
            selected: 0,
            report: match self.deed {
                Deed::Replay => Report::Replay(ReplayReport::default()),
                Deed::Purge => Report::Purge { purged: 0 },
            },
            stopped: None,
        };
        let trouble = self.carry_out(&mut summary, &told, &stop).await.err();
        let outcome = in_words(&summary, trouble.as_ref());
        if !self.order.dry_run {
            audit(&self.caller, what, &self.order.words, &outcome);
        }
        let now = self.inside.clock.now();
        self.see(|doing| (doing.ended, doing.outcome) = (Some(now), Some(outcome)));
        Outcome { summary, trouble }
    }

    async fn carry_out(
        &self,
        summary: &mut Summary,
        told: &watch::Sender<Progress>,
        stop: &CancellationToken,
    ) -> Result<(), DeadLetterError> {
        let meant = self.inside.store.select_seen(&self.order.filter).await?;
        summary.selected = meant.len() as u64;
        self.tell(told, Progress { of: Some(summary.selected), ..Progress::default() });
        match &mut summary.report {
            Report::Replay(report) => {
                let ids: Vec<LetterId> = meant.into_iter().map(|(id, _)| id).collect();
                summary.stopped = self.replay(&ids, report, told, stop).await?;
            }
            Report::Purge { purged } if self.order.dry_run => *purged = summary.selected,
            Report::Purge { purged } => summary.stopped = self.purge(&meant, purged, told, stop).await?,
        }
        Ok(())
    }

    async fn replay(
        &self,
        ids: &[LetterId],
        last: &mut ReplayReport,
        told: &watch::Sender<Progress>,
        stop: &CancellationToken,
    ) -> Result<Option<&'static str>, DeadLetterError> {
        let Inside { store, broker, metrics, deliveries, clock, .. } = &self.inside;
        let shown = self.inside.channels.borrow().clone();
        let known: HashSet<&ChannelId> = shown.iter().map(|channel| &channel.id).collect();
        let mut counted: BTreeMap<Option<ChannelId>, u64> = BTreeMap::new();
        let mut stopped = None;
        let go_on = |report: &ReplayReport| {
            for (channel, count) in report.by_channel.iter().filter(|_| !self.order.dry_run) {
                let before = counted.insert(channel.clone(), *count).unwrap_or(0);
                metrics.sent_again(channel.as_ref(), count - before);
            }
            let refused = report.failed - last.failed >= BATCH_LETTERS as u64 && report.replayed == last.replayed;
            last.clone_from(report);
            self.tell(told, Progress { of: Some(ids.len() as u64), seen: report.seen(), done: report.replayed });
            // What is done is done, however it ends.
            if report.seen() < ids.len() as u64 {
                stopped = self.told_to_stop(stop).or(refused.then_some("nothing of a whole batch could be replayed"));
            }
            stopped.is_none()
        };
        let known = |channel: &ChannelId| known.contains(channel);
        let broker = broker.as_ref();
        let (up_to, dry_run) = (self.order.filter.up_to, self.order.dry_run);
        let replay = Replay { store, up_to, broker, known: &known, deliveries, clock: *clock, dry_run };
        let report = replay.run_while(ids, go_on).await?;
        *last = report;
        Ok(stopped)
    }

    /// Deletes what was found, and nothing that has died again since.
    async fn purge(
        &self,
        meant: &[(LetterId, Burial)],
        purged: &mut u64,
        told: &watch::Sender<Progress>,
        stop: &CancellationToken,
    ) -> Result<Option<&'static str>, DeadLetterError> {
        let (of, mut seen) = (Some(meant.len() as u64), 0);
        for letters in meant.chunks(PURGE_BATCH) {
            if let Some(why) = self.told_to_stop(stop) {
                return Ok(Some(why));
            }
            *purged += self.inside.store.remove_seen(letters.to_vec()).await? as u64;
            seen += letters.len() as u64;
            self.tell(told, Progress { of, seen, done: *purged });
        }
        Ok(None)
    }

    fn told_to_stop(&self, stop: &CancellationToken) -> Option<&'static str> {
        if self.inside.draining.is_cancelled() {
            return Some("the worker stops");
        }
        stop.is_cancelled().then_some("the caller has gone")
    }
}

impl Drop for Errand {
    /// Of one that panicked, or was cut off, nobody is to believe that it is under way.
    fn drop(&mut self) {
        let (now, mut lost) = (self.inside.clock.now(), false);
        self.see(|doing| {
            lost = doing.ended.is_none();
            if lost {
                (doing.ended, doing.outcome) = (Some(now), Some(LOST.to_owned()));
            }
        });
        if lost {
            audit(&self.caller, self.deed.audited(), &self.order.words, LOST);
        }
    }
}

/// What was done in one line.
fn in_words(summary: &Summary, trouble: Option<&DeadLetterError>) -> String {
    let done = match &summary.report {
        Report::Replay(report) => replayed(report, summary.selected),
        Report::Purge { purged: count } => purged(*count, summary.selected),
    };
    let ended = trouble.map(ToString::to_string).or(summary.stopped.map(str::to_owned));
    done + &ended.map_or_else(String::new, |why| format!("; ended early: {why}"))
}

/// What was replayed of so many letters.
pub(in crate::http) fn replayed(report: &ReplayReport, selected: u64) -> String {
    let ReplayReport { replayed, skipped_expired, skipped_no_channel, failed, gone, .. } = report;
    let others = [
        (skipped_expired, "skipped whose approval has expired"),
        (skipped_no_channel, "skipped without a channel"),
        (failed, "failed"),
        (gone, "gone meanwhile"),
    ];
    let others = others.into_iter().filter(|(count, _)| **count > 0).map(|(count, what)| format!("; {count} {what}"));
    format!("replayed {replayed} of {selected}{}", others.collect::<String>())
}

/// What was purged of so many letters.
pub(in crate::http) fn purged(count: u64, selected: u64) -> String {
    format!("purged {count} of {selected}")
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::http::tests::House;

    /// What an answer says whose errand takes three quarters of a minute and then ends so.
    async fn told(trouble: Option<DeadLetterError>) -> Bytes {
        let report = Report::Purge { purged: 7 };
        let summary = Summary { worker: Uuid::nil(), dry_run: false, selected: 9, report, stopped: None };
        let task = TaskTracker::new().spawn(async move {
            tokio::time::sleep(BREAK_EVERY * 3).await;
            Outcome { summary, trouble }
        });
        let caller_is_there = CancellationToken::new().drop_guard();
        let body = Following::new(task, None, BREAK_EVERY, caller_is_there).into_body();
        axum::body::to_bytes(body, 10_000).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_summary_that_is_long_in_coming_has_nothing_but_line_breaks_before_it() {
        let bytes = told(None).await;
        assert!(bytes.starts_with(b"\n\n"), "{bytes:?}");
        let told: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&told["purged"], &told["selected"]), (&7.into(), &9.into()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_errand_that_fails_in_the_middle_says_why_and_what_it_had_done() {
        let told: serde_json::Value = serde_json::from_slice(&told(Some(DeadLetterError::Closed)).await).unwrap();
        assert_eq!((&told["error"]["code"], &told["summary"]["purged"]), (&"store_unavailable".into(), &7.into()));
    }

    #[tokio::test]
    async fn an_errand_that_is_cut_off_is_not_shown_as_one_under_way() {
        let house = House::open().await;
        let (tasks, doing) = (TaskTracker::new(), Arc::new(watch::Sender::new(None)));
        let errand = Errand {
            inside: house.inside.clone(),
            deed: Deed::Replay,
            order: Order::of(b"{}", Deed::Replay).unwrap(),
            caller: super::super::tests::caller(),
            worker: Uuid::nil(),
            doing: Arc::clone(&doing),
            _place: Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap(),
        };
        let begun = errand.begin(&tasks);
        assert!(doing.borrow().as_ref().is_some_and(|doing| doing.ended.is_none()), "it is shown from its beginning");
        begun.task.abort();
        assert!(begun.end().await["error"]["message"].as_str().is_some_and(|message| message.contains(LOST)));
        let doing = doing.borrow().clone().unwrap();
        assert!(doing.ended.is_some() && doing.outcome.as_deref() == Some(LOST), "{doing:?}");
    }
}
