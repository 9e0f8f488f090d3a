//! Cases of companions, one by one.

use super::*;

fn running_pair() -> Attempt {
    let (mut machine, _) = Attempt::new(LINGER);
    let plan = Plan { companion: Some("sqlflow-data".into()), ..plan(false) };
    machine.apply(Event::Attach(AttachEvent::Assigned(plan)));
    assert_eq!(machine.apply(Event::Prepare(PrepareEvent::Prepared)), [Action::Start]);
    machine
}

fn reported(machine: &mut Attempt) -> ExitReport {
    machine.apply(Event::Command(CommandEvent::AllExited));
    let actions = machine.apply(Event::Command(CommandEvent::StreamsEnded { open: false }));
    let report = actions.into_iter().find_map(|it| match it {
        Action::Report(report, _) => Some(*report),
        _ => None,
    });
    report.expect("it is over")
}

const COMPLETION: Action = Action::SetTimer(Timer::Completion, Duration::from_secs(600));
const TERM_TO_COMPANION: Action = Action::Signal(Program::Companion, Signal::SIGTERM);
const TERMS_COMPANION: [Action; 2] = [Action::ForgetCommit, TERM_TO_COMPANION];

#[test]
fn silent_companion_is_ended_after_its_command() {
    let mut machine = running_pair();
    assert_eq!(machine.apply(Event::TimeUp(Timer::Completion)), [], "the command runs");
    assert_eq!(machine.apply(exited(0)), [Action::ReportCommandEnd, COMPLETION]);
    let spoke = Event::Command(CommandEvent::CompanionSpoke);
    assert_eq!(machine.apply(spoke), [COMPLETION]);
    let actions = machine.apply(Event::TimeUp(Timer::Completion));
    assert!(actions.contains(&TERM_TO_COMPANION), "{actions:?}");
    assert!(machine.apply(Event::TimeUp(Timer::Grace)).contains(&Action::Kill));
    machine.apply(ended(Program::Companion, ExitStatus::Signal(9), Some(Signal::SIGKILL)));
    let report = reported(&mut machine);
    assert_eq!((report.reason, report.retryable), (Reason::AgentFailed, false));
    assert_eq!(report.message, "sqlflow-data did not end after the command, and was silent for 600 s");
}

/// A server may be away for longer.
#[test]
fn wait_for_the_grant_does_not_count_as_silence() {
    let mut machine = running_pair();
    machine.apply(exited(0));
    machine.apply(Event::Command(CommandEvent::CommitAsked));
    assert_eq!(machine.apply(Event::TimeUp(Timer::Completion)), []);
    let granted = machine.apply(Event::Grant(GrantEvent::Granted));
    assert_eq!(granted, [Action::AnswerSubmitter(Ok(())), COMPLETION]);
    assert!(machine.apply(Event::TimeUp(Timer::Completion)).contains(&TERM_TO_COMPANION));
}

#[test]
fn companion_gets_term_after_its_command() {
    let cancel = || Event::Cancel { reason: "by the user".into(), grace: Some(Duration::from_secs(8)) };
    let stops = [
        Action::ForgetCommit,
        Action::Signal(Program::Command, Signal::SIGTERM),
        Action::SetTimer(Timer::CompanionTerm, Duration::from_secs(4)),
        Action::SetTimer(Timer::Grace, Duration::from_secs(8)),
    ];
    let mut machine = running_pair();
    assert_eq!(machine.apply(cancel()), stops);
    assert_eq!(machine.apply(ended(Program::Command, ExitStatus::Signal(15), None)), TERMS_COMPANION);
    assert_eq!(machine.apply(Event::TimeUp(Timer::CompanionTerm)), [], "once");
    assert!(machine.apply(Event::TimeUp(Timer::Grace)).contains(&Action::Kill));

    let mut machine = running_pair();
    machine.apply(cancel());
    assert_eq!(machine.apply(Event::TimeUp(Timer::CompanionTerm)), TERMS_COMPANION);
    assert_eq!(machine.apply(exited(0)), [], "once, and a cancelled companion completes nothing");

    let mut machine = running_pair();
    machine.apply(exited(0));
    assert!(machine.apply(cancel()).contains(&TERM_TO_COMPANION));
}

/// A TERM of the platform does not cost what the command has computed.
#[test]
fn companion_that_completes_keeps_half_of_the_grace_period_after_a_term() {
    let is_half = |it: &Action| matches!(it, Action::SetTimer(Timer::CompanionTerm, _));
    let (mut before, mut after) = (running_pair(), running_pair());
    assert!(before.apply(terminate()).iter().any(is_half));
    assert_eq!(before.apply(exited(0)), [Action::ReportCommandEnd, COMPLETION]);
    after.apply(exited(0));
    after.apply(Event::Command(CommandEvent::CommitAsked));
    let actions = after.apply(terminate());
    assert!(actions.iter().any(is_half) && !actions.contains(&Action::ForgetCommit), "{actions:?}");
    assert_eq!(after.apply(Event::Grant(GrantEvent::Granted))[0], Action::AnswerSubmitter(Ok(())));
    for mut machine in [before, after] {
        let mut late = machine.clone();
        assert_eq!(late.apply(Event::TimeUp(Timer::CompanionTerm)), TERMS_COMPANION);
        late.apply(ended(Program::Companion, ExitStatus::Code(1), Some(Signal::SIGTERM)));
        assert_eq!(reported(&mut late).reason, Reason::Terminated);
        machine.apply(ended(Program::Companion, ExitStatus::Code(0), None));
        assert_eq!(reported(&mut machine).reason, Reason::Succeeded);
    }
}

/// The first failure is the outcome, also if a Cancel or a TERM comes while the other program ends.
#[test]
fn failure_before_a_cancel_is_the_outcome() {
    for event in [
        Event::Cancel { reason: "by the user".into(), grace: None },
        terminate(),
        Event::Command(CommandEvent::ChannelBroken("no frame".into())),
    ] {
        let mut machine = running_pair();
        machine.apply(ended(Program::Companion, ExitStatus::Code(3), None));
        machine.apply(event);
        machine.apply(ended(Program::Command, ExitStatus::Signal(15), Some(Signal::SIGTERM)));
        let report = reported(&mut machine);
        assert_eq!(report.message, "sqlflow-data exited with code 3");
    }
}

/// A commit would make the effect of a failed statement visible.
#[test]
fn commit_after_the_failure_of_the_command_is_refused() {
    let mut machine = running_pair();
    machine.apply(exited(1));
    for event in [Event::Command(CommandEvent::CommitAsked), Event::Grant(GrantEvent::Granted)] {
        let answer = machine.apply(event);
        assert!(matches!(answer[..], [Action::AnswerSubmitter(Err(_))]), "{answer:?}");
    }
}

/// A model is published only after the success of both.
#[test]
fn failed_companion_prevents_publishing() {
    for (command, companion, is_staged) in [(0, 0, true), (0, 1, false), (1, 0, false)] {
        let (mut machine, _) = Attempt::new(LINGER);
        let plan = Plan { companion: Some("sqlflow-data".into()), ..plan(true) };
        machine.apply(Event::Attach(AttachEvent::Assigned(plan)));
        machine.apply(Event::Prepare(PrepareEvent::Prepared));
        machine.apply(exited(command));
        machine.apply(ended(Program::Companion, ExitStatus::Code(companion), None));
        machine.apply(Event::Command(CommandEvent::AllExited));
        let actions = machine.apply(Event::Command(CommandEvent::StreamsEnded { open: false }));
        assert_eq!(actions.contains(&Action::Stage), is_staged, "{command}, {companion}: {actions:?}");
    }
}
