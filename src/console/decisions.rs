//! One decision, whole.

use askama::Template;

use super::{Asked, Frame, Section};
use crate::model::DecisionKind;

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
}
