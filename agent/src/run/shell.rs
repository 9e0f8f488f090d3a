//! The shell around the state machine: brings events in, carries actions out, decides nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sqlflow_proto::agent::{Assignment, CommitRequest, Granted, Outcome, Refused, Start, agent_frame::Frame};
use sqlflow_proto::record::output::Stream;
use sqlflow_proto::record::{Gap, ModelPublished, Notice, gap, notice, record::Payload};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, spawn_blocking};
use tracing::Instrument as _;

use super::prepare::prepare;
use super::{Home, Incoming, Setting};
use crate::channel::answers::{self, Answer};
use crate::cli::MirrorAs;
use crate::outcome::{self, Evidence};
use crate::process::signals::{Caught, Sender, Signals};
use crate::process::{reaper, spawn, tree};
use crate::publish::{Publication, PublishError};
use crate::ship::link::Link;
use crate::ship::mirror::Mirror;
use crate::ship::outbox::DEFAULT_LIMIT;
use crate::ship::overflow::Overflow;
use crate::ship::reader::{OutputPipe, Reader};
use crate::ship::spool;
use crate::store::Patience;
use crate::supervise::{Action, Attempt, Budget, Event, Exit, Load, Plan, Timer, Verdict};
use crate::trace::{Exporter, SharedTrace, Trace};
use crate::{failpoint, meter, summary, workspace};

/// When the assignment does not say.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);
/// How long the exit waits for work with files that was begun.
const LAST_WORK: Duration = Duration::from_secs(10);
/// More leftovers than this are counted, not named.
const NAMED_LEFTOVERS: usize = 5;

/// Everything that actions work on.
pub(super) struct Shell {
    setting: Setting,
    mirrors: [Mirror; 2],
    link: Arc<Link>,
    attempt: Attempt,
    evidence: Evidence,
    reaper: reaper::Reaper,
    plan: Option<Plan>,
    overflow: Option<Overflow>,
    events: mpsc::UnboundedSender<Event>,
    inbox: mpsc::UnboundedReceiver<Event>,
    assignment: Option<Arc<Assignment>>,
    fetching: Arc<Patience>,
    command: Command,
    stop_reading: watch::Sender<bool>,
    answers: Option<mpsc::Sender<Answer>>,
    publication: Option<Arc<Publication>>,
    staged: Vec<ModelPublished>,
    timers: HashMap<Timer, AbortHandle>,
    trace: Option<SharedTrace>,
    outcome: Option<Outcome>,
    /// Work with files that the exit waits for.
    last_work: Vec<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    NotStarted,
    Running(Pid),
    Ended,
}

impl Shell {
    pub(super) fn new(setting: Setting, mirrors: [Mirror; 2]) -> Self {
        // Unbounded, but emptied before anything else runs again: all is one thread.
        let (events, inbox) = mpsc::unbounded_channel();
        let (attempt, first) = Attempt::new(setting.linger);
        let fetching = Arc::new(Patience::new(setting.publish_retry));
        let mut shell = Self {
            setting,
            mirrors,
            link: Arc::new(Link::new(DEFAULT_LIMIT)),
            attempt,
            evidence: Evidence::begin(),
            reaper: reaper::Reaper::default(),
            plan: None,
            overflow: None,
            events,
            inbox,
            assignment: None,
            fetching,
            command: Command::NotStarted,
            stop_reading: watch::Sender::new(false),
            answers: None,
            publication: None,
            staged: Vec::new(),
            timers: HashMap::new(),
            trace: None,
            outcome: None,
            last_work: Vec::new(),
        };
        for action in first {
            shell.carry_out(action);
        }
        shell
    }

    pub(super) async fn run(self, home: Home) -> anyhow::Result<u8> {
        let span = tracing::info_span!("attempt", trace_id = tracing::field::Empty);
        self.supervise(home).instrument(span).await
    }

