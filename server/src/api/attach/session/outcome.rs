//! The outcome that an agent reports, and its last records.

use sqlflow_job::{
    Attempt, Change, Event, Job, Outcome as JobOutcome, Reason, StatementEnds, Step, StepKind,
};
use sqlflow_launcher::{Target, TerminatedBy};
use sqlflow_os::clock;
use sqlflow_proto::agent::{
    AttachRequest, Outcome, OutcomeAck, attach_request, attach_response, attach_response::Message,
};
use sqlflow_result_log::Entry;
use tonic::Status;

use super::{Incoming, Session};
use crate::agent_outcome;
use crate::api::status;
use crate::model_rights;
use crate::success;

impl Session<'_> {
    /// Takes the last records and the outcome. If possible, one write makes both durable.
    pub(super) async fn append_and_end(
        &mut self,
        entries: Vec<Entry>,
        outcome: &Outcome,
    ) -> Result<(), Status> {
        // The platform may take long to report who terminated the agent.
        let is_told_at_once = outcome.reason() != sqlflow_proto::agent::outcome::Reason::Terminated;
        if is_told_at_once && entries.last().is_some_and(|last| last.record.seq == outcome.last_seq) {
            let ends = self.ends_with(&entries);
            let event = self.outcome_event(outcome, ends).await?;
            let (log, job) = (&self.context.log, &self.attempt.job);
            let both = log.append_and_apply(job, &entries, event, clock::now_ms()).await;
            if let Some(both) = both.map_err(status::of_log)? {
                (self.acked_seq, self.ends) = (outcome.last_seq, ends);
                // Without it the agent would keep them for the next server.
                self.send(Message::Ack(attach_response::Ack { seq: self.acked_seq })).await?;
                return self.has_ended(outcome, &both.job, both.change).await;
            }
        }
        self.append(entries).await?;
        self.outcome(outcome).await
    }

    pub(super) async fn outcome(&mut self, outcome: &Outcome) -> Result<(), Status> {
        // Another server may have taken the last ones, and only their acknowledgement was lost.
        let is_durable_elsewhere = self.acked_seq < outcome.last_seq;
        if is_durable_elsewhere {
            let rank = self.producer.rank;
            let durable = self.context.log.last_seq(&self.attempt, rank).await.map_err(status::of_log)?;
            if durable < outcome.last_seq {
                return Err(Status::invalid_argument(format!(
                    "the outcome names record {}, but only {durable} have arrived",
                    outcome.last_seq
                )));
            }
        }
        let ends = if is_durable_elsewhere {
            self.context.log.statement_ends(&self.attempt).await.map_err(status::of_log)?
        } else {
            self.ends
        };
        let event = self.outcome_event(outcome, ends).await?;
        let (job, change) = self.update(event).await.map_err(status::of_update)?;
        self.has_ended(outcome, &job, change).await
    }

    /// `ends`: the statements whose ends are in the log, or are appended with the event.
    async fn outcome_event(&self, outcome: &Outcome, ends: StatementEnds) -> Result<Event, Status> {
        let converted = agent_outcome::from_wire(outcome);
        let (log, job) = (&*self.context.log, &self.job);
        let believed = success::believed(converted, log, job, &self.attempt, ends).await;
        let mut converted = believed.map_err(status::of_log)?;
        if converted.reason == Reason::Terminated {
            let target = Target::of(&self.job, &self.attempt);
            match self.context.executors.terminated_by(&target).await {
                Some(TerminatedBy::Cluster(who)) => {
                    converted.message = format!("{}: {who}", converted.message);
                }
                // The rest of the report stays valid, for example that its output was kept.
                Some(TerminatedBy::Deadline) => {
                    converted.reason = Reason::Deadline;
                    converted.retryable = false;
                    converted.message = format!("it ran longer than its Pod may; {}", converted.message);
                }
                // Another attempt would write as much.
                Some(TerminatedBy::DiskLimit(why)) => {
                    converted.retryable = false;
                    converted.message = format!("{why}; {}", converted.message);
                }
                None => {}
            }
        }
        // It is retryable if the machine has run out of something.
        if converted.reason == Reason::StartFailed
            && !converted.retryable
            && let Some(remedy) = self.context.assigner.start_remedy(&self.job, &self.attempt).await
        {
            converted.message = format!("{}; {remedy}", converted.message);
        }
        Ok(Event::OutcomeReported {
            attempt: self.attempt.clone(),
            instance: self.instance.clone(),
            outcome: converted,
        })
    }

    /// The outcome is durable. An agent may report it again; it counts once.
    async fn has_ended(&mut self, outcome: &Outcome, job: &Job, change: Change) -> Result<(), Status> {
        let ended = job.attempt(&self.attempt).and_then(Attempt::outcome);
        if ended.is_some_and(JobOutcome::succeeded) {
            self.forget_dropped_models().await?;
        }
        if change == Change::Changed {
            self.context.metrics.note_phases(&outcome.phases);
            if let Some(ended) = ended {
                tracing::info!(
                    reason = ended.reason.name(),
                    outcome = ended.message,
                    "the attempt has ended"
                );
            }
        }
        self.send(Message::OutcomeAck(OutcomeAck {})).await
    }

    /// Before the acknowledgement: an agent that does not get it reports its success again.
    async fn forget_dropped_models(&self) -> Result<(), Status> {
        let is_drop = |step: &Step| step.kind == StepKind::DropModel;
        if self.job.steps.get(self.attempt.step as usize).is_some_and(is_drop)
            && let Some(spec) = self.context.assigner.step_spec(&self.attempt).await?
        {
            model_rights::dropped(&*self.context.store, &spec).await.map_err(status::of_store)?;
        }
        Ok(())
    }
}

/// The outcome, if the next message is one.
pub(super) fn take(next: &mut Option<Incoming>) -> Option<Outcome> {
    let is_outcome = |next: &mut Incoming| {
        matches!(next, Some(Ok(AttachRequest { message: Some(attach_request::Message::Outcome(_)) })))
    };
    match next.take_if(is_outcome)?? {
        Ok(AttachRequest { message: Some(attach_request::Message::Outcome(outcome)) }) => Some(outcome),
        _ => None,
    }
}
