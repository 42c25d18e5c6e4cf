//! Reading a log whose records have times, at a broker that notes what it is asked for.

use std::num::NonZeroU16;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::{
    record::{HEAD, TAIL, put_again, put_ended, put_routed},
    *,
};
use crate::{
    broker::{Arrivals, BrokerError, Destination, End, Health, Log, Message, PublishError, Queue, Record, Start},
    model::Clock,
};

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;

/// How long ago something was, in seconds.
type Ago = i64;

/// A broker with the one log.
#[derive(Debug)]
struct Paper {
    now: Timestamp,
    records: Mutex<Vec<(Timestamp, Vec<u8>)>>,
    /// Reading from before this time gives nothing.
    slow_before: Timestamp,
    lacks: bool,
    refuses: bool,
    /// What was read.
    reads: Mutex<Vec<(Ago, End)>>,
    /// Those that are not over.
    open: Mutex<Vec<mpsc::Sender<Result<Record, BrokerError>>>>,
}

impl Paper {
    fn new() -> Self {
        Self {
            // Records have whole milliseconds.
            now: Timestamp::from_unix_millis(Clock::System.now().unix_millis()),
            records: Mutex::default(),
            slow_before: Timestamp::UNIX_EPOCH,
            lacks: false,
            refuses: false,
            reads: Mutex::default(),
            open: Mutex::default(),
        }
    }

    fn ago(&self, ago: Ago) -> Timestamp {
        self.now.minus(Duration::from_secs(ago.unsigned_abs()))
    }

    fn append(&self, ago: Ago, put: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = HEAD.to_vec();
        put(&mut bytes);
        bytes.extend_from_slice(TAIL);
        let mut records = self.records.lock().unwrap();
        let time = self.ago(ago);
        assert!(records.last().is_none_or(|(last, _)| *last <= time), "a log is appended to");
        records.push((time, bytes));
    }

    fn routed(&self, ago: Ago, decision: &str) {
        self.append(ago, |out| put_routed(out, decision, self.ago(ago), [&soc()].into_iter()));
    }

    fn ended(&self, ago: Ago, decision: &str, ending: Ending) {
        let reason = (ending == Ending::Dead).then_some(DeathReason::Refused);
        let ended = Ended { ending, at: self.ago(ago), tries: 1, reason };
        self.append(ago, |out| put_ended(out, decision, &soc(), ended));
    }

    /// One that is told of within two seconds.
    fn delivered(&self, ago: Ago, decision: &str) {
        self.routed(ago - 1, decision);
        self.ended(ago - 2, decision, Ending::Delivered);
    }

    /// What became of decisions so long ago, and what was read for it.
    async fn accounts(self, wanted: &[(&str, Ago)]) -> (Accounts, Vec<(Ago, End)>) {
        let wanted: Vec<_> = wanted.iter().map(|(id, ago)| (*id, self.ago(*ago))).collect();
        let paper = Arc::new(self);
        let reader = Reader::new(Arc::clone(&paper) as Arc<dyn Broker>, Clock::System, true);
        let accounts = reader.accounts(&wanted).await;
        let reads = paper.reads.lock().unwrap().clone();
        (accounts, reads)
    }
}

fn now_so<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl Broker for Paper {
    fn publish(&self, message: Message) -> BoxFuture<'static, Result<(), PublishError>> {
        assert_eq!(message.to, Destination::Log(Log::Deliveries));
        assert!(!self.lacks, "there is no log to write to");
        self.records.lock().unwrap().push((self.now, message.body.to_vec()));
        now_so(Ok(()))
    }

    fn read(&self, _: Log, start: Start, end: End) -> mpsc::Receiver<Result<Record, BrokerError>> {
        let Start::At(since) = start else { panic!("{start:?}") };
        let ago = i64::try_from(self.now.since(since).as_secs()).unwrap();
        self.reads.lock().unwrap().push((ago, end));
        let records = self.records.lock().unwrap();
        let (given, taken) = mpsc::channel(records.len() + 1);
        if self.refuses {
            given.try_send(Err(BrokerError { what: String::from("no"), hint: "", source: None })).unwrap();
        } else if since >= self.slow_before {
            for (offset, (time, body)) in (0..).zip(&*records) {
                if *time >= since && end != End::Before(offset) {
                    given.try_send(Ok(Record { offset, body: body.clone().into() })).unwrap();
                } else if end == End::Before(offset) {
                    return taken;
                }
            }
        }
        self.open.lock().unwrap().push(given);
        taken
    }

    fn lacks(&self, log: Log) -> bool {
        self.lacks && log == Log::Deliveries
    }

    fn consume(&self, _: Queue, _: NonZeroU16) -> Arrivals {
        Arrivals::nothing()
    }

    fn ensure_lanes(&self, _: Vec<ChannelId>) -> BoxFuture<'static, Result<(), BrokerError>> {
        now_so(Ok(()))
    }

    fn remove_lane(&self, _: ChannelId) -> BoxFuture<'static, Result<u64, BrokerError>> {
        now_so(Ok(0))
    }

    fn waiting(&self, _: Queue) -> BoxFuture<'static, Result<u64, BrokerError>> {
        now_so(Ok(0))
    }

    fn ready(&self, _: Duration) -> BoxFuture<'static, Result<(), BrokerError>> {
        now_so(Ok(()))
    }

    fn unsettled(&self) -> u64 {
        0
    }

    fn health(&self) -> watch::Receiver<Health> {
        watch::channel(Health { connected: true, reconnects: 0 }).1
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        now_so(())
    }
}

