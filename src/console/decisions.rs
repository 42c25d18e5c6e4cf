//! Decisions: searched, with what became of each in every channel; and one of them, whole.

use askama::Template;

use super::{Asked, Block, Frame, Lane, Section, Text, When, severity_look};
use crate::model::{DecisionKind, Ending, Severity};

/// How far back is looked, where no times are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week.
    Week,
}

impl Last {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    /// Its word in an address.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "Last hour",
            Self::Day => "24 hours",
            Self::Week => "7 days",
        }
    }
}

/// What is looked for, as the form shows it.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// From when on, as a field for times has it.
    pub since: String,
    /// Until when.
    pub until: String,
    /// How far back, where no times are given.
    pub last: Option<Last>,
    /// What was decided; none: anything.
    pub kinds: Vec<DecisionKind>,
    /// How grave at least.
    pub severity: Option<Severity>,
    /// Patterns of agents.
    pub agent: String,
    /// Patterns of tools.
    pub tool: String,
    /// An id.
    pub id: String,
    /// What is wrong with which field: its name and a sentence.
    pub faults: Vec<(&'static str, Text)>,
    /// What the addresses of the other spans have besides them, percent-encoded.
    pub rest: String,
}

impl Search {
    fn wants(&self, kind: DecisionKind) -> bool {
        self.kinds.contains(&kind)
    }

    fn is_least(&self, severity: Severity) -> bool {
        self.severity == Some(severity)
    }

    fn is_last(&self, last: Last) -> bool {
        self.last == Some(last)
    }

    /// Whether more is asked for than a span of time, so that the form is shown open.
    fn is_narrow(&self) -> bool {
        let texts = [&self.since, &self.until, &self.agent, &self.tool, &self.id];
        let is_faulty = !self.faults.is_empty();
        is_faulty || !self.kinds.is_empty() || self.severity.is_some() || texts.iter().any(|text| !text.is_empty())
    }

    /// What is wrong with the field of this name.
    fn fault(&self, name: &str) -> Option<&Text> {
        self.faults.iter().find(|(field, _)| *field == name).map(|(_, fault)| fault)
    }

    /// What people call the field of this name: its label.
    pub fn label(name: &str) -> &'static str {
        match name {
            "since" => "From (UTC)",
            "until" => "Until (UTC)",
            "min_severity" => "Severity",
            "agent" => "Agent",
            "tool" => "Tool",
            "id" => "Decision id",
            _ => "Decided",
        }
    }
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has ended.
    Ended(Ending),
    /// No ending is recorded; the lane's present state, where the channel is configured here.
    Waiting(Option<Lane>),
    /// Its ending is not recorded.
    NotRecorded,
    /// It could not be found out.
    Unknown,
}

impl Outcome {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ended(Ending::Delivered) => "delivered",
            Self::Ended(Ending::Folded) => "in a digest",
            Self::Ended(Ending::Dead) => "dead",
            Self::Waiting(_) => "waiting",
            Self::NotRecorded => "not recorded",
            Self::Unknown => "not known",
        }
    }

    /// A sign that is no colour.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Ended(Ending::Delivered) => "✓",
            Self::Ended(Ending::Folded) => "≡",
            Self::Ended(Ending::Dead) => "✗",
            Self::Waiting(_) => "◔",
            Self::NotRecorded | Self::Unknown => "?",
        }
    }

    /// The class of its look.
    pub const fn look(self) -> &'static str {
        match self {
            Self::Ended(Ending::Delivered | Ending::Folded) => "good",
            Self::Ended(Ending::Dead) => "bad",
            Self::Waiting(_) => "warn",
            Self::NotRecorded | Self::Unknown => "calm",
        }
    }
}

/// One delivery of a decision.
#[derive(Clone, Debug)]
pub struct Told {
    /// The channel's id: letters, digits and hyphens.
    pub channel: Text,
    /// What became of it.
    pub outcome: Outcome,
    /// When it ended, or since when it waits.
    pub at: Option<When>,
    /// How long after the decision it ended.
    pub late: Option<String>,
    /// Which try it was, or how often it was tried.
    pub tries: Option<u32>,
    /// Why it died.
    pub reason: Option<&'static str>,
    /// Where the dead letter is looked for.
    pub letters: Option<String>,
}

