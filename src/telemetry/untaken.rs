//! What an endpoint has let die since it last took something.
//!
//! A lane flows while its endpoint refuses one delivery after the other: each is a dead letter, which is as it should be, and nobody is
//! told. What is counted here tells such a lane from one that is well.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::model::Timestamp;

/// Deaths in a row.
#[derive(Debug, Default)]
pub struct Untaken {
    count: AtomicU64,
    last: AtomicI64,
}

impl Untaken {
    /// One more has died.
    pub fn died(&self, at: Timestamp) {
        self.last.store(at.unix_millis(), Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The endpoint has taken something.
    pub fn taken(&self) {
        self.count.store(0, Ordering::Relaxed);
    }

    /// How many have died since, and when the last of them did; `None` for none.
    pub fn in_a_row(&self) -> Option<(u64, Timestamp)> {
        let count = self.count.load(Ordering::Relaxed);
        (count > 0).then(|| (count, Timestamp::from_unix_millis(self.last.load(Ordering::Relaxed))))
    }
}