fn soc() -> ChannelId {
    "soc".parse().unwrap()
}

/// How the one delivery of a decision stands, and whether that is all.
fn became(accounts: &Accounts, decision: &str) -> (Option<&'static str>, bool) {
    let account = accounts.of(decision).unwrap();
    let word = account.channels().next().map(|(_, became)| match became {
        Became::Ended(ended) => ended.ending.as_str(),
        Became::Waiting(_) => "waiting",
    });
    (word, account.complete)
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_in_time_of_an_old_decision_costs_the_newer_ones_nothing() {
    // Goal: a page of decisions over days, or with one that says it is of 1970, tells of as many as it can, the newest first.
    let mut paper = Paper::new();
    paper.slow_before = paper.ago(2 * DAY);
    paper.delivered(3 * DAY, "old");
    paper.delivered(DAY, "yesterday");
    paper.routed(MINUTE, "new");
    let epoch = i64::try_from(paper.now.since(Timestamp::UNIX_EPOCH).as_secs()).unwrap();
    let wanted = [("of 1970", epoch), ("new", MINUTE), ("old", 3 * DAY), ("yesterday", DAY)];
    let (accounts, reads) = paper.accounts(&wanted).await;
    assert_eq!(became(&accounts, "new"), (Some("waiting"), true));
    assert_eq!(became(&accounts, "yesterday"), (Some("delivered"), true));
    assert_eq!(became(&accounts, "old"), (None, false));
    assert_eq!(became(&accounts, "of 1970"), (None, false));
    assert_eq!(reads.len(), 3, "the time was up: {reads:?}");
}

#[tokio::test]
async fn each_group_is_read_of_until_it_is_settled_and_decisions_of_one_time_at_once() {
    let paper = Paper::new();
    let wanted = [("a", DAY), ("b", DAY - 5 * MINUTE), ("c", MINUTE), ("d", MINUTE - 1)];
    for (decision, ago) in wanted {
        paper.delivered(ago + 4, decision);
    }
    let (accounts, reads) = paper.accounts(&wanted).await;
    for (decision, _) in wanted {
        assert_eq!(became(&accounts, decision), (Some("delivered"), true), "{decision}");
    }
    assert_eq!(reads, [(MINUTE + 20, End::Follow), (DAY + 20, End::Follow)]);
}

#[tokio::test]
async fn what_was_read_up_to_the_end_is_not_read_again_and_counts_for_the_older_ones() {
    // Method: both are dead, so that the log must be read to its end; the older one was delivered at the second time of asking,
    // long after its own time.
    let paper = Paper::new();
    paper.routed(DAY, "older");
    paper.ended(DAY - 1, "older", Ending::Dead);
    paper.delivered(DAY / 2, "somebody else's");
    paper.routed(MINUTE, "newer");
    paper.ended(MINUTE - 1, "newer", Ending::Dead);
    paper.append(30, |out| put_again(out, "older", &soc(), paper.ago(30)));
    paper.ended(29, "older", Ending::Delivered);
    let (accounts, reads) = paper.accounts(&[("older", DAY), ("newer", MINUTE)]).await;
    assert_eq!(became(&accounts, "newer"), (Some("dead"), true));
    assert_eq!(became(&accounts, "older"), (Some("delivered"), true));
    // The newer one's first record is the fifth.
    assert_eq!(reads, [(MINUTE + 20, End::Follow), (DAY + 20, End::Before(4))]);
}

#[tokio::test]
async fn what_is_not_found_is_looked_for_once_more_from_earlier_on_without_reading_anything_twice() {
    let paper = Paper::new();
    paper.delivered(40 * MINUTE, "before");
    paper.delivered(10 * MINUTE, "of a fast clock");
    paper.delivered(5 * MINUTE, "somebody else's");
    let wanted = [("of a fast clock", 6 * MINUTE), ("lost", 6 * MINUTE), ("lost too", 17 * MINUTE)];
    let (accounts, reads) = paper.accounts(&wanted).await;
    assert_eq!(became(&accounts, "of a fast clock"), (Some("delivered"), true));
    assert_eq!((became(&accounts, "lost"), became(&accounts, "lost too")), ((None, true), (None, true)));
    // The fifth record is the first of those of the last six minutes, and the third of the last twenty-one.
    let ahead = 15 * MINUTE;
    let expected =
        [(6 * MINUTE + 20, End::Follow), (6 * MINUTE + ahead, End::Before(4)), (17 * MINUTE + ahead, End::Before(2))];
    assert_eq!(reads, expected);
}

#[tokio::test]
async fn the_first_delivery_of_a_decision_that_came_twice_counts_also_where_the_second_is_read_first() {
    // Method: what waits makes the reading go on to the end, past all that came again.
    let paper = Paper::new();
    let first = paper.ago(DAY / 2 - 1);
    paper.delivered(DAY / 2, "twice");
    paper.routed(MINUTE, "new");
    paper.delivered(30, "twice");
    paper.delivered(20, "of 1970");
    let epoch = i64::try_from(paper.now.since(Timestamp::UNIX_EPOCH).as_secs()).unwrap();
    let (accounts, reads) = paper.accounts(&[("twice", DAY / 2), ("new", MINUTE), ("of 1970", epoch)]).await;
    assert_eq!(accounts.of("twice").unwrap().routed_at, Some(first));
    let told: Vec<i64> = accounts
        .of("twice")
        .unwrap()
        .channels()
        .map(|(_, became)| match became {
            Became::Ended(ended) => ended.at.unix_millis(),
            Became::Waiting(_) => 0,
        })
        .collect();
    assert_eq!(told, [first.plus(Duration::from_secs(1)).unix_millis()]);
    for (decision, word) in [("twice", "delivered"), ("new", "waiting"), ("of 1970", "delivered")] {
        assert_eq!(became(&accounts, decision), (Some(word), true), "{decision}");
    }
    // Of what says that it is of 1970, everything was found on the way.
    assert_eq!(reads, [(MINUTE + 20, End::Follow), (DAY / 2 + 20, End::Before(2))]);
}

#[tokio::test]
async fn of_a_decision_from_the_future_nobody_knows_when_it_came_and_so_not_that_it_did_not() {
    let paper = Paper::new();
    paper.delivered(DAY, "d");
    let reader = Reader::new(Arc::new(paper), Clock::System, true);
    let year_2199 = Timestamp::from_unix_millis(7_226_582_400_000);
    assert_eq!(became(&reader.accounts(&[("d", year_2199)]).await, "d"), (None, false));
}

#[tokio::test]
async fn nothing_is_asked_of_a_broker_that_lacks_the_log_and_nothing_is_known() {
    let paper = Paper { lacks: true, ..Paper::new() };
    let (accounts, reads) = paper.accounts(&[("d", MINUTE)]).await;
    assert_eq!((became(&accounts, "d"), &reads[..]), ((None, false), &[][..]));
}

#[tokio::test]
async fn of_a_log_that_cannot_be_read_nothing_is_known() {
    let paper = Paper { refuses: true, ..Paper::new() };
    let (accounts, reads) = paper.accounts(&[("d", MINUTE), ("older", DAY)]).await;
    assert_eq!((became(&accounts, "d"), became(&accounts, "older")), ((None, false), (None, false)));
    assert_eq!(reads.len(), 1, "the other one would fail too: {reads:?}");
}

#[tokio::test(start_paused = true)]
async fn trouble_that_lasts_is_told_of_every_ten_minutes() {
    let mut seldom = Seldom::default();
    let mut told = 0;
    for _ in 0..25 * 60 {
        told += u32::from(seldom.is_due());
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(told, 3);
}
