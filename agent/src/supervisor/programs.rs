//! The programs of an attempt: its command and, beside it, an optional companion. Which of them has ended, and whose end
//! is the cause. Pure.

use nix::sys::signal::Signal;
use sqlflow_proto::agent::Failure;

use super::exit_report::{Exit, ExitStatus};

/// A program of the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// The command.
    Command,
    /// The companion of the command.
    Companion,
}

impl Program {
    /// The one beside it.
    pub fn other(self) -> Self {
        match self {
            Self::Command => Self::Companion,
            Self::Companion => Self::Command,
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    exit: Exit,
    /// The strongest signal that the agent had sent it before.
    told: Option<Signal>,
}

/// How much an end explains the end of the attempt, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// By a signal that the agent did not send.
    Killed,
    /// By an error of its own.
    Failed,
    /// The same after a signal of the agent: the error may be the consequence of the signal. But the program may have
    /// been about to fail, and its end may be what the other one reports as `peer_lost`.
    FailedAfterSignal,
    /// By an error that is the consequence of the other program's end.
    PeerLost,
    /// By a signal of the agent.
    Told,
}

/// What is known about a program.
#[derive(Debug, Clone, Default)]
struct Facts {
    ended: Option<Ended>,
    failure: Option<Failure>,
}

impl Facts {
    fn succeeded(&self) -> bool {
        self.ended.is_some_and(|it| it.exit.is_success())
    }

    /// `None`: it succeeded, or runs.
    fn rank(&self) -> Option<Rank> {
        let Ended { exit, told } = self.ended?;
        let own = if told.is_none() { Rank::Failed } else { Rank::FailedAfterSignal };
        let peer_lost = self.failure.as_ref().is_some_and(|failure| failure.peer_lost);
        let has_reported = self.failure.is_some() && !peer_lost;
        Some(match exit.status {
            ExitStatus::Code(0) => return None,
            ExitStatus::Code(_) if peer_lost => Rank::PeerLost,
            ExitStatus::Code(_) => own,
            ExitStatus::Signal(signal) => match Signal::try_from(signal) {
                // It was about to exit, which takes a program with much memory a while.
                Ok(signal) if is_by_agent(signal, told) && has_reported => own,
                Ok(signal) if is_by_agent(signal, told) => Rank::Told,
                // It wrote to the socket between the two.
                Ok(Signal::SIGPIPE) => Rank::PeerLost,
                // From outside, or of the kernel for lack of memory: no program does this to itself because of a TERM.
                Ok(Signal::SIGKILL) => Rank::Killed,
                Ok(_) | Err(_) if told.is_none() => Rank::Killed,
                Ok(_) | Err(_) => own,
            },
        })
    }
}

fn is_by_agent(signal: Signal, told: Option<Signal>) -> bool {
    match told {
        // After another signal.
        Some(Signal::SIGKILL) => matches!(signal, Signal::SIGKILL | Signal::SIGTERM | Signal::SIGINT),
        Some(told) => signal == told,
        None => false,
    }
}

/// The programs, and what is known about them.
#[derive(Debug, Clone, Default)]
pub(super) struct Programs {
    has_companion: bool,
    command: Facts,
    companion: Facts,
    /// The one that ended first.
    first: Option<Program>,
}

/// The end of a program that is the cause of the attempt's end, or its success.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cause<'a> {
    pub(super) program: Program,
    pub(super) exit: Exit,
    /// A signal of the agent ended it.
    pub(super) is_by_agent: bool,
    pub(super) failure: Option<&'a Failure>,
}

impl Programs {
    pub(super) fn new(has_companion: bool) -> Self {
        Self { has_companion, ..Self::default() }
    }

    /// Of a command that succeeded in an earlier attempt.
    pub(super) fn succeeded_earlier() -> Self {
        let mut programs = Self::default();
        programs.ended(Program::Command, Exit::SUCCESS, None);
        programs
    }

    pub(super) fn ended(&mut self, program: Program, exit: Exit, told: Option<Signal>) {
        self.first.get_or_insert(program);
        self.facts_mut(program).ended = Some(Ended { exit, told });
    }

    pub(super) fn failed(&mut self, program: Program, failure: Failure) {
        self.facts_mut(program).failure = Some(failure);
    }

    /// Whether it has not ended. Only for an attempt whose programs were started.
    pub(super) fn is_running(&self, program: Program) -> bool {
        (program == Program::Command || self.has_companion) && self.facts(program).ended.is_none()
    }

    /// One that has not ended.
    pub(super) fn running(&self) -> Option<Program> {
        [Program::Command, Program::Companion].into_iter().find(|it| self.is_running(*it))
    }

    /// All have ended with 0.
    pub(super) fn succeeded(&self) -> bool {
        self.command.succeeded() && (!self.has_companion || self.companion.succeeded())
    }

    /// One has ended, not with 0.
    pub(super) fn has_failed(&self) -> bool {
        [&self.command, &self.companion].into_iter().any(|it| it.ended.is_some() && !it.succeeded())
    }

    /// Whose end is the cause, independent of the order in which they were reaped, unless both ends explain the
    /// attempt's end equally well. `None`: none has failed, and not all have ended.
    pub(super) fn cause(&self) -> Option<Cause<'_>> {
        let first = self.first?;
        let failed = [first, first.other()].into_iter().filter_map(|it| Some((self.facts(it).rank()?, it)));
        // The first of equal ones.
        let program = match failed.min_by_key(|(rank, _)| *rank) {
            Some((_, program)) => program,
            None if self.running().is_none() => Program::Command,
            None => return None,
        };
        let facts = self.facts(program);
        let Ended { mut exit, told } = facts.ended?;
        let is_by_agent = match exit.status {
            ExitStatus::Signal(signal) => Signal::try_from(signal).is_ok_and(|it| is_by_agent(it, told)),
            ExitStatus::Code(_) => false,
        };
        // They were counted for both programs together, and the last count is complete.
        for other in [&self.command, &self.companion].into_iter().filter_map(|it| it.ended) {
            exit.oom_kills = exit.oom_kills.max(other.exit.oom_kills);
            exit.memory_peak = exit.memory_peak.max(other.exit.memory_peak);
        }
        Some(Cause { program, exit, is_by_agent, failure: facts.failure.as_ref() })
    }

    /// The failure that the outcome's details come from, also if the attempt did not end by itself.
    pub(super) fn failure(&self) -> Option<&Failure> {
        match self.cause() {
            Some(cause) => cause.failure,
            None => self.command.failure.as_ref().or(self.companion.failure.as_ref()),
        }
    }

    /// Whether the result of the last statement is unknown. The companion executes the statements, if there is one.
    pub(super) fn leave_open(&self) -> bool {
        let executes = if self.has_companion { &self.companion } else { &self.command };
        let is_unclear = |it: &Facts| it.failure.as_ref().is_some_and(|failure| failure.unclear);
        let is_reported = executes.failure.is_some() || executes.succeeded();
        !is_reported || is_unclear(&self.command) || is_unclear(&self.companion)
    }

    fn facts(&self, program: Program) -> &Facts {
        match program {
            Program::Command => &self.command,
            Program::Companion => &self.companion,
        }
    }

    fn facts_mut(&mut self, program: Program) -> &mut Facts {
        match program {
            Program::Command => &mut self.command,
            Program::Companion => &mut self.companion,
        }
    }
}
