//! Starts the command, answers its submitter, and signals it and its remaining processes.

use std::ffi::OsString;
use std::io;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sqlflow_proto::agent::{Assignment, Granted, Refused, Start, agent_frame::Frame};
use sqlflow_proto::record::output::Stream;
use sqlflow_proto::record::{Gap, gap, record::Payload};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::{Command, Runner};
use crate::channel::replies::{self, Answer};
use crate::output::reader::{Channel, OutputPipe, Reader};
use crate::output::tee::Tee;
use crate::output::tee::TeeMode;
use crate::process::spawn::{self, NotStarted, Started};
use crate::process::tree;
use crate::resource_usage;
use crate::supervisor::{CommandEvent, Event, StartFault};

/// Number of remaining processes that are named in a warning; further ones are counted.
const NAMED_PROCESSES: usize = 5;

impl Runner {
    /// Must run on the main thread: the kernel kills the command when the thread that started it ends.
    pub(super) fn start(&mut self) {
        let assignment = self.assignment();
        let assigned: Vec<_> = assignment.command.iter().map(OsString::from).collect();
        let mut started = match spawn::spawn(&assignment, &self.config.spawning(&assigned)) {
            Ok(started) => started,
            Err(NotStarted { fault, error }) => {
                return self.send(Event::Command(CommandEvent::StartFailed {
                    message: format!("{error:#}"),
                    fault,
                }));
            }
        };
        if let Some(warning) = &started.warning {
            self.warn(warning.clone());
        }
        let pid = started.pid;
        self.command = Command::Running(pid);
        self.terminal = started.terminal.take();
        tracing::info!(pid = pid.as_raw(), "the command runs");
        if let Err(error) = self.listen(started, &assignment) {
            // Its output cannot be read. It has started, so a second one must not be started beside it.
            let _ = killpg(pid, Signal::SIGKILL);
            let message = format!("{error:#}");
            self.send(Event::Command(CommandEvent::StartFailed { message, fault: StartFault::Other }));
        }
    }

    fn listen(&mut self, started: Started, assignment: &Assignment) -> anyhow::Result<()> {
        let channel = match started.channel {
            Some(channel) => {
                let (channel, answer_half) = UnixStream::from_std(channel)?.into_split();
                let (answers, queue) = mpsc::channel(replies::MAX_WAITING);
                self.answers = Some(answers.clone());
                let start = Start {
                    secrets: assignment.secrets.clone(),
                    agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                };
                let acked = self.link.outbox.acked();
                tokio::spawn(async move {
                    // An error means that the command closed its end, which the reader handles.
                    let _ = replies::write_answers(answer_half, start, queue, acked).await;
                });
                Some(Channel::new(channel, answers))
            }
            None => None,
        };
        let how = self.config.tee;
        let copied_to = |tee: &Tee| (how != TeeMode::None).then(|| tee.clone());
        let reader = Reader {
            link: self.link.clone(),
            events: self.events.clone(),
            stdout: OutputPipe::new(started.stdout, Stream::Stdout, copied_to(&self.tees[0]), how)?,
            stderr: OutputPipe::new(started.stderr, Stream::Stderr, copied_to(&self.tees[1]), how)?,
            channel,
            when_full: self.config.when_full,
            trace: self.trace.clone(),
            stop: self.stop_reading.subscribe(),
        };
        tokio::spawn(reader.run());
        tokio::spawn(resource_usage::sample(self.link.clone(), self.outcome_builder.largest()));
        Ok(())
    }

    pub(super) fn take_terminal_back(&self, from: Option<Pid>) {
        if let Some(terminal) = &self.terminal {
            terminal.take_back(from);
        }
    }

    pub(super) fn answer(&mut self, answer: Result<(), String>) {
        let frame = match answer {
            Ok(()) => Frame::Granted(Granted {}),
            Err(reason) => Frame::Refused(Refused { reason }),
        };
        if let Some(answers) = &self.answers {
            // Full or closed: the submitter does not read, and is ended after its grace period.
            let _ = answers.try_send(Answer::Now(frame));
        }
    }

    pub(super) fn signal_remaining(&mut self, signal: Signal) {
        let mut remaining = tree::live().unwrap_or_default();
        if signal == Signal::SIGTERM {
            // Signaled processes have the rest of the grace period, and are expected.
            remaining.retain(|it| !self.signaled.contains(it.pid));
        }
        remaining.retain(|it| self.warned.insert(it.pid));
        if !remaining.is_empty() {
            let remaining = named(&remaining);
            self.warn(match signal {
                Signal::SIGTERM => {
                    format!("still running when the command had exited, and ended: {remaining}")
                }
                _ => format!("still running when its time was up, and killed: {remaining}"),
            });
        }
        let refused = tree::signal_descendants(signal, &mut self.signaled);
        self.warn_of_unreached(refused, signal);
    }

    pub(super) fn signal_command(&mut self, signal: Signal) {
        let Command::Running(group) = self.command else { return };
        tracing::info!(%signal, "ending the command");
        let refused = tree::signal_command(group, signal, &mut self.signaled);
        self.warn_of_unreached(refused, signal);
    }

    /// Warns of processes that the signal did not reach. The supervisor sends a stronger signal later, and the server
    /// looks for remaining processes in the end.
    fn warn_of_unreached(&self, refused: io::Result<Vec<tree::Process>>, signal: Signal) {
        match refused {
            Ok(refused) if refused.is_empty() => {}
            Ok(refused) => {
                self.warn(format!("cannot send {signal} to {}: owned by another user", named(&refused)));
            }
            Err(error) => {
                self.warn(format!(
                    "cannot send {signal} to descendants of the command: cannot read /proc: {error}"
                ));
            }
        }
    }

    pub(super) fn record_gap(&mut self) {
        let gap = Gap { reason: gap::Reason::Drain.into(), bytes: None };
        self.link.outbox.push_output(Payload::Gap(gap));
        let holders = match tree::live() {
            Ok(holders) if holders.is_empty() => "a process outside of the attempt".to_owned(),
            Ok(holders) => named(&holders),
            Err(error) => format!("unknown processes (cannot read /proc: {error})"),
        };
        self.warn(format!("gave up reading output that is held open by {holders}"));
    }
}

/// `sleep (pid 12), python3 (pid 13) and 7 more`
fn named(processes: &[tree::Process]) -> String {
    let mut names: Vec<_> = processes
        .iter()
        .take(NAMED_PROCESSES)
        .map(|process| format!("{} (pid {})", process.name, process.pid))
        .collect();
    if let Some(more) = processes.len().checked_sub(NAMED_PROCESSES).filter(|more| *more > 0) {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}
