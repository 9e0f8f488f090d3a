//! `sqlflow-agent exec` with a command.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::server::program;

/// A run of `sqlflow-agent exec`, with a folder of its own.
#[derive(Debug)]
pub struct Exec {
    dir: tempfile::TempDir,
    command: Command,
}

/// Result of a run.
#[derive(Debug)]
pub struct Ended {
    /// The agent's exit code.
    pub code: Option<i32>,
    /// The agent's stdout after the lines that were read before.
    pub stdout: Vec<u8>,
    /// The agent's stderr after these: the command's output, and the agent's own warnings.
    pub stderr: String,
    /// The outcome file; null if there is none.
    pub outcome: Value,
}

impl Exec {
    /// `sqlflow-agent exec`, with an outcome file.
    pub fn new() -> Self {
        // A shell cannot trap signals that were ignored at its start, as under nohup, or after `&` in a script.
        Self::within(&["env", "--default-signal"])
    }

    /// The same with the static agent that ships, whose memory use is that of users.
    pub fn shipped() -> Self {
        Self::with_agent(&[], &shipped())
    }

    /// [`Self::new`], started by another program: `unshare --pid …`.
    pub fn within(outer: &[&str]) -> Self {
        Self::with_agent(outer, &program("sqlflow-agent"))
    }

    /// [`Self::within`] with another build of the agent.
    pub fn with_agent(outer: &[&str], agent: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = match outer.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(agent);
                command
            }
            None => Command::new(agent),
        };
        command.arg("exec").arg("--outcome").arg(dir.path().join("outcome.json"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Independent of the environment of the test.
        command.env_remove("PYTHONUNBUFFERED");
        Self { dir, command }
    }

    /// The run's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// With these flags.
    #[must_use]
    pub fn flags<S: AsRef<std::ffi::OsStr>>(mut self, flags: impl IntoIterator<Item = S>) -> Self {
        self.command.args(flags);
        self
    }

    /// With `--log-to` and this name in the run's folder.
    #[must_use]
    pub fn log_to(self, name: &str) -> Self {
        let folder = self.dir().join(name);
        self.flags([Path::new("--log-to"), &folder])
    }

    /// With this variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// With all of these.
    #[must_use]
    pub fn envs<V: AsRef<str>>(mut self, variables: impl IntoIterator<Item = (&'static str, V)>) -> Self {
        for (name, value) in variables {
            self.command.env(name, value.as_ref());
        }
        self
    }

    /// Starts `sh -c script`, with `$DIR` for the run's folder.
    pub fn shell(self, script: &str) -> Running {
        self.start(&["sh", "-c", script])
    }

    /// Starts Python with this code and these arguments.
    pub fn python(self, code: &str, arguments: &[&str]) -> Running {
        let python = crate::python::program();
        let mut all = vec![python.to_str().expect("the path is text"), "-c", code];
        all.extend(arguments);
        self.start(&all)
    }

    /// Starts a command.
    pub fn start(mut self, command: &[&str]) -> Running {
        self.command.arg("--").args(command).env("DIR", self.dir.path());
        let mut process = self.command.spawn().expect("the agent starts");
        let stdout = BufReader::new(process.stdout.take().expect("stdout is piped"));
        let stderr = BufReader::new(process.stderr.take().expect("stderr is piped"));
        Running { dir: self.dir, process, stdout, stderr }
    }
}

impl Ended {
    /// Asserts that it was terminated before its model was published.
    pub fn expect_given_up(&self) {
        assert_eq!(
            (self.code, &self.outcome["reason"]),
            (Some(143), &"terminated".into()),
            "{}",
            self.outcome
        );
        let message = self.outcome["message"].as_str().expect("an outcome has a message");
        assert!(message.contains("before the model was published"), "{message}");
    }
}

impl Default for Exec {
    fn default() -> Self {
        Self::new()
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Running {
    dir: tempfile::TempDir,
    process: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    /// The agent's process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).expect("pids are positive i32"))
    }

    /// The run's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The next line of stdout.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it is text");
        assert!(line.ends_with('\n'), "stdout ended with {line:?}");
        line.pop();
        line
    }

    /// Reads stderr up to a line that has this text.
    pub fn wait_for_error(&mut self, text: &str) {
        let mut read = String::new();
        while !read.lines().next_back().is_some_and(|line| line.contains(text)) {
            let length = self.stderr.read_line(&mut read).expect("it is text");
            assert_ne!(length, 0, "stderr ended without {text:?}: {read}");
        }
    }

    /// Sends the agent a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the agent runs");
    }

    /// Waits for the end, and reads both streams.
    pub fn end(self) -> Ended {
        self.end_in_folder().0
    }

    /// [`Self::end`], with the folder, which is removed when it is dropped.
    pub fn end_in_folder(mut self) -> (Ended, tempfile::TempDir) {
        let mut errors = self.stderr;
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            errors.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
        });
        let mut stdout = Vec::new();
        self.stdout.read_to_end(&mut stdout).expect("stdout can be read");
        let status = self.process.wait().expect("the agent can be waited for");
        let stderr = stderr.join().expect("the thread ends").expect("stderr can be read");
        let ended = ended(&self.dir, status, stdout, stderr);
        (ended, self.dir)
    }

    /// Closes the reading end of its stdout, and waits for the end.
    pub fn close_stdout(self) -> Ended {
        let Self { dir, mut process, stdout, mut stderr } = self;
        drop(stdout);
        let mut text = String::new();
        stderr.read_to_string(&mut text).expect("stderr can be read");
        let status = process.wait().expect("the agent can be waited for");
        ended(&dir, status, Vec::new(), text)
    }

    /// Largest resident memory of the agent so far, in bytes.
    pub fn memory_peak(&self) -> u64 {
        memory_peak(self.pid())
    }
}

fn ended(dir: &tempfile::TempDir, status: ExitStatus, stdout: Vec<u8>, stderr: String) -> Ended {
    let outcome = std::fs::read_to_string(dir.path().join("outcome.json")).ok();
    let outcome = outcome.map_or(Value::Null, |text| serde_json::from_str(&text).expect("it is JSON"));
    Ended { code: status.code(), stdout, stderr, outcome }
}

/// The static program that ships; `make test` builds it.
pub fn shipped() -> PathBuf {
    let path = std::env::var_os("SQLFLOW_TEST_STATIC_AGENT");
    path.expect("SQLFLOW_TEST_STATIC_AGENT names the static agent; `make test` sets it").into()
}

/// Ends with the process, and returns its largest resident memory in bytes.
pub fn watch_memory(pid: Pid) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut peak = 0;
        loop {
            match memory_peak(pid) {
                0 => return peak,
                now => peak = now,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

/// Largest resident memory of a process so far, in bytes; 0 if it is gone.
pub fn memory_peak(pid: Pid) -> u64 {
    memory(pid, "VmHWM:").unwrap_or(0)
}

/// A line about memory of `/proc/<pid>/status`, in bytes; `None` if the process is gone.
pub(crate) fn memory(pid: Pid, line: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib =
        status.lines().find_map(|it| it.strip_prefix(line)?.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.map(|kib: u64| kib * 1024)
}

/// The files of a run's log folder.
pub fn logged(dir: &Path, name: &str) -> (Vec<u8>, Vec<u8>, Vec<Value>) {
    let folder: PathBuf = dir.join(name);
    let read = |file: &str| std::fs::read(folder.join(file)).expect("the log is there");
    let records = String::from_utf8(read("records.jsonl")).expect("records are text");
    let records = records.lines().map(|line| serde_json::from_str(line).expect("records are JSON")).collect();
    (read("stdout"), read("stderr"), records)
}
