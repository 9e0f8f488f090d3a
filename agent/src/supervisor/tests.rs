//! Property tests: the supervisor in worlds that misbehave in any order ends once, with a true report.

mod cases;
mod companions;

use std::time::Duration;

use nix::sys::signal::Signal;
use proptest::prelude::*;
use sqlflow_proto::agent::outcome::Reason;
use sqlflow_proto::record::ModelPublished;

use super::*;

const LINGER: Duration = Duration::from_secs(60);

fn plan(publishes: bool) -> Plan {
    Plan { publishes, grace: Duration::from_secs(10), drain: Duration::from_secs(5), ..Plan::default() }
}

fn exited(code: i32) -> Event {
    ended(Program::Command, ExitStatus::Code(code), None)
}

fn ended(program: Program, status: ExitStatus, told: Option<Signal>) -> Event {
    let exit = Exit { status, oom_kills: 0, memory_limit: 0, memory_peak: 0 };
    Event::Command(CommandEvent::Exited { program, exit, told })
}

/// A world around the supervisor, with its faults and its past.
#[derive(Debug)]
struct World {
    machine: Attempt,
    plan: Plan,
    /// Pending events; the test picks their order.
    pending: Vec<Event>,
    timers: Vec<Timer>,
    /// The command neither ends by itself nor by TERM.
    is_stubborn: bool,
    /// And not by KILL.
    is_unkillable: bool,
    /// A process holds the pipes open until reading is stopped.
    holds_pipes: bool,
    fails: Fails,
    exit_code: i32,
    is_running: bool,
    /// The timeout for KILL has expired.
    given_up: bool,
    granted: bool,
    /// The command got the commit grant.
    granted_to_command: bool,
    committed: bool,
    reports: Vec<ExitReport>,
    exit: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fails {
    Nothing,
    Input,
    Workspace,
    Start,
    /// This number of starts, for exhaustion.
    StartFor(u32),
    Stage,
    Commit,
    Grant,
    Silence,
    /// The log, or the agent's own streams.
    Flush,
    /// This number of commits.
    WriteConflict(u32),
}

impl World {
    /// A command that KILL does not end.
    fn unkillable(plan: Plan) -> Self {
        let world = Self::new(plan, Fails::Nothing, 0, true, true);
        Self { is_unkillable: true, ..world }
    }

    fn new(plan: Plan, fails: Fails, exit_code: i32, is_stubborn: bool, holds_pipes: bool) -> Self {
        let (machine, first) = Attempt::new(LINGER);
        let mut world = Self {
            machine,
            pending: vec![Event::Attach(AttachEvent::Assigned(plan.clone()))],
            plan,
            timers: Vec::new(),
            is_stubborn,
            is_unkillable: false,
            holds_pipes,
            fails,
            exit_code,
            is_running: false,
            given_up: false,
            granted: false,
            granted_to_command: false,
            committed: false,
            reports: Vec::new(),
            exit: None,
        };
        world.carry_out(first);
        world
    }

