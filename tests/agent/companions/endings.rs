//! A cancel, a refused commit, and a TERM to the agent.

use super::*;

/// So that the companion still serves the command while it ends, and then cleans up.
#[test]
fn cancel_terminates_the_command_and_then_its_companion() {
    let command = format!("at_term('command'); {UP}; time.sleep(600)");
    let beside = format!("at_term('companion'); {UP}; time.sleep(600)");
    for by_server in [true, false] {
        let run = start(&command, &beside);
        pid(&run, "command");
        pid(&run, "companion");
        if by_server {
            cancel(&run, 3600);
        } else {
            kill(run.pid(), Signal::SIGTERM).unwrap();
        }
        let (outcome, ended) = end(run);
        let reason = if by_server { Reason::Cancelled } else { Reason::Terminated };
        assert_eq!(outcome.reason(), reason, "{outcome:?}");
        assert_eq!(notes(ended.dir.path()), "command companion");
    }
}

#[test]
fn companion_of_a_command_that_ignores_term_gets_half_of_the_grace_period() {
    let command = format!(
        "signal.signal(signal.SIGTERM, lambda *_: note('command')); {UP}\nwhile True: signal.pause()"
    );
    let run = start(&command, &format!("at_term('companion', 0); {UP}; time.sleep(600)"));
    pid(&run, "command");
    pid(&run, "companion");
    cancel(&run, 2);
    let (outcome, ended) = end(run);
    assert_eq!(outcome.reason(), Reason::Cancelled, "{outcome:?}");
    assert_eq!(notes(ended.dir.path()), "command companion");
}

#[test]
fn companion_that_hangs_after_its_command_can_be_cancelled() {
    let beside = "while receive()[0] != COMMAND_ENDED: pass
at_term('companion'); say('committing'); time.sleep(600)";
    let run = start("receive()", beside);
    run.wait_for("the companion commits", |received| received.stdout().contains("committing"));
    cancel(&run, 3600);
    let (outcome, ended) = end(run);
    assert_eq!((outcome.reason(), notes(ended.dir.path())), (Reason::Cancelled, "companion".to_owned()));
}

#[test]
fn refused_commit_ends_the_attempt() {
    let beside =
        COMPLETE.replace("assert receive()[0] == GRANTED", "assert receive()[0] == REFUSED; sys.exit(1)");
    let (outcome, _) = end(Attach::start(assignment("receive()", &beside), OnCommit::Refuse));
    assert_eq!((outcome.reason(), &*outcome.message), (Reason::Refused, "another attempt commits"));
}

/// What the command has computed is completed within the grace period.
#[test]
fn companion_completes_after_a_term_that_its_command_survives() {
    let command = format!("at_term('command', 0); {UP}; time.sleep(600)");
    let beside = format!("at_term('companion'); {UP}{COMPLETE}");
    let mut assignment = assignment(&command, &beside);
    assignment.grace_seconds = 3600;
    let run = Attach::start(assignment, OnCommit::Grant);
    pid(&run, "command");
    pid(&run, "companion");
    kill(run.pid(), Signal::SIGTERM).unwrap();
    let (outcome, ended) = end(run);
    assert_eq!((outcome.reason(), notes(ended.dir.path())), (Reason::Succeeded, "command".to_owned()));
    assert_eq!(ended.received.commits, 1);
}
