//! Signals to the agent.

use nix::sys::signal::Signal;
use sqlflow_tests::agent::Exec;

/// Option of `env`: default disposition for every signal. It precedes other options.
const DEFAULTS: &str = "--default-signal";

#[test]
fn signals_are_forwarded_to_the_command() {
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
fn term_and_int_are_forwarded_unchanged() {
    for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT")] {
        let script = "trap 'echo TERM; exit 5' TERM; trap 'echo INT; exit 6' INT; echo up; while :; do sleep 0.01; done";
        let mut running = Exec::new().shell(script);
        running.line();
        running.signal(signal);
        assert_eq!(running.line(), name);
        assert_eq!(running.end().code, Some(if name == "TERM" { 5 } else { 6 }));
    }
}

/// T#3051, T#5251: output after TERM is kept although the command had to be killed.
#[test]
fn last_output_of_a_command_that_ignores_term_is_kept() {
    let script = "trap 'echo told' TERM; echo up; while :; do sleep 0.01; done";
    let mut running = Exec::new().flags(["--grace", "1"]).shell(script);
    running.line();
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!((ended.stdout.as_slice(), ended.code), (b"told\n".as_slice(), Some(137)));
    assert_eq!(ended.outcome["reason"], "terminated");
}

/// The grace period is an hour.
#[test]
fn second_term_ends_the_grace_period() {
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
fn grandchildren_get_a_grace_period() {
    // The command ends at TERM at once. Its child needs longer, and gets the time.
    let script =
        "sh -c 'trap \"sleep 0.5; echo cleaned; exit\" TERM; echo up; while :; do sleep 0.01; done' & wait";
    let mut running = Exec::new().shell(script);
    running.line();
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "cleaned\n");
    assert_eq!(ended.code, Some(143));
}

/// A program that saves its state at TERM, and prints how many TERMs it received.
const SAVES: &str = "import os, signal, time
terms = 0
def count(*_):
    global terms
    terms += 1
signal.signal(signal.SIGTERM, count)
print('up', flush=True)
while not terms: time.sleep(0.01)
# Longer than the drain here, and than earlier agents waited.
begun = time.monotonic()
while time.monotonic() < begun + 1.5: time.sleep(0.01)
print('saved, TERMs:', terms, flush=True)";

/// A shell ends at TERM at once. Its children get the agent's grace period, and one TERM.
#[test]
fn program_under_a_shell_gets_the_whole_grace_period_and_one_term() {
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
        assert_eq!(String::from_utf8_lossy(&ended.stdout), "saved, TERMs: 1\n", "{script}: {}", ended.stderr);
        assert_eq!(ended.code, Some(143), "{script}");
        assert!(!ended.stderr.contains("still running"), "{script}: {}", ended.stderr);
    }
}

/// After the grace period it is killed and reported.
#[test]
fn program_under_a_shell_is_killed_after_the_grace_period() {
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

/// A background process of a script ignores INT, so Ctrl+C does not end it. It gets TERM once its shell has ended.
#[test]
fn background_process_that_ignores_int_gets_term() {
    let script = "(trap 'echo term; exit' TERM; echo up; while :; do sleep 0.01; done) & wait";
    let mut running = Exec::new().flags(["--grace", "1h"]).shell(script);
    running.line();
    running.signal(Signal::SIGINT);
    let ended = running.end();
    assert_eq!((ended.stdout.as_slice(), ended.code), (b"term\n".as_slice(), Some(130)));
}

/// A command may handle TERM and succeed.
#[test]
fn exit_0_after_term_is_a_success() {
    let mut running = Exec::new().shell("trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done");
    running.line();
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(0), &"succeeded".into()));
}

/// A background job of a script starts with INT ignored, so that Ctrl+C ends only the foreground. The agent must
/// neither end at INT nor count it as the first request to terminate. The command decides, as without an agent.
#[test]
fn int_ignored_at_start_is_left_to_the_command() {
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
    assert_eq!(running.line(), "TERM", "a second request to terminate would send KILL");
    let ended = running.end();
    assert_eq!(ended.code, Some(5));
    assert!(ended.outcome["message"].as_str().unwrap().contains("SIGTERM"), "{}", ended.outcome);
}

/// TERM comes from the platform that runs the agent. Only the command inherits that it is ignored.
#[test]
fn term_ignored_at_start_still_ends_the_agent() {
    let run = Exec::within(&["env", DEFAULTS, "--ignore-signal=TERM"]);
    let mut running = run.flags(["--grace", "1"]).shell("echo up; exec sleep 600");
    assert_eq!(running.line(), "up");
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(137), &"terminated".into()));
}

/// With CHLD ignored, which is inherited, the kernel reaps children without a report.
#[test]
fn chld_ignored_at_start_keeps_the_exit_code() {
    let run = Exec::within(&["env", DEFAULTS, "--ignore-signal=CHLD"]);
    assert_eq!(run.shell("exit 3").end().code, Some(3));
}

/// Independent of what the agent handles, blocks or ignores itself, and of how the test runner was started.
#[test]
fn command_inherits_signal_dispositions_and_mask() {
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

/// This set of signals of a command whose agent was started with `changed` ignored or blocked, and defaults otherwise.
fn signals_of_a_command(how: &str, changed: &[Signal], line: &str) -> u64 {
    let names = changed.iter().map(|it| it.as_str().trim_start_matches("SIG")).collect::<Vec<_>>().join(",");
    let how = format!("{how}={names}");
    // Without names `env` would apply the option to all signals.
    let outer = if changed.is_empty() { vec!["env", DEFAULTS] } else { vec!["env", DEFAULTS, &how] };
    let status = Exec::within(&outer).start(&["grep", line, "/proc/self/status"]).end().stdout;
    let status = String::from_utf8(status).unwrap();
    let set = u64::from_str_radix(status.trim_start_matches(line).trim(), 16).unwrap();
    // `env` does not change real-time signals, which begin at 32.
    set & ((1 << 31) - 1)
}

fn set_of(signals: &[Signal]) -> u64 {
    signals.iter().map(|it| 1 << (*it as i32 - 1)).sum()
}
