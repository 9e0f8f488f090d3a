//! Events and their effects. `apply` is the only way that a job's state changes; the store calls it within a
//! transaction. Every event may arrive twice, late, or from a sender that was fenced off.

use super::{
    Attempt, AttemptId, Cause, EndedBy, ExecutorProof, ExecutorRef, Failure, InstanceHash, Job, JobState,
    LauncherId, LauncherKind, Milestones, Outcome, Phase, Role,
};

/// An event of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A client or a limit requests the end of the job.
    CancelRequested(Failure),
    /// The reconciler is about to launch a new attempt of this step.
    AttemptCreated {
        /// Index of the step.
        step: u32,
        /// Purpose of the attempt.
        role: Role,
        /// Launcher that will start it.
        launcher_id: LauncherId,
    },
    /// The launcher accepted the attempt.
    AttemptLaunched {
        /// The attempt.
        attempt: AttemptId,
        /// URL of its page at its platform.
        tracker_url: Option<String>,
        /// Uid of its executor at its platform, if it gives one.
        executor_uid: Option<String>,
    },
    /// The platform reported progress in starting the attempt.
    MilestonesSeen {
        /// The attempt.
        attempt: AttemptId,
        /// The known times.
        milestones: Milestones,
    },
    /// An agent attached to the attempt.
    AgentAttached {
        /// The agent's attempt.
        attempt: AttemptId,
        /// The agent's instance.
        instance: InstanceHash,
        /// Id of the server that it attached to.
        server: String,
        /// Whether it runs on the machine that holds the state.
        is_local: bool,
    },
    /// The agent is connected to no server: the one that it attached to has ended, or its lease has expired. A
    /// reconciler reports this. The agent must attach again.
    AgentUnheard {
        /// The attempt.
        attempt: AttemptId,
        /// Id of the server that it had attached to.
        server: String,
    },
    /// An agent requests the grant to make the attempt's effects visible.
    CommitRequested {
        /// The agent's attempt.
        attempt: AttemptId,
        /// The agent's instance.
        instance: InstanceHash,
    },
    /// An agent reports the attempt's outcome.
    OutcomeReported {
        /// The agent's attempt.
        attempt: AttemptId,
        /// The agent's instance.
        instance: InstanceHash,
        /// The outcome.
        outcome: Outcome,
    },
    /// The reconciler found that nothing of the attempt runs, and inferred the outcome.
    AttemptFoundEnded {
        /// The attempt.
        attempt: AttemptId,
        /// The inferred outcome.
        outcome: Outcome,
        /// What the reconciler knew about the attempt's agent when it decided.
        basis: Basis,
    },
    /// The timeout of the attempt's pending reason has passed. The event is late, and ignored, if an agent is attached.
    AttemptGivenUp {
        /// The attempt.
        attempt: AttemptId,
        /// The pending reason.
        outcome: Outcome,
    },
    /// The job has ended, and the end of its log is durable.
    Finished(JobState),
}

/// Basis of an inferred outcome. An agent may attach through another server while a reconciler decides, so an outcome
/// that was inferred without an agent does not apply to an attempt with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// No agent had attached, so nothing was executed.
    NeverAttached,
    /// An agent had attached before the attempt was observed.
    Attached,
}

/// The reason for which an event was rejected. The state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The job has no such step or attempt.
    #[error("there is no such attempt")]
    UnknownAttempt,
    /// Another agent instance attached first.
    #[error("another agent is attached to this attempt")]
    WrongInstance,
    /// The attempt has ended, or was superseded by a newer one.
    #[error("this attempt is over")]
    AttemptOver,
    /// The job was cancelled, so nothing new becomes visible.
    #[error("the job was cancelled")]
    Cancelled,
    /// The job has ended.
    #[error("the job is over")]
    JobOver,
    /// The event does not fit the state, for example because its sender lost the lease.
    #[error("the event does not fit the job's state")]
    OutOfOrder,
}

/// Effect of an accepted event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The state changed and must be stored.
    Changed,
    /// The event was a duplicate; the state is unchanged.
    Unchanged,
}