    fn happen(&mut self, event: Event) {
        match &event {
            Event::Command(CommandEvent::Exited { .. }) => self.is_running = false,
            Event::TimeUp(timer) => {
                self.timers.retain(|set| set != timer);
                self.given_up |= *timer == Timer::GiveUp;
            }
            Event::Grant(GrantEvent::Granted) => self.granted = true,
            Event::Publish(PublishEvent::Committed(_)) => self.committed = true,
            _ => {}
        }
        let actions = self.machine.apply(event);
        assert!(self.exit.is_none() || actions.is_empty(), "{actions:?} after the end");
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Prepare => self.pending.push(match self.fails {
                    Fails::Input => Event::Prepare(PrepareEvent::InputFailed {
                        message: "no such model".into(),
                        user_error: true,
                    }),
                    Fails::Workspace => Event::Prepare(PrepareEvent::WorkspaceFailed("no space left".into())),
                    _ => Event::Prepare(PrepareEvent::Prepared),
                }),
                Action::Start if self.fails == Fails::Start => {
                    self.pending.push(start_failed(StartFault::Other));
                }
                Action::Start if matches!(self.fails, Fails::StartFor(1..)) => {
                    assert!(!self.is_running && self.reports.is_empty());
                    let Fails::StartFor(times) = &mut self.fails else { unreachable!() };
                    *times -= 1;
                    self.pending.push(start_failed(StartFault::Exhausted));
                }
                Action::Start => {
                    assert!(!self.is_running && self.reports.is_empty());
                    assert!(!self.plan.is_publish_only, "what ran once runs again");
                    self.is_running = true;
                    if !self.is_stubborn {
                        self.end_command(exited(self.exit_code));
                    }
                }
                Action::Kill if self.is_running && self.is_stubborn && !self.is_unkillable => {
                    self.is_stubborn = false;
                    let killed = ExitStatus::Signal(9);
                    self.end_command(ended(Program::Command, killed, Some(Signal::SIGKILL)));
                }
                Action::StopReading if self.holds_pipes => {
                    self.holds_pipes = false;
                    self.pending.push(Event::Command(CommandEvent::StreamsEnded { open: true }));
                }
                Action::Stage => {
                    assert!(!self.is_running && self.plan.publishes);
                    self.granted = false;
                    self.pending.push(match self.fails {
                        Fails::Stage => failed_publish(),
                        _ => Event::Publish(PublishEvent::Staged(vec![ModelPublished::default()])),
                    });
                }
                Action::AskCommit(_) => match self.fails {
                    Fails::Grant => {
                        self.pending.push(Event::Grant(GrantEvent::CommitRefused("cancelled".into())));
                    }
                    Fails::Silence => {}
                    _ => self.pending.push(Event::Grant(GrantEvent::Granted)),
                },
                Action::Commit => {
                    assert!(self.granted, "nothing becomes visible without the grant");
                    self.pending.push(match &mut self.fails {
                        Fails::Commit => failed_publish(),
                        Fails::WriteConflict(times @ 1..) => {
                            *times -= 1;
                            Event::Publish(PublishEvent::WriteConflict {
                                message: "it was replaced".into(),
                                committed: Vec::new(),
                            })
                        }
                        _ => Event::Publish(PublishEvent::Committed(vec![ModelPublished::default()])),
                    });
                }
                Action::Flush => {
                    let unwritten = (self.fails == Fails::Flush).then(|| "the disk is full".to_owned());
                    self.pending.push(Event::Report(ReportEvent::Flushed { unwritten, unlogged: None }));
                }
                Action::Report(report, models) => {
                    assert_eq!(!models.is_empty(), self.committed, "published models are reported");
                    assert_eq!(self.is_running, report.message.ends_with("did not end after KILL"));
                    self.reports.push(*report);
                    if self.fails != Fails::Silence {
                        self.pending.push(Event::Report(ReportEvent::OutcomeAcked));
                    }
                }
                Action::AnswerSubmitter(answer) => self.granted_to_command |= answer.is_ok(),
                Action::SetTimer(timer, _) => {
                    self.timers.retain(|set| *set != timer);
                    self.timers.push(timer);
                }
                Action::Exit(code) => {
                    assert!(self.exit.is_none());
                    assert!(!self.is_running || self.given_up, "the command outlives the agent");
                    self.exit = Some(code);
                }
                _ => {}
            }
        }
    }

    /// The kernel closes the pipes before it reports the exit.
    fn end_command(&mut self, exit: Event) {
        if !self.holds_pipes {
            self.pending.push(Event::Command(CommandEvent::StreamsEnded { open: false }));
        }
        self.pending.push(exit);
    }

    /// One of the possible next events. `AllExited` may come at any time after the exit.
    fn step(&mut self, choice: usize) -> bool {
        let choices = self.pending.len() + self.timers.len();
        if choices == 0 {
            return false;
        }
        // No timer expires before that is known.
        let at_once =
            self.pending.iter().position(|it| matches!(it, Event::Command(CommandEvent::StartFailed { .. })));
        match at_once.unwrap_or(choice % choices) {
            pending if pending < self.pending.len() => {
                let event = self.pending.remove(pending);
                let is_exit = matches!(event, Event::Command(CommandEvent::Exited { .. }));
                self.happen(event);
                if is_exit {
                    self.pending.push(Event::Command(CommandEvent::AllExited));
                }
            }
            timer => {
                let timer = self.timers[timer - self.pending.len()];
                self.happen(Event::TimeUp(timer));
            }
        }
        true
    }
}

