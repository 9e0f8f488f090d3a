//! The person's pager, as git and psql use it: `$PAGER`, else `less`, which leaves at once when all fits on the screen.

use std::env;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// What `less` is to do unless `LESS` says otherwise: end when all fits on one screen, show colours, leave the text there.
const LESS: &str = "FRX";

/// A pager that runs.
pub(crate) struct Pager {
    process: Child,
}

impl Pager {
    /// Starts it; `None`: there is none, or the person wants none (`PAGER=cat`, or empty).
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
        // Ctrl+C is the pager's: it goes back to its prompt, and this command waits for it.
        let _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
        let process = shell.spawn().ok()?;
        Some(Self { process })
    }

    /// Where its text is written; once.
    pub(crate) fn input(&mut self) -> Option<ChildStdin> {
        self.process.stdin.take()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) {
        // How it ended is its own affair.
        let _ = self.process.wait();
    }
}

fn is_on_path(name: &str) -> bool {
    let is_there = |folder: &Path| folder.join(name).is_file();
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| is_there(&folder)))
}
