//! TERM and INT: the running statement is ended, in the database too, and no other one begins.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use crate::failure::StepError;

/// Time in which the main thread has to end after the signal.
const TIME_TO_END: Duration = Duration::from_secs(3);
/// Pause between two cancellations: the first may arrive before the statement does.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

/// What ends the running statement.
type Canceller = Box<dyn Fn() + Send>;

/// Waits for signals in a thread of its own.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Shared>);

#[derive(Default)]
struct Shared {
    canceller: Mutex<Option<Canceller>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether a statement runs, or its results are being sent.
    is_busy: bool,
    /// The signal that has arrived.
    signal: Option<Signal>,
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
            shared.end(signal);
        });
        shutdown
    }

    /// Sets what ends a running statement.
    pub fn set_canceller(&self, canceller: Canceller) {
        *self.0.canceller.lock().unwrap_or_else(PoisonError::into_inner) = Some(canceller);
    }

    /// A statement begins.
    ///
    /// # Errors
    /// It may not: a signal has arrived.
    pub fn begin_statement(&self) -> Result<(), StepError> {
        let mut state = self.0.state();
        if state.signal.is_some() {
            return Err(StepError::Other("cannot continue: the step was terminated".to_owned()));
        }
        state.is_busy = true;
        Ok(())
    }

    /// The statement has ended, and its results are sent.
    pub fn end_statement(&self) {
        self.0.state().is_busy = false;
    }

    /// The exit code after a signal; `None`: no signal has arrived.
    pub fn exit_code(&self) -> Option<ExitCode> {
        let code = exit_code(self.0.state().signal?);
        Some(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, signal: Signal) {
        let mut state = self.state();
        if !state.is_busy {
            // It connects, or waits for the agent: there is nothing to end in the database. No statement can begin,
            // since the state is locked.
            std::process::exit(exit_code(signal));
        }
        state.signal = Some(signal);
        drop(state);
        // For example, nobody reads the channel, or the database does not respond to the cancel request either.
        std::thread::spawn(move || {
            std::thread::sleep(TIME_TO_END);
            std::process::exit(exit_code(signal));
        });
        let canceller = self.canceller.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(cancel) = &*canceller {
            cancel();
            std::thread::sleep(CANCEL_INTERVAL);
        }
    }
}

/// As of a program that the signal killed, by the shells' convention.
fn exit_code(signal: Signal) -> i32 {
    128 + signal as i32
}
