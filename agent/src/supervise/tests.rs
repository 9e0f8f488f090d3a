//! The machine in worlds that misbehave in every order: whatever comes, it ends, once, and tells the truth.

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
    Event::Exited(Exit { status: ExitStatus::Code(code), oom_kills: 0, memory_limit: 0, memory_peak: 0 })
}

/// What the world around the machine is like, and what it did so far.
#[derive(Debug)]
struct World {
    machine: Attempt,
    plan: Plan,
    /// Events that will come, in any order that the test picks.
    pending: Vec<Event>,
    timers: Vec<Timer>,
    /// The command neither ends by itself nor by TERM.
    is_stubborn: bool,
    /// Nor by KILL.
    is_unkillable: bool,
    /// Some process holds the pipes open until reading is stopped.
    holds_pipes: bool,
    fails: Fails,
    exit_code: i32,
    is_running: bool,
    /// The time for KILL to end it has run out.
    given_up: bool,
    granted: bool,
    /// The command was told that it may make its effect visible.
    granted_to_command: bool,
    committed: bool,
    reports: Vec<Verdict>,
    exit: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fails {
    Nothing,
    Input,
    Workspace,
    Start,
    /// The first starts, so often, for lack of processes.
    StartFor(u32),
    Stage,
    Commit,
    Grant,
    Silence,
    /// The log, or our own streams.
    Flush,
    /// The first commits, so often.
    Overtaken(u32),
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
            plan,
            pending: vec![Event::Assigned(plan)],
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
            Event::Exited(_) => self.is_running = false,
            Event::TimeUp(timer) => {
                self.timers.retain(|set| set != timer);
                self.given_up |= *timer == Timer::GiveUp;
            }
            Event::Granted => {
                self.granted = true;
                self.granted_to_command |= self.is_running;
            }
            Event::Committed(_) => self.committed = true,
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
                    Fails::Input => Event::InputFailed { message: "no such model".into(), user_error: true },
                    Fails::Workspace => Event::WorkspaceFailed("no space left".into()),
                    _ => Event::Prepared,
                }),
                Action::Start if self.fails == Fails::Start => {
                    self.pending.push(start_failed(false));
                }
                Action::Start if matches!(self.fails, Fails::StartFor(1..)) => {
                    assert!(!self.is_running && self.reports.is_empty());
                    let Fails::StartFor(times) = &mut self.fails else { unreachable!() };
                    *times -= 1;
                    self.pending.push(start_failed(true));
                }
                Action::Start => {
                    assert!(!self.is_running && self.reports.is_empty());
                    assert!(!self.plan.is_publish_only, "what ran once runs again");
                    self.is_running = true;
                    if !self.is_stubborn {
                        self.end_command(exited(self.exit_code));
                    }
                }
                Action::Signal(Signal::SIGKILL)
                    if self.is_running && self.is_stubborn && !self.is_unkillable =>
                {
                    self.is_stubborn = false;
                    self.end_command(Event::Exited(Exit {
                        status: ExitStatus::Signal(9),
                        oom_kills: 0,
                        memory_limit: 0,
                        memory_peak: 0,
                    }));
                }
                Action::StopReading if self.holds_pipes => {
                    self.holds_pipes = false;
                    self.pending.push(Event::StreamsEnded { open: true });
                }
                Action::Stage => {
                    assert!(!self.is_running && self.plan.publishes);
                    self.granted = false;
                    self.pending.push(match self.fails {
                        Fails::Stage => failed_publish(),
                        _ => Event::Staged(vec![ModelPublished::default()]),
                    });
                }
                Action::AskCommit(_) => match self.fails {
                    Fails::Grant => self.pending.push(Event::CommitRefused("cancelled".into())),
                    Fails::Silence => {}
                    _ => self.pending.push(Event::Granted),
                },
                Action::Commit => {
                    assert!(self.granted, "nothing becomes visible without the grant");
                    self.pending.push(match &mut self.fails {
                        Fails::Commit => failed_publish(),
                        Fails::Overtaken(times @ 1..) => {
                            *times -= 1;
                            Event::Overtaken { message: "it was replaced".into(), committed: Vec::new() }
                        }
                        _ => Event::Committed(vec![ModelPublished::default()]),
                    });
                }
                Action::Flush => {
                    let unwritten = (self.fails == Fails::Flush).then(|| "the disk is full".to_owned());
                    self.pending.push(Event::Flushed { unwritten, unlogged: None });
                }
                Action::Report(verdict, models) => {
                    assert_eq!(!models.is_empty(), self.committed, "what was published is told");
                    assert_eq!(self.is_running, verdict.message.ends_with("did not end after KILL"));
                    self.reports.push(*verdict);
                    if self.fails != Fails::Silence {
                        self.pending.push(Event::OutcomeAcked);
                    }
                }
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

    /// The kernel closes the pipes first, and then tells of the exit.
    fn end_command(&mut self, exit: Event) {
        if !self.holds_pipes {
            self.pending.push(Event::StreamsEnded { open: false });
        }
        self.pending.push(exit);
    }

    /// One thing out of all that may come next. `Alone` may come at any time after the exit.
    fn step(&mut self, choice: usize) -> bool {
        let choices = self.pending.len() + self.timers.len();
        if choices == 0 {
            return false;
        }
        // No timer runs out before that is known.
        let at_once = self.pending.iter().position(|it| matches!(it, Event::StartFailed { .. }));
        match at_once.unwrap_or(choice % choices) {
            pending if pending < self.pending.len() => {
                let event = self.pending.remove(pending);
                let is_exit = matches!(event, Event::Exited(_));
                self.happen(event);
                if is_exit {
                    self.pending.push(Event::Alone);
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

fn start_failed(may_pass: bool) -> Event {
    Event::StartFailed { message: "cannot start python".into(), may_pass }
}

fn failed_publish() -> Event {
    Event::PublishFailed { message: "no space left".into(), committed: Vec::new(), may_pass: true }
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
        Overtaken(2),
        Overtaken(u32::MAX),
    ])
}

fn interruption(kind: u8) -> Option<Event> {
    match kind {
        0 => Some(terminate()),
        1 => Some(Event::Cancel { reason: "by the user".into(), grace: None }),
        2 => Some(Event::AttachRefused("the attempt is over".into())),
        3 => Some(Event::ChannelBroken("no frame".into())),
        4 => Some(Event::CommitAsked),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_attempt_ends_once_and_tells_the_truth(
        (publishes, is_publish_only, keeps_output) in any_outputs(),
        fails in any_fails(),
        exit_code in prop::sample::select(vec![0, 0, 1]),
        kept in prop::sample::select(vec![Kept::ByServer, Kept::InLog, Kept::Nowhere]),
        is_stubborn in prop::bool::weighted(0.3),
        is_unkillable in prop::bool::weighted(0.3),
        holds_pipes in prop::bool::weighted(0.3),
        steps in prop::collection::vec((any::<usize>(), 0_u8..40), 0..40),
    ) {
        let plan = Plan { is_publish_only, keeps_output, kept, ..plan(publishes) };
        let mut world = World::new(plan, fails, exit_code, is_stubborn, holds_pipes);
        // Such a command has its pipes open.
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
        if let Some(verdict) = world.reports.first() {
            let succeeded = verdict.reason == Reason::Succeeded;
            prop_assert!(!succeeded || verdict.status == Some(ExitStatus::Code(0)));
            prop_assert!(!succeeded || world.committed == publishes, "success means published");
            prop_assert!(!succeeded || fails != Fails::Flush || kept != Kept::Nowhere, "success means told");
            prop_assert!(code != 0 || succeeded);
            prop_assert!(code == 0 || !succeeded || kept == Kept::InLog, "but for a log that was not finished in time");
            let is_effective = world.granted_to_command && verdict.status == Some(ExitStatus::Code(0));
            prop_assert!(publishes || !is_effective || verdict.reason != Reason::Cancelled, "{:?}", verdict);
            let was_made = publishes && !succeeded && verdict.status == Some(ExitStatus::Code(0));
            prop_assert!(!verdict.output_kept || (was_made && keeps_output), "{:?}", verdict);
            if !was_interrupted && !is_stubborn && exit_code == 0 && fails == Fails::Nothing {
                prop_assert!(succeeded || verdict.reason != Reason::Exited);
            }
        }
    }
}

#[test]
fn a_command_that_kill_does_not_end_is_given_up_and_told_of() {
    let mut world = World::unkillable(plan(true));
    while !world.is_running {
        world.step(0);
    }
    world.happen(terminate());
    world.happen(Event::TimeUp(Timer::Grace));
    world.happen(Event::TimeUp(Timer::LeaveBy));
    assert!(world.reports.is_empty(), "KILL takes a moment");
    world.happen(Event::TimeUp(Timer::GiveUp));
    world.happen(Event::StreamsEnded { open: true });
    let verdict = &world.reports[0];
    assert_eq!((verdict.reason, verdict.status), (Reason::Terminated, None));
    assert!(world.timers.contains(&Timer::LeaveBy), "the report has a second, not the linger");
    world.happen(Event::TimeUp(Timer::LeaveBy));
    assert_eq!(world.exit, Some(143));
}

#[test]
fn a_third_term_gives_up_what_kill_did_not_end_and_a_fourth_changes_nothing() {
    let mut world = World::unkillable(plan(false));
    while !world.is_running {
        world.step(0);
    }
    let given_up = |actions: &[Action]| {
        actions.iter().any(|it| matches!(it, Action::SetTimer(Timer::GiveUp, after) if *after < LINGER))
    };
    world.happen(terminate());
    assert!(!given_up(&world.machine.apply(terminate())));
    assert!(given_up(&world.machine.apply(terminate())));
    assert_eq!(world.machine.apply(terminate()), []);
}

#[test]
fn pipes_that_close_before_the_exit_is_known_are_not_waited_for_again() {
    let mut world = World::new(plan(false), Fails::Nothing, 0, true, true);
    world.happen(Event::Assigned(plan(false)));
    world.happen(Event::Prepared);
    world.happen(Event::StreamsEnded { open: false });
    world.happen(exited(0));
    assert!(world.reports.is_empty());
    world.happen(Event::Alone);
    assert_eq!(world.reports[0].reason, Reason::Succeeded);
}

#[test]
fn a_training_that_could_not_be_published_is_kept_where_it_outlives_the_agent() {
    for (keeps_output, fate) in [(true, "is kept"), (false, "is lost with its workspace")] {
        let mut world = World::new(Plan { keeps_output, ..plan(true) }, Fails::Stage, 0, false, false);
        while world.step(0) {}
        let verdict = &world.reports[0];
        assert_eq!((verdict.reason, verdict.output_kept), (Reason::PublishFailed, keeps_output));
        assert!(verdict.message.ends_with(fate), "{}", verdict.message);
    }
}

#[test]
fn a_model_that_is_overtaken_is_staged_again_and_asked_for_again() {
    let mut world = World::new(plan(true), Fails::Overtaken(3), 0, false, false);
    while world.step(0) {}
    assert!(world.committed);
    assert_eq!(world.reports[0].reason, Reason::Succeeded);

    let mut world =
        World::new(Plan { keeps_output: true, ..plan(true) }, Fails::Overtaken(u32::MAX), 0, false, false);
    while world.step(0) {}
    let verdict = &world.reports[0];
    assert_eq!((verdict.reason, verdict.output_kept), (Reason::PublishFailed, true));
}

#[test]
fn what_a_successful_command_printed_is_somewhere_whole_or_the_code_tells() {
    let lost = || Some("3 bytes are lost".to_owned());
    for (kept, unwritten, unlogged, code) in [
        (Kept::Nowhere, lost(), None, 65),
        (Kept::InLog, lost(), None, 0),
        (Kept::InLog, None, lost(), 65),
        (Kept::InLog, lost(), lost(), 65),
        (Kept::Nowhere, None, None, 0),
    ] {
        let plan = Plan { kept, ..plan(true) };
        let mut world = World::new(plan, Fails::Nothing, 0, false, false);
        while !matches!(world.pending[..], [Event::Flushed { .. }]) {
            world.step(0);
        }
        assert!(world.committed, "the model is published all the same");
        world.pending.clear();
        world.happen(Event::Flushed { unwritten, unlogged });
        while world.exit.is_none() {
            world.step(0);
        }
        assert_eq!(world.exit, Some(code));
        assert_eq!(world.reports[0].message.contains("3 bytes are lost"), code == 65);
    }
}

#[test]
fn an_attempt_that_was_given_up_does_not_go_over_anothers_model() {
    for (given_up, reason) in [
        (Event::AttachRefused("a later attempt runs".into()), Reason::Refused),
        (Event::Cancel { reason: "by the user".into(), grace: None }, Reason::Cancelled),
    ] {
        let mut world = World::new(plan(true), Fails::Overtaken(1), 0, false, false);
        while !world.granted {
            world.step(0);
        }
        world.happen(given_up);
        while world.step(0) {}
        assert!(!world.committed);
        assert_eq!(world.reports[0].reason, reason);
    }
}

#[test]
fn an_attempt_that_only_publishes_runs_nothing() {
    let plan = Plan { is_publish_only: true, keeps_output: true, ..plan(true) };
    let mut world = World::new(plan, Fails::Nothing, 1, false, false);
    while world.step(0) {}
    assert!(world.committed);
    assert_eq!((world.reports[0].reason, world.exit), (Reason::Succeeded, Some(0)));
    let mut world = World::new(plan, Fails::Nothing, 1, false, false);
    world.step(0);
    world.happen(terminate());
    assert_eq!((world.reports[0].reason, world.reports[0].output_kept), (Reason::Terminated, true));
}

#[test]
fn an_agent_that_is_kept_waiting_does_not_give_up_and_one_whose_server_went_does() {
    let (mut machine, _) = Attempt::new(LINGER);
    assert_eq!(machine.apply(Event::KeptWaiting), []);
    assert_eq!(machine.apply(Event::TimeUp(Timer::Linger)), [], "a server has it wait");
    assert_eq!(machine.apply(Event::WaitCut), [Action::SetTimer(Timer::Linger, LINGER)]);
    assert_eq!(machine.apply(Event::TimeUp(Timer::Linger)), [Action::Exit(EXIT_FAULT)]);
}

/// It has nothing to run then: a server that waits for its outcome would take it for lost.
#[test]
fn a_cancel_that_comes_instead_of_the_assignment_is_reported() {
    let mut world = World::new(plan(true), Fails::Nothing, 0, false, false);
    world.pending.clear();
    world.happen(Event::Cancel { reason: "by the user".into(), grace: None });
    let verdict = &world.reports[0];
    assert_eq!((verdict.reason, verdict.message.as_str()), (Reason::Cancelled, "by the user"));
    while world.step(0) {}
    assert_eq!(world.exit, Some(143));
}

fn cancel() -> Event {
    Event::Cancel { reason: "by the user".into(), grace: Some(Duration::from_secs(3)) }
}

/// A command that runs, and what was made of its wish to make its effect visible.
fn running(is_granted: bool) -> Attempt {
    let (mut machine, _) = Attempt::new(LINGER);
    machine.apply(Event::Assigned(plan(false)));
    machine.apply(Event::Prepared);
    if is_granted {
        assert_eq!(machine.apply(Event::CommitAsked), [Action::AskCommit(Vec::new())]);
        assert_eq!(machine.apply(Event::Granted), [Action::AnswerSubmitter(Ok(()))]);
    }
    machine
}

/// The verdict when the command ends like this.
fn verdict_on(mut machine: Attempt, exit: Event) -> Verdict {
    machine.apply(exit);
    machine.apply(Event::Alone);
    let reported = machine.apply(Event::StreamsEnded { open: false });
    let verdict = reported.into_iter().find_map(|it| match it {
        Action::Report(verdict, _) => Some(*verdict),
        _ => None,
    });
    verdict.expect("it is over")
}

/// Its effect may be visible at any moment: to kill it then would leave nobody knowing whether it is.
#[test]
fn a_granted_commit_has_the_grace_of_a_cancel_before_it_gets_its_term() {
    let mut machine = running(true);
    assert_eq!(machine.apply(cancel()), [Action::SetTimer(Timer::Grace, Duration::from_secs(3))]);
    assert_eq!(machine.apply(cancel()), [], "a server repeats its Cancel on every stream");
    let late = machine.apply(Event::TimeUp(Timer::Grace));
    assert!(late.contains(&Action::Signal(Signal::SIGTERM)), "{late:?}");
    let killed = machine.apply(Event::TimeUp(Timer::Grace));
    assert!(killed.contains(&Action::Signal(Signal::SIGKILL)), "{killed:?}");
}

#[test]
fn a_granted_commit_that_succeeds_in_spite_of_a_cancel_is_a_success() {
    for (is_granted, code, reason) in
        [(true, 0, Reason::Succeeded), (true, 1, Reason::Cancelled), (false, 0, Reason::Cancelled)]
    {
        let mut machine = running(is_granted);
        machine.apply(cancel());
        assert_eq!(verdict_on(machine, exited(code)).reason, reason, "granted: {is_granted}, code {code}");
    }
}

/// The Cancel's grace ends by its own timer; the platform's TERM brings deadlines, and does not shorten it.
#[test]
fn a_term_after_a_cancel_does_not_shorten_its_grace() {
    let mut machine = running(false);
    machine.apply(cancel());
    machine.apply(terminate());
    assert_eq!(machine.apply(Event::TimeUp(Timer::PublishBy)), []);
    let mut at_grace = machine.clone();
    for (machine, timer) in [(&mut at_grace, Timer::Grace), (&mut machine, Timer::LeaveBy)] {
        let killed = machine.apply(Event::TimeUp(timer));
        assert!(killed.contains(&Action::Signal(Signal::SIGKILL)), "{timer:?}: {killed:?}");
    }
}

/// An attempt whose command was started for the first time, and how that went.
fn starting(kept: Kept, may_pass: bool) -> (Attempt, Vec<Action>) {
    let (mut machine, _) = Attempt::new(LINGER);
    machine.apply(Event::Assigned(Plan { kept, ..plan(true) }));
    assert_eq!(machine.apply(Event::Prepared), [Action::Start]);
    let actions = machine.apply(start_failed(may_pass));
    (machine, actions)
}

fn reported(actions: &[Action]) -> &Verdict {
    let verdict = actions.iter().find_map(|it| match it {
        Action::Report(verdict, _) => Some(&**verdict),
        _ => None,
    });
    verdict.unwrap_or_else(|| panic!("not over: {actions:?}"))
}

#[test]
fn a_start_that_fails_for_exhaustion_is_tried_again_said_once_and_may_be_tried_by_another_attempt() {
    let (mut machine, mut actions) = starting(Kept::ByServer, true);
    let Action::Warn(said) = actions.remove(0) else { panic!("nothing is said: {actions:?}") };
    assert_eq!(said, "cannot start python; trying again for up to 60 s");
    let mut paused = Duration::ZERO;
    while let [Action::SetTimer(Timer::StartAgain, pause)] = actions[..] {
        assert!(pause >= Duration::from_millis(100) && pause <= Duration::from_secs(5), "{pause:?}");
        paused += pause;
        assert_eq!(machine.apply(Event::TimeUp(Timer::StartAgain)), [Action::Start]);
        actions = machine.apply(start_failed(true));
    }
    assert!(paused >= Duration::from_secs(60) && paused < Duration::from_secs(70), "{paused:?}");
    let verdict = reported(&actions);
    assert_eq!((verdict.reason, verdict.retryable), (Reason::StartFailed, true));
    assert_eq!(verdict.message, "cannot start python; tried again for 60 s");
}

#[test]
fn a_command_that_starts_at_last_runs_as_any_other() {
    let mut world = World::new(plan(true), Fails::StartFor(5), 0, false, false);
    while world.step(0) {}
    assert_eq!((world.reports[0].reason, world.exit), (Reason::Succeeded, Some(0)));
}

#[test]
fn a_program_that_cannot_be_started_is_final_and_without_a_server_so_is_every_start() {
    let (_, actions) = starting(Kept::ByServer, false);
    let verdict = reported(&actions);
    assert_eq!((verdict.reason, verdict.retryable), (Reason::StartFailed, false));
    for kept in [Kept::InLog, Kept::Nowhere] {
        let (mut machine, actions) = starting(kept, true);
        assert_eq!(actions, [Action::Flush]);
        let actions = machine.apply(Event::Flushed { unwritten: None, unlogged: None });
        let verdict = reported(&actions);
        assert_eq!((verdict.reason, verdict.retryable), (Reason::StartFailed, true));
    }
}

#[test]
fn a_pause_between_two_starts_ends_at_once_with_the_attempt() {
    for (event, reason, is_retryable) in [
        (cancel(), Reason::Cancelled, false),
        (terminate(), Reason::Terminated, true),
        (Event::AttachRefused("a later attempt runs".into()), Reason::Refused, false),
    ] {
        let (mut machine, _) = starting(Kept::ByServer, true);
        let actions = machine.apply(event.clone());
        let verdict = reported(&actions);
        assert_eq!((verdict.reason, verdict.retryable), (reason, is_retryable));
        assert_eq!(machine.apply(Event::TimeUp(Timer::StartAgain)), [], "it does not start after its end");

        // The same before the failure of a start is known.
        let (mut machine, _) = starting(Kept::ByServer, true);
        machine.apply(Event::TimeUp(Timer::StartAgain));
        machine.apply(event);
        let actions = machine.apply(start_failed(true));
        assert_eq!(reported(&actions).reason, reason);
    }
}
