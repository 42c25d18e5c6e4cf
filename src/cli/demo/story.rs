//! What happens in the demo, in order.

use std::{io::Write, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    sync::broadcast::{self, error::TryRecvError},
    time::{Instant, sleep, sleep_until},
};

use super::{Account, Backstage, Cast, Line, Screen, Summary, TELEGRAM, Trouble};
use crate::{
    model::{Clock, DecisionKind, Reply, Severity},
    stand_ins::{Firewall, Platform, Received, Script, Step},
};

/// The seed of the decisions: the demo is the same every time.
const SEED: u64 = 20_260_601;

/// How often arrivals are drawn while nothing else happens.
const DRAW_EVERY: Duration = Duration::from_millis(40);

/// How long Slack asks to be left alone.
const SLACK_RESTS: Duration = Duration::from_secs(3);

/// How fast the story is told.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How many decisions are streamed.
    pub decisions: u32,
    /// How long the stream lasts.
    pub stream: Duration,
    /// How long Discord is away.
    pub outage: Duration,
    /// How long it may take until nothing waits any more.
    pub patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            decisions: 200,
            stream: Duration::from_secs(15),
            outage: Duration::from_secs(4),
            patience: Duration::from_secs(20),
        }
    }
}

/// Tells the story and returns the summary, which is drawn already. What fails inside the worker ends it with the reason.
pub async fn play<B: Backstage, W: Write>(
    cast: &mut Cast,
    backstage: &B,
    screen: &mut Screen<W>,
    pace: Pace,
) -> Result<Summary, Trouble> {
    let arrivals = cast.channels().map(|(id, stand_in)| (id, stand_in.platform(), stand_in.subscribe())).into();
    let firewall = Firewall::new(SEED, Clock::System);
    let mut story = Story { cast, backstage, screen, pace, firewall, arrivals, published: Vec::new() };
    story.stream().await?;
    story.settle().await?;
    story.replay().await?;
    let summary = story.summary().await?;
    story.screen.heading("Do the numbers add up?")?;
    summary.draw(story.screen)?;
    story.screen.close()?;
    Ok(summary)
}

struct Story<'a, B, W> {
    cast: &'a mut Cast,
    backstage: &'a B,
    screen: &'a mut Screen<W>,
    pace: Pace,
    firewall: Firewall,
    arrivals: Vec<(&'static str, Platform, broadcast::Receiver<Arc<Received>>)>,
    /// The ids of the decisions that the broker has confirmed.
    published: Vec<String>,
}

