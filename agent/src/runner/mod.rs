//! Runs one attempt: feeds events to the supervisor and carries out its actions. It decides nothing.
//!
//! `prepare` makes workspace and inputs, `programs` the programs that run, `command` starts and signals them, `job_control` handles stops at a
//! terminal, `publishing` models, `flushing` output, `timers` the supervisor's timers, and `shutdown` the end.

mod command;
mod config;
mod flushing;
mod job_control;
mod prepare;
mod programs;
mod publishing;
mod runtime;
mod shutdown;
mod timers;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use sqlflow_model_storage::RetryPolicy;
use sqlflow_os::failpoint;
use sqlflow_proto::agent::{Assignment, CommitRequest, Outcome};
use sqlflow_proto::record::{ModelPublished, record::Payload};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::channel::replies::Answer;
use crate::control_plane::{ControlPlane, Incoming, attempt_of};
use crate::exhaustion::{LAUNCH_TIMEOUT, retry_exhaustion};
use crate::outcome::{OutcomeBuilder, OutcomeFile};
use crate::output::link::Link;
use crate::output::outbox::DEFAULT_LIMIT;
use crate::output::overflow::Overflow;
use crate::output::tee::Tee;
use crate::process::kill_group::KillGroup;
use crate::process::reaper;
use crate::process::signals::{Caught, Sender, Signals};
use crate::process::terminal::Terminal;
use crate::process::tree::SignaledProcesses;
use crate::publish::Publication;
use crate::supervisor::{
    Action, AttachEvent, Attempt, Budget, CommandEvent, Event, Load, Plan, ReportEvent, Timer,
};
use crate::trace::{SharedTrace, Trace};
pub(crate) use config::RunConfig;
use job_control::StopRequest;
use programs::{Process, Programs, companion_name};
use timers::Timers;

/// Default grace period.
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Default drain time.
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// Runs an attempt to its end; returns the exit code.
///
/// # Errors
/// The agent cannot do its work at all.
pub(crate) fn run(config: RunConfig, control_plane: ControlPlane, tees: [Tee; 2]) -> anyhow::Result<u8> {
    prctl::set_child_subreaper(true).context("cannot become the subreaper")?;
    let timeout = match control_plane {
        ControlPlane::Remote(_) => LAUNCH_TIMEOUT,
        ControlPlane::Local(_) => Duration::ZERO,
    };
    let runtime = retry_exhaustion(timeout, || runtime::start().context("cannot start a thread"))?;
    let code = runtime.block_on(async { Runner::new(config, tees).run(control_plane).await });
    // A thread that hangs in a file operation must not delay the exit.
    runtime.shutdown_background();
    code
}

/// State that actions use.
struct Runner {
    config: RunConfig,
    tees: [Tee; 2],
    link: Arc<Link>,
    attempt: Attempt,
    outcome_builder: OutcomeBuilder,
    reaper: reaper::Reaper,
    plan: Option<Plan>,
    overflow: Option<Overflow>,
    events: mpsc::UnboundedSender<Event>,
    inbox: mpsc::UnboundedReceiver<Event>,
    assignment: Option<Arc<Assignment>>,
    fetching: Arc<RetryPolicy>,
    programs: Programs,
    /// The cgroup of the command; `None`: it has none of its own.
    kill_group: Option<KillGroup>,
    /// All processes of the attempt have ended.
    all_exited: bool,
    /// Processes that got the signal to end.
    signaled: SignaledProcesses,
    /// Remaining processes that a warning has named.
    warned: SignaledProcesses,
    /// The controlling terminal, for job control.
    terminal: Option<Terminal>,
    stop_request: Option<StopRequest>,
    /// Number of signals to a command that waits for a terminal that it cannot have.
    ends_tried: usize,
    stop_reading: watch::Sender<bool>,
    hurry_flush: watch::Sender<bool>,
    /// To the program that may ask for the grant.
    answers: Option<mpsc::Sender<Answer>>,
    /// Number of frames of the companion.
    companion_frames: Arc<AtomicU64>,
    /// The same when the Completion timer was set.
    frames_at_completion: u64,
    publication: Option<Arc<Publication>>,
    staged: Vec<ModelPublished>,
    timers: Timers,
    /// Acknowledged sequence number when the Linger timer was set.
    acked_at_linger: u64,
    trace: Option<SharedTrace>,
    outcome: Option<Outcome>,
    /// Outcome file, for a server that comes later; `None`: none would look for it.
    outcome_file: Option<Arc<OutcomeFile>>,
    /// File operations that the exit waits for.
    last_work: Vec<JoinHandle<()>>,
}

