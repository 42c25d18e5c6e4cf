//! Pages that say one thing: who are you, you may not, it is not there, go on.

use askama::Template;

use super::{Frame, Section, Text};

/// What was lost with a session that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Nothing: nobody says that there was one.
    Nothing,
    /// The session alone.
    Session,
    /// A form, too: what was in it is gone.
    Form,
}

/// Asks who it is.
#[derive(Debug, Template)]
#[template(path = "sign_in.html", config = "src/console/askama.toml")]
pub struct SignInPage {
    /// What is around it.
    pub frame: Frame,
    /// Where it leads: a path of ours.
    pub next: String,
    /// What has become of the session before this one.
    pub lost: Lost,
    /// Why the last try did not lead there.
    pub refusal: Option<Text>,
}

/// Says what went wrong, and what can be done.
#[derive(Debug, Template)]
#[template(path = "notice.html", config = "src/console/askama.toml")]
pub struct NoticePage {
    /// What is around it.
    pub frame: Frame,
    /// What it is.
    pub message: Text,
    /// What can be done.
    pub hint: Text,
    /// Where to go on: a path of ours, and what is there.
    pub way: (String, &'static str),
}

/// Asks the browser to come again, from here. It comes from another site, and did not send the session along because of that.
#[derive(Debug, Template)]
#[template(path = "continue.html", config = "src/console/askama.toml")]
pub struct ContinuePage {
    /// What is around it.
    pub frame: Frame,
    /// Where it was going: a path of ours.
    pub to: String,
}
