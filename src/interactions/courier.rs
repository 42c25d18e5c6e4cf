//! Posting to Slack what is no delivery: changed cards and whispers.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    channels::{Endpoint, Parcel, slack::Slack},
    lane::Post,
    model::{Clock, Reply, Scrubber, Timestamp, Trouble, Verdict},
};

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// Requests under way at once.
const UNDER_WAY_MAX: usize = 32;

/// How often and how long the URL that came with a click may be used. Source: Slack, "Handling user interaction".
pub(super) const USES_MAX: u8 = 5;
pub(super) const USABLE_FOR: Duration = Duration::from_mins(30);

/// Waits between tries where Slack does not say how long.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LONGEST: Duration = Duration::from_mins(5);

/// The longest that Slack may ask us to wait. Source: contract 5.
const ASKED_MAX: Duration = Duration::from_hours(1);

/// What has become of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tried {
    /// Slack has it.
    Done,
    /// Time may mend it.
    Again {
        /// How long Slack asked to wait.
        after: Option<Duration>,
        /// Whether Slack may have counted it.
        used: bool,
        /// What was said.
        why: String,
    },
    /// Slack does not take it in this form.
    Plainer(String),
    /// Somebody has to mend something: a token, a scope.
    Broken(String),
    /// It will never be taken.
    Hopeless(String),
}

/// Posts. Cheap to clone.
#[derive(Clone)]
pub struct Courier {
    post: Arc<dyn Post>,
    scrubber: Scrubber,
    clock: Clock,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Courier {
    /// One that posts by `post` until `stop`.
    pub fn new(post: Arc<dyn Post>, scrubber: Scrubber, clock: Clock, stop: CancellationToken) -> Self {
        Self { post, scrubber, clock, places: Arc::new(Semaphore::new(UNDER_WAY_MAX)), stop }
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// One try, of which `judge` says what the reply means. What it was posted to is a secret that no scrubber knows yet, and what Slack says may quote it.
    pub(super) async fn post(&self, parcel: Parcel, judge: impl Fn(&Reply) -> Verdict) -> Tried {
        let secret = parcel.endpoint.secret();
        // A place may be long in coming, and a stop waits for whoever waits for it. Closed by nobody, so an error is impossible.
        let Some(_place) = self.stop.run_until_cancelled(self.places.acquire()).await else {
            return Tried::Again { after: None, used: false, why: String::from("the worker is stopping") };
        };
        let result = self.post.post(parcel, REQUEST_MAX).await;
        let scrub = |why: &str| Scrubber::new([secret.clone()]).scrub(&self.scrubber.scrub(why));
        let reply = match result {
            Ok(reply) => reply,
            Err(trouble @ Trouble::Egress) => return Tried::Hopeless(trouble.as_str().to_owned()),
            Err(trouble) => {
                let used = matches!(trouble, Trouble::Reset | Trouble::Timeout | Trouble::Other);
                return Tried::Again { after: None, used, why: trouble.as_str().to_owned() };
            }
        };
        match judge(&reply) {
            Verdict::Delivered { .. } => Tried::Done,
            Verdict::TryLater { after, why, .. } => Tried::Again { after, used: true, why: scrub(&why) },
            Verdict::Refused { plain_may_pass: true, why } => Tried::Plainer(scrub(&why)),
            Verdict::Refused { plain_may_pass: false, why }
            | Verdict::RefusedOne { why, .. }
            | Verdict::TooLarge { why }
            | Verdict::Moved { why, .. } => Tried::Hopeless(scrub(&why)),
            Verdict::Broken { why } => Tried::Broken(scrub(&why)),
        }
    }

    /// Posts to the URL that came with a click, again after failures, as long as the URL is good and the worker does not stop.
    /// On failure, why.
    pub(super) async fn insist(
        &self,
        slack: &Slack,
        url: &mut ReplyUrl,
        make: impl Fn(Endpoint, bool) -> Parcel,
    ) -> Result<(), String> {
        let (mut plain, mut tries) = (false, 0);
        loop {
            let parcel = make(url.endpoint.clone(), plain);
            let (after, why) = match self.post(parcel, |reply| slack.judge_replacement(reply)).await {
                Tried::Done => {
                    url.uses = url.uses.saturating_sub(1);
                    return Ok(());
                }
                Tried::Plainer(why) if !plain => {
                    plain = true;
                    url.uses = url.uses.saturating_sub(1);
                    (Some(Duration::ZERO), why)
                }
                Tried::Plainer(why) | Tried::Broken(why) | Tried::Hopeless(why) => return Err(why),
                Tried::Again { after, used, why } => {
                    url.uses = url.uses.saturating_sub(u8::from(used));
                    (after, why)
                }
            };
            tries += 1;
            let wait = wait(after, tries);
            if url.uses == 0 || self.clock.now().plus(wait) >= url.until || self.stop.is_cancelled() {
                return Err(why);
            }
            if self.stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return Err(why);
            }
        }
    }
}

/// The URL that came with a click, and what is left of it.
#[derive(Clone, Debug)]
pub(super) struct ReplyUrl {
    endpoint: Endpoint,
    uses: u8,
    until: Timestamp,
}

impl ReplyUrl {
    /// The URL of a click at `at`.
    pub(super) fn new(url: url::Url, at: Timestamp) -> Self {
        Self { endpoint: Endpoint::new(url), uses: USES_MAX, until: at.plus(USABLE_FOR) }
    }
}

/// How long to wait after so many tries: as long as Slack asked, or else longer each time, with jitter.
pub(super) fn wait(after: Option<Duration>, tries: u32) -> Duration {
    if let Some(after) = after {
        return after.min(ASKED_MAX);
    }
    let wait = AGAIN_FIRST.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(AGAIN_LONGEST);
    wait.mul_f64(fastrand::f64().mul_add(0.5, 0.75))
}
