//! A server of the user's own: `--server own`. The first client that needs it starts it, all clients of the user share it,
//! and it ends by itself when nobody uses it. Its jobs are there again when it is started again.
//!
//! The Python client does the same in `own_server.py`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlflow_cli::address;
use sqlflow_text::escape::{escaped, escaped_lines};
use tokio::net::UnixStream;

use crate::client::Client;
use crate::failure::{Failure, is_retryable};

/// Version of this program, and of the server that belongs to it.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Variable with the program of the server.
const PROGRAM_VARIABLE: &str = "SQLFLOW_SERVER_PROGRAM";
/// Option of the server that the user may set, with its default here.
const IDLE_VARIABLE: &str = "SQLFLOW_EXIT_WHEN_IDLE";
const IDLE_TIME: &str = "10m";
/// Timeout for the start, which may convert the state of an earlier version.
const START_TIME: Duration = Duration::from_secs(60);
/// Pause between two looks at a server that starts.
const PAUSE: Duration = Duration::from_millis(20);
/// What is quoted of the log of a server that did not start.
const LOG_LINES: usize = 5;
const LOG_BYTES: u64 = 4096;

/// The user's server, whether it runs or not.
#[derive(Debug, Clone)]
pub(crate) struct OwnServer {
    /// Its state, its log, its socket, and the lock of those who start it.
    folder: PathBuf,
}

impl OwnServer {
    /// That of the user of this process.
    pub(crate) fn of_user() -> Result<Self, Failure> {
        let why = "cannot use a server of your own: neither XDG_DATA_HOME nor HOME names a folder of yours";
        let folder = address::own_folder().ok_or_else(|| Failure::Usage(why.to_owned()))?;
        Ok(Self { folder })
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        address::own_socket_in(&self.folder)
    }

    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// Starts it unless it runs, and waits until it answers. A warning if it has another version.
    pub(crate) async fn ensure(&self, client: &mut Client) -> Result<Option<String>, Failure> {
        let version = match self.running(client).await {
            Some(Ok(version)) => version,
            Some(Err(_)) | None => self.start(client).await?,
        };
        if version.as_deref() == Some(VERSION) {
            return Ok(None);
        }
        let running =
            version.map_or_else(|| "an earlier version".to_owned(), |it| format!("version {}", escaped(&it)));
        let by = self.pid().await.map_or_else(String::new, |pid| format!(" with: kill {pid}"));
        Ok(Some(format!(
            "warning: your own server is {running}, and this is version {VERSION}; end it{by}; its jobs continue, and the \
             next command starts version {VERSION}"
        )))
    }

    /// The version of the server that listens; `None`: there is no server.
    async fn running(&self, client: &mut Client) -> Option<Result<Option<String>, tonic::Status>> {
        match address::is_listening(&self.socket()) {
            true => Some(client.server_version().await),
            false => None,
        }
    }

    /// One client at a time starts it. The others find it then.
    async fn start(&self, client: &mut Client) -> Result<Option<String>, Failure> {
        let begun = Instant::now();
        let _lock = self.lock(begun).await?;
        let mut started: Option<Child> = None;
        while begun.elapsed() < START_TIME {
            match self.running(client).await {
                Some(Ok(version)) => return Ok(version),
                // It is about to end, or not ready yet.
                Some(Err(status)) if is_retryable(&status) => {}
                Some(Err(status)) => return Err(Failure::from_status(&status, client.server())),
                None => self.check(&mut started)?,
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(self.failed(&format!("it does not answer after {} s", START_TIME.as_secs())))
    }

    /// Starts the process, or checks that it lives.
    fn check(&self, started: &mut Option<Child>) -> Result<(), Failure> {
        let Some(child) = started else {
            *started = Some(self.spawn()?);
            return Ok(());
        };
        match child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(&format!("it ended with {status}"))),
            Err(error) => Err(self.failed(&format!("its process is not known: {error}"))),
        }
    }

