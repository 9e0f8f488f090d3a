//! Ctrl+C, unless SIGINT was ignored when the program was started.

use std::fs;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Number of SIGINT.
const INT: u32 = 2;

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

/// Parses a line like `SigIgn:\t0000000000001002`, with a bit for each signal from 1.
fn is_ignored(status: &str, signal: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_has_a_bit_for_each_signal() {
        let status = "Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001002\n";
        assert!(is_ignored(status, INT) && is_ignored(status, 13) && !is_ignored(status, 1));
        assert!(!is_ignored("SigIgn:\t0000000000001000\n", INT) && !is_ignored("", INT));
    }
}
