//! What a program was started with and should leave alone.

use std::fs;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Number of SIGINT.
const INT: u32 = 2;

/// The person's Ctrl+C; none where this process was started with SIGINT ignored, as the background jobs of a script are: it is
/// not meant for them.
#[derive(Debug)]
pub struct CtrlC(Option<Signal>);

impl CtrlC {
    /// Listens from now on. Once for a process: who asked first handles SIGINT, and so no longer ignores it.
    ///
    /// # Errors
    /// The kernel's, or there is no runtime.
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

/// From a line like `SigIgn:\t0000000000001002`: a bit for each signal, from 1.
fn is_ignored(status: &str, signal: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_for_each_signal() {
        let status = "Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001002\n";
        assert!(is_ignored(status, INT) && is_ignored(status, 13) && !is_ignored(status, 1));
        assert!(!is_ignored("SigIgn:\t0000000000001000\n", INT) && !is_ignored("", INT));
    }
}
