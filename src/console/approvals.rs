//! Approvals: what is asked for, and the page where it is answered.

use askama::Template;

use super::{Frame, Section, Text, When};
use crate::model::Severity;

/// How an approval stands, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can be answered.
    Waiting,
    /// The call may be made.
    Approved,
    /// It may not.
    Denied,
    /// Nobody answered in time.
    Expired,
}

impl Standing {
    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Approved => "Approved",
            Self::Denied => "Denied",
            Self::Expired => "Expired",
        }
    }

    /// A sign that is no colour.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Waiting => "◔",
            Self::Approved => "✓",
            Self::Denied => "✕",
            Self::Expired => "–",
        }
    }

    /// The class of its look.
    pub const fn look(self) -> &'static str {
        match self {
            Self::Waiting => "warn",
            Self::Approved => "good",
            Self::Denied => "bad",
            Self::Expired => "calm",
        }
    }
}

/// Who answered, where and when.
#[derive(Clone, Debug)]
pub struct Answer {
    /// By what name.
    pub by: Text,
    /// By what id, where it is not the name.
    pub id: Option<Text>,
    /// Where.
    pub via: &'static str,
    /// When.
    pub at: When,
}

/// One approval, as it is shown.
#[derive(Clone, Debug)]
pub struct Approval {
    /// Its id.
    pub id: Text,
    /// Its page; `None` where only the digest of a long id is known.
    pub href: Option<String>,
    /// How it stands.
    pub standing: Standing,
    /// What the decision says; `None` where the log tells only of the answer.
    pub asked: Option<Asked>,
    /// From when on an answer is too late.
    pub expires: Option<When>,
    /// The answer.
    pub answer: Option<Answer>,
    /// Until when it is a grant.
    pub granted: Option<When>,
    /// Whether that moment is still to come.
    pub is_granted: bool,
    /// Whether the firewall has been told of the answer.
    pub published: bool,
}

/// What the decision says that asks for an approval.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its id.
    pub decision: Text,
    /// The page of the decision.
    pub decision_href: String,
    /// When it was decided.
    pub time: When,
    /// How grave it is.
    pub severity: Severity,
    /// From 0 to 1.
    pub risk: Option<String>,
    /// In words.
    pub title: Option<Text>,
    /// What people call the agent.
    pub agent: Text,
    /// Its id, where it is called otherwise.
    pub agent_id: Option<Text>,
    /// The tool.
    pub tool: Text,
    /// What it is to do.
    pub operation: Option<Text>,
    /// Why it was stopped.
    pub reasons: Vec<Text>,
    /// How many further reasons there are.
    pub more_reasons: usize,
    /// Where the call came from.
    pub src: Option<String>,
}

impl Asked {
    pub(super) fn severity_look(&self) -> &'static str {
        severity_look(self.severity)
    }
}

/// The class of the look of a severity.
pub(super) const fn severity_look(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "calm",
        Severity::Medium => "note",
        Severity::High => "warn",
        Severity::Critical => "bad",
    }
}

/// The page where one is answered.
#[derive(Debug, Template)]
#[template(path = "approval.html", config = "src/console/askama.toml")]
pub struct ApprovalPage {
    /// What is around it.
    pub frame: Frame,
    /// The approval.
    pub approval: Approval,
    /// Whether who looks may answer it.
    pub may_answer: bool,
    /// For how long an approval would be a grant, in words.
    pub grant: String,
}

impl ApprovalPage {
    /// What the live part says, for those who do not see it.
    fn says(&self) -> String {
        let standing = self.approval.standing.word();
        match &self.approval.answer {
            Some(answer) => format!("{standing} by {}", answer.by),
            None => String::from(standing),
        }
    }
}

/// Which approvals a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Those that can be answered.
    Waiting,
    /// Those that were.
    Answered,
    /// Those that nobody answered.
    Expired,
    /// All.
    All,
}

impl Filter {
    /// Every one, in order.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Answered, Self::Expired, Self::All];

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Answered => "Answered",
            Self::Expired => "Expired",
            Self::All => "All",
        }
    }

    /// Its word in the address.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Answered => "answered",
            Self::Expired => "expired",
            Self::All => "all",
        }
    }
}

/// What is asked for, or a page of it.
#[derive(Debug)]
pub struct Approvals {
    /// Those that wait by the time that they have left, others the newest first.
    pub list: Vec<Approval>,
    /// How many come before these.
    pub before: usize,
    /// How many there are in all.
    pub count: usize,
}

impl Approvals {
    /// How many come after these.
    pub fn after(&self) -> usize {
        self.count.saturating_sub(self.before + self.list.len())
    }
}

/// A list of them.
#[derive(Debug, Template)]
#[template(path = "approvals.html", config = "src/console/askama.toml")]
pub struct ApprovalsPage {
    /// What is around it.
    pub frame: Frame,
    /// Which are shown.
    pub filter: Filter,
    /// How many a page shows.
    pub most: usize,
    /// What is shown; `None` while this worker has not read what is asked for.
    pub approvals: Option<Approvals>,
}

impl ApprovalsPage {
    /// What the live part says, for those who do not see it.
    fn says(&self) -> String {
        let count = self.approvals.as_ref().map_or(0, |approvals| approvals.count);
        format!("{}: {count}", self.filter.name())
    }

    /// Where those are that come after so many.
    fn href(&self, before: usize) -> String {
        format!("/approvals?show={}&before={before}", self.filter.word())
    }
}
