//! TERM and INT: the running statement is ended, in the database too, and no other one begins. Then the process ends by the
//! signal, so that its agent can tell whether the signal was its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, raise};
use sqlflow_proto::agent::Failure;

use crate::channel::SpareChannel;
use crate::failure::StepError;

/// Time in which the main thread has to end after the signal.
const TIME_TO_END: Duration = Duration::from_secs(3);
/// Pause between two cancellations: the first may arrive before the statement does.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

/// What ends the running statement, or a read that waits for another program.
type Canceller = Box<dyn Fn() + Send>;

/// Waits for signals in a thread of its own.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Shared>);

#[derive(Default)]
struct Shared {
    cancellers: Mutex<Vec<Canceller>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether a statement runs, its results are being sent, or a staging table exists.
    is_busy: bool,
    /// Whether a staging table is being dropped: nothing is ended any more.
    is_cleaning_up: bool,
    /// Reports that nothing of this process remains in the database; `None`: something may. The submitter has not
    /// succeeded, and its own end says why.
    leaves_nothing: Option<SpareChannel>,
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

    /// Adds what ends a running statement, or a read that waits for another program.
    pub fn add_canceller(&self, canceller: Canceller) {
        self.0.cancellers().push(canceller);
    }

    /// A statement begins.
    ///
    /// # Errors
    /// It may not: a signal has arrived.
    pub fn begin_statement(&self) -> Result<(), StepError> {
        let mut state = self.0.state();
        state.check()?;
        state.is_busy = true;
        state.is_cleaning_up = false;
        Ok(())
    }

    /// Whether the step may go on.
    ///
    /// # Errors
    /// A signal has arrived.
    pub fn check(&self) -> Result<(), StepError> {
        self.0.state().check()
    }

    /// The statement has ended, and its results are sent.
    pub fn end_statement(&self) {
        self.0.state().is_busy = false;
    }

    /// From now on, nothing is ended: what follows must complete.
    pub fn begin_clean_up(&self) {
        {
            let mut state = self.0.state();
            state.is_busy = true;
            state.is_cleaning_up = true;
        }
        // One that is under way ends before.
        drop(self.0.cancellers());
    }

    /// Says that nothing of this process remains in the database, and that the submitter has not succeeded: its own end
    /// says why. The channel reports that when a signal arrives. `None`: something may remain.
    pub fn set_leaves_nothing(&self, channel: Option<SpareChannel>) {
        self.0.state().leaves_nothing = channel;
    }

    /// Ends the process, if a signal has arrived.
    pub fn end_by_signal(&self) {
        let state = self.0.state();
        if let Some(signal) = state.signal {
            state.end(signal);
        }
    }
}

impl State {
    fn check(&self) -> Result<(), StepError> {
        match self.signal {
            None => Ok(()),
            Some(_) => Err(StepError::Other("cannot continue: the step was terminated".to_owned())),
        }
    }

    fn end(&self, signal: Signal) -> ! {
        if let Some(channel) = &self.leaves_nothing {
            channel.send_failure(Failure {
                message: "the data process was terminated".to_owned(),
                not_executed: true,
                // What the submitter reports is the cause.
                peer_lost: true,
                ..Failure::default()
            });
        }
        end_by(signal)
    }
}

/// Ends the process by a signal that it has caught.
fn end_by(signal: Signal) -> ! {
    let mut signals = SigSet::empty();
    signals.add(signal);
    let _ = signals.thread_unblock();
    let _ = raise(signal);
    std::process::exit(128 + signal as i32)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancellers(&self) -> MutexGuard<'_, Vec<Canceller>> {
        self.cancellers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, signal: Signal) {
        let mut state = self.state();
        if !state.is_busy {
            // It connects, or waits for another program: there is nothing to end in the database. No statement can begin,
            // since the state is locked.
            state.end(signal);
        }
        state.signal = Some(signal);
        drop(state);
        // For example, nobody reads the channel, or the database does not respond to the cancel request either.
        std::thread::spawn(move || {
            std::thread::sleep(TIME_TO_END);
            end_by(signal);
        });
        loop {
            let cancellers = self.cancellers();
            if self.state().is_cleaning_up {
                return;
            }
            cancellers.iter().for_each(|cancel| cancel());
            drop(cancellers);
            std::thread::sleep(CANCEL_INTERVAL);
        }
    }
}
