//! Starts the programs, answers the submitter, and signals them and their remaining processes.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sqlflow_proto::agent::{
    Assignment, CommandEnded, Companion, Granted, Refused, Start, agent_frame::Frame,
};
use sqlflow_proto::record::output::Stream;
use sqlflow_proto::record::{Gap, gap, record::Payload};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::Runner;
use super::config::RunConfig;
use super::programs::{Process, companion_name};
use crate::channel::replies::{self, Answer};
use crate::output::reader::{Channel, OutputPipe, Reader, Rights};
use crate::output::tee::Tee;
use crate::output::tee::TeeMode;
use crate::process::confined::Confined;
use crate::process::kill_group::KillGroup;
use crate::process::spawn::{self, NotStarted, Output, Spawning, Started, WriteEnds};
use crate::process::tree::{self, Family};
use crate::process::{preexisting, terminal::Terminal};
use crate::resource_usage;
use crate::supervisor::{CommandEvent, Event, Program, StartFault};

/// Number of remaining processes that are named in a warning; further ones are counted.
const NAMED_PROCESSES: usize = 5;

/// Number of looks at killed processes until they count as left behind, and the pause between two.
const ENDING_LOOKS: u32 = 10;
const ENDING_PAUSE: Duration = Duration::from_millis(10);

/// The programs of an attempt, just started.
struct StartedAll {
    output: Output,
    channel: Option<net::UnixStream>,
    companion_channel: Option<net::UnixStream>,
    terminal: Option<Terminal>,
}

impl Runner {
    /// Must run on the main thread: the kernel kills a program when the thread that started it ends.
    pub(super) fn start(&mut self) {
        let assignment = self.assignment();
        preexisting::record_children();
        let mut started = match self.spawn_all(&assignment) {
            Ok(started) => started,
            Err(not_started) => return self.start_failed(not_started),
        };
        self.terminal = started.terminal.take();
        if let Err(error) = self.listen(started, &assignment) {
            // Their output cannot be read. They have started, so others must not be started beside them.
            for group in
                [self.programs.command.group(), self.programs.companion.group()].into_iter().flatten()
            {
                let _ = killpg(group, Signal::SIGKILL);
            }
            let message = format!("{error:#}");
            self.send(Event::Command(CommandEvent::StartFailed { message, fault: StartFault::Other }));
        }
    }

    /// The companion first: it does nothing before its Start frame, which it gets once both run. So a failed start has
    /// no effect.
    fn spawn_all(&mut self, assignment: &Assignment) -> Result<StartedAll, NotStarted> {
        let companion = match &assignment.companions[..] {
            [] => None,
            [companion] => Some(companion),
            more => {
                return Err(anyhow::anyhow!(
                    "cannot start {} companions: this agent starts one at most; install the server's version",
                    more.len()
                )
                .into());
            }
        };
        let (output, ends) = Output::create(self.config.streams)?;
        let mut link = None;
        let mut companion_channel = None;
        if let Some(companion) = companion {
            let [ours, theirs] = spawn::companion_link()?;
            companion_channel = self.spawn_companion(assignment, companion, &ends, theirs)?.channel;
            link = Some(ours);
        }
        let assigned: Vec<_> = assignment.command.iter().map(OsString::from).collect();
        // A data process in Python gets the secrets, and runs no code of users.
        let runs_user_code = self.config.is_submitter
            && assignment.secrets.is_empty()
            && assigned.first().is_some_and(|program| !spawn::is_sibling(program));
        let run_as = self.config.run_as.filter(|_| runs_user_code);
        let confined = assignment.confinement.as_ref().map(|confinement| {
            let RunConfig { own_files, run_dir, working_dir, .. } = &self.config;
            Confined::new(confinement, own_files, run_dir.as_deref(), working_dir, run_as)
        });
        let confined = confined.transpose()?;
        // A repeated start has it already.
        if runs_user_code && self.kill_group.is_none() {
            self.kill_group = KillGroup::create();
        }
        let group = self.kill_group.as_ref();
        let how =
            Spawning { confinement: confined.as_ref(), run_as, group, ..self.config.spawning(&assigned) };
        let started = spawn::spawn(assignment, &how, &ends, link)?;
        self.programs.command = self.runs(&started, Program::Command);
        Ok(StartedAll { output, channel: started.channel, companion_channel, terminal: started.terminal })
    }

    fn spawn_companion(
        &mut self,
        assignment: &Assignment,
        companion: &Companion,
        ends: &WriteEnds,
        link: OwnedFd,
    ) -> Result<Started, NotStarted> {
        if companion.command.is_empty() {
            let name = companion_name(companion);
            return Err(anyhow::anyhow!("cannot start {name}: its command is empty").into());
        }
        let command: Vec<_> = companion.command.iter().map(OsString::from).collect();
        let started = spawn::spawn(assignment, &self.config.spawning(&command), ends, Some(link))?;
        self.programs.companion = self.runs(&started, Program::Companion);
        Ok(started)
    }

    fn runs(&self, started: &Started, program: Program) -> Process {
        if let Some(warning) = &started.warning {
            self.warn(warning.clone());
        }
        tracing::info!(pid = started.pid.as_raw(), ?program, "a program runs");
        Process::running(started.pid)
    }

    /// Reports the failure, once a companion that has started is gone.
    fn start_failed(&mut self, NotStarted { fault, error }: NotStarted) {
        let failed = Event::Command(CommandEvent::StartFailed { message: format!("{error:#}"), fault });
        match self.programs.companion.group() {
            Some(group) => {
                let _ = killpg(group, Signal::SIGKILL);
                self.programs.failed_start = Some(failed);
            }
            None => self.send(failed),
        }
    }

