//! When the platform is asked to end an attempt of a cancelled job, and how. An attached agent hears of the cancel on its
//! stream; its platform is asked when that does not help. Pure.

use std::time::Duration;

use sqlflow_job::{AttemptId, Job, Phase};

/// Time in which an attached agent may begin its end before its platform is asked to end it.
const ASK_AFTER: Duration = Duration::from_secs(3);
/// Time that an agent may need after the grace to drain, report and leave.
const END_MARGIN: Duration = Duration::from_secs(15);
/// A granted attempt is about to make its effects visible; nothing hurries it before this time.
const GRANTED_END: Duration = Duration::from_secs(600);

/// What is known of an attempt's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agent {
    NeverAttached,
    Attached,
    /// It was attached and may make the attempt's effects visible.
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

/// How strongly the platform is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Level {
    /// The agent ends its command within the grace, and reports.
    Polite,
    /// Nothing of the attempt runs any more.
    Forced,
}

/// What to ask the platform for when an attempt has been ending for so long; `None`: nothing yet.
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
    fn an_attached_agent_has_its_grace_and_one_without_a_stream_is_asked_at_once() {
        use Level::{Forced, Polite};
        let seconds = [0, 3, 45, 46];
        assert_eq!(
            levels(Agent::NeverAttached, seconds),
            [Some(Polite), Some(Polite), Some(Polite), Some(Forced)]
        );
        assert_eq!(levels(Agent::Attached, seconds), [None, Some(Polite), Some(Polite), Some(Forced)]);
    }

    #[test]
    fn nothing_hurries_a_granted_commit() {
        use Level::{Forced, Polite};
        assert_eq!(levels(Agent::Granted, [46, 599, 600, 646]), [None, None, Some(Polite), Some(Forced)]);
    }
}
