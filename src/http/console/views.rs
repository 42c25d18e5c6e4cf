//! Whose view of the pool a page shows, and whose is missing.

use axum::http::StatusCode;

use crate::{
    console::{Missing, Text, Views},
    workers::{Trouble, Unheard},
};

/// The views of so many workers.
pub(super) fn views<'a>(workers: usize, unheard: impl IntoIterator<Item = &'a Unheard>) -> Views {
    Views { workers, missing: missing(unheard) }
}

/// Who could not be asked, each once.
pub(super) fn missing<'a>(unheard: impl IntoIterator<Item = &'a Unheard>) -> Vec<Missing> {
    let mut missing: Vec<Missing> = Vec::new();
    for Unheard { server, trouble } in unheard {
        let worker = Text::short(server);
        if missing.iter().all(|known| known.worker != worker) {
            missing.push(Missing { worker, why: Text::long(&why(trouble)) });
        }
    }
    missing
}

/// What a worker's trouble means for who looks at a page.
pub(super) fn why(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Refused { status: StatusCode::UNAUTHORIZED, .. } => String::from(
            "it does not know who you are; sessions hold over the pool where INTERVEN_ALERTS_KEY and [access] are the same",
        ),
        Trouble::Refused { message, .. } => message.clone(),
        Trouble::Silent(why) => why.clone(),
    }
}
