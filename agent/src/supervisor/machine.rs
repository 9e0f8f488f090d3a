//! States and transitions of an attempt: those of its command are in `starting`, `running` and `draining`, those of its
//! models in `publishing`, those of its end in `reporting`.

mod draining;
mod publishing;
mod reporting;
mod running;
mod starting;

use std::time::Duration;

use nix::sys::signal::Signal;
use sqlflow_proto::record::ModelPublished;

use super::budget::Budget;
use super::event::{Action, AttachEvent, Event, Plan, PrepareEvent, Timer};
use super::exit_report::{COMMAND, EXIT_FAULT, End, exit_code};
use super::programs::{Program, Programs};
use draining::Drain;
use running::StopStage;

/// Time for remaining processes to exit by themselves: Python's helpers notice the end of their pipes. Later they are
/// terminated, with a warning.
const SETTLE: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Attaching,
    Preparing,
    /// In the backoff before the next start of the command.
    Starting,
    Running(StopStage),
    Draining(Drain),
    Staging,
    Asking,
    Committing,
    Flushing,
    Reporting,
    Done,
}

/// An attempt: its state, and the facts about it.
#[derive(Debug, Clone)]
pub struct Attempt {
    state: State,
    plan: Plan,
    linger: Duration,
    /// A server has no attempt for this agent yet. Then there is no timeout.
    is_waiting_for_attempt: bool,
    end: Option<End>,
    programs: Programs,
    /// Sum of all backoff pauses before starts of the command.
    start_paused: Duration,
    /// The bytes on the channel are not a frame; what follows is missing.
    channel_broken: Option<String>,
    /// The channel ended within a frame: a result is missing.
    channel_cut: bool,
    /// Nothing more will be read. Pipes may close before the exit is known, so while the command runs.
    streams_ended: bool,
    models: Vec<ModelPublished>,
    /// Number of TERM and INT that the agent got.
    terminations: u32,
    /// Why the agent was terminated, if it was.
    termination: Option<String>,
    /// Why servers refuse this attempt for good.
    superseded: Option<String>,
    /// The server cancelled the attempt during the commit.
    cancelled: Option<String>,
    /// Number of write conflicts.
    write_conflicts: u32,
    /// A failed commit is not retried any more.
    hurried: bool,
    /// Publishing must not begin any more.
    is_publish_late: bool,
    /// The deadline for leaving has passed.
    is_late: bool,
    /// KILL did not end a program.
    is_unended: bool,
    /// The submitter waits for the grant of its commit.
    is_asking: bool,
    /// The submitter's commit was granted: its effect may be visible at any moment.
    is_granted: bool,
    /// The companion got TERM.
    is_companion_told: bool,
}

impl Attempt {
    /// A new attempt, with its first actions.
    pub fn new(linger: Duration) -> (Self, Vec<Action>) {
        let attempt = Self {
            state: State::Attaching,
            plan: Plan::default(),
            linger,
            is_waiting_for_attempt: false,
            end: None,
            programs: Programs::default(),
            start_paused: Duration::ZERO,
            channel_broken: None,
            channel_cut: false,
            streams_ended: false,
            models: Vec::new(),
            terminations: 0,
            termination: None,
            superseded: None,
            cancelled: None,
            write_conflicts: 0,
            hurried: false,
            is_publish_late: false,
            is_late: false,
            is_unended: false,
            is_asking: false,
            is_granted: false,
            is_companion_told: false,
        };
        (attempt, vec![Action::SetTimer(Timer::Linger, linger)])
    }

    /// The phase for heartbeats.
    pub fn phase(&self) -> sqlflow_proto::agent::Phase {
        use sqlflow_proto::agent::Phase;
        match self.state {
            State::Attaching | State::Preparing => Phase::Fetching,
            // A backoff between starts is part of the phase.
            State::Starting | State::Running(_) => Phase::Running,
            State::Draining(_) => Phase::Draining,
            State::Staging | State::Asking | State::Committing => Phase::Publishing,
            State::Flushing | State::Reporting | State::Done => Phase::Reporting,
        }
    }

    /// Applies an event and returns the actions. Events that come too late for the state change nothing.
    pub fn apply(&mut self, event: Event) -> Vec<Action> {
        let mut deadlines = Vec::new();
        if let Event::Terminate { signal, sender, budget } = &event {
            deadlines = self.count_termination(*signal, sender, budget);
        }
        self.is_publish_late |= matches!(event, Event::TimeUp(Timer::PublishBy | Timer::LeaveBy));
        self.is_late |= event == Event::TimeUp(Timer::LeaveBy);
        let mut actions = self.apply_in_state(event);
        if self.state != State::Done {
            actions.extend(deadlines);
        }
        actions
    }

