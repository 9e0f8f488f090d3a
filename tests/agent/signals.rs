//! Signals to the agent.

use nix::sys::signal::Signal;
use sqlflow_tests::agent::Exec;

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

/// A command that handles TERM and ends well has ended well.
#[test]
fn a_command_that_ends_well_after_term_is_taken_at_its_word() {
    let mut running = Exec::new().shell("trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done");
    running.line();
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(0), &"succeeded".into()));
}

/// Whoever starts the agent may ignore CHLD, and hands that on. The kernel then reaps children and tells nobody.
#[test]
fn an_agent_that_is_started_with_chld_ignored_hears_of_its_commands_end() {
    let ignoring = ["env", "--default-signal", "--ignore-signal=CHLD"];
    assert_eq!(Exec::within(&ignoring).shell("exit 3").end().code, Some(3));
    // The command finds it as it would without an agent.
    let status = Exec::within(&ignoring).start(&["grep", "SigIgn", "/proc/self/status"]).end();
    let ignored = String::from_utf8(status.stdout).unwrap();
    let set = u64::from_str_radix(ignored.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_ne!(set & 1 << (Signal::SIGCHLD as i32 - 1), 0, "{ignored}");
}

/// What the agent blocks for itself is not blocked for the command, and ignored signals stay ignored.
#[test]
fn the_command_finds_its_signals_as_the_agent_did() {
    let ended = Exec::new().shell("grep -E 'SigBlk|SigIgn' /proc/self/status").end();
    let status = String::from_utf8(ended.stdout).unwrap();
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let set = |text: &str, name: &str| {
        let line = text.lines().find_map(|it| it.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(set(&status, "SigBlk:"), set(&own, "SigBlk:"));
    // Rust's own programs ignore PIPE; a command must not.
    let pipe = 1 << (Signal::SIGPIPE as i32 - 1);
    assert_eq!(set(&status, "SigIgn:"), set(&own, "SigIgn:") & !pipe);
}