impl<B: Backstage, W: Write> Story<'_, B, W> {
    /// A stream of decisions, and three things that go wrong on the way.
    async fn stream(&mut self) -> Result<(), Trouble> {
        let Pace { decisions, stream, outage, .. } = self.pace;
        self.screen
            .heading(&format!("{decisions} decisions in {} s, to channels of all five kinds", stream.as_secs()))?;
        let begun = Instant::now();
        let mut discord_returns = None;
        for number in 0..decisions {
            let at = begun + stream * number / decisions;
            self.draw_until(at).await?;
            if number == decisions * 3 / 10 {
                self.screen.note("Slack will answer the next card with 429 and Retry-After: 3")?;
                self.cast.slack.set_script(Script::ordered([Step::RateLimited { retry_after: SLACK_RESTS }]));
            }
            if number == decisions * 4 / 10 {
                self.screen.note(&format!("Discord goes away: connections are refused for {} s", outage.as_secs()))?;
                self.cast.discord.stop().await;
                discord_returns = Some(Instant::now() + outage);
            }
            if discord_returns.is_some_and(|returns| Instant::now() >= returns) {
                discord_returns = None;
                self.discord_returns().await?;
            }
            if number == decisions * 6 / 10 {
                self.screen.note("Telegram will refuse one card, its plain-text form as well")?;
                let decision = self.firewall.decide_as(DecisionKind::Deny, Severity::Critical);
                let id = decision["id"].as_str().unwrap_or_default().to_owned();
                let description = r#"{"ok":false,"error_code":400,"description":"Bad Request: can't parse entities: Unsupported start tag \"x\" at byte offset 12"}"#;
                let refusal = Step::Reply { reply: Reply::new(400, description), taken: false };
                self.cast.telegram.set_script(Script::accept().where_body_holds(id, refusal));
                self.publish(&decision).await?;
            } else {
                let decision = self.firewall.decide();
                self.publish(&decision).await?;
            }
        }
        if let Some(returns) = discord_returns {
            self.draw_until(returns).await?;
            self.discord_returns().await?;
        }
        Ok(())
    }

    async fn discord_returns(&mut self) -> Result<(), Trouble> {
        self.screen.note("Discord is back")?;
        Ok(self.cast.discord.restart().await?)
    }

    async fn publish(&mut self, decision: &Value) -> Result<(), Trouble> {
        self.backstage.publish(decision.to_string().into()).await?;
        self.published.extend(decision["id"].as_str().map(str::to_owned));
        Ok(())
    }

    /// Waits until nothing waits any more: what was held back is told late, but told.
    async fn settle(&mut self) -> Result<(), Trouble> {
        self.screen.heading("The stream has ended; what had to wait is delivered now")?;
        self.wait().await
    }

    async fn wait(&mut self) -> Result<(), Trouble> {
        let patience = Instant::now() + self.pace.patience;
        loop {
            self.draw()?;
            let accounts = self.backstage.accounts().await?;
            let waiting: u64 = accounts.iter().map(|account| account.waiting).sum();
            let whole = accounts.iter().all(Account::adds_up);
            // The SIEM takes everything, so this also waits for the last decision to be routed.
            let routed = self.missing_at_siem() == 0;
            if waiting == 0 && whole && routed {
                return Ok(());
            }
            if Instant::now() >= patience {
                // Not an error: the summary says what is wrong, and the exit code with it.
                self.screen.note(&format!("{waiting} deliveries still wait; the demo does not wait any longer"))?;
                return Ok(());
            }
            sleep(DRAW_EVERY).await;
        }
    }

    /// The dead letter is shown, the endpoint mended, the letter replayed.
    async fn replay(&mut self) -> Result<(), Trouble> {
        self.screen.heading("Dead letters: what could not be delivered is kept with the reason")?;
        let letters = self.backstage.dead_letters().await?;
        for letter in &letters {
            let decision = letter.decision_id.as_deref().unwrap_or("-");
            let channel = letter.channel.as_ref().map_or("-", |channel| channel.as_str());
            self.screen.note(&format!("{} {channel} {} decision {decision}", letter.id, letter.reason))?;
            self.screen.note(&format!("  {}", letter.detail))?;
        }
        if letters.is_empty() {
            self.screen.note("there is none, although one was to be expected")?;
        }
        self.screen.note("Telegram is mended; the letters are replayed")?;
        self.cast.telegram.set_script(Script::accept());
        let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
        let replayed = self.backstage.replay(&ids).await?;
        self.screen.note(&format!("{replayed} of {} replayed", letters.len()))?;
        let wanted: Vec<&str> = letters
            .iter()
            .filter(|letter| letter.channel.as_ref().is_some_and(|channel| channel.as_str() == TELEGRAM))
            .filter_map(|letter| letter.decision_id.as_deref())
            .collect();
        let come = self
            .cast
            .telegram
            .wait_until(self.pace.patience, |telegram| wanted.iter().all(|id| telegram.times_received(id) > 0))
            .await;
        self.draw()?;
        self.screen.note(if come { "Telegram has them now" } else { "Telegram still does not have them" })?;
        self.wait().await
    }

    async fn summary(&mut self) -> Result<Summary, Trouble> {
        let accounts = self.backstage.accounts().await?;
        let dead_letters_left = self.backstage.dead_letters().await?.len() as u64;
        let mut lines = Vec::new();
        for (id, stand_in) in self.cast.channels() {
            let received = stand_in.received_ids();
            let account = accounts
                .iter()
                .find(|account| account.channel.as_str() == id)
                .ok_or_else(|| format!("the worker has no numbers of channel `{id}`"))?;
            lines.push(Line {
                account: account.clone(),
                endpoint_has: received.len() as u64,
                told_again: received.values().map(|&times| u64::from(times - 1)).sum(),
            });
        }
        Ok(Summary {
            published: self.published.len() as u64,
            missing_at_siem: self.missing_at_siem(),
            dead_letters_left,
            lines,
        })
    }

    fn missing_at_siem(&self) -> u64 {
        self.published.iter().filter(|id| self.cast.siem.times_received(id) == 0).count() as u64
    }

    /// Draws what arrives until then.
    async fn draw_until(&mut self, then: Instant) -> Result<(), Trouble> {
        loop {
            self.draw()?;
            let next = Instant::now() + DRAW_EVERY;
            if next >= then {
                sleep_until(then).await;
                return Ok(());
            }
            sleep_until(next).await;
        }
    }

    /// Draws what has arrived.
    fn draw(&mut self) -> Result<(), Trouble> {
        for (channel, platform, arrivals) in &mut self.arrivals {
            loop {
                match arrivals.try_recv() {
                    Ok(received) => self.screen.arrival(channel, *platform, &received)?,
                    // Some were missed, which only the picture suffers from.
                    Err(TryRecvError::Lagged(_)) => {}
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
        }
        let taken: Vec<String> =
            self.cast.channels().iter().map(|(id, stand_in)| format!("{id} {}", stand_in.counters().taken)).collect();
        let status = format!("published {} | {}", self.published.len(), taken.join(" | "));
        self.screen.status(status)?;
        Ok(())
    }
}
