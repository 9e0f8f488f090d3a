//! Ctrl+C: what the first one does is the command's, the second leaves at once.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use sqlflow_cli::ctrl_c::CtrlC;
use sqlflow_sync::lock;
use tokio::sync::Notify;

use crate::client::Client;
use crate::console::wants_no_color;
use crate::failure::{Failure, is_retryable};

/// Time between two attempts to cancel while the server does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// What is shared with the task that waits for signals. It runs beside the command, so a second Ctrl+C leaves also
/// while the command is blocked writing to a pipe that nobody reads.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    interrupted: AtomicBool,
    first: Notify,
    how_to_go_on: Mutex<String>,
}

impl Interrupts {
    /// The first Ctrl+C asks for the end of the job with this token.
    pub(crate) fn that_cancel(client: Client, token: String) -> Result<Arc<Self>, Failure> {
        let (shared, mut signals) = Self::listen()?;
        let task = Arc::clone(&shared);
        tokio::spawn(async move {
            signals.recv().await;
            task.interrupt();
            say("cancelling the job; Ctrl+C again to leave at once");
            tokio::select! {
                () = signals.recv() => {}
                () = cancel(client, &token) => signals.recv().await,
            }
            task.leave();
        });
        Ok(shared)
    }

    /// The first Ctrl+C only ends the reading.
    pub(crate) fn that_stop() -> Result<Arc<Self>, Failure> {
        let (shared, mut signals) = Self::listen()?;
        let task = Arc::clone(&shared);
        tokio::spawn(async move {
            signals.recv().await;
            task.interrupt();
            signals.recv().await;
            task.leave();
        });
        Ok(shared)
    }

    fn listen() -> Result<(Arc<Self>, CtrlC), Failure> {
        let signals = CtrlC::listen().context("cannot listen for Ctrl+C")?;
        Ok((Arc::new(Self::default()), signals))
    }

    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
        self.first.notify_one();
    }

    /// Returns at the first Ctrl+C.
    pub(crate) async fn first(&self) {
        self.first.notified().await;
    }

    /// Whether there was a Ctrl+C.
    pub(crate) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Sets the sentence that an interrupted person is left with.
    pub(crate) fn go_on_with(&self, sentence: String) {
        *lock(&self.how_to_go_on) = sentence;
    }

    fn leave(&self) -> ! {
        say(&lock(&self.how_to_go_on));
        std::process::exit(130)
    }
}

/// Asks for the end of the job until the server has answered.
async fn cancel(mut client: Client, token: &str) {
    while let Err(status) = client.cancel(token).await {
        if !is_retryable(&status) {
            say(&format!("the job can't be cancelled: {}", status.message()));
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Writes a line beside whatever the command is writing: begins at the left, over a bar if there is one.
fn say(line: &str) {
    let mut err = std::io::stderr().lock();
    let is_terminal = std::io::IsTerminal::is_terminal(&err);
    let clear = match is_terminal {
        true if wants_no_color() => "\n",
        true => "\r\x1b[K",
        false => "",
    };
    let _ = writeln!(err, "{clear}{line}");
}