    async fn supervise(mut self, home: Home) -> anyhow::Result<u8> {
        let signals = Signals::new()?;
        let (incoming, mut messages) = mpsc::unbounded_channel();
        self.open_overflow();
        home.spawn(self.link.clone(), incoming);
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
                        continue;
                    }
                    Caught::End(signal, sender) => self.terminated(signal, &sender),
                    Caught::Forward(signal) => Event::Forward(signal),
                },
            };
            let actions = self.attempt.apply(event);
            let phase = self.attempt.phase();
            self.link.set_phase(phase);
            self.evidence.enter(phase);
            for action in actions {
                if let Action::Exit(code) = action {
                    self.leave().await;
                    return Ok(code);
                }
                self.carry_out(action);
            }
        }
    }

    /// Without it the memory's limit is the whole limit.
    fn open_overflow(&mut self) {
        let Some(dir) = self.setting.run_dir.as_ref().filter(|_| self.setting.spool_disk > 0) else { return };
        match Overflow::create(dir) {
            Ok(overflow) => {
                self.link.set_disk_limit(self.setting.spool_disk);
                tokio::spawn(overflow.clone().serve(self.link.clone()));
                self.overflow = Some(overflow);
            }
            Err(error) => tracing::warn!(%error, "no room on disk for records that no server takes"),
        }
    }

    fn terminated(&mut self, signal: Signal, sender: &Sender) -> Event {
        let sender = sender.to_string();
        tracing::info!(%signal, sender, "told to stop");
        self.evidence.ended_by(&sender);
        let grace = self.plan.map_or(DEFAULT_GRACE, |plan| plan.grace);
        let total = self.setting.termination_grace.unwrap_or(grace);
        let load = Load {
            unacked_bytes: self.link.unacked_bytes(),
            link_speed: self.link.speed(),
            output_bytes: self.publication.as_ref().and_then(|it| it.source_bytes()),
            store_speed: self.publication.as_ref().map_or(0, |it| it.speed()),
        };
        let budget = Budget::divide(total, &load);
        tracing::info!(?budget, ?load, "the time that is left is divided");
        Event::Terminate { signal, sender, budget }
    }

    fn assigned(&mut self, mut assignment: Assignment) -> Event {
        if let Some(attached) = self.link.first_attached() {
            self.evidence.began(attached);
        }
        let seconds = |seconds: u32, default| match seconds {
            0 => default,
            seconds => Duration::from_secs(seconds.into()),
        };
        let plan = Plan {
            publishes: !assignment.outputs.is_empty(),
            is_publish_only: assignment.publish_attempt > 0,
            keeps_output: self.setting.keeps_output,
            grace: seconds(assignment.grace_seconds, DEFAULT_GRACE),
            drain: seconds(assignment.drain_seconds, DEFAULT_DRAIN),
        };
        if assignment.spool_bytes > 0 {
            self.link.set_limit(usize::try_from(assignment.spool_bytes).unwrap_or(usize::MAX));
        }
        tracing::info!(job = self.setting.attempt.job_id, command = ?assignment.command.first(), "assigned");
        if let Some(trace) = self.setting.trace.take().or_else(|| assigned_trace(&assignment)) {
            assignment.traceparent = trace.traceparent();
            tracing::Span::current().record("trace_id", trace.trace_id());
            self.trace = Some(Arc::new(Mutex::new(trace)));
        }
        self.plan = Some(plan);
        self.assignment = Some(Arc::new(assignment));
        Event::Assigned(plan)
    }

    fn reap(&mut self) {
        let reaped = self.reaper.reap();
        for (pid, status) in reaped.ended {
            if self.command == Command::Running(pid) {
                self.command = Command::Ended;
                tracing::info!(?status, "the command ended");
                self.send(Event::Exited(Exit {
                    status,
                    oom_kills: self.evidence.oom_kills(),
                    memory_limit: self.evidence.memory_limit(),
                    memory_peak: self.evidence.memory_peak(),
                }));
            }
        }
        if reaped.alone && self.command == Command::Ended {
            self.send(Event::Alone);
        }
    }

    fn send(&self, event: Event) {
        self.events.send(event).expect("the inbox lives as long as the shell");
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Prepare => self.prepare(),
            Action::AbandonPrepare => self.fetching.abandon(),
            Action::Start => {
                if let Err(error) = self.start() {
                    self.send(Event::StartFailed(format!("{error:#}")));
                }
            }
            Action::Signal(signal) => {
                if let Command::Running(group) = self.command {
                    tracing::info!(%signal, "ending the command");
                    tree::signal_command(group, signal);
                }
            }
            Action::Forward(signal) => {
                if let Command::Running(group) = self.command {
                    // Between its exit and our look it may be gone.
                    let _ = killpg(group, signal);
                }
            }
            Action::SignalLeftovers(signal) => self.signal_leftovers(signal),
            Action::StopReading => {
                self.stop_reading.send_replace(true);
            }
            Action::Stage => self.stage(),
            Action::AskCommit(models) => {
                failpoint::reach("ask-commit");
                self.staged.clone_from(&models);
                self.link.ask_commit(CommitRequest { models });
            }
            Action::ForgetCommit => {
                self.link.settle_commit();
            }
            Action::AnswerSubmitter(answer) => self.answer(answer),
            Action::Commit => {
                failpoint::reach("granted");
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
                failpoint::reach("committed");
                for model in models {
                    self.link.push_output(Payload::Model(model));
                }
            }
            Action::Report(verdict, models) => self.report(*verdict, models),
            Action::SetTimer(timer, after) => self.set_timer(timer, after),
            Action::Exit(_) => unreachable!("the loop takes it"),
        }
    }

    fn assignment(&self) -> Arc<Assignment> {
        self.assignment.clone().expect("the machine acts only after the assignment")
    }

    fn prepare(&mut self) {
        let assignment = self.assignment();
        let setting = self.setting.clone();
        // Whose workspace it is that is published.
        let root = match (&setting.run_dir, assignment.publish_attempt) {
            (Some(dir), earlier @ 1..) => workspace::of_attempt(dir, setting.attempt.step, earlier),
            _ => setting.root.clone(),
        };
        match Publication::new(&setting.attempt, &assignment.outputs, &root, setting.publish_retry) {
            Ok(publication) => self.publication = Some(Arc::new(publication)),
            Err(why) => return self.send(Event::WorkspaceFailed(why)),
        }
        let (patience, events) = (self.fetching.clone(), self.events.clone());
        spawn_blocking(move || {
            let _ = events.send(prepare(&setting, &root, &assignment, &patience));
        });
    }

    /// Must run on the main thread: the kernel kills the command when the thread that started it ends.
    fn start(&mut self) -> anyhow::Result<()> {
        let assignment = self.assignment();
        let started = spawn::spawn(&assignment, &self.setting.spawning())?;
        self.command = Command::Running(started.pid);
        tracing::info!(pid = started.pid.as_raw(), "the command runs");

        let channel = match started.channel {
            Some(channel) => {
                let (channel, answer_half) = UnixStream::from_std(channel)?.into_split();
                let (answers, queue) = mpsc::channel(answers::MAX_WAITING);
                self.answers = Some(answers.clone());
                let start = Start { secrets: assignment.secrets.clone() };
                let acked = self.link.acked();
                tokio::spawn(async move {
                    // An error means that the command closed its end; whether that matters shows elsewhere.
                    let _ = answers::write_answers(answer_half, start, queue, acked).await;
                });
                Some((channel, BytesMut::new(), answers))
            }
            None => None,
        };
        let how = self.setting.mirror;
        let mirrored = |mirror: &Mirror| (how != MirrorAs::None).then(|| mirror.clone());
        let reader = Reader {
            link: self.link.clone(),
            events: self.events.clone(),
            stdout: OutputPipe::new(started.stdout, Stream::Stdout, mirrored(&self.mirrors[0]), how)?,
            stderr: OutputPipe::new(started.stderr, Stream::Stderr, mirrored(&self.mirrors[1]), how)?,
            channel,
            when_full: self.setting.when_full,
            trace: self.trace.clone(),
            stop: self.stop_reading.subscribe(),
        };
        tokio::spawn(reader.run());
        tokio::spawn(meter::watch(self.link.clone(), self.evidence.largest()));
        Ok(())
    }

    fn answer(&mut self, answer: Result<(), String>) {
        let frame = match answer {
            Ok(()) => Frame::Granted(Granted {}),
            Err(reason) => Frame::Refused(Refused { reason }),
        };
        if let Some(answers) = &self.answers {
            // Full or closed: the submitter does not listen, and the grace ends it.
            let _ = answers.try_send(Answer::Now(frame));
        }
    }

    fn signal_leftovers(&mut self, signal: Signal) {
        if signal == Signal::SIGTERM {
            let leftovers = named(&tree::live());
            if !leftovers.is_empty() {
                self.warn(format!("still running when the command had exited, and ended: {leftovers}"));
            }
        }
        tree::signal_descendants(signal);
    }

    fn record_gap(&mut self) {
        let gap = Gap { reason: gap::Reason::Drain.into(), bytes: None };
        self.link.push_output(Payload::Gap(gap));
        let holders = match named(&tree::live()) {
            none if none.is_empty() => "a process outside of the attempt".to_owned(),
            holders => holders,
        };
        self.warn(format!("gave up reading output that is held open by {holders}"));
    }

    fn warn(&self, text: String) {
        tracing::warn!("{text}");
        self.link.push_output(Payload::Notice(Notice { kind: notice::Kind::Warning.into(), text }));
    }

    fn stage(&mut self) {
        let (publication, events) = (self.publication(), self.events.clone());
        spawn_blocking(move || {
            let _ = events.send(match publication.stage() {
                Ok(models) => Event::Staged(models),
                Err(error) => publish_failed(error),
            });
        });
    }

    fn commit(&mut self) {
        let (publication, events, staged) =
            (self.publication(), self.events.clone(), std::mem::take(&mut self.staged));
        spawn_blocking(move || {
            let _ = events.send(match publication.commit(staged) {
                Ok(models) => Event::Committed(models),
                Err(error) => publish_failed(error),
            });
        });
    }

    fn abandon_publish(&mut self) {
        let publication = self.publication();
        publication.abandon();
        self.last_work.push(spawn_blocking(move || publication.clear()));
    }

    fn publication(&self) -> Arc<Publication> {
        self.publication.clone().expect("preparing made it")
    }

    fn report(&mut self, mut verdict: Verdict, models: Vec<ModelPublished>) {
        if let Some(last_words) = self.link.last_words() {
            verdict.explain(&last_words);
        }
        tracing::info!(reason = ?verdict.reason, message = verdict.message, "the attempt ended");
        let mut outcome = self.evidence.outcome(verdict, models, &self.link, self.reaper.largest());
        let (link, dir) = (self.link.clone(), self.setting.run_dir.clone());
        let summary = self.setting.summary.clone();
        let marks = self.link.marks();
        self.outcome = Some(outcome.clone());
        self.last_work.push(spawn_blocking(move || {
            if outcome.output_kept
                && let Some(dir) = &dir
                && let Err(error) = workspace::sync(dir)
            {
                tracing::error!(%error, "cannot make what the command made durable");
                outcome.output_kept = false;
            }
            failpoint::reach("before-outcome");
            if let Some(dir) = dir
                && let Err(error) = outcome::write(&dir, &outcome)
            {
                tracing::error!(%error, "cannot write the outcome");
            }
            if let Some(file) = summary
                && let Err(error) = std::fs::write(&file, summary::with_marks(&outcome, &marks))
            {
                tracing::error!(%error, file = %file.display(), "cannot write the outcome");
            }
            failpoint::reach("after-outcome");
            link.report(outcome);
        }));
    }

    fn set_timer(&mut self, timer: Timer, after: Duration) {
        let events = self.events.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = events.send(Event::TimeUp(timer));
        });
        if let Some(earlier) = self.timers.insert(timer, task.abort_handle()) {
            earlier.abort();
        }
    }

    /// Leaves nothing undone that a later server needs.
    async fn leave(&mut self) {
        for work in self.last_work.drain(..) {
            let _ = tokio::time::timeout(LAST_WORK, work).await;
        }
        self.leave_spool();
        self.export_trace().await;
    }

    async fn export_trace(&mut self) {
        let (Some(trace), Some(mut outcome)) = (self.trace.take(), self.outcome.take()) else { return };
        // Reporting has ended too.
        outcome.phases = self.evidence.phase_times();
        let trace = trace.lock().expect("nobody panics while holding the lock").clone();
        let command = self.assignment.as_ref().map(|it| it.command.clone()).unwrap_or_default();
        trace.export(&command, &outcome).await;
    }

    fn leave_spool(&self) {
        let unacked = self.link.unacked();
        if unacked.is_empty() {
            return;
        }
        let Some(dir) = &self.setting.run_dir else { return };
        failpoint::reach("before-spool");
        tracing::warn!(bytes = self.link.unacked_bytes(), "leaving records that no server took in the spool");
        if let Err(error) = spool::write(dir, &unacked, self.overflow.as_ref()) {
            tracing::error!(%error, "cannot write the spool");
        }
        failpoint::reach("after-spool");
    }
}

