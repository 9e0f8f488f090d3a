//! Out of memory in a real cgroup of version 1. The agent's unit tests cover version 2 with recorded files.

use sqlflow_tests::agent::{Ended, logged};
use sqlflow_tests::cgroup::Group;
use sqlflow_tests::server::program;

const LIMIT: u64 = 64 << 20;
/// Allocates memory until it is killed.
const HUNGRY: &str = "x = []\nwhile True: x.append(bytearray(4 << 20))";

fn group(name: &str) -> Group {
    let group = Group::new("memory", name);
    group.set("memory.limit_in_bytes", LIMIT);
    // Swap would make the limit ineffective.
    group.try_set("memory.memsw.limit_in_bytes", LIMIT);
    group
}

fn expect_evidence(ended: &Ended) {
    let usage = &ended.outcome["usage"];
    assert!(usage["oom_kills"].as_u64().unwrap() >= 1, "{}", ended.outcome);
    assert_eq!(usage["cgroup_limit_bytes"].as_u64(), Some(LIMIT), "{usage}");
    assert!(usage["cgroup_peak_bytes"].as_u64().unwrap() > LIMIT * 9 / 10, "{usage}");
    assert!(usage["largest"]["memory_bytes"].as_u64().unwrap() > LIMIT / 2, "{usage}");
    assert!(usage["largest"]["name"].as_str().unwrap().contains("python"), "{usage}");
}

/// A#8680, K#131530
#[test]
fn oom_killed_command_has_reason_out_of_memory() {
    let group = group("command");
    let ended = group.exec(&program("sqlflow-agent")).python(HUNGRY, &[]).end();
    assert_eq!(
        (ended.code, &ended.outcome["reason"]),
        (Some(137), &"out_of_memory".into()),
        "{}",
        ended.outcome
    );
    let message = ended.outcome["message"].as_str().unwrap();
    assert!(message.contains("limit 64 MiB") && message.contains("peak"), "{message}");
    assert_eq!(ended.outcome["retryable"], false);
    expect_evidence(&ended);
}

/// K#104454: a child of the command is killed, and the command then fails with its own exit code.
#[test]
fn failure_after_oom_kill_of_a_child_has_reason_out_of_memory() {
    let group = group("helper");
    let code = format!(
        "import subprocess, sys\nsys.exit(subprocess.call([sys.executable, '-c', '''{HUNGRY}''']) and 1)"
    );
    let ended = group.exec(&program("sqlflow-agent")).python(&code, &[]).end();
    assert_eq!(
        (ended.code, &ended.outcome["reason"]),
        (Some(1), &"out_of_memory".into()),
        "{}",
        ended.outcome
    );
    expect_evidence(&ended);
}

/// A#8680: exit code 0 does not hide an OOM kill.
#[test]
fn success_after_an_oom_kill_logs_a_notice() {
    let group = group("success");
    let code = format!("import subprocess, sys\nsubprocess.call([sys.executable, '-c', '''{HUNGRY}'''])");
    let (ended, dir) = group.exec(&program("sqlflow-agent")).log_to("log").python(&code, &[]).end_in_folder();
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(0), &"succeeded".into()), "{}", ended.outcome);
    expect_evidence(&ended);
    let (_, _, records) = logged(dir.path(), "log");
    let notice = records.iter().find_map(|it| it["notice"].as_str()).expect("a warning");
    assert!(notice.contains("lack of memory") && notice.contains("limit 64 MiB"), "{notice}");
}
