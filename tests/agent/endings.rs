//! Ends of commands, their reasons and exit codes, and leftover processes.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::agent::attach_response::Message;
use sqlflow_proto::agent::outcome::Reason;
use sqlflow_proto::agent::{Assignment, Cancel};
use sqlflow_tests::agent::{Exec, logged};
use sqlflow_tests::attach::{Attach, OnCommit};
use sqlflow_tests::gate::Gate;
use sqlflow_tests::server::{copy_program, program};
use sqlflow_tests::until::until;

fn notices(records: &[serde_json::Value]) -> Vec<String> {
    records.iter().filter_map(|it| Some(it["notice"].as_str()?.to_owned())).collect()
}

fn phase_micros(outcome: &serde_json::Value, phase: &str) -> u64 {
    let phases = outcome["phases"].as_array().unwrap();
    phases.iter().filter(|it| it["phase"] == phase).map(|it| it["micros"].as_u64().unwrap()).sum()
}

/// A#6375. The drain timeout is a minute. The drain ends earlier because the leftover is found and terminated.
#[test]
fn background_child_that_holds_the_pipe_is_reported_and_terminated() {
    for leaker in ["sleep 600 &", "setsid sleep 600 &", "(trap '' TERM; while :; do sleep 1; done) &"] {
        let run = Exec::new().log_to("log").flags(["--drain", "60", "--grace", "1"]);
        let (ended, dir) = run.shell(&format!("{leaker} echo hi")).end_in_folder();
        assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), b"hi\n".as_slice()), "{leaker}");
        let (stdout, _, records) = logged(dir.path(), "log");
        assert_eq!(stdout, b"hi\n");
        let notices = notices(&records);
        assert!(
            notices.iter().any(|it| it.contains("sleep") || it.contains("sh (pid")),
            "{leaker}: {notices:?}"
        );
        assert!(phase_micros(&ended.outcome, "draining") < 30_000_000, "{}", ended.outcome);
    }
}

/// A#6375, in general: the holder of the pipe is no descendant, so it cannot be terminated.
#[test]
fn pipe_held_by_a_foreign_process_ends_with_a_gap() {
    let (read, write) = nix::unistd::pipe().unwrap();
    let run = Exec::new().log_to("log").flags(["--drain", "1"]);
    // This process opens the command's stdout and keeps it open.
    let _gate = Gate::new(&run.dir().join("gate"));
    let mut running = run.shell("echo $$; read wait < $DIR/gate");
    let pid = running.line();
    let held = std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/fd/1")).unwrap();
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    let (ended, dir) = running.end_in_folder();
    drop((held, read, write));
    assert_eq!(ended.code, Some(137));
    let (_, _, records) = logged(dir.path(), "log");
    assert!(records.iter().any(|it| it["gap"]["reason"] == "REASON_DRAIN"), "{records:?}");
    assert!(notices(&records).iter().any(|it| it.contains("outside of the attempt")), "{records:?}");
}

/// SF#2857
#[test]
fn exit_code_is_the_commands() {
    for (script, code) in
        [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("kill -9 $$", 137), ("kill -SEGV $$", 139)]
    {
        assert_eq!(Exec::new().shell(script).end().code, Some(code), "{script}");
    }
    let real_time = Exec::new().shell("kill -40 $$").end();
    assert_eq!(real_time.code, Some(168));
}

