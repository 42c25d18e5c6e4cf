//! Channels: what each wants, how its lane does, and what an operator can do about it.

use askama::Template;

use super::{Frame, Missing, Section, Text, When};
use crate::model::verdict::Outcome;

/// The most patterns that a search takes.
const PATTERNS_MAX: usize = 64;

/// How a channel's lane does, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// It delivers.
    Flowing,
    /// It waits until a time.
    Paused,
    /// It tries one to find out.
    Probing,
    /// The endpoint refuses until somebody acts.
    Held,
    /// An operator stopped it.
    Stopped,
    /// A worker cannot read the channel.
    Unreadable,
}

impl Lane {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Flowing, Self::Paused, Self::Probing, Self::Held, Self::Stopped, Self::Unreadable];

    /// Its word, as the API says it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Flowing => "flowing",
            Self::Paused => "paused",
            Self::Probing => "probing",
            Self::Held => "held",
            Self::Stopped => "stopped",
            Self::Unreadable => "unreadable",
        }
    }

    /// A sign that is no colour.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Flowing => "▸",
            Self::Paused | Self::Probing => "◔",
            Self::Held | Self::Unreadable => "!",
            Self::Stopped => "■",
        }
    }

    /// The class of its look.
    pub const fn look(self) -> &'static str {
        match self {
            Self::Flowing => "good",
            Self::Paused | Self::Probing => "warn",
            Self::Held | Self::Unreadable => "bad",
            Self::Stopped => "calm",
        }
    }

    /// Whether an operator must act.
    pub const fn is_trouble(self) -> bool {
        matches!(self, Self::Held | Self::Unreadable)
    }

    /// What it means, in one sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Flowing => "What it wants is delivered.",
            Self::Paused => "The endpoint asked for a rest, or fails. What it wants waits.",
            Self::Probing => "One delivery is tried to find out whether the endpoint is well. The others wait.",
            Self::Held => {
                "The endpoint refuses until somebody mends it or the channel. What it wants waits, and nobody is told."
            }
            Self::Stopped => "An operator paused it. What it wants waits until it is resumed.",
            Self::Unreadable => "A worker cannot read the channel. What it wants waits for one that can.",
        }
    }
}

/// Whose view a page shows.
#[derive(Clone, Debug, Default)]
pub struct Views {
    /// How many workers told of it.
    pub workers: usize,
    /// Workers that could not be asked.
    pub missing: Vec<Missing>,
}

impl Views {
    /// Whether it is more than this worker's own.
    pub fn several(&self) -> bool {
        self.workers > 1
    }

    /// By whom something was counted.
    pub fn counted_by(&self) -> String {
        if self.several() {
            format!("counted by {} workers, each since it started", self.workers)
        } else {
            String::from("counted by this worker since it started")
        }
    }
}

/// One channel.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Its id: letters, digits and hyphens.
    pub id: Text,
    /// Its kind.
    pub kind: Text,
    /// Where it posts to, masked.
    pub endpoint: Text,
    /// How its lane does.
    pub lane: Lane,
    /// Why it does not flow.
    pub why: Option<Text>,
    /// Since when it does not flow.
    pub since: Option<When>,
    /// Until when.
    pub until: Option<When>,
    /// Who stopped it, and when.
    pub stopped_by: Option<(Text, Option<When>)>,
    /// Which decisions it wants.
    pub events: Vec<Text>,
    /// From which severity on.
    pub min_severity: Text,
    /// Of which tools and agents, where not of all.
    pub narrowed: Vec<Text>,
    /// Whether it is of the file, and read-only here.
    pub in_file: bool,
    /// When somebody last delivered.
    pub last_success: Option<When>,
    /// How many wait: in the workers, and in the queue of the pool.
    pub waiting: (i64, i64),
    /// How many were delivered since the workers started.
    pub delivered: u64,
    /// How many were told in digests.
    pub folded: u64,
    /// How many died.
    pub dead: u64,
    /// How many have died since the endpoint last took something, where they are enough to say so.
    pub untaken: Option<u64>,
    /// Since when the oldest delivery waits, where that is long ago.
    pub behind: Option<When>,
    /// How many workers see its lane in which state, where they do not agree: a lane is one worker's, and that one knows best.
    pub seen: Option<Text>,
}

impl Channel {
    /// How many wait, wherever it is.
    pub fn waits(&self) -> i64 {
        self.waiting.0 + self.waiting.1
    }

