//! Control plane of `exec`: assigns the command of the options, takes the records, grants every commit and acknowledges
//! the outcome. `log` is the log folder.

mod log;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use sqlflow_proto::agent::{Assignment, AttemptRef, Outcome, attach_request::Message};
use sqlflow_proto::record::Record;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::cli::ExecOptions;
use crate::control_plane::Incoming;
use crate::outcome_json;
use crate::output::link::{Link, Settled};
use crate::output::stream_progress::Sent;
use crate::supervisor::{Event, GrantEvent, ReportEvent};
use log::LogFolder;

/// Pause before a retry on a disk that is full or fails.
const RETRY: Duration = Duration::from_secs(1);

/// Replaces a server.
#[derive(Debug)]
pub(crate) struct LocalControlPlane {
    assignment: Assignment,
    log: Option<LogFolder>,
}

impl LocalControlPlane {
    /// # Errors
    /// The log folder cannot be created, or the outcome could not be written at the end.
    pub(crate) fn new(options: ExecOptions, attempt: AttemptRef) -> anyhow::Result<Self> {
        if let Some(file) = &options.common.outcome {
            can_write(file, options.log_to.as_deref())
                .with_context(|| format!("cannot write the outcome to {}", file.display()))?;
        }
        let log = options
            .log_to
            .map(|dir| LogFolder::create(&dir).with_context(|| format!("cannot log to {}", dir.display())))
            .transpose()?;
        let assignment = Assignment {
            attempt: Some(attempt),
            // For logs and spans.
            command: options.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            inputs: options.input,
            outputs: options.output,
            environment: options.trace.filter(|_| options.trace_command).map(collector).into_iter().collect(),
            ..Assignment::default()
        };
        Ok(Self { assignment, log })
    }

    /// Serves the attempt until the agent ends.
    pub(crate) async fn run(mut self, link: Arc<Link>, incoming: mpsc::UnboundedSender<Incoming>) {
        link.set_attached(true);
        let _ = incoming.send(Incoming::Assigned(Box::new(std::mem::take(&mut self.assignment))));
        let mut sent = Sent::resume(0, 0);
        loop {
            let message = link.next_message(&mut sent).await.message;
            message.iter().for_each(|it| sent.sends(it));
            match message {
                Some(Message::Records(batch)) => {
                    let last = batch.records.last().map_or(0, |record| record.seq);
                    self.write(batch.records, &link).await;
                    sent.acked(last);
                    link.outbox.ack(last);
                }
                Some(Message::Commit(_)) => {
                    if link.attempt.settle_commit() == Settled::Pending {
                        let _ = incoming.send(Incoming::Event(Event::Grant(GrantEvent::Granted)));
                    }
                }
                Some(Message::Outcome(outcome)) => {
                    let ended = match self.end(outcome).await {
                        Ok(()) => Event::Report(ReportEvent::OutcomeAcked),
                        Err(why) => Event::Report(ReportEvent::LogUnfinished(why)),
                    };
                    let _ = incoming.send(Incoming::Event(ended));
                }
                Some(Message::Hello(_) | Message::Heartbeat(_) | Message::Compressed(_)) | None => {}
            }
        }
    }

    /// Writes records, with retries until it succeeds. Meanwhile the outbox fills, and its policy decides about the
    /// command. The supervisor bounds the time at the end.
    async fn write(&mut self, records: Vec<Record>, link: &Link) {
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
                // The runtime is shutting down.
                Err(_) => return,
            };
            log = returned;
            match written {
                Ok(()) => break,
                Err(error) => {
                    if link.connection.stalled().is_none() {
                        tracing::warn!(%error, "cannot write the log; retrying");
                    }
                    link.connection.set_stalled(Some(error.to_string()));
                }
            }
            tokio::time::sleep(RETRY).await;
        }
        if link.connection.stalled().is_some() {
            tracing::warn!("the log can be written again");
            link.connection.set_stalled(None);
        }
        self.log = Some(log);
    }

    /// Finishes the log.
    ///
    /// # Errors
    /// A message: the log may be incomplete.
    async fn end(&mut self, outcome: Outcome) -> Result<(), String> {
        let Some(mut log) = self.log.take() else { return Ok(()) };
        match spawn_blocking(move || log.end(&outcome_json::encode(&outcome))).await {
            Ok(Err(error)) => {
                let why = format!("cannot finish the log: {error}");
                tracing::error!("{why}");
                Err(why)
            }
            // Or the runtime is shutting down.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

/// Variable with the collector's address for the command.
fn collector(address: String) -> (String, String) {
    ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), address)
}

/// Checks that the file can be written or created, without doing it. `coming` is a folder that will be created.
fn can_write(file: &Path, coming: Option<&Path>) -> nix::Result<()> {
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match access(file, AccessFlags::W_OK) {
        Ok(()) if file.is_dir() => Err(Errno::EISDIR),
        // The target of a link is not checked.
        Err(Errno::ENOENT) if file.is_symlink() || coming == Some(folder) => Ok(()),
        Err(Errno::ENOENT) => access(folder, AccessFlags::W_OK | AccessFlags::X_OK),
        found => found,
    }
}
