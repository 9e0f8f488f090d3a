//! Processes older than the agent: `sh -c 'sidecar & exec sqlflow-agent exec -- CMD'` makes the sidecar a child of the
//! agent.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_tests::agent::{Exec, Running};

/// An hour is more than any test takes: an agent that waits for the sidecar would not end.
const LONG_TIMEOUTS: [&str; 4] = ["--grace", "3600", "--drain", "3600"];

/// Runs a script under an agent that replaced the shell which started the sidecars.
fn beside(sidecars: &str, script: &str) -> Running {
    let shell = format!("cd $DIR\n{sidecars}\nexec \"$@\"");
    let run = Exec::within(&["env", "--default-signal", "sh", "-c", &shell, "sh"]);
    run.flags(LONG_TIMEOUTS).shell(script)
}

/// The process whose pid is in this file of the run's folder. Dropping it kills the process.
struct Sidecar(Pid);

impl Sidecar {
    fn of(dir: &Path, file: &str) -> Self {
        let text = std::fs::read_to_string(dir.join(file)).unwrap();
        Self(Pid::from_raw(text.trim().parse().unwrap()))
    }

    fn runs(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

const SLEEP: &str = "sleep 3600 > /dev/null 2>&1";

#[test]
fn sidecars_survive_the_command() {
    // One in the agent's process group, one in a session of its own, and a child of a third.
    let sidecars = format!(
        "{SLEEP} & echo $! > plain; setsid {SLEEP} & echo $! > session
sh -c '{SLEEP} & echo $! > child; wait' > /dev/null 2>&1 & until [ -s child ]; do :; done"
    );
    let (ended, dir) = beside(&sidecars, "echo done; exit 3").end_in_folder();
    let sidecars = ["plain", "session", "child"].map(|file| Sidecar::of(dir.path(), file));
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(3), &b"done\n"[..]));
    assert_eq!(ended.stderr, "");
    assert!(sidecars.iter().all(Sidecar::runs));
}

#[test]
fn leftover_of_the_command_is_terminated_and_sidecar_survives() {
    let sidecars = format!("{SLEEP} & echo $! > plain");
    let (ended, dir) = beside(&sidecars, "setsid sleep 600 & echo $! > $DIR/left; echo done").end_in_folder();
    let (sidecar, left) = (Sidecar::of(dir.path(), "plain"), Sidecar::of(dir.path(), "left"));
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), &b"done\n"[..]));
    assert!(ended.stderr.ends_with(&format!("(pid {})\n", left.0)), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("(pid ").count(), 1, "{}", ended.stderr);
    assert!(sidecar.runs() && !left.runs());
}

#[test]
fn term_ends_the_command_and_not_the_sidecar() {
    let sidecars = format!("{SLEEP} & echo $! > plain");
    let mut running = beside(&sidecars, "echo up; exec sleep 600");
    assert_eq!(running.line(), "up");
    running.signal(Signal::SIGTERM);
    let (ended, dir) = running.end_in_folder();
    assert_eq!(ended.code, Some(143), "{}", ended.stderr);
    assert!(Sidecar::of(dir.path(), "plain").runs());
}

/// The agent becomes its parent, as for every orphan of the command.
#[test]
fn orphan_of_an_ended_sidecar_survives() {
    let sidecars = format!(
        "sh -c '{SLEEP} & echo $! > orphan; wait' > /dev/null 2>&1 & echo $! > parent; until [ -s orphan ]; do :; done"
    );
    // The agent reaps the sidecar.
    let script = "parent=$(cat $DIR/parent); kill $parent; while [ -e /proc/$parent ]; do :; done; echo done";
    let (ended, dir) = beside(&sidecars, script).end_in_folder();
    let orphan = Sidecar::of(dir.path(), "orphan");
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), &b"done\n"[..]));
    assert_eq!(ended.stderr, "");
    assert!(orphan.runs());
}
