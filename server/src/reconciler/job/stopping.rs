//! When and how the platform is asked to end an attempt of a cancelled job. An attached agent receives the cancel on
//! its stream; the platform is asked if that has no effect. Pure.

use std::time::Duration;

use sqlflow_job::{AttemptId, Job, Phase};

/// Time in which an attached agent may begin to stop before the platform is asked.
const ASK_AFTER: Duration = Duration::from_secs(3);
/// Time after the grace period in which an agent drains, reports and exits.
const END_MARGIN: Duration = Duration::from_secs(15);
/// A granted attempt is about to commit. It is not interrupted before this time.
const GRANTED_END: Duration = Duration::from_secs(600);

/// State of an attempt's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agent {
    NeverAttached,
    Attached,
    /// Attached, and granted to commit.
    Granted,
}

impl Agent {
    pub(super) fn of(job: &Job, attempt: &AttemptId) -> Self {
        match job.attempt(attempt) {
            Some(it) if matches!(it.phase, Phase::Attached { .. }) => {
                if it.granted {
                    Self::Granted
                } else {
                    Self::Attached
                }
            }
            _ => Self::NeverAttached,
        }
    }
}

/// How forcefully the platform ends the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Level {
    /// The agent ends its command within the grace period, and reports.
    Polite,
    /// Everything of the attempt is killed.
    Forced,
}

/// How to end an attempt that has been ending for this time; `None`: not yet.
pub(super) fn level(agent: Agent, ending: Duration, grace: Duration) -> Option<Level> {
    let polite_after = match agent {
        Agent::NeverAttached => Duration::ZERO,
        Agent::Attached => ASK_AFTER,
        Agent::Granted => GRANTED_END,
    };
    let forced_after = match agent {
        Agent::NeverAttached | Agent::Attached => grace + END_MARGIN,
        Agent::Granted => GRANTED_END + grace + END_MARGIN,
    };
    if ending > forced_after {
        Some(Level::Forced)
    } else if ending >= polite_after {
        Some(Level::Polite)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn levels(agent: Agent, seconds: [u64; 4]) -> [Option<Level>; 4] {
        seconds.map(|it| level(agent, Duration::from_secs(it), GRACE))
    }

    #[test]
    fn attached_agent_gets_its_grace_period_and_unattached_one_is_stopped_at_once() {
        use Level::{Forced, Polite};
        let seconds = [0, 3, 45, 46];
        assert_eq!(
            levels(Agent::NeverAttached, seconds),
            [Some(Polite), Some(Polite), Some(Polite), Some(Forced)]
        );
        assert_eq!(levels(Agent::Attached, seconds), [None, Some(Polite), Some(Polite), Some(Forced)]);
    }

    #[test]
    fn granted_commit_is_not_interrupted() {
        use Level::{Forced, Polite};
        assert_eq!(levels(Agent::Granted, [46, 599, 600, 646]), [None, None, Some(Polite), Some(Forced)]);
    }
}
