//! Exhausted processes and threads, in a real cgroup. With the static agent, which aborts on a panic; a debug build
//! survives.

use sqlflow_tests::agent::{logged, shipped};
use sqlflow_tests::cgroup::Group;

/// Takes every process that the limit leaves, also those that the agent frees: tokio ends an idle thread after 10 s.
const GREEDY: &str = "
import os, time
def fill():
    while True:
        try:
            if os.fork() == 0:
                time.sleep(600)
        except OSError:
            return
print('before', flush=True)
begun = time.monotonic()
while time.monotonic() < begun + 13:
    fill()
    time.sleep(0.05)
print('after', flush=True)
raise SystemExit(3)";

/// If the agent needed one more thread, it would abort, and command and output would be lost.
#[test]
fn command_that_exhausts_processes_keeps_its_output_and_exit_code() {
    let group = Group::new("pids", "greedy");
    group.set("pids.max", 12);
    let (ended, dir) = group.exec(&shipped()).log_to("log").python(GREEDY, &[]).end_in_folder();
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(3), &b"before\nafter\n"[..]), "{}", ended.stderr);
    assert_eq!(ended.outcome["reason"], "exited");
    let (stdout, ..) = logged(dir.path(), "log");
    assert_eq!(stdout, b"before\nafter\n");
}

#[test]
fn agent_without_processes_reports_what_it_cannot_start() {
    let group = Group::new("pids", "few");
    for limit in 1..=6 {
        group.set("pids.max", limit);
        let ended = group.exec(&shipped()).log_to("log").start(&["true"]).end();
        if ended.code != Some(0) {
            assert_eq!(ended.code, Some(65), "{limit}: {}", ended.stderr);
            assert!(ended.stderr.contains("cannot start"), "{limit}: {}", ended.stderr);
            assert!(ended.stderr.contains("Resource temporarily unavailable"), "{limit}: {}", ended.stderr);
        } else {
            assert_eq!(limit, 6, "the agent has four threads beside its first, and a command");
        }
    }
}