impl Runner {
    fn new(config: RunConfig, tees: [Tee; 2]) -> Self {
        // Unbounded, but emptied before other tasks run again: all run on one thread.
        let (events, inbox) = mpsc::unbounded_channel();
        let (attempt, first) = Attempt::new(config.linger);
        let fetching = Arc::new(RetryPolicy::new(config.publish_retry));
        let outcome_file =
            config.run_dir.clone().map(|dir| Arc::new(OutcomeFile::in_dir(dir, config.seal.clone())));
        let timers = Timers::new(events.clone());
        let mut runner = Self {
            config,
            tees,
            link: Arc::new(Link::new(DEFAULT_LIMIT)),
            attempt,
            outcome_builder: OutcomeBuilder::begin(),
            reaper: reaper::Reaper::default(),
            plan: None,
            overflow: None,
            events,
            inbox,
            assignment: None,
            fetching,
            programs: Programs::default(),
            kill_group: None,
            all_exited: false,
            signaled: SignaledProcesses::default(),
            warned: SignaledProcesses::default(),
            terminal: None,
            stop_request: None,
            ends_tried: 0,
            stop_reading: watch::Sender::new(false),
            hurry_flush: watch::Sender::new(false),
            answers: None,
            companion_frames: Arc::default(),
            frames_at_completion: 0,
            publication: None,
            staged: Vec::new(),
            timers,
            acked_at_linger: 0,
            trace: None,
            outcome: None,
            outcome_file,
            last_work: Vec::new(),
        };
        for action in first {
            runner.carry_out(action);
        }
        runner
    }

    async fn run(self, control_plane: ControlPlane) -> anyhow::Result<u8> {
        let span = tracing::info_span!("attempt", trace_id = tracing::field::Empty);
        self.supervise(control_plane).instrument(span).await
    }

    async fn supervise(mut self, control_plane: ControlPlane) -> anyhow::Result<u8> {
        let signals = Signals::new()?;
        let (incoming, mut messages) = mpsc::unbounded_channel();
        self.open_overflow();
        control_plane.spawn(self.link.clone(), incoming);
        loop {
            let event = tokio::select! {
                Some(event) = self.inbox.recv() => event,
                Some(message) = messages.recv() => match message {
                    Incoming::Assigned(assignment) => self.assigned(*assignment),
                    Incoming::Event(event) => event,
                },
                caught = signals.next() => match caught {
                    Caught::Child => {
                        self.reap();
                        self.stop_with_command();
                        continue;
                    }
                    Caught::Stop { by_terminal } => {
                        let request = if by_terminal { StopRequest::ByTerminal } else { StopRequest::ByProcess };
                        self.stop_signaled(request);
                        continue;
                    }
                    Caught::Continue => {
                        self.continue_command();
                        continue;
                    }
                    Caught::End(signal, sender) => self.terminated(signal, &sender).await,
                    Caught::Forward(signal) => Event::Forward(signal),
                    // A submitter has no terminal, and outlives the server that started its agent.
                    Caught::Hangup if self.config.is_submitter => continue,
                    Caught::Hangup => Event::Forward(Signal::SIGHUP),
                },
            };
            if self.timers.is_stale(&event, Instant::now()) {
                continue;
            }
            if event == Event::TimeUp(Timer::Linger) && self.was_acked_meanwhile() {
                // Makes this event stale if the supervisor sets the timer again.
                self.send(Event::Report(ReportEvent::AckedMeanwhile));
                self.send(event);
                continue;
            }
            if event == Event::TimeUp(Timer::Completion) && self.spoke_meanwhile() {
                self.send(Event::Command(CommandEvent::CompanionSpoke));
                self.send(event);
                continue;
            }
            if event == Event::Report(ReportEvent::OutcomeAcked)
                && let Some(file) = &self.outcome_file
            {
                file.taken();
            }
            let actions = self.attempt.apply(event);
            let phase = self.attempt.phase();
            self.link.attempt.set_phase(phase);
            self.outcome_builder.enter(phase);
            for action in actions {
                if let Action::Exit(code) = action {
                    self.leave().await;
                    return Ok(code);
                }
                self.carry_out(action);
            }
        }
    }

    /// Creates the overflow file. Without it, only memory holds records.
    fn open_overflow(&mut self) {
        let Some(dir) = self.config.run_dir.as_ref().filter(|_| self.config.spool_disk > 0) else { return };
        match Overflow::create(dir) {
            Ok(overflow) => {
                self.link.outbox.set_disk_limit(self.config.spool_disk);
                tokio::spawn(overflow.clone().serve(self.link.clone()));
                self.overflow = Some(overflow);
            }
            Err(error) => tracing::warn!(%error, "cannot create the overflow file; records stay in memory"),
        }
    }

    async fn terminated(&mut self, signal: Signal, sender: &Sender) -> Event {
        let sender = sender.to_string();
        tracing::info!(%signal, sender, "got a termination signal");
        self.outcome_builder.terminated_by(&sender);
        let grace = self.plan.as_ref().map_or(DEFAULT_GRACE, |plan| plan.grace);
        let load = Load {
            unacked_bytes: self.link.outbox.unacked_bytes(),
            link_speed: self.link.outbox.speed(),
            output_bytes: self.output_bytes().await,
            store_speed: self.publication.as_ref().map_or(0, |it| it.speed()),
        };
        let budget = match self.config.termination_grace {
            Some(total) => Budget::divide(total, &load),
            None => Budget::after(grace, &load),
        };
        tracing::info!(?budget, ?load, "divided the remaining time");
        Event::Terminate { signal, sender, budget }
    }