    async fn lock(&self, begun: Instant) -> Result<File, Failure> {
        let file = self.folder.join("start.lock");
        let cannot = |error: &dyn std::fmt::Display| {
            Failure::Server(format!("cannot start a server of your own: {}: {error}", file.display()))
        };
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        let opened = made.and_then(|()| OpenOptions::new().create(true).append(true).mode(0o600).open(&file));
        let opened = opened.map_err(|error| cannot(&error))?;
        loop {
            match opened.try_lock() {
                Ok(()) => return Ok(opened),
                Err(TryLockError::WouldBlock) if begun.elapsed() < START_TIME => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(cannot(&error)),
            }
        }
    }

    /// It has neither this terminal nor a file of this process, and gets no Ctrl+C. Its other options come from the
    /// environment.
    fn spawn(&self) -> Result<Child, Failure> {
        let cannot = |why: &dyn std::fmt::Display| {
            Failure::Server(format!("cannot start a server of your own: {why}"))
        };
        let log = self.new_log().map_err(|error| cannot(&format!("{}: {error}", self.log().display())))?;
        let program = program();
        let mut command = Command::new(&program);
        command.args(["--listen=", "--http-listen=127.0.0.1:0", "--socket"]).arg(self.socket());
        command.arg("--state-dir").arg(self.folder.join("state"));
        if std::env::var_os(IDLE_VARIABLE).is_none() {
            command.env(IDLE_VARIABLE, IDLE_TIME);
        }
        command.current_dir(&self.folder).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => cannot(&format!(
                "the program {} is not there; install it beside sqlflowctl or on PATH, or name it with {PROGRAM_VARIABLE}",
                program.display()
            )),
            _ => cannot(&error),
        })
    }

    /// A new file for the log. That of the start before is kept.
    fn new_log(&self) -> io::Result<File> {
        // There is none at the first start.
        let _ = fs::rename(self.log(), self.folder.join("server.log.old"));
        OpenOptions::new().create(true).append(true).mode(0o600).open(self.log())
    }

    fn failed(&self, why: &str) -> Failure {
        let log = self.log();
        let end = end_of(&log).unwrap_or_else(|error| format!("cannot read it: {error}"));
        Failure::Server(format!(
            "cannot start a server of your own: {why}; its log {} ends with:\n{end}",
            log.display()
        ))
    }

    async fn pid(&self) -> Option<i32> {
        let stream = UnixStream::connect(self.socket()).await.ok()?;
        stream.peer_cred().ok()?.pid()
    }
}

/// The program: the one that a variable names, the one beside this program, or the one on PATH.
fn program() -> PathBuf {
    const NAME: &str = "sqlflow-server";
    if let Some(named) = std::env::var_os(PROGRAM_VARIABLE).filter(|it| !it.is_empty()) {
        // The server's working directory is another one.
        return std::path::absolute(&named).unwrap_or_else(|_| named.into());
    }
    let beside = std::env::current_exe().map(|own| own.with_file_name(NAME));
    beside.ok().filter(|file| file.is_file()).unwrap_or_else(|| NAME.into())
}

/// The last lines of a log, for a terminal.
fn end_of(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(escaped_lines(&lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_a_log_is_its_last_lines_without_control_sequences() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("server.log");
        assert!(end_of(&log).is_err());
        let long = "x".repeat(9000);
        fs::write(&log, format!("{long}\n1\n2\n3\n4\n\x1b[2Jlast\n")).unwrap();
        assert_eq!(end_of(&log).unwrap(), "1\n2\n3\n4\n\\x1b[2Jlast");
        fs::write(&log, "only\n").unwrap();
        assert_eq!(end_of(&log).unwrap(), "only");
    }

    #[test]
    fn each_start_has_a_log_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let own = OwnServer { folder: dir.path().to_owned() };
        drop(own.new_log().unwrap());
        fs::write(own.log(), "first").unwrap();
        drop(own.new_log().unwrap());
        assert_eq!(fs::read(own.log()).unwrap(), b"");
        assert_eq!(fs::read(dir.path().join("server.log.old")).unwrap(), b"first");
    }
}