/// SF#2857
#[test]
fn agent_failures_have_their_own_exit_codes() {
    assert_eq!(Exec::new().flags(["--no-such-flag"]).shell("exit 0").end().code, Some(64));
    let ended = Exec::new().start(&["/no/such/program"]).end();
    assert_eq!(ended.code, Some(127));
    assert_eq!(ended.outcome["reason"], "start_failed");
    assert!(ended.stderr.contains("/no/such/program"), "{}", ended.stderr);
    let ended = Exec::new().flags(["--log-to", "/proc/nowhere"]).shell("exit 0").end();
    assert_eq!((ended.code, ended.stderr.contains("/proc/nowhere")), (Some(65), true), "{}", ended.stderr);
    let dir = tempfile::tempdir().unwrap();
    let exec = |outcome: &str| {
        let mut agent = std::process::Command::new(program("sqlflow-agent"));
        agent.current_dir(&dir).args(["exec", "--log-to", "log", "--outcome", outcome]);
        let ended = agent.args(["--", "echo", "ran"]).output().unwrap();
        (ended.status.code(), ended.stdout.len(), String::from_utf8(ended.stderr).unwrap())
    };
    for file in ["/no/such/file", "."] {
        let (code, said, errors) = exec(file);
        assert_eq!((code, said), (Some(65), 0), "{errors}");
        assert!(errors.contains(&format!("cannot write the outcome to {file}")), "{errors}");
    }
    // The rejected runs left nothing behind.
    assert_eq!(exec("log/outcome.json"), (Some(0), 4, String::new()));
}

/// Exit codes as in shells, with the cause and a fix. A program for another machine must not be run as a shell script:
/// it might even succeed.
#[test]
fn start_failure_reports_program_and_cause() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, mode: u32, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut program = std::fs::read("/bin/true").unwrap();
    let loader = program.windows(4).position(|it| it == b"/lib").unwrap();
    program[loader + 1] = b'x';
    let other_library = file("library", 0o755, &program);
    program[18..20].copy_from_slice(&20_u16.to_le_bytes());
    program.truncate(4096);
    let folder = dir.path().to_str().unwrap().to_owned();
    for (program, code, said) in [
        ("/no/such/program".to_owned(), 127, "no such file"),
        ("no-such-program".to_owned(), 127, "not found in any folder of PATH"),
        ("/etc/passwd/program".to_owned(), 127, "no such file"),
        (String::new(), 127, "its name is empty"),
        (file("script", 0o755, b"#!/no/such/python -u\nprint(1)\n"), 127, "its interpreter /no/such/python"),
        (file("crlf", 0o755, b"#!/bin/sh\r\nexit 0\r\n"), 127, "carriage return (Windows line end)"),
        (
            file("crlf-arguments", 0o755, b"#!/no/such/python -u\r\n"),
            127,
            "its interpreter /no/such/python, named in its first line, does not exist",
        ),
        (other_library, 127, "its loader /xib"),
        (file("plain", 0o644, b"#!/bin/sh\n"), 126, "not executable; run `chmod +x`"),
        (folder.clone(), 126, "it is a folder"),
        (file("powerpc", 0o755, &program), 126, "it is a program for powerpc, and this machine is"),
        (
            file("by-powerpc", 0o755, format!("#!{folder}/powerpc\n").as_bytes()),
            126,
            "powerpc, named in its first line: it is a program for powerpc",
        ),
        (file("empty", 0o755, b""), 126, "the file is empty"),
        (file("no-line", 0o755, b"exit 0\n"), 126, "it has no `#!` line"),
        (file("windows", 0o755, b"MZ\0\0"), 126, "for Windows"),
        (file("binary", 0o755, b"\0\x01\x02"), 126, "it is no program"),
    ] {
        let ended = Exec::new().start(&[&program]).end();
        assert_eq!(
            (ended.code, &ended.outcome["reason"]),
            (Some(code), &"start_failed".into()),
            "{program}: {}",
            ended.stderr
        );
        let expected = format!("cannot start {program}: ");
        assert!(
            ended.stderr.contains(&expected) && ended.stderr.contains(said),
            "{program}: {}",
            ended.stderr
        );
    }
    // `env` finds no `sh\r`. Its own message is easy to overlook.
    let by_env = Exec::new().start(&[&file("env", 0o755, b"#!/usr/bin/env sh\r\nexit 0\r\n")]).end();
    assert_eq!(by_env.code, Some(127), "{}", by_env.stderr);
    assert!(by_env.stderr.contains("carriage return (Windows line end)"), "{}", by_env.stderr);
    // The search in PATH skips files that are not executable.
    for folder in ["first", "second"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    file("first/tool", 0o644, b"");
    file("second/tool", 0o755, b"#!/bin/sh\necho \"$0 $1\"\n");
    let path = format!("{0}/first:{0}/second", dir.path().display());
    let run = Exec::within(&["/usr/bin/env", "--default-signal"]).env("PATH", &path);
    let ended = run.start(&["tool", "x"]).end();
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), format!("{}/second/tool x\n", dir.path().display()));
}

