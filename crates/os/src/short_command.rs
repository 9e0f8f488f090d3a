//! Commands that end soon, of which only the output counts: a probe of an interpreter, or a program that prints a key.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// Limits of a command.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time after which it is killed.
    pub timeout: Duration,
    /// Maximum bytes of each of its outputs that are read. A command that prints more loses its reader.
    pub bytes: u64,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Beginning of its standard output.
    pub stdout: Vec<u8>,
    /// Beginning of its standard error.
    pub stderr: Vec<u8>,
}

impl Ended {
    /// The last line of its standard error that is not empty, with at most this many characters.
    #[must_use]
    pub fn last_error(&self, characters: usize) -> Option<String> {
        let text = String::from_utf8_lossy(&self.stderr);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().take(characters).collect())
    }
}

/// Why nothing is known about a command's output.
#[derive(Debug)]
pub enum CommandError {
    /// It cannot be started.
    NotStarted(io::Error),
    /// Its end cannot be observed.
    NotAwaited(io::Error),
    /// It had not ended in time, and was killed.
    Late,
}

/// Runs a command without input. It gets a process group of its own. After the timeout all processes of the group are
/// killed: the command may be a script that waits for another program.
///
/// # Errors
/// See [`CommandError`]. The status of a command that has ended is no error.
pub async fn run(mut command: Command, limits: Limits) -> Result<Ended, CommandError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(CommandError::NotStarted)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = tokio::time::timeout(limits.timeout, async {
        let (stdout, stderr) = tokio::join!(beginning(out, limits.bytes), beginning(err, limits.bytes));
        child.wait().await.map(|status| Ended { status, stdout, stderr })
    });
    let Ok(ended) = ended.await else {
        let _ = group.map(|group| killpg(group, Signal::SIGKILL));
        return Err(CommandError::Late);
    };
    ended.map_err(CommandError::NotAwaited)
}

/// The first bytes of a pipe.
async fn beginning(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What was read before an error is worth having.
        let _ = pipe.take(limit).read_to_end(&mut bytes).await;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    async fn shell(script: &str) -> Result<Ended, CommandError> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        run(command, Limits { timeout: Duration::from_secs(2), bytes: 100 }).await
    }

    #[tokio::test]
    async fn output_and_status_are_those_of_the_command() {
        let ended = shell("echo out; printf 'first\\n last \\n\\n' >&2; exit 3").await.unwrap();
        assert_eq!((ended.status.code(), &ended.stdout[..]), (Some(3), &b"out\n"[..]));
        assert_eq!(ended.last_error(300).as_deref(), Some("last"));
        assert_eq!(ended.last_error(2).as_deref(), Some("la"));
        assert_eq!(shell("exit 0").await.unwrap().last_error(300), None);
        assert_eq!(shell("yes").await.unwrap().stdout.len(), 100);
        let missing = run(Command::new("/no/program"), Limits { timeout: Duration::ZERO, bytes: 0 }).await;
        assert!(matches!(missing, Err(CommandError::NotStarted(_))), "{missing:?}");
    }

    /// Whether a process runs. One that was killed may wait for its parent to notice.
    fn runs(pid: &str) -> bool {
        let status = fs::read_to_string(Path::new("/proc").join(pid).join("status"));
        status.is_ok_and(|it| it.lines().any(|line| line.starts_with("State:") && !line.contains("zombie")))
    }

    #[tokio::test]
    async fn program_of_a_late_script_is_killed_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let late = shell(&format!("sleep 1000 & echo $! > '{}'; wait", file.display())).await;
        assert!(matches!(late, Err(CommandError::Late)), "{late:?}");
        let pid = fs::read_to_string(&file).unwrap().trim().to_owned();
        assert!(!pid.is_empty());
        for _ in 0..100 {
            if !runs(&pid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("process {pid} still runs");
    }
}
