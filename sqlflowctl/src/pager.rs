//! The user's pager, as in git and psql: `$PAGER`, or `less`, which exits at once if the text fits on the screen.

use std::env;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Options of `less` if `LESS` is not set: exit if the text fits on one screen, show colours, leave the text on the
/// screen.
const LESS: &str = "FRX";

/// A running pager.
pub(crate) struct Pager {
    process: Child,
}

impl Pager {
    /// Starts it; `None`: there is none, or the user wants none (`PAGER=cat`, or empty).
    pub(crate) fn start() -> Option<Self> {
        let command = match env::var("PAGER") {
            Ok(named) if matches!(named.trim(), "" | "cat") => return None,
            Ok(named) => named,
            Err(_) if is_on_path("less") => "less".to_owned(),
            Err(_) => return None,
        };
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).stdin(Stdio::piped());
        if env::var_os("LESS").is_none() {
            shell.env("LESS", LESS);
        }
        // The pager handles Ctrl+C: it returns to its prompt, and this command waits for it.
        let _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
        let process = shell.spawn().ok()?;
        Some(Self { process })
    }

    /// The stream for its text; can be taken once.
    pub(crate) fn input(&mut self) -> Option<ChildStdin> {
        self.process.stdin.take()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) {
        // Its exit status does not matter.
        let _ = self.process.wait();
    }
}

fn is_on_path(name: &str) -> bool {
    let is_there = |folder: &Path| folder.join(name).is_file();
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| is_there(&folder)))
}
