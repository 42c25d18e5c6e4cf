//! The socket as lanes see it: a parcel goes out, a reply or trouble comes back.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::{
    channels::Parcel,
    model::{Reply, Trouble},
};

/// Posts parcels. A trait, because lanes are tested in paused time, where real sockets misbehave.
pub trait Post: Send + Sync {
    /// Posts `parcel` and reads at most a bounded part of the reply, all within `limit`.
    fn post(&self, parcel: Parcel, limit: Duration) -> BoxFuture<'_, Result<Reply, Trouble>>;
}