fn terminate() -> Event {
    let budget = Budget::divide(Duration::from_secs(30), &Load::default());
    Event::Terminate { signal: Signal::SIGTERM, sender: "pid 1 (init), uid 0".into(), budget }
}

fn start_failed(fault: StartFault) -> Event {
    Event::Command(CommandEvent::StartFailed { message: "cannot start python".into(), fault })
}

fn failed_publish() -> Event {
    Event::Publish(PublishEvent::PublishFailed {
        message: "no space left".into(),
        committed: Vec::new(),
        fault: PublishFault::Retryable,
    })
}

fn any_outputs() -> impl Strategy<Value = (bool, bool, bool)> {
    (0..3, any::<bool>()).prop_map(|(kind, keeps)| (kind > 0, kind > 1, keeps))
}

fn any_fails() -> impl Strategy<Value = Fails> {
    use Fails::*;
    prop::sample::select(vec![
        Nothing,
        Nothing,
        Nothing,
        Input,
        Workspace,
        Start,
        StartFor(2),
        StartFor(u32::MAX),
        Stage,
        Commit,
        Grant,
        Silence,
        Flush,
        WriteConflict(2),
        WriteConflict(u32::MAX),
    ])
}

fn interruption(kind: u8) -> Option<Event> {
    match kind {
        0 => Some(terminate()),
        1 => Some(Event::Cancel { reason: "by the user".into(), grace: None }),
        2 => Some(Event::AttachRefused("the attempt is over".into())),
        3 => Some(Event::Command(CommandEvent::ChannelBroken("no frame".into()))),
        4 => Some(Event::Command(CommandEvent::CommitAsked)),
        5 => Some(Event::Report(ReportEvent::AckedMeanwhile)),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_attempt_ends_once_with_a_true_report(
        (publishes, is_publish_only, keeps_output) in any_outputs(),
        fails in any_fails(),
        exit_code in prop::sample::select(vec![0, 0, 1]),
        kept in prop::sample::select(vec![OutputSink::Server, OutputSink::LogFolder, OutputSink::Nowhere]),
        is_stubborn in prop::bool::weighted(0.3),
        is_unkillable in prop::bool::weighted(0.3),
        holds_pipes in prop::bool::weighted(0.3),
        steps in prop::collection::vec((any::<usize>(), 0_u8..40), 0..40),
    ) {
        let plan = Plan { is_publish_only, keeps_output, sink: kept, ..plan(publishes) };
        let mut world = World::new(plan, fails, exit_code, is_stubborn, holds_pipes);
        // Such a command holds its pipes open.
        if is_stubborn && holds_pipes {
            world.is_unkillable = is_unkillable;
        }
        let mut was_interrupted = false;
        for (choice, kind) in steps {
            if let Some(event) = interruption(kind) {
                was_interrupted = true;
                world.happen(event);
            } else {
                world.step(choice);
            }
        }
        for _ in 0..100 {
            if world.exit.is_some() {
                break;
            }
            if !world.step(0) {
                // Some commands never end by themselves.
                world.happen(Event::Cancel { reason: "by the user".into(), grace: None });
            }
        }
        let code = world.exit.expect("the agent ends");
        prop_assert!(world.reports.len() <= 1);
        if let Some(report) = world.reports.first() {
            let succeeded = report.reason == Reason::Succeeded;
            prop_assert!(!succeeded || report.status == Some(ExitStatus::Code(0)));
            prop_assert!(!succeeded || world.committed == publishes, "success means published");
            prop_assert!(!succeeded || fails != Fails::Flush || kept != OutputSink::Nowhere, "success means that the output is known");
            prop_assert!(code != 0 || succeeded);
            prop_assert!(code == 0 || !succeeded || kept == OutputSink::LogFolder, "but for a log that was not finished in time");
            let is_effective = world.granted_to_command && report.status == Some(ExitStatus::Code(0));
            prop_assert!(publishes || !is_effective || report.reason != Reason::Cancelled, "{:?}", report);
            let was_made = publishes && !succeeded && report.status == Some(ExitStatus::Code(0));
            prop_assert!(!report.output_kept || (was_made && keeps_output), "{:?}", report);
            if !was_interrupted && !is_stubborn && exit_code == 0 && fails == Fails::Nothing {
                prop_assert!(succeeded || report.reason != Reason::Exited);
            }
        }
    }
}