    fn assigned(&mut self, mut assignment: Assignment) -> Event {
        if let Some(attached) = self.link.connection.first_attached() {
            self.outcome_builder.began(attached);
        }
        let seconds = |seconds: u32, default| match seconds {
            0 => default,
            seconds => Duration::from_secs(seconds.into()),
        };
        let plan = Plan {
            companion: assignment.companions.first().map(companion_name),
            publishes: !assignment.outputs.is_empty(),
            is_publish_only: assignment.publish_attempt > 0,
            keeps_output: self.config.keeps_output,
            sink: self.config.sink,
            grace: self.config.grace.unwrap_or(seconds(assignment.grace_seconds, DEFAULT_GRACE)),
            drain: self.config.drain.unwrap_or(seconds(assignment.drain_seconds, DEFAULT_DRAIN)),
        };
        if assignment.spool_bytes > 0 {
            self.link.outbox.set_limit(usize::try_from(assignment.spool_bytes).unwrap_or(usize::MAX));
        }
        tracing::info!(job = attempt_of(&assignment).job_id, command = ?assignment.command.first(), "assigned");
        if let Some(trace) = self.config.trace.take().or_else(|| Trace::assigned(&assignment)) {
            assignment.traceparent = trace.traceparent();
            tracing::Span::current().record("trace_id", trace.trace_id());
            self.trace = Some(Arc::new(Mutex::new(trace)));
        }
        self.plan = Some(plan.clone());
        self.assignment = Some(Arc::new(assignment));
        Event::Attach(AttachEvent::Assigned(plan))
    }

    fn send(&self, event: Event) {
        self.events.send(event).expect("the inbox lives as long as the runner");
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Prepare => self.prepare(),
            Action::AbandonPrepare => self.fetching.abandon(),
            Action::Start => self.start(),
            Action::Signal(program, signal) => self.signal_program(program, signal),
            Action::Kill => self.kill(),
            Action::ReportCommandEnd => self.report_command_end(),
            Action::Forward(signal) => {
                if let Process::Running { group, .. } = self.programs.command {
                    // It may have exited since.
                    let _ = killpg(group, signal);
                }
            }
            Action::SignalRemaining(signal) => self.signal_remaining(signal),
            Action::StopReading => {
                self.stop_reading.send_replace(true);
            }
            Action::Stage => self.stage(),
            Action::AskCommit(models) => {
                failpoint::agent("ask-commit");
                self.staged.clone_from(&models);
                self.link.attempt.ask_commit(CommitRequest { models });
            }
            Action::ForgetCommit => {
                self.link.attempt.settle_commit();
            }
            Action::AnswerSubmitter(answer) => self.answer(answer),
            Action::Commit => {
                failpoint::agent("granted");
                self.commit();
            }
            Action::HurryPublish => {
                if let Some(publication) = &self.publication {
                    publication.hurry();
                }
            }
            Action::AbandonPublish => self.abandon_publish(),
            Action::Warn(text) => self.warn(text),
            Action::RecordGap => self.record_gap(),
            Action::RecordModels(models) => {
                failpoint::agent("committed");
                for model in models {
                    self.link.outbox.push_output(Payload::Model(model));
                }
            }
            Action::RecordEnds => self.link.outbox.push_held_ends(),
            Action::Flush => self.flush(),
            Action::HurryFlush => {
                self.hurry_flush.send_replace(true);
            }
            Action::Report(report, models) => self.report(*report, models),
            Action::SetTimer(timer, after) => {
                match timer {
                    Timer::Linger => self.acked_at_linger = self.link.outbox.acked_seq(),
                    Timer::Completion => {
                        self.spoke_meanwhile();
                    }
                    _ => {}
                }
                self.timers.set(timer, after);
            }
            Action::Exit(_) => unreachable!("the loop takes it"),
        }
    }

    /// Whether records were acknowledged since the Linger timer was set, or since the last call.
    fn was_acked_meanwhile(&mut self) -> bool {
        let acked = self.link.outbox.acked_seq();
        std::mem::replace(&mut self.acked_at_linger, acked) < acked
    }

    /// The same for frames of the companion and the Completion timer.
    fn spoke_meanwhile(&mut self) -> bool {
        let frames = self.companion_frames.load(Ordering::Relaxed);
        std::mem::replace(&mut self.frames_at_completion, frames) < frames
    }

    fn assignment(&self) -> Arc<Assignment> {
        self.assignment.clone().expect("the machine acts only after the assignment")
    }

    fn warn(&self, text: String) {
        self.link.outbox.warn(text);
    }
}