    /// How it fails somebody although its lane does not rest.
    pub fn shortfall(&self) -> Option<String> {
        if let Some(count) = self.untaken {
            return Some(format!("its endpoint has taken none of the last {count}: they are dead letters"));
        }
        self.behind.as_ref().map(|since| format!("its oldest delivery waits since {}", since.short()))
    }

    /// The class of its look.
    pub fn look(&self) -> &'static str {
        if self.lane == Lane::Flowing && self.shortfall().is_some() { "bad" } else { self.lane.look() }
    }

    /// Whether somebody has delivered since its lane does not flow.
    pub fn delivers_since(&self) -> bool {
        self.last_success.as_ref().zip(self.since.as_ref()).is_some_and(|(last, since)| last.is_after(since))
    }
}

/// All of them.
#[derive(Debug, Template)]
#[template(path = "channels.html", config = "src/console/askama.toml")]
pub struct ChannelsPage {
    /// What is around it.
    pub frame: Frame,
    /// In the order of the configuration.
    pub channels: Vec<Channel>,
    /// Who sees them so.
    pub views: Views,
    /// Whether who looks may test, pause and resume.
    pub may_act: bool,
    /// Whether who looks may add channels.
    pub may_change: bool,
}

impl ChannelsPage {
    /// What the live part says, for those who do not see it.
    fn says(&self) -> String {
        let troubled: Vec<String> = self
            .channels
            .iter()
            .filter(|channel| channel.lane.is_trouble())
            .map(|channel| format!("{} is {}", channel.id, channel.lane.word()))
            .collect();
        if troubled.is_empty() { String::from("No channel needs anybody") } else { troubled.join(", ") }
    }
}

/// One of them, whole.
#[derive(Debug, Template)]
#[template(path = "channel.html", config = "src/console/askama.toml")]
pub struct ChannelPage {
    /// What is around it.
    pub frame: Frame,
    /// What the list says of it, too.
    pub channel: Channel,
    /// Who sees it so.
    pub views: Views,
    /// The patterns of tools and agents that it is narrowed to, by the keys that the search knows them by.
    pub wants: Vec<(&'static str, String)>,
    /// How it delivers: what, and how much.
    pub policy: Vec<(&'static str, Text)>,
    /// What the tries came to.
    pub attempts: Vec<(Text, u64)>,
    /// Who made it so, and when, where it is not of the file.
    pub changed: Option<(Text, Option<When>)>,
    /// Whether it hides a channel of the same id that was made over the API.
    pub shadows: bool,
    /// Whether who looks may test, pause and resume.
    pub may_act: bool,
    /// Whether who looks may change channels.
    pub may_change: bool,
}

/// An outcome of a try, which is a word of metrics and logs, in words for people.
fn meaning_of(outcome: &str) -> &'static str {
    match Outcome::ALL.into_iter().find(|one| one.as_str() == outcome) {
        Some(Outcome::Delivered) => "the endpoint has it",
        Some(Outcome::Accepted) => "the platform queued it and promises no more",
        Some(Outcome::TryLater) => "a failure that time may mend",
        Some(Outcome::Throttled) => "too many for the endpoint",
        Some(Outcome::Refused) => "the endpoint does not take this one",
        Some(Outcome::Broken) => "the endpoint takes nothing until somebody acts",
        None => "",
    }
}

impl ChannelPage {
    /// What the tries came to, where they came to it at all: the outcome, what it means, and how often.
    fn tries(&self) -> Vec<(&Text, &'static str, u64)> {
        let came = self.attempts.iter().filter(|(_, count)| *count > 0);
        came.map(|(outcome, count)| (outcome, meaning_of(outcome.as_str()), *count)).collect()
    }

    /// Where the decisions are that it wants; `None` where it wants too many tools or agents for an address.
    fn decisions(&self) -> Option<String> {
        const LENGTH_MAX: usize = 4_000;
        let events = self.channel.events.iter().map(|event| ("decision", event.as_str()));
        let severity = [("min_severity", self.channel.min_severity.as_str())];
        let wants = self.wants.iter().map(|(key, pattern)| (*key, pattern.as_str()));
        let pairs = events.chain(severity).chain(wants).filter(|(_, value)| !value.is_empty());
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        (query.len() <= LENGTH_MAX && self.wants.len() <= PATTERNS_MAX).then(|| format!("/decisions?{query}"))
    }

    /// What the live part says, for those who do not see it.
    fn says(&self) -> String {
        format!("{} is {}", self.channel.id, self.channel.lane.word())
    }
}
