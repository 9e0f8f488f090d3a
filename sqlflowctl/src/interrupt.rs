//! Ctrl+C: the first one cancels the job or stops reading, depending on the command. The second exits at once.

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

/// State shared with the task that waits for signals. The task runs in parallel, so a second Ctrl+C works even while
/// the command is blocked by a pipe without a reader.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    interrupted: AtomicBool,
    first: Notify,
    resume_hint: Mutex<String>,
}

impl Interrupts {
    /// The first Ctrl+C cancels the job with this token.
    pub(crate) fn cancelling(client: Client, token: String) -> Result<Arc<Self>, Failure> {
        let (shared, mut signals) = Self::listen()?;
        let task = Arc::clone(&shared);
        tokio::spawn(async move {
            signals.recv().await;
            task.interrupt();
            say("cancelling the job; Ctrl+C again to exit at once");
            tokio::select! {
                () = signals.recv() => {}
                () = cancel(client, &token) => signals.recv().await,
            }
            task.exit();
        });
        Ok(shared)
    }

    /// The first Ctrl+C stops reading.
    pub(crate) fn stopping() -> Result<Arc<Self>, Failure> {
        let (shared, mut signals) = Self::listen()?;
        let task = Arc::clone(&shared);
        tokio::spawn(async move {
            signals.recv().await;
            task.interrupt();
            signals.recv().await;
            task.exit();
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

    /// Sets the sentence that is printed at the second Ctrl+C.
    pub(crate) fn set_resume_hint(&self, hint: String) {
        *lock(&self.resume_hint) = hint;
    }

    fn exit(&self) -> ! {
        say(&lock(&self.resume_hint));
        std::process::exit(130)
    }
}

/// Cancels the job. Retries until the server answers.
async fn cancel(mut client: Client, token: &str) {
    while let Err(status) = client.cancel(token).await {
        if !is_retryable(&status) {
            say(&format!("cannot cancel the job: {}", status.message()));
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Prints a line, whatever the command is writing: at the left margin, over a progress bar if there is one.
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