    /// The first one sets the deadlines, in any state.
    fn count_termination(&mut self, signal: Signal, sender: &str, budget: &Budget) -> Vec<Action> {
        self.terminations += 1;
        if self.terminations > 1 {
            return Vec::new();
        }
        self.termination = Some(format!("the agent was terminated by {signal} from {sender}"));
        vec![
            Action::SetTimer(Timer::PublishBy, budget.publish),
            Action::SetTimer(Timer::LeaveBy, budget.leave),
        ]
    }

    fn apply_in_state(&mut self, event: Event) -> Vec<Action> {
        match self.state {
            State::Attaching => self.attaching(event),
            State::Preparing => self.preparing(event),
            State::Starting => self.starting(event),
            State::Running(stop) => self.running(stop, event),
            State::Draining(drain) => self.draining(drain, event),
            State::Staging => self.staging(event),
            State::Asking => self.asking(event),
            State::Committing => self.committing(event),
            State::Flushing => self.flushing(event),
            State::Reporting => self.reporting(event),
            State::Done => Vec::new(),
        }
    }

    fn attaching(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Attach(AttachEvent::Assigned(plan)) => {
                // Output is kept only of a command that succeeded.
                self.programs = if plan.is_publish_only {
                    Programs::succeeded_earlier()
                } else {
                    Programs::new(plan.companion.is_some())
                };
                self.plan = plan;
                self.state = State::Preparing;
                vec![Action::Prepare]
            }
            Event::Attach(AttachEvent::WaitingForAttempt) => {
                self.is_waiting_for_attempt = true;
                Vec::new()
            }
            Event::Attach(AttachEvent::WaitInterrupted) => {
                self.is_waiting_for_attempt = false;
                vec![Action::SetTimer(Timer::Linger, self.linger)]
            }
            Event::TimeUp(Timer::Linger) if self.is_waiting_for_attempt => Vec::new(),
            // The job was cancelled while the agent attached.
            Event::Cancel { reason, .. } => self.report_end(End::Cancelled(reason)),
            Event::AttachRefused(_) | Event::TimeUp(Timer::Linger) => self.exit(EXIT_FAULT),
            Event::Terminate { .. } => {
                self.end_by_termination();
                self.exit(exit_code(self.end.as_ref(), None))
            }
            Event::Prepare(_)
            | Event::Command(_)
            | Event::Grant(_)
            | Event::Publish(_)
            | Event::Forward(_)
            | Event::Report(_)
            | Event::TimeUp(
                Timer::Grace
                | Timer::CompanionTerm
                | Timer::Completion
                | Timer::GiveUp
                | Timer::Settle
                | Timer::Drain
                | Timer::StartAgain
                | Timer::PublishBy
                | Timer::LeaveBy,
            ) => Vec::new(),
        }
    }

    fn preparing(&mut self, event: Event) -> Vec<Action> {
        let abandoned = match event {
            Event::Prepare(PrepareEvent::Prepared) if self.plan.is_publish_only => {
                self.state = State::Staging;
                return vec![Action::Stage];
            }
            Event::Prepare(PrepareEvent::Prepared) => {
                self.state = State::Running(StopStage::None);
                return vec![Action::Start];
            }
            Event::Prepare(PrepareEvent::InputFailed { message, user_error }) => {
                return self.report_end(End::InputFailed { message, user_error });
            }
            Event::Prepare(PrepareEvent::OutputMissing(why)) => {
                return self.report_end(End::OutputMissing(why));
            }
            Event::Prepare(PrepareEvent::WorkspaceFailed(why)) => {
                return self.report_end(End::AgentFailed(why));
            }
            Event::AttachRefused(why) => self.superseded(why),
            Event::Cancel { reason, .. } => End::Cancelled(reason),
            Event::Terminate { .. } => {
                self.end_by_termination();
                let mut actions = vec![Action::AbandonPrepare];
                actions.extend(self.report());
                return actions;
            }
            Event::Attach(_)
            | Event::Command(_)
            | Event::Grant(_)
            | Event::Publish(_)
            | Event::Forward(_)
            | Event::Report(_)
            | Event::TimeUp(_) => return Vec::new(),
        };
        let mut actions = vec![Action::AbandonPrepare];
        actions.extend(self.report_end(abandoned));
        actions
    }

    fn superseded(&mut self, why: String) -> End {
        self.superseded = Some(why.clone());
        End::Superseded(why)
    }

    fn end_by(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// If the agent was terminated, that is the reason.
    fn end_by_termination(&mut self) {
        if let Some(why) = self.termination.clone() {
            self.end_by(End::Terminated(why));
        }
    }

    /// A cancel after the command's end matters only if it prevents publishing.
    fn cancel_publish(&mut self, reason: String) {
        if self.succeeded() && self.plan.publishes {
            self.end_by(End::Cancelled(reason));
        }
    }

    fn succeeded(&self) -> bool {
        self.end.is_none() && self.programs.succeeded()
    }

    /// The program in messages.
    fn name(&self, program: Program) -> &str {
        match (program, &self.plan.companion) {
            (Program::Companion, Some(name)) => name,
            (Program::Companion, None) | (Program::Command, _) => COMMAND,
        }
    }
}
