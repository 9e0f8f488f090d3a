//! Single cases, each with a fixed order of events.

use super::*;

#[test]
fn unkillable_command_is_given_up_and_reported() {
    let mut world = World::unkillable(plan(true));
    while !world.is_running {
        world.step(0);
    }
    world.happen(terminate());
    world.happen(Event::TimeUp(Timer::Grace));
    world.happen(Event::TimeUp(Timer::LeaveBy));
    assert!(world.reports.is_empty(), "KILL takes a moment");
    world.happen(Event::TimeUp(Timer::GiveUp));
    world.happen(Event::Command(CommandEvent::StreamsEnded { open: true }));
    let report = &world.reports[0];
    assert_eq!((report.reason, report.status), (Reason::Terminated, None));
    assert!(world.timers.contains(&Timer::LeaveBy), "the report has a second, not the linger");
    world.happen(Event::TimeUp(Timer::LeaveBy));
    assert_eq!(world.exit, Some(143));
}

#[test]
fn third_term_gives_up_an_unkillable_command() {
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

/// A shell ends at TERM at once. Its children got TERM too, and keep their grace period after the end of the shell.
#[test]
fn remaining_processes_keep_the_grace_period() {
    for request in [terminate(), cancel()] {
        let mut machine = running(false);
        machine.apply(request);
        let sets_timers = |actions: &[Action]| {
            actions.iter().any(|it| matches!(it, Action::SetTimer(Timer::Grace | Timer::Drain, _)))
        };
        assert!(!sets_timers(&machine.apply(exited(143))));
        // Only for processes that were started since.
        let terms = [Action::SignalRemaining(Signal::SIGTERM)];
        assert_eq!(machine.apply(Event::TimeUp(Timer::Settle)), terms);
        let drain = Action::SetTimer(Timer::Drain, plan(false).drain);
        let kills = [Action::SignalRemaining(Signal::SIGKILL), drain];
        assert_eq!(machine.apply(Event::TimeUp(Timer::Grace)), kills);
    }
}

#[test]
fn pipes_that_close_before_the_exit_are_not_awaited_again() {
    let mut world = World::new(plan(false), Fails::Nothing, 0, true, true);
    world.happen(Event::Attach(AttachEvent::Assigned(plan(false))));
    world.happen(Event::Prepare(PrepareEvent::Prepared));
    world.happen(Event::Command(CommandEvent::StreamsEnded { open: false }));
    world.happen(exited(0));
    assert!(world.reports.is_empty());
    world.happen(Event::Command(CommandEvent::AllExited));
    assert_eq!(world.reports[0].reason, Reason::Succeeded);
}

#[test]
fn unpublished_output_is_kept() {
    for (keeps_output, fate) in [(true, "is kept"), (false, "is lost with its workspace")] {
        let mut world = World::new(Plan { keeps_output, ..plan(true) }, Fails::Stage, 0, false, false);
        while world.step(0) {}
        let report = &world.reports[0];
        assert_eq!((report.reason, report.output_kept), (Reason::PublishFailed, keeps_output));
        assert!(report.message.ends_with(fate), "{}", report.message);
    }
}

#[test]
fn write_conflict_stages_and_asks_again() {
    let mut world = World::new(plan(true), Fails::WriteConflict(3), 0, false, false);
    while world.step(0) {}
    assert!(world.committed);
    assert_eq!(world.reports[0].reason, Reason::Succeeded);

    let mut world = World::new(
        Plan { keeps_output: true, ..plan(true) },
        Fails::WriteConflict(u32::MAX),
        0,
        false,
        false,
    );
    while world.step(0) {}
    let report = &world.reports[0];
    assert_eq!((report.reason, report.output_kept), (Reason::PublishFailed, true));
}

#[test]
fn lost_output_fails_a_successful_command() {
    let lost = || Some("3 bytes are lost".to_owned());
    for (kept, unwritten, unlogged, code) in [
        (OutputSink::Nowhere, lost(), None, 65),
        (OutputSink::LogFolder, lost(), None, 0),
        (OutputSink::LogFolder, None, lost(), 65),
        (OutputSink::LogFolder, lost(), lost(), 65),
        (OutputSink::Nowhere, None, None, 0),
    ] {
        let plan = Plan { sink: kept, ..plan(true) };
        let mut world = World::new(plan, Fails::Nothing, 0, false, false);
        while !matches!(world.pending[..], [Event::Report(ReportEvent::Flushed { .. })]) {
            world.step(0);
        }
        assert!(world.committed, "the model is published anyway");
        world.pending.clear();
        world.happen(Event::Report(ReportEvent::Flushed { unwritten, unlogged }));
        while world.exit.is_none() {
            world.step(0);
        }
        assert_eq!(world.exit, Some(code));
        assert_eq!(world.reports[0].message.contains("3 bytes are lost"), code == 65);
    }
}

#[test]
fn cancelled_attempt_does_not_replace_a_newer_model() {
    for (given_up, reason) in [
        (Event::AttachRefused("a later attempt runs".into()), Reason::Refused),
        (Event::Cancel { reason: "by the user".into(), grace: None }, Reason::Cancelled),
    ] {
        let mut world = World::new(plan(true), Fails::WriteConflict(1), 0, false, false);
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
fn publish_only_attempt_runs_no_command() {
    let plan = Plan { is_publish_only: true, keeps_output: true, ..plan(true) };
    let mut world = World::new(plan.clone(), Fails::Nothing, 1, false, false);
    while world.step(0) {}
    assert!(world.committed);
    assert_eq!((world.reports[0].reason, world.exit), (Reason::Succeeded, Some(0)));
    let mut world = World::new(plan, Fails::Nothing, 1, false, false);
    world.step(0);
    world.happen(terminate());
    assert_eq!((world.reports[0].reason, world.reports[0].output_kept), (Reason::Terminated, true));
}

#[test]
fn waiting_agent_has_no_timeout_until_its_server_is_gone() {
    let (mut machine, _) = Attempt::new(LINGER);
    assert_eq!(machine.apply(Event::Attach(AttachEvent::WaitingForAttempt)), []);
    assert_eq!(machine.apply(Event::TimeUp(Timer::Linger)), [], "a server has it wait");
    assert_eq!(
        machine.apply(Event::Attach(AttachEvent::WaitInterrupted)),
        [Action::SetTimer(Timer::Linger, LINGER)]
    );
    assert_eq!(machine.apply(Event::TimeUp(Timer::Linger)), [Action::Exit(EXIT_FAULT)]);
}

/// Otherwise a server that waits for the outcome would consider the agent lost.
#[test]
fn cancel_before_the_assignment_is_reported() {
    let mut world = World::new(plan(true), Fails::Nothing, 0, false, false);
    world.pending.clear();
    world.happen(Event::Cancel { reason: "by the user".into(), grace: None });
    let report = &world.reports[0];
    assert_eq!((report.reason, report.message.as_str()), (Reason::Cancelled, "by the user"));
    while world.step(0) {}
    assert_eq!(world.exit, Some(143));
}

fn cancel() -> Event {
    Event::Cancel { reason: "by the user".into(), grace: Some(Duration::from_secs(3)) }
}

/// A running command, with the answers to its request to commit.
fn running(is_granted: bool) -> Attempt {
    let (mut machine, _) = Attempt::new(LINGER);
    machine.apply(Event::Attach(AttachEvent::Assigned(plan(false))));
    machine.apply(Event::Prepare(PrepareEvent::Prepared));
    if is_granted {
        assert_eq!(machine.apply(Event::Command(CommandEvent::CommitAsked)), [Action::AskCommit(Vec::new())]);
        assert_eq!(machine.apply(Event::Grant(GrantEvent::Granted)), [Action::AnswerSubmitter(Ok(()))]);
    }
    machine
}

/// The exit report after this exit status.
fn verdict_on(mut machine: Attempt, exit: Event) -> ExitReport {
    machine.apply(exit);
    machine.apply(Event::Command(CommandEvent::AllExited));
    let reported = machine.apply(Event::Command(CommandEvent::StreamsEnded { open: false }));
    let report = reported.into_iter().find_map(|it| match it {
        Action::Report(report, _) => Some(*report),
        _ => None,
    });
    report.expect("it is over")
}

#[test]
fn grant_after_a_cancel_does_not_reach_the_command() {
    let mut machine = running(false);
    machine.apply(Event::Command(CommandEvent::CommitAsked));
    machine.apply(cancel());
    let answer = machine.apply(Event::Grant(GrantEvent::Granted));
    assert!(matches!(answer.as_slice(), [Action::AnswerSubmitter(Err(_))]), "{answer:?}");
    assert_eq!(verdict_on(machine, exited(0)).reason, Reason::Cancelled);
}

/// KILL takes time, and the effect was visible before.
#[test]
fn granted_command_that_exits_late_has_succeeded() {
    let mut machine = running(true);
    machine.apply(cancel());
    machine.apply(Event::TimeUp(Timer::Grace));
    machine.apply(Event::TimeUp(Timer::Grace));
    assert_eq!(machine.apply(Event::TimeUp(Timer::GiveUp)), [Action::StopReading]);
    assert_eq!(verdict_on(machine, exited(0)).reason, Reason::Succeeded);
}

/// Its results are incomplete, whatever ended it.
#[test]
fn broken_channel_is_no_success_despite_a_grant() {
    let mut machine = running(true);
    machine.apply(cancel());
    machine.apply(Event::Command(CommandEvent::ChannelBroken("no frame".into())));
    assert_ne!(verdict_on(machine, exited(0)).reason, Reason::Succeeded);
}

#[test]
fn late_exit_of_a_given_up_command_counts() {
    let mut machine = running(true);
    machine.apply(terminate());
    machine.apply(Event::TimeUp(Timer::LeaveBy));
    assert_eq!(machine.apply(Event::TimeUp(Timer::GiveUp)), [Action::StopReading]);
    assert_eq!(verdict_on(machine.clone(), exited(0)).reason, Reason::Succeeded);
    let reported = machine.apply(Event::Command(CommandEvent::StreamsEnded { open: true }));
    let is_terminated =
        |it: &Action| matches!(it, Action::Report(report, _) if report.reason == Reason::Terminated);
    assert!(reported.iter().any(is_terminated), "{reported:?}");
}

/// Its effect may become visible at any moment: a kill would leave it unknown.
#[test]
fn cancel_gives_a_granted_commit_its_grace_period() {
    let mut machine = running(true);
    assert_eq!(machine.apply(cancel()), [Action::SetTimer(Timer::Grace, Duration::from_secs(3))]);
    assert_eq!(machine.apply(cancel()), [], "a server repeats its Cancel on every stream");
    let late = machine.apply(Event::TimeUp(Timer::Grace));
    assert!(late.contains(&Action::Signal(Program::Command, Signal::SIGTERM)), "{late:?}");
    let killed = machine.apply(Event::TimeUp(Timer::Grace));
    assert!(killed.contains(&Action::Kill), "{killed:?}");
}

#[test]
fn granted_commit_succeeds_despite_a_cancel() {
    for (is_granted, code, reason) in
        [(true, 0, Reason::Succeeded), (true, 1, Reason::Cancelled), (false, 0, Reason::Cancelled)]
    {
        let mut machine = running(is_granted);
        machine.apply(cancel());
        assert_eq!(verdict_on(machine, exited(code)).reason, reason, "granted: {is_granted}, code {code}");
    }
}

/// The grace period of a Cancel has its own timer. The platform's TERM sets deadlines, and does not shorten it.
#[test]
fn term_after_a_cancel_keeps_its_grace_period() {
    let mut machine = running(false);
    machine.apply(cancel());
    machine.apply(terminate());
    assert_eq!(machine.apply(Event::TimeUp(Timer::PublishBy)), []);
    let mut at_grace = machine.clone();
    for (machine, timer) in [(&mut at_grace, Timer::Grace), (&mut machine, Timer::LeaveBy)] {
        let killed = machine.apply(Event::TimeUp(timer));
        assert!(killed.contains(&Action::Kill), "{timer:?}: {killed:?}");
    }
}

#[test]
fn acknowledged_records_extend_the_linger_until_the_deadline() {
    let mut world = World::new(plan(false), Fails::Silence, 0, false, false);
    while world.reports.is_empty() {
        world.step(0);
    }
    let mut machine = world.machine;
    assert_eq!(
        machine.apply(Event::Report(ReportEvent::AckedMeanwhile)),
        [Action::SetTimer(Timer::Linger, LINGER)]
    );
    machine.apply(terminate());
    assert_eq!(
        machine.apply(Event::Report(ReportEvent::AckedMeanwhile)),
        [Action::SetTimer(Timer::Linger, LINGER)]
    );
    for timer in [Timer::Linger, Timer::LeaveBy] {
        assert_eq!(machine.clone().apply(Event::TimeUp(timer)), [Action::Exit(0)], "{timer:?}");
    }
}

/// A finished training whose remaining processes hold the pipes until the publish deadline: nothing would bound its
/// staging.
#[test]
fn staging_does_not_begin_after_the_publish_deadline() {
    for late in [Timer::PublishBy, Timer::LeaveBy] {
        let (mut machine, _) = Attempt::new(LINGER);
        machine.apply(Event::Attach(AttachEvent::Assigned(Plan { keeps_output: true, ..plan(true) })));
        machine.apply(Event::Prepare(PrepareEvent::Prepared));
        machine.apply(terminate());
        machine.apply(exited(0));
        assert!(machine.apply(Event::TimeUp(late)).contains(&Action::StopReading));
        let actions = machine.apply(Event::Command(CommandEvent::StreamsEnded { open: true }));
        assert!(!actions.contains(&Action::Stage), "{late:?}: {actions:?}");
        let report = reported(&actions);
        assert_eq!((report.reason, report.output_kept), (Reason::Terminated, true));
        assert!(report.message.contains("before the model was published"), "{}", report.message);
    }
}

/// An attempt after the first start of its command failed.
fn starting(kept: OutputSink, fault: StartFault) -> (Attempt, Vec<Action>) {
    let (mut machine, _) = Attempt::new(LINGER);
    machine.apply(Event::Attach(AttachEvent::Assigned(Plan { sink: kept, ..plan(true) })));
    assert_eq!(machine.apply(Event::Prepare(PrepareEvent::Prepared)), [Action::Start]);
    let actions = machine.apply(start_failed(fault));
    (machine, actions)
}

fn reported(actions: &[Action]) -> &ExitReport {
    let report = actions.iter().find_map(|it| match it {
        Action::Report(report, _) => Some(&**report),
        _ => None,
    });
    report.unwrap_or_else(|| panic!("not over: {actions:?}"))
}

#[test]
fn exhausted_start_is_retried_with_one_warning() {
    let (mut machine, mut actions) = starting(OutputSink::Server, StartFault::Exhausted);
    let Action::Warn(said) = actions.remove(0) else { panic!("nothing is said: {actions:?}") };
    assert_eq!(said, "cannot start python; retrying for up to 60 s");
    let mut paused = Duration::ZERO;
    while let [Action::SetTimer(Timer::StartAgain, pause)] = actions[..] {
        assert!(pause >= Duration::from_millis(100) && pause <= Duration::from_secs(5), "{pause:?}");
        paused += pause;
        assert_eq!(machine.apply(Event::TimeUp(Timer::StartAgain)), [Action::Start]);
        actions = machine.apply(start_failed(StartFault::Exhausted));
    }
    assert!(paused >= Duration::from_secs(60) && paused < Duration::from_secs(70), "{paused:?}");
    let report = reported(&actions);
    assert_eq!((report.reason, report.retryable), (Reason::StartFailed, true));
    assert_eq!(report.message, "cannot start python; retried for 60 s");
}

#[test]
fn retried_start_runs_normally() {
    let mut world = World::new(plan(true), Fails::StartFor(5), 0, false, false);
    while world.step(0) {}
    assert_eq!((world.reports[0].reason, world.exit), (Reason::Succeeded, Some(0)));
}

#[test]
fn start_is_not_retried_without_a_server_or_for_other_faults() {
    let (_, actions) = starting(OutputSink::Server, StartFault::Other);
    let report = reported(&actions);
    assert_eq!((report.reason, report.retryable), (Reason::StartFailed, false));
    for kept in [OutputSink::LogFolder, OutputSink::Nowhere] {
        let (mut machine, actions) = starting(kept, StartFault::Exhausted);
        assert_eq!(actions, [Action::Flush]);
        let actions = machine.apply(Event::Report(ReportEvent::Flushed { unwritten: None, unlogged: None }));
        let report = reported(&actions);
        assert_eq!((report.reason, report.retryable), (Reason::StartFailed, true));
    }
}

#[test]
fn end_of_the_attempt_cuts_the_start_backoff() {
    for (event, reason, is_retryable) in [
        (cancel(), Reason::Cancelled, false),
        (terminate(), Reason::Terminated, true),
        (Event::AttachRefused("a later attempt runs".into()), Reason::Refused, false),
    ] {
        let (mut machine, _) = starting(OutputSink::Server, StartFault::Exhausted);
        let actions = machine.apply(event.clone());
        let report = reported(&actions);
        assert_eq!((report.reason, report.retryable), (reason, is_retryable));
        assert_eq!(machine.apply(Event::TimeUp(Timer::StartAgain)), [], "it does not start after its end");

        // The same before the failed start is reported.
        let (mut machine, _) = starting(OutputSink::Server, StartFault::Exhausted);
        machine.apply(Event::TimeUp(Timer::StartAgain));
        machine.apply(event);
        let actions = machine.apply(start_failed(StartFault::Exhausted));
        assert_eq!(reported(&actions).reason, reason);
    }
}
