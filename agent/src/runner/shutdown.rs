//! The end: the outcome is written and reported, and unacknowledged records are spooled.

use std::time::Duration;

use sqlflow_os::failpoint;
use sqlflow_proto::agent::{Outcome, outcome::Reason};
use sqlflow_proto::record::ModelPublished;
use sqlflow_sync::lock;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::Runner;
use crate::output::spool;
use crate::supervisor::{ExitReport, OutputSink};
use crate::{outcome_json, workspace};

/// Timeout of the exit for file operations that were begun.
const LAST_WORK: Duration = Duration::from_secs(10);
/// Time after which an outcome that no server has taken is made durable.
const TAKING_TIME: Duration = Duration::from_secs(1);

impl Runner {
    pub(super) fn report(&mut self, mut report: ExitReport, models: Vec<ModelPublished>) {
        let nothing_left = self.all_exited || self.programs.none_started();
        if !nothing_left {
            self.warn_of_remaining();
        }
        if let Some(stderr_tail) = self.link.outbox.stderr_tail() {
            report.explain(&stderr_tail);
        }
        let kept = self.config.sink;
        match (kept, report.reason) {
            // The exit code shows the command's own exit.
            (OutputSink::LogFolder | OutputSink::Nowhere, Reason::Succeeded | Reason::Exited) => {}
            (OutputSink::LogFolder | OutputSink::Nowhere, _) => tracing::warn!("{}", report.message),
            (OutputSink::Server, reason) => {
                tracing::info!(?reason, message = report.message, "the attempt ended");
            }
        }
        let mut outcome = self.outcome_builder.outcome(report, models, &self.link, self.reaper.largest());
        outcome.nothing_left = nothing_left;
        let (link, file) = (self.link.clone(), self.outcome_file.clone());
        let outcome_json = self.config.outcome_json.clone();
        let terminal_records = self.link.outbox.terminal_records();
        self.outcome = Some(outcome.clone());
        let (written, is_written) = oneshot::channel();
        self.last_work.push(spawn_blocking(move || {
            if outcome.output_kept
                && let Some(file) = &file
            {
                // The sync may take longer than this agent lives.
                let message = format!("{}; but it was not made durable", outcome.message);
                file.write(&Outcome { output_kept: false, message, ..outcome.clone() });
                if let Err(error) = workspace::sync(file.dir()) {
                    tracing::error!(%error, "cannot make the output durable");
                    outcome.output_kept = false;
                    outcome.message = format!("{}; but it cannot be made durable: {error}", outcome.message);
                }
            }
            failpoint::agent("before-outcome");
            if let Some(file) = &file {
                file.write(&outcome);
                if outcome.output_kept {
                    file.make_durable();
                }
            }
            let _ = written.send(());
            let json = match kept {
                OutputSink::Server => outcome_json::encode_with(&outcome, &terminal_records),
                OutputSink::LogFolder | OutputSink::Nowhere => outcome_json::encode(&outcome),
            };
            if let Some(file) = outcome_json
                && let Err(error) = outcome_json::write(&file, &json)
            {
                tracing::error!(%error, file = %file.display(), "cannot write the outcome");
            }
            failpoint::agent("after-outcome");
            link.attempt.report(outcome);
        }));
        if let Some(file) = self.outcome_file.clone() {
            tokio::spawn(async move {
                let _ = is_written.await;
                tokio::time::sleep(TAKING_TIME).await;
                spawn_blocking(move || file.make_durable());
            });
        }
    }

    /// Completes what a later server needs.
    pub(super) async fn leave(&mut self) {
        for work in self.last_work.drain(..) {
            let _ = tokio::time::timeout(LAST_WORK, work).await;
        }
        if let Some(file) = self.outcome_file.clone() {
            // Before the spool, which may fill the disk.
            let written = spawn_blocking(move || file.make_durable());
            let _ = tokio::time::timeout(LAST_WORK, written).await;
        }
        self.leave_spool();
        self.export_trace().await;
        // A group that got the terminal from the command may have ended only now.
        self.take_terminal_back(None);
    }

    pub(super) async fn export_trace(&mut self) {
        let (Some(trace), Some(mut outcome)) = (self.trace.take(), self.outcome.take()) else { return };
        // With the end of the reporting phase.
        outcome.phases = self.outcome_builder.phase_times();
        let trace = lock(&trace).clone();
        let command = self.assignment.as_ref().map(|it| it.command.clone()).unwrap_or_default();
        trace.export(&command, &outcome).await;
    }

    pub(super) fn leave_spool(&self) {
        let unacked = self.link.outbox.unacked();
        if unacked.is_empty() {
            return;
        }
        let Some(dir) = &self.config.run_dir else { return };
        failpoint::agent("before-spool");
        tracing::warn!(bytes = self.link.outbox.unacked_bytes(), "spooling records that no server took");
        if let Err(error) =
            spool::leave(LAST_WORK, dir, self.config.seal.as_ref(), &unacked, self.overflow.as_ref())
        {
            tracing::error!("cannot write the spool: {error:#}");
        }
        failpoint::agent("after-spool");
    }
}
