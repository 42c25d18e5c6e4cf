//! Storms: what is folded, what never is, and what a digest that fails leads to. Urgent deliveries, too.

use super::*;

fn folding(over: u32) -> LanePlan {
    let pace = vec![Rate { count: 1, per: secs(1), burst: 1 }];
    LanePlan { digest: NonZeroU32::new(over), pace, ..plan(Plainly { batch: None }) }
}

impl Bench {
    fn decided(&self, id: &str, kind: &str, severity: &str) -> Delivery {
        let json = serde_json::json!({
            "id": id, "time": "2026-06-01T12:00:00Z", "decision": kind, "severity": severity,
            "agent": {"id": "a"}, "tool": "t",
        });
        let decision = Decision::decode(Bytes::from(json.to_string())).unwrap();
        Delivery::new(Arc::new(decision), self.handle.id.clone(), self.clock.now())
    }

    fn storm(&self, ids: std::ops::Range<u32>) {
        for id in ids {
            self.put_in_queue(&self.decided(&id.to_string(), "DENY", "HIGH"), false);
        }
    }

    fn folded(&self) -> u64 {
        self.handle.metrics.endings(Ending::Folded)
    }
}

fn bodies(posts: &[(Duration, String)]) -> Vec<&str> {
    posts.iter().map(|(_, body)| body.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_told_in_one_digest_and_what_was_folded_is_settled() {
    let bench = Bench::with(ScriptedPost::new([]), folding(20));
    bench.storm(0..500);
    assert_eq!(bodies(&bench.posts(1).await), ["digest of 500"]);
    assert_eq!((bench.folded(), bench.delivered(), bench.settled()), (500, 0, 500));
}

#[tokio::test(start_paused = true)]
async fn as_many_as_the_operator_permits_are_told_one_by_one() {
    let bench = Bench::with(ScriptedPost::new([]), folding(20));
    bench.storm(0..20);
    let posts = bench.posts(20).await;
    assert!(bodies(&posts).iter().all(|body| !body.starts_with("digest")), "{posts:?}");
    assert_eq!((bench.folded(), bench.delivered()), (0, 20));
}

#[tokio::test(start_paused = true)]
async fn what_is_critical_is_told_by_itself_and_takes_turns_with_digests() {
    let bench = Bench::with(ScriptedPost::new([]), folding(2));
    for id in 0..3 {
        bench.put_in_queue(&bench.decided(&format!("c{id}"), "DENY", "CRITICAL"), false);
    }
    bench.storm(0..10);
    let posts = bench.posts(4).await;
    assert_eq!(bodies(&posts), ["digest of 10", "c0", "c1", "c2"]);
    assert_eq!((bench.folded(), bench.delivered(), bench.settled()), (10, 3, 13));
}

#[tokio::test(start_paused = true)]
async fn an_approval_overtakes_everything_that_waits_and_is_never_folded() {
    let bench = Bench::with(ScriptedPost::new([]), folding(100));
    bench.storm(0..50);
    bench.posts(1).await;
    bench.put_in_queue(&bench.delivery("approval"), false);
    let posts = bench.posts(3).await;
    assert_eq!(bodies(&posts), ["0", "approval", "1"]);
    bench.storm(50..400);
    for id in ["approval-2", "approval-3"] {
        bench.put_in_queue(&bench.delivery(id), false);
    }
    let posts = bench.posts(6).await;
    assert_eq!(bodies(&posts)[3..], ["approval-2", "approval-3", "digest of 398"]);
}

#[tokio::test(start_paused = true)]
async fn a_digest_that_is_refused_twice_unfolds_and_everything_is_told_by_itself() {
    let bench = Bench::with(ScriptedPost::new([status(400), status(400)]), folding(2));
    bench.storm(0..3);
    let posts = bench.posts(5).await;
    assert_eq!(bodies(&posts), ["digest of 3", "plain:digest of 3", "0", "1", "2"]);
    assert_eq!((bench.folded(), bench.delivered(), bench.settled()), (0, 3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_digest_that_meets_trouble_costs_no_attempts_and_tells_later_what_came_meanwhile_too() {
    let attempts = NonZeroU32::new(2).unwrap();
    let numbers = crate::model::retry_plan::RetryNumbers { attempts: attempts.get(), ..Default::default() };
    let plan = LanePlan { retry: RetryPlan::try_from(numbers).unwrap(), ..folding(2) };
    let post = ScriptedPost::new([status(500), status(429), status(500)]);
    let mut bench = Bench::with(post, plan);
    bench.storm(0..3);
    bench.posts(2).await;
    bench.storm(3..10);
    // After the 429 a single probe finds out, and only that one is an attempt of somebody.
    let posts = bench.posts(3).await;
    assert_eq!(bodies(&posts)[..2], ["digest of 3", "digest of 3"]);
    assert!(!bodies(&posts)[2].starts_with("digest"), "{posts:?}");
    let parked = bench.parked().await;
    assert_eq!(parked.attempts, 1);
    bench.put_in_queue(&parked, false);
    let posts = bench.posts(5).await;
    assert!(bodies(&posts)[4].starts_with("digest of"), "{posts:?}");
    while bench.settled() < 11 {
        tokio::time::sleep(secs(1)).await;
    }
    assert_eq!(bench.folded() + bench.delivered(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_digest_that_cannot_be_rendered_is_told_one_by_one() {
    let bench = Bench::with(ScriptedPost::new([]), folding(2));
    for id in ["x", "no-digest", "y"] {
        bench.put_in_queue(&bench.decided(id, "DENY", "HIGH"), false);
    }
    let posts = bench.posts(3).await;
    assert_eq!(bodies(&posts), ["x", "no-digest", "y"]);
}
