//! The reception: takes a request of Slack's, and says within a second or so how it is to be answered.
//!
//! What a click comes to may take longer: the broker may be away. Slack wants to hear within three seconds, so the click goes on
//! as a task that a stop of the worker waits for. One that could not even be recorded within a second is not lost in silence: if
//! Slack still waits it gets an error and shows a warning at the button, else the one who clicked is told.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::{
    Answerable,
    courier::{Courier, ReplyUrl},
    ended, given,
    payload::{self, Press},
    signature::Signature,
};
use crate::{
    approvals::{AnswerError, Answered, Approvals, Click, Outcome, Via, in_words},
    channels::{
        button::{self, ButtonClaim, Name},
        slack::{Slack, Whisper},
    },
    model::{ChannelId, Secret},
};

/// How long Slack is kept waiting for a click to be recorded. It gives up after three seconds.
const RECORDED_MAX: Duration = Duration::from_secs(1);

/// Clicks that may be under way at once.
const UNDER_WAY_MAX: usize = 1_024;

/// Clicks whose answer to the one who clicked may be under way at once. Slack may take none for half an hour, and clicks that
/// answer something must not wait for that.
const WHISPERS_MAX: usize = 1_024;

/// Bad signatures are told of at most this often: whoever can reach the port can make them.
const FORGED_EVERY: Duration = Duration::from_mins(1);

/// A card that a bot posted is changed when its approval ends, and one in the winner's channel by the winner's click. When somebody
/// clicks on it so much later, it is another card of the same approval, or that has failed.
const STALE_AFTER: Duration = Duration::from_mins(2);

/// How many cards are remembered as made anew for a late click, each for [`STALE_AFTER`].
const REPLACED_MAX: usize = 4_096;

/// How a request is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// With a 200: it was taken, or is nothing to us.
    Heard,
    /// With a 401: nobody we know has signed it.
    Forged,
    /// With a 503: it could not be taken now.
    Busy,
}

/// Takes clicks. Cheap to clone.
#[derive(Clone)]
pub struct Reception(Arc<Inner>);

struct Inner {
    approvals: Approvals,
    board: watch::Receiver<Arc<Answerable>>,
    courier: Courier,
    /// Where it is told that the cards of an approval are to be made anew at once.
    renew: mpsc::Sender<Name>,
    tasks: TaskTracker,
    places: Arc<Semaphore>,
    whispers: Arc<Semaphore>,
    forged: Mutex<Forged>,
    replaced: Mutex<VecDeque<(Name, ChannelId, Instant)>>,
}

/// Bad signatures since they were last told of.
#[derive(Default)]
struct Forged {
    told: Option<Instant>,
    since: u64,
}

/// What a button's value turned out to be.
enum Recognised<'b> {
    /// A claim on a card of this channel.
    Ours(&'b ChannelId, &'b Slack, ButtonClaim),
    /// A claim of ours for a channel that is not configured any more; this one belongs to the same app.
    Orphan(&'b ChannelId),
    /// None of ours.
    Stranger,
}