impl Event {
    /// Whether the event is found again, from the platform or the log, if a power failure undoes it. What an attempt
    /// has executed does not depend on such events: the log shows it, and is durable.
    #[must_use]
    pub fn is_found_again(&self) -> bool {
        match self {
            // Launching is idempotent.
            Self::AttemptLaunched { .. }
            | Self::MilestonesSeen { .. }
            | Self::AgentUnheard { .. }
            // It follows from the outcomes of the attempts, and the end of the log is durable already.
            | Self::Finished(_) => true,
            // The instance key takes precedence over the platform's report, so it must not be lost, unless the same
            // failure ends the agent too.
            Self::AgentAttached { is_local, .. } => *is_local,
            Self::CancelRequested(_)
            | Self::AttemptCreated { .. }
            | Self::CommitRequested { .. }
            | Self::OutcomeReported { .. }
            | Self::AttemptFoundEnded { .. }
            | Self::AttemptGivenUp { .. } => false,
        }
    }
}

impl Job {
    /// Applies an event at the time `now_ms` (milliseconds since the Unix epoch).
    ///
    /// # Errors
    /// The event is rejected, and the state is unchanged.
    pub fn apply(&mut self, event: Event, now_ms: i64) -> Result<Change, Rejection> {
        match event {
            Event::CancelRequested(failure) => Ok(self.cancel(failure)),
            Event::AttemptCreated { step, role, launcher_id } => {
                self.create_attempt(step, role, launcher_id, now_ms)
            }
            Event::AttemptLaunched { attempt, tracker_url, executor_uid } => {
                self.launched(&attempt, tracker_url, executor_uid, now_ms)
            }
            Event::MilestonesSeen { attempt, milestones } => self.note_milestones(&attempt, milestones),
            Event::AgentAttached { attempt, instance, server, is_local: _ } => {
                self.attached(&attempt, instance, server, now_ms)
            }
            Event::AgentUnheard { attempt, server } => self.unheard(&attempt, &server),
            Event::CommitRequested { attempt, instance } => self.grant(&attempt, &instance),
            Event::OutcomeReported { attempt, instance, outcome } => {
                self.outcome_reported(&attempt, instance, outcome, now_ms)
            }
            Event::AttemptFoundEnded { attempt, outcome, basis } => {
                self.found_ended(&attempt, outcome, basis, now_ms)
            }
            Event::AttemptGivenUp { attempt, outcome } => {
                self.found_ended(&attempt, outcome, Basis::NeverAttached, now_ms)
            }
            Event::Finished(state) => self.finish(state),
        }
    }

    fn cancel(&mut self, failure: Failure) -> Change {
        if self.state.is_final() {
            return Change::Unchanged;
        }
        let is_news = failure.cause == Cause::Limit && !self.over_limit;
        self.over_limit |= is_news;
        // The first cause is kept: a second cancel changes nothing.
        if self.cancel.is_some() {
            return if is_news { Change::Changed } else { Change::Unchanged };
        }
        self.cancel = Some(failure);
        Change::Changed
    }

    fn create_attempt(
        &mut self,
        step: u32,
        role: Role,
        launcher_id: LauncherId,
        now_ms: i64,
    ) -> Result<Change, Rejection> {
        self.must_be_live()?;
        if self.cancel.is_some() && role == Role::Run {
            return Err(Rejection::Cancelled);
        }
        if self.current_step() != Some(step) {
            return Err(Rejection::OutOfOrder);
        }
        let job = self.id.clone();
        let attempts = &mut self.steps[step as usize].attempts;
        if attempts.last().is_some_and(|last| last.outcome().is_none()) {
            // Never two attempts of a step at the same time.
            return Err(Rejection::OutOfOrder);
        }
        let number = u32::try_from(attempts.len() + 1).map_err(|_| Rejection::OutOfOrder)?;
        let executor = ExecutorRef::of_attempt(&AttemptId { job, step, number });
        // Others may create Pods in its namespace. Only this user can write to a state folder.
        let proof = (launcher_id.kind == LauncherKind::Kubernetes).then_some(ExecutorProof::Mark);
        attempts.push(Attempt {
            role,
            phase: Phase::Created,
            granted: false,
            launcher_id,
            executor: Some(executor),
            proof,
            tracker_url: None,
            created_ms: now_ms,
            launched_ms: None,
            milestones: Milestones::default(),
            attached_ms: None,
            attached_to: None,
            ended_ms: None,
        });
        Ok(Change::Changed)
    }

