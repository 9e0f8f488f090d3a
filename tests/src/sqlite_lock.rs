//! Another program with an open write transaction on an SQLite file.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::python;

/// Begins a write transaction, prints a line, and waits until it is killed.
const WRITER: &str = "
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute('BEGIN IMMEDIATE')
print('writes', flush=True)
time.sleep(3600)
";

/// Returns once the file is locked. The lock ends with the program, which is killed when it is dropped.
///
/// # Errors
/// The program cannot be started, or cannot write.
pub async fn hold(file: &Path) -> anyhow::Result<Child> {
    let mut writer = Command::new(python::program())
        .args(["-c", WRITER])
        .arg(file)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(writer.stdout.take().context("it has a pipe")?).lines();
    ensure!(lines.next_line().await?.as_deref() == Some("writes"), "it cannot write to {}", file.display());
    Ok(writer)
}