impl Reception {
    /// A reception for clicks on the cards of the channels on `board`. Clicks under way are tasks of `tasks`; that the cards of an
    /// approval are to be made anew is told to `renew`.
    pub fn new(
        approvals: Approvals,
        board: watch::Receiver<Arc<Answerable>>,
        courier: Courier,
        renew: mpsc::Sender<Name>,
        tasks: TaskTracker,
    ) -> Self {
        let [places, whispers] = [UNDER_WAY_MAX, WHISPERS_MAX].map(|most| Arc::new(Semaphore::new(most)));
        let (forged, replaced) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { approvals, board, courier, renew, tasks, places, whispers, forged, replaced }))
    }

    /// A reception that knows no channel, for tests of what stands around it.
    #[cfg(test)]
    pub(crate) fn idle(approvals: Approvals) -> Self {
        tests::idle(approvals)
    }

    /// Takes a request that came from `from`.
    pub async fn take(&self, headers: &HeaderMap, body: &[u8], from: IpAddr) -> Taken {
        let inner = &self.0;
        let board = Arc::clone(&inner.board.borrow());
        let now = inner.courier.clock().now();
        let signed_by: Vec<&Secret> = match Signature::read(headers, now) {
            Ok(signature) => board.secrets.iter().filter(|secret| signature.is_by(secret, body)).collect(),
            Err(why) => {
                inner.forged(&why.to_string(), from);
                return Taken::Forged;
            }
        };
        if signed_by.is_empty() {
            inner.forged("no `signing_secret` of any channel has made the signature", from);
            return Taken::Forged;
        }
        let press = match payload::read(body) {
            Ok(press) => press,
            Err(why) => {
                debug!(%why, "an interaction is passed over");
                return Taken::Heard;
            }
        };
        if inner.tasks.is_closed() {
            return Taken::Busy;
        }
        let Ok(place) = Arc::clone(&inner.places).try_acquire_owned() else {
            warn!("more than {UNDER_WAY_MAX} clicks are under way: Slack is told to show a warning");
            return Taken::Busy;
        };
        match recognise(&board, &signed_by, &press.value) {
            Recognised::Stranger => {
                debug!("a click on a button of somebody else's is passed over");
                Taken::Heard
            }
            Recognised::Orphan(sibling) => {
                let (user, sibling) = (press.by.id.as_str(), sibling.clone());
                info!(user, "a click on a card of a channel that is not configured any more");
                inner.whisper_later(&board, sibling, &press, |_| Whisper::NoChannel);
                Taken::Heard
            }
            Recognised::Ours(id, slack, claim) => {
                let (user, users_team) = (press.by.id.as_str(), press.by.team.as_deref());
                if !slack.interactivity().may_answer(user, users_team, press.team.as_deref()) {
                    audit(&claim.approval, &press, "not among the approvers", from);
                    warn!(channel = %id, user, team = users_team, "a click of somebody who is not among the approvers");
                    inner.whisper_later(&board, id.clone(), &press, |press| Whisper::MayNot { id: &press.by.id });
                    return Taken::Heard;
                }
                self.answer(board.clone(), id.clone(), &claim, press, place, from).await
            }
        }
    }

    /// Has a click recorded, and waits a moment for it.
    async fn answer(
        &self,
        board: Arc<Answerable>,
        channel: ChannelId,
        claim: &ButtonClaim,
        press: Press,
        place: OwnedSemaphorePermit,
        from: IpAddr,
    ) -> Taken {
        let now = self.0.courier.clock().now();
        let mut click = Click::new(claim.approval.clone(), press.answer, press.by.clone(), Via::Slack, now);
        let url = board.get(&channel).and_then(|slack| reply_url(&channel, slack, &press));
        click.claim = Some(claim.into());
        click.channel = Some(channel);
        click.response_url = url.as_ref().map(|url| Secret::new(url.as_str()));
        let url = url.map(|url| ReplyUrl::new(url, now));
        let (heard, recorded) = oneshot::channel();
        let inner = Arc::clone(&self.0);
        self.0.tasks.spawn(async move {
            inner.settle(&board, &press, click, url, (heard, place), from).await;
        });
        match tokio::time::timeout(RECORDED_MAX, recorded).await {
            // One that takes longer goes on, and whoever clicked will see what comes of it.
            Ok(Ok(true)) | Err(_) => Taken::Heard,
            Ok(Ok(false) | Err(_)) => Taken::Busy,
        }
    }
}