    fn launched(
        &mut self,
        id: &AttemptId,
        tracker_url: Option<String>,
        executor_uid: Option<String>,
        now_ms: i64,
    ) -> Result<Change, Rejection> {
        let attempt = self.current_attempt(id)?;
        let mut change = Change::Unchanged;
        if let (None, Some(url)) = (&attempt.tracker_url, tracker_url) {
            attempt.tracker_url = Some(url);
            change = Change::Changed;
        }
        if let (None | Some(ExecutorProof::Mark), Some(uid)) = (&attempt.proof, executor_uid) {
            attempt.proof = Some(ExecutorProof::Uid(uid));
            change = Change::Changed;
        }
        match attempt.phase {
            Phase::Created => {
                attempt.phase = Phase::Launched;
                attempt.launched_ms = Some(now_ms);
                self.state = JobState::Running;
                Ok(Change::Changed)
            }
            // A fast agent attaches, or even ends, before the launcher returns.
            Phase::Launched | Phase::Attached { .. } | Phase::Ended { .. } => Ok(change),
        }
    }

    /// Sets the times that are not set yet.
    fn note_milestones(&mut self, id: &AttemptId, told: Milestones) -> Result<Change, Rejection> {
        self.must_be_live()?;
        let known = &mut self.any_attempt(id)?.milestones;
        let merged = Milestones {
            scheduled_ms: known.scheduled_ms.or(told.scheduled_ms),
            container_ms: known.container_ms.or(told.container_ms),
        };
        let change = if merged == *known { Change::Unchanged } else { Change::Changed };
        *known = merged;
        Ok(change)
    }

    fn attached(
        &mut self,
        id: &AttemptId,
        instance: InstanceHash,
        server: String,
        now_ms: i64,
    ) -> Result<Change, Rejection> {
        self.must_be_live()?;
        let cancelled = self.cancel.is_some();
        let attempt = self.current_attempt(id)?;
        match &attempt.phase {
            Phase::Created | Phase::Launched if cancelled && attempt.role == Role::Run => {
                Err(Rejection::Cancelled)
            }
            Phase::Created | Phase::Launched => {
                attempt.phase = Phase::Attached { instance };
                attempt.attached_ms = Some(now_ms);
                attempt.attached_to = Some(server);
                self.state = JobState::Running;
                Ok(Change::Changed)
            }
            Phase::Attached { instance: bound } if *bound == instance => {
                if attempt.attached_to.as_ref() == Some(&server) {
                    return Ok(Change::Unchanged);
                }
                attempt.attached_to = Some(server);
                Ok(Change::Changed)
            }
            Phase::Attached { .. } => Err(Rejection::WrongInstance),
            Phase::Ended { .. } => Err(Rejection::AttemptOver),
        }
    }

    /// Rejected if the agent has attached to another server in the meantime.
    fn unheard(&mut self, id: &AttemptId, server: &str) -> Result<Change, Rejection> {
        self.must_be_live()?;
        let attempt = self.current_attempt(id)?;
        match &attempt.phase {
            Phase::Attached { .. } if attempt.attached_to.as_deref() == Some(server) => {
                attempt.attached_to = None;
                Ok(Change::Changed)
            }
            Phase::Created | Phase::Launched | Phase::Attached { .. } => Err(Rejection::OutOfOrder),
            Phase::Ended { .. } => Err(Rejection::AttemptOver),
        }
    }

