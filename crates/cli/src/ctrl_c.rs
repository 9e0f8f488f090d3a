//! Ctrl+C, unless SIGINT was ignored when the program was started.

use std::fs;
use std::io;

use sqlflow_os::ignored_signals::is_ignored;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Number of SIGINT.
const INT: i32 = 2;

/// Ctrl+C of the user. There is none if this process was started with SIGINT ignored, as background jobs of scripts
/// are.
#[derive(Debug)]
pub struct CtrlC(Option<Signal>);

impl CtrlC {
    /// Starts to listen. Call it once in a process: it installs a handler, after which SIGINT is no longer ignored.
    ///
    /// # Errors
    /// Errors of the kernel, or there is no runtime.
    pub fn listen() -> io::Result<Self> {
        let is_ours = !ignores_interrupt();
        Ok(Self(is_ours.then(|| signal(SignalKind::interrupt())).transpose()?))
    }

    /// Waits for the next one.
    pub async fn recv(&mut self) {
        match self.0.as_mut() {
            Some(signals) => {
                signals.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

fn ignores_interrupt() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| is_ignored(&status, INT))
}
