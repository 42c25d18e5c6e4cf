//! The command itself: a worker, the cast around it, the story, and the exit code.

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use super::{Account, Backstage, Cast, Pace, Screen, Style, Trouble, play};
use crate::{
    app::Worker,
    broker::{Destination, Message, Queue},
    cli::{Failure, Shell, runtime},
    config,
    dead_letters::{DeadLetter, LetterFilter, LetterId, replay::Replay},
    delivery_log::DeliveryLog,
    model::{ChannelId, Clock, Decision, Ending},
    settings::Outside,
};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  It takes about half a minute:
    interven-alerts demo
  As plain lines, to be read later:
    NO_COLOR=1 interven-alerts demo > demo.txt

Exit codes:
  0  every delivery is accounted for
  1  the numbers do not add up, which would be a bug")]
pub struct Args {}

/// Runs the command.
pub fn run(shell: &mut Shell<'_>) -> Result<(), Failure> {
    let style = Style::choose(shell.out_is_terminal, shell.plain());
    let scratch = Scratch::new()?;
    let adds_up = runtime(true)?
        .block_on(async {
            let mut cast = Cast::start().await?;
            let text = cast.config(&scratch.0);
            let sound = config::parse(&text, &Outside::nothing(), shell.kinds)?;
            let worker = Worker::start(sound.plan, shell.clock).await?;
            let backstage = RealBackstage { worker: &worker, clock: shell.clock };
            let mut screen = Screen::new(&mut *shell.out, style);
            let summary = play(&mut cast, &backstage, &mut screen, Pace::default()).await;
            worker.stop().await;
            Ok::<bool, Trouble>(summary?.adds_up())
        })
        .map_err(|trouble| Failure::new("the demo could not go on").caused_by(trouble.to_string()))?;
    if adds_up {
        Ok(())
    } else {
        Err(Failure::new("the numbers do not add up").hint("please report it with the output above"))
    }
}

/// A directory that is removed at the end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("interven-alerts-demo-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path)
            .map_err(|error| Failure::of(&error).hint("set TMPDIR to a directory that can be written"))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fn remove(path: &Path) -> std::io::Result<()> {
            std::fs::remove_dir_all(path)
        }
        if let Err(error) = remove(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the demo's directory could not be removed");
        }
    }
}

struct RealBackstage<'a> {
    worker: &'a Worker,
    clock: Clock,
}

impl Backstage for RealBackstage<'_> {
    async fn publish(&self, decision: Bytes) -> Result<(), Trouble> {
        let id = Decision::decode(decision.clone())
            .map_or_else(|_| String::from("malformed"), |decision| decision.id.to_string());
        Ok(self.worker.broker().publish(Message { to: Destination::DecisionsExchange, id, body: decision }).await?)
    }

    async fn accounts(&self) -> Result<Vec<Account>, Trouble> {
        let broker = self.worker.broker();
        let mut accounts = Vec::new();
        for lane in self.worker.lanes() {
            let metrics = lane.metrics();
            let in_queue = broker.waiting(Queue::Lane(lane.id().clone())).await?;
            accounts.push(Account {
                channel: lane.id().clone(),
                matched: metrics.matched.get(),
                delivered: metrics.endings(Ending::Delivered),
                folded: metrics.endings(Ending::Folded),
                dead: metrics.endings(Ending::Dead),
                replayed: metrics.replayed.get(),
                waiting: in_queue + u64::try_from(metrics.in_memory.get()).unwrap_or(0),
            });
        }
        Ok(accounts)
    }

    async fn dead_letters(&self) -> Result<Vec<DeadLetter>, Trouble> {
        Ok(self.worker.store().list(&LetterFilter::default(), None).await?.letters)
    }

    async fn replay(&self, letters: &[LetterId]) -> Result<usize, Trouble> {
        let broker = self.worker.broker();
        let known = |id: &ChannelId| self.worker.lanes().iter().any(|lane| lane.id() == id);
        let replay = Replay {
            up_to: None,
            store: self.worker.store(),
            broker: Arc::as_ref(&broker),
            known: &known,
            deliveries: &DeliveryLog::none(),
            clock: self.clock,
            dry_run: false,
        };
        let report = replay.run(letters, |_| {}).await?;
        for lane in self.worker.lanes() {
            lane.metrics().replayed.inc_by(report.by_channel.get(&Some(lane.id().clone())).copied().unwrap_or(0));
        }
        Ok(usize::try_from(report.replayed)?)
    }
}