    fn grant(&mut self, id: &AttemptId, instance: &InstanceHash) -> Result<Change, Rejection> {
        self.must_be_live()?;
        let cancelled = self.cancel.is_some();
        let attempt = self.current_attempt(id)?;
        match &attempt.phase {
            Phase::Attached { instance: bound } if bound == instance => {}
            Phase::Attached { .. } => return Err(Rejection::WrongInstance),
            Phase::Created | Phase::Launched => return Err(Rejection::OutOfOrder),
            Phase::Ended { .. } => return Err(Rejection::AttemptOver),
        }
        if attempt.granted {
            return Ok(Change::Unchanged);
        }
        if cancelled {
            return Err(Rejection::Cancelled);
        }
        attempt.granted = true;
        Ok(Change::Changed)
    }

    fn outcome_reported(
        &mut self,
        id: &AttemptId,
        instance: InstanceHash,
        outcome: Outcome,
        now_ms: i64,
    ) -> Result<Change, Rejection> {
        let attempt = self.any_attempt(id)?;
        match &attempt.phase {
            Phase::Attached { instance: bound } if *bound == instance => {
                attempt.phase = Phase::Ended { instance: Some(instance), outcome, by: EndedBy::Agent };
                attempt.ended_ms = Some(now_ms);
                Ok(Change::Changed)
            }
            // The acknowledgement was lost, and the agent reports again; the first outcome is kept.
            Phase::Ended { instance: Some(bound), by: EndedBy::Agent, .. } if *bound == instance => {
                Ok(Change::Unchanged)
            }
            Phase::Ended { .. } => Err(Rejection::AttemptOver),
            Phase::Attached { .. } => Err(Rejection::WrongInstance),
            Phase::Created | Phase::Launched => Err(Rejection::OutOfOrder),
        }
    }

    fn found_ended(
        &mut self,
        id: &AttemptId,
        outcome: Outcome,
        basis: Basis,
        now_ms: i64,
    ) -> Result<Change, Rejection> {
        let attempt = self.current_attempt(id)?;
        let instance = match (&attempt.phase, basis) {
            // The log may have records of an agent that is not in the state, if the store was restored from a backup.
            (Phase::Created | Phase::Launched, Basis::NeverAttached | Basis::Attached) => None,
            (Phase::Attached { instance }, Basis::Attached) => Some(instance.clone()),
            // Its agent attached while the reconciler decided.
            (Phase::Attached { .. }, Basis::NeverAttached) => return Err(Rejection::OutOfOrder),
            // Its agent reported after the reconciler had observed it.
            (Phase::Ended { .. }, Basis::NeverAttached | Basis::Attached) => return Ok(Change::Unchanged),
        };
        attempt.phase = Phase::Ended { instance, outcome, by: EndedBy::Server };
        attempt.ended_ms = Some(now_ms);
        Ok(Change::Changed)
    }

    fn finish(&mut self, state: JobState) -> Result<Change, Rejection> {
        if self.state.is_final() {
            return Err(Rejection::JobOver);
        }
        let running = self.steps.iter().flat_map(|step| &step.attempts).any(|it| it.outcome().is_none());
        if running || !state.is_final() {
            return Err(Rejection::OutOfOrder);
        }
        self.state = state;
        Ok(Change::Changed)
    }

    fn must_be_live(&self) -> Result<(), Rejection> {
        if self.state.is_final() { Err(Rejection::JobOver) } else { Ok(()) }
    }

    fn any_attempt(&mut self, id: &AttemptId) -> Result<&mut Attempt, Rejection> {
        let step = self.steps.get_mut(id.step as usize).ok_or(Rejection::UnknownAttempt)?;
        let index = id.number.checked_sub(1).ok_or(Rejection::UnknownAttempt)?;
        step.attempts.get_mut(index as usize).ok_or(Rejection::UnknownAttempt)
    }

    /// The attempt, unless it was superseded by a newer one.
    fn current_attempt(&mut self, id: &AttemptId) -> Result<&mut Attempt, Rejection> {
        let newest = self.steps.get(id.step as usize).map_or(0, |step| step.attempts.len());
        if (id.number as usize) < newest && id.number > 0 {
            return Err(Rejection::AttemptOver);
        }
        self.any_attempt(id)
    }
}
