//! Signals to the agent.

use nix::sys::signal::Signal;
use sqlflow_tests::agent::Exec;

/// Lets `env` start the agent with the default disposition of every signal, before other options of it.
const DEFAULTS: &str = "--default-signal";

#[test]
fn signals_that_are_meant_for_the_command_reach_it() {
    let script = "for s in HUP QUIT USR1 USR2 WINCH; do trap \"echo $s\" $s; done; echo up; while :; do sleep 0.01; done";
    let mut running = Exec::new().shell(script);
    assert_eq!(running.line(), "up");
    let signals = [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGUSR2, "USR2"),
        (Signal::SIGWINCH, "WINCH"),
    ];
    for (signal, name) in signals {
        running.signal(signal);
        assert_eq!(running.line(), name);
    }
    running.signal(Signal::SIGKILL);
    running.end();
}

#[test]
fn term_and_int_arrive_as_what_they_are() {
    for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT")] {
        let script = "trap 'echo TERM; exit 5' TERM; trap 'echo INT; exit 6' INT; echo up; while :; do sleep 0.01; done";
        let mut running = Exec::new().shell(script);
        running.line();
        running.signal(signal);
        assert_eq!(running.line(), name);
        assert_eq!(running.end().code, Some(if name == "TERM" { 5 } else { 6 }));
    }
}

/// T#3051, T#5251: what it says in its last moment is there, although it had to be killed.
#[test]
fn the_last_words_of_a_command_that_ignores_term_are_kept() {
    let script = "trap 'echo told' TERM; echo up; while :; do sleep 0.01; done";
    let mut running = Exec::new().flags(["--grace", "1"]).shell(script);
    running.line();
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!((ended.stdout.as_slice(), ended.code), (b"told\n".as_slice(), Some(137)));
    assert_eq!(ended.outcome["reason"], "terminated");
}

/// The grace would last an hour.
#[test]
fn a_second_term_hurries() {
    let mut running = Exec::new()
        .flags(["--grace", "3600"])
        .shell("trap 'echo told' TERM; echo up; while :; do sleep 0.01; done");
    running.line();
    running.signal(Signal::SIGTERM);
    assert_eq!(running.line(), "told");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().code, Some(137));
}

#[test]
fn grandchildren_have_their_grace_too() {
    // The command ends at TERM at once; what it started needs a moment, and has it.
    let script =
        "sh -c 'trap \"sleep 0.5; echo cleaned; exit\" TERM; echo up; while :; do sleep 0.01; done' & wait";
    let mut running = Exec::new().shell(script);
    running.line();
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "cleaned\n");
    assert_eq!(ended.code, Some(143));
}

/// A program that saves what it has when it is told to end, and says how often it was told.
const SAVES: &str = "import os, signal, time
told = 0
def tell(*_):
    global told
    told += 1
signal.signal(signal.SIGTERM, tell)
print('up', flush=True)
while not told: time.sleep(0.01)
# For longer than agents waited once, and than a drain is here.
begun = time.monotonic()
while time.monotonic() < begun + 1.5: time.sleep(0.01)
print('saved, told', told, flush=True)";

/// A shell ends at TERM at once. What it had started has the grace that the agent was given, and hears one TERM.
#[test]
fn a_program_behind_a_shell_has_the_whole_grace_and_one_term() {
    for script in [
        "$PYTHON -c \"$CODE\"; true",
        "$PYTHON -c \"$CODE\" & wait",
        "setsid $PYTHON -c \"$CODE\"; true",
        "sh -c '$PYTHON -c \"$CODE\"; true'; true",
    ] {
        let python = sqlflow_tests::python::program();
        let run = Exec::new().flags(["--grace", "1h", "--drain", "500ms"]).env("CODE", SAVES);
        let mut running = run.env("PYTHON", python.to_str().unwrap()).shell(script);
        running.line();
        running.signal(Signal::SIGTERM);
        let ended = running.end();
        assert_eq!(String::from_utf8_lossy(&ended.stdout), "saved, told 1\n", "{script}: {}", ended.stderr);
        assert_eq!(ended.code, Some(143), "{script}");
        assert!(!ended.stderr.contains("still running"), "{script}: {}", ended.stderr);
    }
}

/// And no more than that: then it is killed, and named.
#[test]
fn a_program_behind_a_shell_is_killed_after_the_grace() {
    let script = "sh -c \"trap 'echo told' TERM; echo up; while :; do sleep 0.01; done\"; true";
    let mut running = Exec::new().flags(["--grace", "1", "--drain", "1h"]).shell(script);
    running.line();
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!((ended.stdout.as_slice(), ended.code), (b"told\n".as_slice(), Some(143)));
    assert!(
        ended.stderr.contains("still running when its time was up, and killed: sh (pid"),
        "{}",
        ended.stderr
    );
}