    fn listen(&mut self, started: StartedAll, assignment: &Assignment) -> anyhow::Result<()> {
        let companion = assignment.companions.first();
        let mut channels = Vec::new();
        if let (Some(channel), Some(companion)) = (started.companion_channel, companion) {
            let rights = Rights::OfCompanion(companion_name(companion));
            let channel = self.open_channel(channel, Program::Companion, rights, &companion.secrets)?;
            self.companion_frames = channel.frames();
            channels.push(channel);
        }
        if let Some(channel) = started.channel {
            let rights = match companion {
                Some(companion) => Rights::NoResults { companion: companion_name(companion) },
                None => Rights::All,
            };
            channels.push(self.open_channel(channel, Program::Command, rights, &assignment.secrets)?);
        }
        let how = self.config.tee;
        let copied_to = |tee: &Tee| (how != TeeMode::None).then(|| tee.clone());
        let Output { stdout, stderr } = started.output;
        let reader = Reader {
            link: self.link.clone(),
            events: self.events.clone(),
            stdout: OutputPipe::new(stdout, Stream::Stdout, copied_to(&self.tees[0]), how)?,
            stderr: OutputPipe::new(stderr, Stream::Stderr, copied_to(&self.tees[1]), how)?,
            channels,
            when_full: self.config.when_full,
            trace: self.trace.clone(),
            stop: self.stop_reading.subscribe(),
        };
        tokio::spawn(reader.run());
        tokio::spawn(resource_usage::sample(self.link.clone(), self.outcome_builder.largest()));
        Ok(())
    }

    fn open_channel(
        &mut self,
        channel: net::UnixStream,
        program: Program,
        rights: Rights,
        secrets: &HashMap<String, String>,
    ) -> anyhow::Result<Channel> {
        let (incoming, outgoing) = UnixStream::from_std(channel)?.into_split();
        let (answers, queue) = mpsc::channel(replies::MAX_WAITING);
        if !matches!(rights, Rights::NoResults { .. }) {
            self.answers = Some(answers.clone());
        }
        let start = Start { secrets: secrets.clone(), agent_version: env!("CARGO_PKG_VERSION").to_owned() };
        let acked = self.link.outbox.acked();
        tokio::spawn(async move {
            // An error means that the program closed its end, which the reader handles.
            let _ = replies::write_answers(outgoing, start, queue, acked).await;
        });
        Ok(Channel::new(program, rights, incoming, answers))
    }

    pub(super) fn take_terminal_back(&self, from: Option<Pid>) {
        if let Some(terminal) = &self.terminal {
            terminal.take_back(from);
        }
    }

    pub(super) fn answer(&self, answer: Result<(), String>) {
        let frame = match answer {
            Ok(()) => Frame::Granted(Granted {}),
            Err(reason) => Frame::Refused(Refused { reason }),
        };
        self.send_frame(frame);
    }

    /// To the companion, which alone has answers in an attempt with one.
    pub(super) fn report_command_end(&self) {
        self.send_frame(Frame::CommandEnded(CommandEnded {}));
    }

    fn send_frame(&self, frame: Frame) {
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
        let refused = match signal {
            Signal::SIGKILL => self.kill_descendants(),
            _ => tree::terminate_descendants(&mut self.signaled),
        };
        self.warn_of_unreached(refused, signal);
    }

    pub(super) fn signal_program(&mut self, program: Program, signal: Signal) {
        // One that has ended already has not ended by this signal.
        self.reap();
        let Some(group) = self.programs.tell(program, signal) else { return };
        tracing::info!(%signal, ?program, "ending a program");
        let family = match (program, self.programs.companion.group()) {
            (Program::Command, Some(companion)) => Family::AllBut(companion),
            (Program::Command, None) => Family::All,
            (Program::Companion, _) => Family::Own,
        };
        let refused = tree::signal_program(group, family, signal, &mut self.signaled);
        self.warn_of_unreached(refused, signal);
    }

    pub(super) fn kill(&mut self) {
        const SIGNAL: Signal = Signal::SIGKILL;
        self.reap();
        tracing::info!("killing the programs");
        let companion = self.programs.tell(Program::Companion, SIGNAL);
        let command = self.programs.tell(Program::Command, SIGNAL);
        let groups = [command, companion];
        for group in groups.into_iter().flatten() {
            // Also if the descendants below cannot be listed.
            let _ = killpg(group, SIGNAL);
        }
        if groups != [None, None] {
            self.warn_of_unreached(self.kill_descendants(), SIGNAL);
        }
    }

    /// By their cgroup first, which misses none of it. Others have left it, or it could not be entered.
    fn kill_descendants(&self) -> io::Result<Vec<tree::Process>> {
        if let Some(Err(error)) = self.kill_group.as_ref().map(KillGroup::kill) {
            tracing::warn!(%error, "cannot kill the cgroup of the command; killing its processes one by one");
        }
        tree::kill_descendants()
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

    /// Reports the processes that outlive the attempt, for example since they belong to another user.
    pub(super) fn warn_of_remaining(&self) {
        let live = || {
            let mut live = tree::live().unwrap_or_default();
            // The end of a program is reported otherwise.
            live.retain(|it| self.programs.program(it.pid).is_none());
            live
        };
        let mut remaining = live();
        // Killed ones need a moment.
        for _ in 0..ENDING_LOOKS {
            if remaining.is_empty() {
                return;
            }
            std::thread::sleep(ENDING_PAUSE);
            remaining = live();
        }
        if !remaining.is_empty() {
            self.warn(format!("still running after SIGKILL, and left behind: {}", named(&remaining)));
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