/// What the server says of the trace, and what it, or our own environment, says of the collector.
fn assigned_trace(assignment: &Assignment) -> Option<Trace> {
    let attempt = assignment.traceparent.parse().ok()?;
    let variable =
        |name: &str| std::env::var(name).ok().or_else(|| assignment.environment.get(name).cloned());
    match Exporter::from_env(&variable) {
        Ok(exporter) => Some(Trace::of_attempt(exporter?, attempt)),
        Err(error) => {
            tracing::warn!("spans are not sent: {error:#}");
            None
        }
    }
}

fn publish_failed(error: PublishError) -> Event {
    let PublishError { message, committed, may_pass, is_overtaken } = error;
    if is_overtaken {
        tracing::warn!("another model came in between: {message}");
        return Event::Overtaken { message, committed };
    }
    Event::PublishFailed { message, committed, may_pass }
}

/// `sleep (pid 12), python3 (pid 13) and 7 more`
fn named(processes: &[tree::Process]) -> String {
    let mut names: Vec<_> = processes
        .iter()
        .take(NAMED_LEFTOVERS)
        .map(|process| format!("{} (pid {})", process.name, process.pid))
        .collect();
    if let Some(more) = processes.len().checked_sub(NAMED_LEFTOVERS).filter(|more| *more > 0) {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}
