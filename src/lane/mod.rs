//! (to come)

pub mod post;
