//! Status of an agent by its job's record: whether it may report for the attempt. Pure.

use sqlflow_job::{AttemptId, EndedBy, Failure, InstanceHash, Job, Phase, Role};

/// Status of a stream's agent.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum AgentStatus {
    /// It reports for the attempt.
    Live,
    /// It reports for the attempt, and must end it.
    Cancelled(Failure),
    /// It has reported the outcome. It may have missed the acknowledgement.
    Reported,
    /// It is fenced off, for the given reason: a server inferred the attempt's outcome, or the attempt has
    /// another agent. It must end its command.
    Fenced(String),
}

impl AgentStatus {
    /// Status of the agent with this instance key.
    pub(super) fn of(job: &Job, attempt: &AttemptId, instance: &InstanceHash) -> Self {
        let Some(found) = job.attempt(attempt) else {
            return Self::Fenced("there is no such attempt".to_owned());
        };
        match &found.phase {
            Phase::Ended { instance: Some(bound), by: EndedBy::Agent, .. } if bound == instance => {
                Self::Reported
            }
            Phase::Ended { outcome, .. } => {
                Self::Fenced(format!("this attempt is over: {}", outcome.message))
            }
            Phase::Attached { instance: bound } if bound != instance => {
                Self::Fenced("another agent is attached to this attempt".to_owned())
            }
            // A cancelled job still drops what its attempts left in the user's database.
            Phase::Created | Phase::Launched | Phase::Attached { .. } if found.role == Role::Cleanup => {
                Self::Live
            }
            Phase::Created | Phase::Launched | Phase::Attached { .. } => {
                job.cancel.clone().map_or(Self::Live, Self::Cancelled)
            }
        }
    }
}

/// Whether the attempt is bound to this instance key, so that an agent with it is the one that attached first.
pub(super) fn is_bound(job: &Job, attempt: &AttemptId, instance: &InstanceHash) -> bool {
    match job.attempt(attempt).map(|it| &it.phase) {
        Some(Phase::Attached { instance: bound } | Phase::Ended { instance: Some(bound), .. }) => {
            bound == instance
        }
        Some(Phase::Created | Phase::Launched | Phase::Ended { instance: None, .. }) | None => false,
    }
}

/// Whether the attempt has no known agent, and has not ended.
pub(super) fn awaits_agent(job: &Job, attempt: &AttemptId) -> bool {
    match job.attempt(attempt).map(|it| &it.phase) {
        Some(Phase::Created | Phase::Launched) => true,
        Some(Phase::Attached { .. } | Phase::Ended { .. }) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_job::{Basis, Cause, Event, LauncherId, LauncherKind, Outcome, Reason};

    use super::*;
    use crate::fixture;

    fn attached() -> (Job, AttemptId, InstanceHash) {
        let mut job = fixture::job(true);
        let attempt = AttemptId { job: job.id.clone(), step: 0, number: 1 };
        let instance = InstanceHash::of(b"key");
        job.apply(
            Event::AttemptCreated {
                step: 0,
                role: Role::Run,
                launcher_id: LauncherId::of(LauncherKind::Local),
            },
            0,
        )
        .unwrap();
        job.apply(
            Event::AgentAttached {
                attempt: attempt.clone(),
                instance: instance.clone(),
                server: "s".to_owned(),
                is_local: false,
            },
            0,
        )
        .unwrap();
        (job, attempt, instance)
    }

    #[test]
    fn report_after_an_inferred_outcome_is_refused() {
        for reason in [Reason::Lost, Reason::LaunchFailed, Reason::Cancelled, Reason::Deadline] {
            let (mut job, attempt, instance) = attached();
            assert_eq!(AgentStatus::of(&job, &attempt, &instance), AgentStatus::Live);
            let outcome = Outcome::by_server(reason, "its node is gone", true);
            job.apply(
                Event::AttemptFoundEnded { attempt: attempt.clone(), outcome, basis: Basis::Attached },
                1,
            )
            .unwrap();
            let over = AgentStatus::Fenced("this attempt is over: its node is gone".to_owned());
            assert_eq!(AgentStatus::of(&job, &attempt, &instance), over, "{reason:?}");
        }
        let (mut job, attempt, instance) = attached();
        let outcome = Outcome::by_server(Reason::Exited, "exit code 1", false);
        let reported =
            Event::OutcomeReported { attempt: attempt.clone(), instance: instance.clone(), outcome };
        job.apply(reported, 1).unwrap();
        assert_eq!(AgentStatus::of(&job, &attempt, &instance), AgentStatus::Reported);
        let other = InstanceHash::of(b"other");
        assert!(matches!(AgentStatus::of(&job, &attempt, &other), AgentStatus::Fenced(_)));
    }

    #[test]
    fn cancel_is_sent_to_the_attached_agent() {
        let (mut job, attempt, instance) = attached();
        let cancel = Failure::new(Cause::Cancelled, "by a user");
        job.apply(Event::CancelRequested(cancel.clone()), 1).unwrap();
        assert_eq!(AgentStatus::of(&job, &attempt, &instance), AgentStatus::Cancelled(cancel));
        let other = InstanceHash::of(b"other");
        assert!(matches!(AgentStatus::of(&job, &attempt, &other), AgentStatus::Fenced(_)));
        assert!(is_bound(&job, &attempt, &instance) && !is_bound(&job, &attempt, &other));
    }
}