/// A background process of a script ignores INT, so that Ctrl+C does not reach it. It hears TERM when its shell has ended.
#[test]
fn what_ignores_an_int_is_told_by_term() {
    let script = "(trap 'echo term; exit' TERM; echo up; while :; do sleep 0.01; done) & wait";
    let mut running = Exec::new().flags(["--grace", "1h"]).shell(script);
    running.line();
    running.signal(Signal::SIGINT);
    let ended = running.end();
    assert_eq!((ended.stdout.as_slice(), ended.code), (b"term\n".as_slice(), Some(130)));
}

/// A command that handles TERM and ends well has ended well.
#[test]
fn a_command_that_ends_well_after_term_is_taken_at_its_word() {
    let mut running = Exec::new().shell("trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done");
    running.line();
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(0), &"succeeded".into()));
}

/// A background job of a script has INT ignored, so that Ctrl+C ends what is in the foreground only. The agent must neither
/// end for that nor count it as the first order to end; the command decides by itself, as without an agent.
#[test]
fn an_int_that_was_ignored_at_the_start_is_left_to_the_command() {
    let code = "import signal, sys
signal.signal(signal.SIGINT, lambda *_: print('INT', flush=True))
signal.signal(signal.SIGTERM, lambda *_: (print('TERM', flush=True), sys.exit(5)))
print('up', flush=True)
while True: signal.pause()";
    let run = Exec::within(&["env", DEFAULTS, "--ignore-signal=INT"]);
    let mut running = run.flags(["--grace", "3600"]).python(code, &[]);
    assert_eq!(running.line(), "up");
    running.signal(Signal::SIGINT);
    assert_eq!(running.line(), "INT");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.line(), "TERM", "a second order to end would be a KILL");
    let ended = running.end();
    assert_eq!(ended.code, Some(5));
    assert!(ended.outcome["message"].as_str().unwrap().contains("SIGTERM"), "{}", ended.outcome);
}

/// TERM is the order of the platform that runs the agent. Only the command finds it ignored.
#[test]
fn a_term_that_was_ignored_at_the_start_ends_the_agent() {
    let run = Exec::within(&["env", DEFAULTS, "--ignore-signal=TERM"]);
    let mut running = run.flags(["--grace", "1"]).shell("echo up; exec sleep 600");
    assert_eq!(running.line(), "up");
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(137), &"terminated".into()));
}

/// A process may be started with CHLD ignored, and its children are too. The kernel then reaps children without a report.
#[test]
fn an_agent_that_is_started_with_chld_ignored_hears_of_its_commands_end() {
    let run = Exec::within(&["env", DEFAULTS, "--ignore-signal=CHLD"]);
    assert_eq!(run.shell("exit 3").end().code, Some(3));
}

/// Whatever the agent handles, blocks or ignores for itself, and whatever the test runner was started with.
#[test]
fn the_command_finds_its_signals_as_the_agent_did() {
    for changed in [
        &[][..],
        &[Signal::SIGINT, Signal::SIGQUIT],
        &[Signal::SIGHUP],
        &[Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH],
        &[Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGXFSZ],
        &[Signal::SIGPIPE],
        &[Signal::SIGCHLD],
    ] {
        for (how, line) in [("--ignore-signal", "SigIgn:"), ("--block-signal", "SigBlk:")] {
            assert_eq!(signals_of_a_command(how, changed, line), set_of(changed), "{how} {changed:?}");
        }
    }
}

/// This set of signals of a command whose agent was started with `changed` ignored or blocked, and with defaults else.
fn signals_of_a_command(how: &str, changed: &[Signal], line: &str) -> u64 {
    let names = changed.iter().map(|it| it.as_str().trim_start_matches("SIG")).collect::<Vec<_>>().join(",");
    let how = format!("{how}={names}");
    // Without names `env` would take all signals.
    let outer = if changed.is_empty() { vec!["env", DEFAULTS] } else { vec!["env", DEFAULTS, &how] };
    let status = Exec::within(&outer).start(&["grep", line, "/proc/self/status"]).end().stdout;
    let status = String::from_utf8(status).unwrap();
    let set = u64::from_str_radix(status.trim_start_matches(line).trim(), 16).unwrap();
    // `env` leaves real-time signals, from 32 on, as the test runner has them.
    set & ((1 << 31) - 1)
}

fn set_of(signals: &[Signal]) -> u64 {
    signals.iter().map(|it| 1 << (*it as i32 - 1)).sum()
}