/// A#2881
#[test]
fn exit_signal_crash_and_term_have_distinct_reasons() {
    let own = Exec::new().shell("exit 3").end().outcome;
    assert_eq!(
        (&own["reason"], &own["retryable"], &own["exit_code"]),
        (&"exited".into(), &false.into(), &3.into())
    );
    let killed = Exec::new().shell("kill -9 $$").end().outcome;
    assert_eq!(
        (&killed["reason"], &killed["retryable"], &killed["signal"]),
        (&"signaled".into(), &true.into(), &9.into())
    );
    let crashed = Exec::new().shell("kill -ABRT $$").end().outcome;
    assert_eq!((&crashed["reason"], &crashed["retryable"]), (&"signaled".into(), &false.into()));
    let mut running = Exec::new().shell("echo up; sleep 600");
    running.line();
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    let terminated = &ended.outcome;
    assert_eq!((&terminated["reason"], &terminated["retryable"]), (&"terminated".into(), &true.into()));
    let by = terminated["ended_by"].as_str().unwrap();
    assert!(by.contains(&format!("pid {}", std::process::id())), "{by}");
    assert_eq!(ended.code, Some(143));
}

/// Each process starts the next one and exits soon, so killing those of a list once comes too late for some.
#[test]
fn processes_that_start_others_all_the_time_are_killed() {
    let chain = "import os, signal, sys, time
if os.fork():
    print('ready', flush=True)
    time.sleep(600)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()
sys.stdout.close()
os.close(1)
os.close(2)
end = time.time() + 60
for _ in range(5):
    os.fork()
while time.time() < end:
    time.sleep(0.005)
    if os.fork():
        os._exit(0)";
    let mut running =
        Exec::new().flags(["--drain", "2", "--grace", "1"]).python(chain, &["chain-of-processes"]);
    assert_eq!(running.line(), "ready");
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!(ended.code, Some(143), "{}", ended.stderr);
    let left = |pid: &String| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == b"chain-of-processes")
    };
    let pids =
        || std::fs::read_dir("/proc").unwrap().flatten().map(|it| it.file_name().into_string().unwrap());
    let left: Vec<_> = (0..20).flat_map(|_| pids().filter(left).collect::<Vec<_>>()).collect();
    assert!(left.is_empty() && !ended.stderr.contains("left behind"), "{left:?} {}", ended.stderr);
}

