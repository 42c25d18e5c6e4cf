//! What the tests stand on: real brokers, real workers, and waiting without sleeping.

pub(crate) mod browser;
pub(crate) mod firewall;
pub(crate) mod pool;
pub(crate) mod process;
pub(crate) mod prometheus;
pub(crate) mod python;
pub(crate) mod rabbit;
pub(crate) mod relay;
pub(crate) mod scene;
pub(crate) mod tmpfs;
pub(crate) mod worker;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

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

/// A prefix for names on the shared broker that no other test has.
pub(crate) fn unique_name(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Waits for the turn of a test that needs the machine for itself: several brokers, several workers, minutes of load. Two of
/// those at once would only wait for each other's processor time. The turn ends when what is returned is dropped.
pub(crate) async fn turn_of_the_heavy() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}
