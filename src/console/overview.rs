//! How things stand, at a glance.

use askama::Template;

use super::{Approval, Frame, Section, Standing};

/// The first page.
#[derive(Debug, Template)]
#[template(path = "overview.html", config = "src/console/askama.toml")]
pub struct OverviewPage {
    /// What is around it.
    pub frame: Frame,
    /// Those that wait for an answer, the newest first: at most ten.
    pub waiting: Vec<Approval>,
    /// Whether there are more.
    pub more_wait: bool,
    /// Whether this worker has read what is asked for.
    pub known: bool,
}

impl OverviewPage {
    /// What the live part says, for those who do not see it.
    fn says(&self) -> String {
        match (self.waiting.len(), self.more_wait) {
            (0, _) => String::from("Nothing waits for an answer"),
            (1, _) => String::from("1 approval waits for an answer"),
            (count, false) => format!("{count} approvals wait for an answer"),
            (count, true) => format!("More than {count} approvals wait for an answer"),
        }
    }
}