/// Where the test may use cgroups of version 2: as root, or in a session of systemd.
#[test]
fn cancel_ends_the_commands_cgroup() {
    // It ignores TERM, and leaves its session and its parent.
    let script = "trap '' TERM; cat /proc/self/cgroup > $DIR/group
        setsid sh -c 'echo > $DIR/ready; while :; do sleep 0.01; done' & wait";
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let assignment = Assignment { command, grace_seconds: 1, drain_seconds: 1, ..Assignment::default() };
    let running = Attach::start(assignment, OnCommit::Grant);
    until("all processes run", || running.dir().join("ready").exists());
    let groups = std::fs::read_to_string(running.dir().join("group")).unwrap();
    let own = groups.lines().find_map(|it| it.strip_prefix("0::/")).unwrap_or_default().to_owned();
    let name = format!("sqlflow-agent-{}", running.pid());
    let folder = |root: &str| Path::new(root).join(&own);
    let place = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(folder)
        .into_iter()
        .find(|it| it.ends_with(&name) && it.join("cgroup.kill").exists());
    assert!(place.is_some() || !nix::unistd::Uid::effective().is_root() || !is_unified(), "{groups}");
    // No descendant of the agent, which finds it only by its cgroup.
    let member = place.as_ref().map(|place| {
        let member = std::process::Command::new("sleep")
            .arg("600")
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::fs::write(place.join("cgroup.procs"), member.id().to_string()).unwrap();
        member
    });
    running.send(Message::Cancel(Cancel { reason: "by a user".to_owned(), grace_seconds: 1 }));
    let ended = running.end();
    if let Some(mut member) = member {
        // One that was missed ends by this signal.
        let _ = kill(Pid::from_raw(member.id().try_into().unwrap()), Signal::SIGTERM);
        assert_eq!(member.wait().unwrap().signal(), Some(9), "{:?}", ended.outcome);
    }
    assert_eq!(ended.outcome.reason(), Reason::Cancelled, "{:?}", ended.outcome);
    assert!(!ended.received.notices().iter().any(|it| it.contains("left behind")), "{:?}", ended.received);
    if let Some(place) = place {
        assert!(!place.exists(), "its group is removed");
    }
}

/// Whether cgroups of version 2 can be made here.
fn is_unified() -> bool {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].iter().any(|root| {
        let probe = Path::new(root).join(format!("sqlflow-test-{}", std::process::id()));
        let can = std::fs::create_dir(&probe).is_ok() && probe.join("cgroup.kill").exists();
        let _ = std::fs::remove_dir(&probe);
        can
    })
}

/// Nothing is left running after the agent was killed with SIGKILL.
#[test]
fn sigkill_of_the_agent_ends_its_command() {
    let mut running = Exec::new().shell("echo $$; exec sleep 600");
    let pid = running.line();
    running.signal(Signal::SIGKILL);
    assert_eq!(running.end().code, None);
    until("the command has ended with its agent", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains(") Z ") || !Path::new(&format!("/proc/{pid}/exe")).exists()
    });
}

/// The command changed its user, as with sudo, so the agent may not signal it. To the agent a command that hangs in the
/// kernel is no different.
#[test]
fn unkillable_command_does_not_block_the_agent() {
    let image = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    mode(image.path(), 0o755);
    let agent = image.path().join("agent");
    copy_program(&program("sqlflow-agent"), &agent);
    let any_user = ["env", "--default-signal", "--chdir=/", "setpriv", "--reuid=12345", "--clear-groups"];
    let run = Exec::with_agent(&any_user, &agent).flags(["--grace", "1"]);
    mode(run.dir(), 0o777);
    copy_program(Path::new("/usr/bin/setpriv"), &run.dir().join("become"));
    mode(&run.dir().join("become"), 0o4755);
    let mut running = run.shell("echo $$; exec $DIR/become --reuid=0 --clear-groups sleep 600");
    let pid = running.line();
    until("the command runs as root", || {
        std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("\nUid:\t0\t")
    });
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(143), &"terminated".into()), "{}", ended.stderr);
    let message = ended.outcome["message"].as_str().unwrap();
    assert!(message.ends_with("the command did not end after KILL"), "{message}");
    let refused = format!("cannot send SIGKILL to sleep (pid {pid})");
    assert!(ended.stderr.contains(&refused), "{}", ended.stderr);
}

/// Related to A#1259.
#[test]
fn outcome_reports_memory_and_cpu_usage() {
    let code = "import sys; x = b'x' * (200 << 20); sum(range(3_000_000)); print(len(x))";
    let ended = Exec::new().python(code, &[]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let usage = &ended.outcome["usage"];
    assert!(usage["largest"]["memory_bytes"].as_u64().unwrap() > 200 << 20, "{usage}");
    assert!(usage["largest"]["name"].as_str().unwrap().contains("python"), "{usage}");
    assert!(usage["cpu_micros"].as_u64().unwrap() > 10_000, "{usage}");
}