impl Inner {
    /// Records a click and does what follows from what became of it.
    async fn settle(
        &self,
        board: &Answerable,
        press: &Press,
        click: Click,
        mut url: Option<ReplyUrl>,
        (heard, place): (oneshot::Sender<bool>, OwnedSemaphorePermit),
        from: IpAddr,
    ) {
        let outcome = self.approvals.answer(click.clone()).await;
        audit(&click.approval, press, in_words(&outcome), from);
        let Some((channel, slack)) = click.channel.as_ref().and_then(|id| Some((id, board.get(id)?))) else { return };
        let was_heard = match &outcome {
            Ok(_) => heard.send(true).is_ok(),
            // Where Slack still waits, it shows the warning.
            Err(_) if heard.send(false).is_ok() => return,
            Err(_) => false,
        };
        debug!(was_heard, click = %click.id, "a click is settled");
        // Slack may be long in taking what follows, and nobody's answer waits for that.
        drop(place);
        let _whispering = match &outcome {
            Ok(Outcome::Won(_)) => None,
            Ok(Outcome::Late(_) | Outcome::Expired | Outcome::Unknown) | Err(_) => match self.may_whisper(channel) {
                None => return,
                place => place,
            },
        };
        match &outcome {
            Ok(Outcome::Won(_)) => {
                self.claim_replacement(&click.approval, channel);
                // A full queue says that there is much to do; the renewer looks at everything now and then.
                drop(self.renew.try_send(click.approval.clone()));
            }
            Ok(Outcome::Late(answered)) => {
                self.replace(board, channel, &click, Some(answered), url.as_mut()).await;
                self.whisper(channel, slack, url.as_mut(), Whisper::Already(given(answered))).await;
            }
            Ok(Outcome::Expired) => {
                self.replace(board, channel, &click, None, url.as_mut()).await;
                let end = click.claim.as_ref().and_then(|claim| claim.expires_at);
                self.whisper(channel, slack, url.as_mut(), Whisper::Expired(end)).await;
            }
            Ok(Outcome::Unknown) => self.whisper(channel, slack, url.as_mut(), Whisper::Unknown).await,
            Err(AnswerError::NotHeard) => self.whisper(channel, slack, url.as_mut(), Whisper::NotHeard).await,
            Err(error) => {
                warn!(%channel, %error, hint = error.hint(), "a click could not be recorded");
                self.whisper(channel, slack, url.as_mut(), Whisper::NotRecorded).await;
            }
        }
    }

    /// Makes the card that was clicked in vain anew, if nobody else will: one that a bot posted is changed when its approval ends,
    /// and the winner's by the winner's click.
    async fn replace(
        &self,
        board: &Answerable,
        channel: &ChannelId,
        click: &Click,
        answered: Option<&Answered>,
        url: Option<&mut ReplyUrl>,
    ) {
        let (Some(url), Some(slack)) = (url, board.get(channel)) else { return };
        let Some(approval) = self.approvals.get(&click.approval) else { return };
        let is_winners = |one: &Answered| one.click.channel.as_ref() == Some(channel);
        let is_a_bots = approval.cards.iter().any(|card| card.channel == *channel);
        let end = answered.map(|one| one.click.at).or_else(|| approval.expires_at());
        let is_fresh = end.is_some_and(|end| click.at.since(end) < STALE_AFTER);
        if is_fresh && (is_a_bots || answered.is_some_and(is_winners)) {
            return;
        }
        let Some(ended) = ended(&approval, answered, self.courier.clock().now()) else { return };
        if !self.claim_replacement(&click.approval, channel) {
            return;
        }
        let made = self.courier.insist(slack, url, |to, plain| slack.replacement(to, &ended, &board.links, plain));
        if let Err(why) = made.await {
            warn!(%channel, why, "the card of an approval that has ended could not be made anew; the next click tries it again");
            let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
            replaced.retain(|(approval, one, _)| *approval != click.approval || one != channel);
        }
    }

    /// Whether nobody here has made the approval's card in this channel anew just now; from now on somebody has. After a while it is
    /// free again: that may have failed, and a delivery that was tried twice has left a second card.
    fn claim_replacement(&self, approval: &Name, channel: &ChannelId) -> bool {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        replaced.retain(|(.., since)| now.duration_since(*since) < STALE_AFTER);
        let is_free = !replaced.iter().any(|(one, where_, _)| one == approval && where_ == channel);
        if is_free {
            replaced.push_back((approval.clone(), channel.clone(), now));
            if replaced.len() > REPLACED_MAX {
                replaced.pop_front();
            }
        }
        is_free
    }

