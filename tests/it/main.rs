//! The one integration test binary: a module per subject.

mod architecture;
mod broker;
mod dead_letters;
mod support;
mod worker;
