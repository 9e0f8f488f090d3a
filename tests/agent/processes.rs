//! Lack of processes and threads, in a real cgroup. With the agent that ships: a build for developers outlives a panic.

use sqlflow_tests::agent::{logged, shipped};
use sqlflow_tests::cgroup::Group;

/// Takes what the limit leaves, also what the agent gives back: an idle thread of tokio's goes after 10 seconds.
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

/// A thread that the agent needs and does not get would be its end, and its command's, and that of all output.
#[test]
fn a_command_that_uses_up_the_processes_is_heard_to_its_end() {
    let group = Group::new("pids", "greedy");
    group.set("pids.max", 12);
    let (ended, dir) = group.exec(&shipped()).log_to("log").python(GREEDY, &[]).end_in_folder();
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(3), &b"before\nafter\n"[..]), "{}", ended.stderr);
    assert_eq!(ended.outcome["reason"], "exited");
    let (stdout, ..) = logged(dir.path(), "log");
    assert_eq!(stdout, b"before\nafter\n");
}

#[test]
fn what_the_agent_cannot_start_for_lack_of_processes_it_names() {
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
