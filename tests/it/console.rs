//! The console in a real browser, against a real worker.

mod approving;
mod operating;
mod searching;
