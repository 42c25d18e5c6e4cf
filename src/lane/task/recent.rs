//! What was delivered last: a redelivery after a lost connection finds itself here, and is no duplicate.

use std::collections::{HashSet, VecDeque};

use crate::model::DeliveryId;

/// How many delivered ids a lane remembers, so that a redelivery after a lost connection is no duplicate: more than any digest tells.
const RECENT_MAX: usize = 12_288;

/// The deliveries that were delivered last.
#[derive(Default)]
pub(super) struct Recent {
    order: VecDeque<DeliveryId>,
    known: HashSet<DeliveryId>,
}

impl Recent {
    pub(super) fn insert(&mut self, id: DeliveryId) {
        if self.known.insert(id) {
            self.order.push_back(id);
            if self.order.len() > RECENT_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }

    pub(super) fn contains(&self, id: DeliveryId) -> bool {
        self.known.contains(&id)
    }
}