    /// Whispers as a task, after the request has been answered.
    fn whisper_later(
        self: &Arc<Self>,
        board: &Arc<Answerable>,
        channel: ChannelId,
        press: &Press,
        say: impl for<'p> Fn(&'p Press) -> Whisper<'p> + Send + 'static,
    ) {
        let Some(whispering) = self.may_whisper(&channel) else { return };
        let (inner, board, press) = (Arc::clone(self), Arc::clone(board), press.clone());
        self.tasks.spawn(async move {
            let _whispering = whispering;
            let Some(slack) = board.get(&channel) else { return };
            let url = reply_url(&channel, slack, &press);
            let mut url = url.map(|url| ReplyUrl::new(url, inner.courier.clock().now()));
            inner.whisper(&channel, slack, url.as_mut(), say(&press)).await;
        });
    }

    /// A place among the whispers, if there is one.
    fn may_whisper(&self, channel: &ChannelId) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.whispers).try_acquire_owned().ok();
        if place.is_none() {
            warn!(%channel, "more than {WHISPERS_MAX} answers to clicks wait for Slack to take them: somebody who clicked is not told what came of it");
        }
        place
    }

    async fn whisper(&self, channel: &ChannelId, slack: &Slack, url: Option<&mut ReplyUrl>, whisper: Whisper<'_>) {
        let Some(url) = url else { return };
        if let Err(why) = self.courier.insist(slack, url, |to, _plain| whisper.parcel(to)).await {
            warn!(%channel, why, "somebody who clicked could not be told what came of it");
        }
    }

    fn forged(&self, why: &str, from: IpAddr) {
        let mut forged = self.forged.lock().unwrap_or_else(PoisonError::into_inner);
        forged.since += 1;
        if forged.told.is_none_or(|told| told.elapsed() >= FORGED_EVERY) {
            warn!(
                why, %from, requests = forged.since,
                hint = "compare `signing_secret` with the app's \"Signing Secret\" and this machine's clock with the true time",
                "interactions are refused: Slack has not signed them as we know it"
            );
            *forged = Forged { told: Some(Instant::now()), since: 0 };
        }
    }
}

/// Whose button has this value, among the channels of the apps that may have signed the request: another app's signature is not
/// good for this app's buttons.
fn recognise<'b>(board: &'b Answerable, signed_by: &[&Secret], value: &str) -> Recognised<'b> {
    let mut recognised = Recognised::Stranger;
    for (id, slack) in board.each() {
        let secrets = &slack.interactivity().signing_secrets;
        if !secrets.iter().any(|secret| signed_by.contains(&secret)) {
            continue;
        }
        match button::open(secrets, value) {
            Some(claim) if claim.channel == *id => return Recognised::Ours(id, slack, claim),
            Some(_) => recognised = Recognised::Orphan(id),
            None => {}
        }
    }
    recognised
}

/// Where an answer to the click may be posted.
fn reply_url(channel: &ChannelId, slack: &Slack, press: &Press) -> Option<url::Url> {
    let given = press.response_url.as_ref()?;
    let url = slack.interactivity().may_reply_to(given.expose());
    if url.is_none() {
        let host = url::Url::parse(given.expose()).ok().and_then(|url| url.host_str().map(str::to_owned));
        warn!(
            %channel, host,
            hint = "if Slack's answers belong there, list the host in the channel's `response_hosts`",
            "a click came with a URL that answers must not be posted to"
        );
    }
    url
}

/// An audit line, of the shape and in the words of the API's.
fn audit(approval: &Name, press: &Press, outcome: &str, from: IpAddr) {
    let subject = match approval {
        Name::Whole(name) | Name::Digest(name) => name.as_str(),
    };
    info!(
        target: "interven_alerts::audit",
        what = press.answer.as_str(), subject, outcome,
        who = press.by.id, team = press.by.team, via = "slack", %from,
        "audit"
    );
}

#[cfg(test)]
#[path = "reception_tests.rs"]
pub(super) mod tests;
