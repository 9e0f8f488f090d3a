//! TERM and INT: the running statement is ended, in the database too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

/// Time in which the main thread has to end after the signal.
const TIME_TO_END: Duration = Duration::from_secs(3);

/// What ends the running statement.
type Canceller = Box<dyn Fn() + Send>;

/// Waits for signals in a thread of its own.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Shared>);

#[derive(Default)]
struct Shared {
    canceller: Mutex<Option<Canceller>>,
    requested: AtomicBool,
}

impl Shutdown {
    /// Begins to wait. Must be called before other threads are started.
    pub fn listen() -> Self {
        let shutdown = Self::default();
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGINT);
        if signals.thread_block().is_err() {
            return shutdown;
        }
        let shared = Arc::clone(&shutdown.0);
        std::thread::spawn(move || {
            let Ok(signal) = signals.wait() else { return };
            shared.requested.store(true, Ordering::SeqCst);
            // For example, nobody reads the channel, or the database does not respond to the cancel request either.
            std::thread::spawn(move || {
                std::thread::sleep(TIME_TO_END);
                std::process::exit(exit_code(signal));
            });
            if let Some(cancel) = &*shared.canceller.lock().unwrap_or_else(PoisonError::into_inner) {
                cancel();
            }
        });
        shutdown
    }

    /// Sets what ends the running statement.
    pub fn set_canceller(&self, canceller: Canceller) {
        *self.0.canceller.lock().unwrap_or_else(PoisonError::into_inner) = Some(canceller);
    }

    /// Whether a signal has arrived.
    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::SeqCst)
    }
}

/// As of a program that the signal killed, by the shells' convention.
fn exit_code(signal: Signal) -> i32 {
    128 + signal as i32
}
