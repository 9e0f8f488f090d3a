//! What a server does for an attempt, done here for `exec`: it assigns what the flags say, takes the records, grants
//! every commit and acknowledges the outcome.
//!
//! `log` is the folder that keeps the output.

mod log;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use sqlflow_proto::agent::{Assignment, AttemptRef, Outcome, attach_request::Message, outcome::Reason};
use sqlflow_proto::record::Record;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::cli::ExecOptions;
use crate::run::Incoming;
use crate::ship::link::{Link, Sent};
use crate::summary;
use crate::supervise::Event;
use log::LogFolder;

/// Between tries to write to a disk that is full, or gone for a while.
const RETRY: Duration = Duration::from_secs(1);

/// Stands in for a server.
#[derive(Debug)]
pub(crate) struct Standalone {
    assignment: Assignment,
    log: Option<LogFolder>,
    outcome: Option<PathBuf>,
}

impl Standalone {
    /// # Errors
    /// The log folder cannot be made, or the outcome could not be written: told now, and not after hours.
    pub(crate) fn new(options: ExecOptions, attempt: AttemptRef) -> anyhow::Result<Self> {
        if let Some(file) = &options.common.outcome {
            can_write(file, options.log_to.as_deref())
                .with_context(|| format!("cannot write the outcome to {}", file.display()))?;
        }
        let log = options
            .log_to
            .map(|dir| LogFolder::create(&dir).with_context(|| format!("cannot log to {}", dir.display())))
            .transpose()?;
        // 0 would mean the default, and an assignment counts whole seconds.
        let seconds =
            |time: Duration| u32::try_from(time.as_secs_f64().ceil() as u64).unwrap_or(u32::MAX).max(1);
        let assignment = Assignment {
            attempt: Some(attempt),
            command: options.command,
            inputs: options.input,
            outputs: options.output,
            grace_seconds: seconds(options.grace),
            drain_seconds: seconds(options.drain),
            ..Assignment::default()
        };
        Ok(Self { assignment, log, outcome: options.common.outcome })
    }

    /// Serves the attempt until the agent ends.
    pub(crate) async fn run(mut self, link: Arc<Link>, incoming: mpsc::UnboundedSender<Incoming>) {
        link.set_attached(true);
        let _ = incoming.send(Incoming::Assigned(Box::new(std::mem::take(&mut self.assignment))));
        let mut sent = Sent::resume(0);
        loop {
            match link.next_message(&mut sent).await.message {
                Some(Message::Records(batch)) => {
                    let last = batch.records.last().map_or(0, |record| record.seq);
                    self.keep(batch.records).await;
                    link.ack(last);
                }
                Some(Message::Commit(_)) => {
                    if link.settle_commit() {
                        let _ = incoming.send(Incoming::Event(Event::Granted));
                    }
                }
                Some(Message::Outcome(outcome)) => {
                    self.end(outcome).await;
                    let _ = incoming.send(Incoming::Event(Event::OutcomeAcked));
                }
                Some(Message::Hello(_) | Message::Heartbeat(_) | Message::Compressed(_)) | None => {}
            }
        }
    }

    /// Until it is written; meanwhile the outbox fills, and its policy says what becomes of the command.
    async fn keep(&mut self, records: Vec<Record>) {
        let Some(mut log) = self.log.take() else { return };
        let records = Arc::new(records);
        loop {
            let batch = records.clone();
            let (returned, written) = match spawn_blocking(move || {
                let written = log.write(&batch);
                (log, written)
            })
            .await
            {
                Ok(done) => done,
                // The runtime is going down.
                Err(_) => return,
            };
            log = returned;
            match written {
                Ok(()) => break,
                Err(error) => tracing::warn!(%error, "cannot write the log; trying again"),
            }
            tokio::time::sleep(RETRY).await;
        }
        self.log = Some(log);
    }

    async fn end(&mut self, outcome: Outcome) {
        let (log, file) = (self.log.take(), self.outcome.take());
        // Of its own exit the command's exit code tells.
        if !outcome.message.is_empty() && outcome.reason() != Reason::Exited {
            tracing::warn!("{}", outcome.message);
        }
        let write = spawn_blocking(move || {
            let json = summary::json(&outcome);
            if let Some(file) = file
                && let Err(error) = std::fs::write(&file, &json)
            {
                tracing::error!(%error, file = %file.display(), "cannot write the outcome");
            }
            if let Some(mut log) = log
                && let Err(error) = log.end(&json)
            {
                tracing::error!(%error, "cannot finish the log");
            }
        });
        let _ = write.await;
    }
}

/// Whether the file can be written, or made, as far as one can see without doing it. `coming` is a folder that is about to
/// be made.
fn can_write(file: &Path, coming: Option<&Path>) -> nix::Result<()> {
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match access(file, AccessFlags::W_OK) {
        Ok(()) if file.is_dir() => Err(Errno::EISDIR),
        // Where a link points nobody is asked.
        Err(Errno::ENOENT) if file.is_symlink() || coming == Some(folder) => Ok(()),
        Err(Errno::ENOENT) => access(folder, AccessFlags::W_OK | AccessFlags::X_OK),
        found => found,
    }
}
