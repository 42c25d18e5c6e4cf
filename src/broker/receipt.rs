//! The receipt: a value that travels with a message and says, at the end, whether the broker may forget it.
//!
//! A decision may go to many channels, so a receipt can be shared. The broker may forget the message only when **every** share
//! was settled. A share that is dropped instead (a panic, a bug, a stop) makes the whole receipt read as "not settled", and the
//! broker keeps the message: losing track of a receipt can cost a duplicate, never an alert.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Who is told when the last share of a receipt is gone.
pub trait Desk: Send + Sync {
    /// The message `tag` is done with: `settled` by every share, or else to be handed out again. Called once per receipt, from
    /// any thread; must not block.
    fn close(&self, tag: u64, settled: bool);

    /// Whether closing can have no effect any more, because the connection that the message came by is gone. The broker hands
    /// such a message out again in any case, so work that has not begun need not begin.
    fn is_void(&self) -> bool {
        false
    }
}

/// A share of the duty to settle one message.
#[must_use = "a receipt that is dropped unsettled makes the broker hand the message out again"]
pub struct Receipt {
    shared: Arc<Shared>,
    settled: bool,
}

struct Shared {
    tag: u64,
    /// Whether some share was dropped unsettled.
    lost: AtomicBool,
    desk: Arc<dyn Desk>,
}

impl Receipt {
    /// The first share of a new receipt for the message that `desk` knows as `tag`.
    pub fn new(tag: u64, desk: Arc<dyn Desk>) -> Self {
        Self { shared: Arc::new(Shared { tag, lost: AtomicBool::new(false), desk }), settled: false }
    }

    /// A receipt for what no broker handed out: nobody is told what becomes of it.
    pub fn of_nobody() -> Self {
        Self::new(0, Arc::new(Nobody))
    }

    /// One more share.
    pub fn share(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), settled: false }
    }

    /// Whether settling it can have no effect any more; see [`Desk::is_void`].
    pub fn is_void(&self) -> bool {
        self.shared.desk.is_void()
    }

    /// This share is done: what it stood for cannot be lost any more.
    pub fn settle(mut self) {
        self.settled = true;
    }
}

/// Where nothing waits to be settled.
struct Nobody;

impl Desk for Nobody {
    fn close(&self, _: u64, _: bool) {}
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.settled {
            // Relaxed is enough: the reference count of `Arc`, which orders its last drop after all others, carries it over.
            self.shared.lost.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.desk.close(self.tag, !*self.lost.get_mut());
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receipt({})", self.shared.tag)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Closed(Mutex<Vec<(u64, bool)>>);

    impl Desk for Closed {
        fn close(&self, tag: u64, settled: bool) {
            self.0.lock().unwrap().push((tag, settled));
        }
    }

    #[test]
    fn a_message_is_settled_when_every_share_is_and_not_before() {
        let desk = Arc::new(Closed::default());
        let first = Receipt::new(7, desk.clone());
        let second = first.share();
        first.settle();
        assert!(desk.0.lock().unwrap().is_empty());
        second.settle();
        assert_eq!(*desk.0.lock().unwrap(), [(7, true)]);
    }

    #[test]
    fn one_dropped_share_makes_the_broker_keep_the_message() {
        let desk = Arc::new(Closed::default());
        let first = Receipt::new(8, desk.clone());
        let second = first.share();
        drop(first);
        second.settle();
        assert_eq!(*desk.0.lock().unwrap(), [(8, false)]);
    }

    #[test]
    fn a_panic_reads_as_not_settled() {
        let desk = Arc::new(Closed::default());
        let receipt = Receipt::new(9, desk.clone());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = receipt;
            panic!("on purpose");
        }));
        assert!(result.is_err());
        assert_eq!(*desk.0.lock().unwrap(), [(9, false)]);
    }
}
