//! The console against a real worker, in a real browser or by what one sends.

mod alerting;
mod approving;
mod dead_letters;
mod forms;
mod living;
mod operating;
mod searching;
