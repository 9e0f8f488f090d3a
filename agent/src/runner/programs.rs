//! The programs of an attempt as processes.

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use sqlflow_proto::agent::Companion;

use super::Runner;
use crate::supervisor::{CommandEvent, Event, Exit, Program};

/// A program as a process.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    #[default]
    NotStarted,
    Running {
        /// Its pid, which is also its process group.
        group: Pid,
        /// The strongest signal to end that it got from the agent.
        told: Option<Signal>,
    },
    Ended,
}

impl Process {
    pub(super) fn running(group: Pid) -> Self {
        Self::Running { group, told: None }
    }

    pub(super) fn group(self) -> Option<Pid> {
        match self {
            Self::Running { group, .. } => Some(group),
            Self::NotStarted | Self::Ended => None,
        }
    }
}

/// All programs.
#[derive(Debug, Default)]
pub(super) struct Programs {
    pub(super) command: Process,
    pub(super) companion: Process,
    /// Follows the end of a companion that was killed since its command could not be started.
    pub(super) failed_start: Option<Event>,
}

impl Programs {
    /// The program that runs as this process.
    pub(super) fn program(&self, pid: Pid) -> Option<Program> {
        [Program::Command, Program::Companion].into_iter().find(|it| self.process(*it).group() == Some(pid))
    }

    /// The group of a program that runs, which gets the signal now.
    pub(super) fn tell(&mut self, program: Program, signal: Signal) -> Option<Pid> {
        let Process::Running { group, told } = self.process_mut(program) else { return None };
        if *told != Some(Signal::SIGKILL) {
            *told = Some(signal);
        }
        Some(*group)
    }

    /// A program has ended. Returns the signal that it got.
    pub(super) fn ended(&mut self, program: Program) -> Option<Signal> {
        match std::mem::replace(self.process_mut(program), Process::Ended) {
            Process::Running { told, .. } => told,
            Process::NotStarted | Process::Ended => None,
        }
    }

    /// Whether the command and its companion have ended.
    pub(super) fn have_ended(&self) -> bool {
        self.command == Process::Ended && self.companion.group().is_none()
    }

    pub(super) fn none_started(&self) -> bool {
        self.command == Process::NotStarted && self.companion == Process::NotStarted
    }

    fn process(&self, program: Program) -> &Process {
        match program {
            Program::Command => &self.command,
            Program::Companion => &self.companion,
        }
    }

    fn process_mut(&mut self, program: Program) -> &mut Process {
        match program {
            Program::Command => &mut self.command,
            Program::Companion => &mut self.companion,
        }
    }
}

impl Runner {
    /// Takes the exits of child processes.
    pub(super) fn reap(&mut self) {
        let reaped = self.reaper.reap();
        for (pid, status) in reaped.ended {
            let Some(program) = self.programs.program(pid) else { continue };
            if let Some(failed) = self.programs.failed_start.take() {
                // The companion of a command that could not be started. Nothing has run.
                self.programs.companion = Process::NotStarted;
                self.send(failed);
                continue;
            }
            let told = self.programs.ended(program);
            if program == Program::Command {
                self.take_terminal_back(Some(pid));
            }
            tracing::info!(?status, ?program, "a program ended");
            let exit = Exit {
                status,
                oom_kills: self.outcome_builder.oom_kills(),
                memory_limit: self.outcome_builder.memory_limit(),
                memory_peak: self.outcome_builder.memory_peak(),
            };
            self.send(Event::Command(CommandEvent::Exited { program, exit, told }));
        }
        if reaped.all_exited && self.programs.have_ended() {
            self.all_exited = true;
            self.send(Event::Command(CommandEvent::AllExited));
        }
    }
}

/// Name of a companion in messages.
pub(super) fn companion_name(companion: &Companion) -> String {
    match (companion.name.as_str(), companion.command.first()) {
        ("", Some(program)) => program.clone(),
        ("", None) => "the companion".to_owned(),
        (name, _) => name.to_owned(),
    }
}
