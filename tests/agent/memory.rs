//! Lack of memory, in a real cgroup (version 1; version 2 from recorded files in the agent's own tests).

use std::path::PathBuf;

use sqlflow_tests::agent::{Ended, Exec, logged};

const LIMIT: u64 = 64 << 20;
/// Takes memory until the kernel's patience ends.
const HUNGRY: &str = "x = []\nwhile True: x.append(bytearray(4 << 20))";

/// A memory cgroup of our own.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let folder =
            PathBuf::from(format!("/sys/fs/cgroup/memory/sqlflow-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&folder)
            .expect("this test needs cgroup v1's memory controller, and the right to use it");
        std::fs::write(folder.join("memory.limit_in_bytes"), LIMIT.to_string()).unwrap();
        // With swap the limit would be none.
        let _ = std::fs::write(folder.join("memory.memsw.limit_in_bytes"), LIMIT.to_string());
        Self(folder)
    }

    /// An agent that is in the group from its first instruction, as in a Pod.
    fn exec(&self) -> Exec {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        Exec::within(&["sh", "-c", &script, "sh"])
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel takes a moment after the last process.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
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
fn a_command_that_takes_too_much_is_said_to_have_done_so() {
    let group = Group::new("command");
    let ended = group.exec().python(HUNGRY, &[]).end();
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

/// K#104454: a helper of the command's was killed, and the command fails of it with a code of its own.
#[test]
fn a_helper_that_takes_too_much_is_the_reason_when_the_command_fails() {
    let group = Group::new("helper");
    let code = format!(
        "import subprocess, sys\nsys.exit(subprocess.call([sys.executable, '-c', '''{HUNGRY}''']) and 1)"
    );
    let ended = group.exec().python(&code, &[]).end();
    assert_eq!(
        (ended.code, &ended.outcome["reason"]),
        (Some(1), &"out_of_memory".into()),
        "{}",
        ended.outcome
    );
    expect_evidence(&ended);
}

/// A#8680: exit 0 after an OOM kill is never silent.
#[test]
fn success_after_a_kill_is_told() {
    let group = Group::new("success");
    let code = format!("import subprocess, sys\nsubprocess.call([sys.executable, '-c', '''{HUNGRY}'''])");
    let (ended, dir) = group.exec().log_to("log").python(&code, &[]).end_in_folder();
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(0), &"succeeded".into()), "{}", ended.outcome);
    expect_evidence(&ended);
    let (_, _, records) = logged(dir.path(), "log");
    let notice = records.iter().find_map(|it| it["notice"].as_str()).expect("a warning");
    assert!(notice.contains("lack of memory") && notice.contains("limit 64 MiB"), "{notice}");
}
