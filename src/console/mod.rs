//! The console's pages: plain values in, HTML out. What people see of the worker, and nothing of how it comes to be.
//!
//! A page is a struct of values that are ready to be read, and a template that the compiler checks against it. Every value is
//! escaped by the template engine; a text of others gets into a page only as a [`Text`], which has lost what cannot be seen. So a
//! decision can neither add markup nor turn the words around it.
//!
//! Pages work without scripts: forms post, and the answer leads to the next page. The one script keeps what a page shows up to
//! date, by asking for the same page again and putting its live part in the place of the old one.
//!
//! Absent on purpose: who may see a page, where its values come from, HTTP. That is `http/console`.
//!
//! Start with [`Frame`], which is around every page, then `approvals.rs`.

mod approvals;
mod assets;
mod channels;
mod dead_letters;
mod decisions;
mod forms;
mod frame;
mod moment;
mod notices;
mod overview;
#[cfg(test)]
mod tests;
mod text;

use askama::Template;

use approvals::severity_look;

use crate::channels::Links;

pub use approvals::{Answer, Approval, ApprovalPage, Approvals, ApprovalsPage, Asked, Filter, Standing};
pub use assets::{Asset, asset};
pub use channels::{Channel, ChannelPage, ChannelsPage, Lane, Views};
pub use dead_letters::{
    Attempt, Cause, ConfirmPage, DeadLetter, DeadLetterPage, DeadLettersPage, Deed, Doing, LastReply, LetterForm,
    Missing, Reason,
};
pub use decisions::{Became, DecisionPage, Decisions, DecisionsPage, Last, Outcome, Row, Search, Told};
pub use forms::{Aim, Choice, Control, DeletePage, Fault, FormField, FormPage, KindsPage, Tried};
pub use frame::{Flash, Frame, Section, Tone, Viewer};
pub use moment::{When, spelled};
pub use notices::{ContinuePage, Lost, NoticePage, SignInPage};
pub use overview::{Counts, OverviewPage};
pub use text::{Block, Text, grouped};

/// The HTML of a page.
pub fn html(page: &impl Template) -> String {
    // Writing into a string fails only where a value refuses to be written, and none of ours does.
    page.render().unwrap_or_else(|error| format!("this page could not be written: {error}"))
}

/// Where an approval is answered.
pub fn approval_path(id: &str) -> String {
    Links::none().approval(id)
}

/// Where a decision is shown.
pub fn decision_path(id: &str) -> String {
    Links::none().decision(id)
}
