//! What the tests stand on: real brokers, and waiting without sleeping.

pub(crate) mod process;
pub(crate) mod rabbit;

use std::time::Duration;

/// Polls `look` until it gives something; panics with `what` after `limit`.
pub(crate) async fn eventually<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
