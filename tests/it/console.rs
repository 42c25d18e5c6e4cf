//! The console against a real worker, in a real browser or by what one sends.

mod alerting;
mod approving;
mod forms;
mod operating;
mod searching;