impl Told {
    /// The state of the lane that it waits in, where that is not just busy.
    fn resting(&self) -> Option<Lane> {
        match self.outcome {
            Outcome::Waiting(lane) => lane.filter(|lane| *lane != Lane::Flowing),
            Outcome::Ended(_) | Outcome::NotRecorded | Outcome::Unknown => None,
        }
    }
}

/// What became of a decision.
#[derive(Clone, Debug)]
pub enum Became {
    /// No channel wanted it.
    Unrouted,
    /// In each channel; and whether it is recorded that these are all.
    To(Vec<Told>, bool),
    /// Nothing was written down.
    NotRecorded,
    /// It could not be found out.
    Unknown,
}

/// One decision of a list.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its page.
    pub href: String,
    /// When it was decided.
    pub time: When,
    /// What was decided.
    pub kind: DecisionKind,
    /// How grave it is.
    pub severity: Severity,
    /// What people call the agent.
    pub agent: Text,
    /// The tool.
    pub tool: Text,
    /// What it was to do.
    pub operation: Option<Text>,
    /// In words.
    pub title: Option<Text>,
    /// What became of it.
    pub became: Became,
}

impl Row {
    fn severity_look(&self) -> &'static str {
        severity_look(self.severity)
    }

    fn kind_look(&self) -> &'static str {
        match self.kind {
            DecisionKind::Allow => "good",
            DecisionKind::Sanitize => "note",
            DecisionKind::RequireApproval => "warn",
            DecisionKind::Deny | DecisionKind::Incident => "bad",
        }
    }
}

/// Some of the decisions that were looked for.
#[derive(Clone, Debug)]
pub struct Decisions {
    /// The newest first.
    pub list: Vec<Row>,
    /// Where older ones are.
    pub older: Option<String>,
    /// Where the newest ones are, on a further page.
    pub newest: Option<String>,
    /// Whether nothing was left out that should be among them.
    pub complete: bool,
    /// How far was looked.
    pub looked_back_to: Option<When>,
}

/// The search.
#[derive(Debug, Template)]
#[template(path = "decisions.html", config = "src/console/askama.toml")]
pub struct DecisionsPage {
    /// What is around it.
    pub frame: Frame,
    /// What is looked for.
    pub search: Search,
    /// What was found, or why nothing could be looked for, and what to do about it.
    pub found: Result<Decisions, (Text, Text)>,
    /// How often the list is looked at anew, in seconds; `None` where it does not change.
    pub live: Option<u64>,
    /// Where all of it is exported, and in which format.
    pub exports: Vec<(&'static str, String)>,
}

impl DecisionsPage {
    /// What the live part says, for those who do not see it.
    fn says(&self) -> String {
        match &self.found {
            Ok(found) if found.list.is_empty() => String::from("No decision"),
            Ok(found) => found.list.first().map_or(String::new(), |row| {
                format!("The newest decision: {} for {}, {}", row.kind, row.agent, row.time.people())
            }),
            Err((problem, _)) => problem.to_string(),
        }
    }
}

/// The page of a decision.
#[derive(Debug, Template)]
#[template(path = "decision.html", config = "src/console/askama.toml")]
pub struct DecisionPage {
    /// What is around it.
    pub frame: Frame,
    /// What was decided.
    pub kind: DecisionKind,
    /// What it says.
    pub decision: Asked,
    /// The page of the approval that it asks for.
    pub approval: Option<String>,
    /// What became of it.
    pub became: Became,
    /// When it was routed.
    pub routed_at: Option<When>,
    /// Every field of it.
    pub raw: Block,
}

impl DecisionPage {
    fn some_wait(&self) -> bool {
        match &self.became {
            Became::To(told, _) => told.iter().any(|told| matches!(told.outcome, Outcome::Waiting(_))),
            Became::Unrouted | Became::NotRecorded | Became::Unknown => false,
        }
    }

    /// What the live part says, for those who do not see it.
    fn says(&self) -> String {
        match &self.became {
            Became::Unrouted => String::from("No channel wanted it"),
            Became::NotRecorded => String::from("What became of it is not recorded"),
            Became::Unknown => String::from("What became of it is not known just now"),
            Became::To(told, _) => {
                let each: Vec<String> =
                    told.iter().map(|told| format!("{}: {}", told.channel, told.outcome.word())).collect();
                each.join(", ")
            }
        }
    }
}
