//! A server process that tests start, kill and restart on the same state.

#![expect(clippy::print_stderr, reason = "shown by a failed test")]

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::Client;
use crate::python;

/// A program of this workspace, in the folder of the test.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let beside = own.ancestors().skip(1).map(|folder| folder.join(name)).find(|file| file.is_file());
    beside.unwrap_or_else(|| panic!("{name} is not built; run `cargo build --workspace` first"))
}

/// Copies a program, by another process: a child that a test of another thread starts meanwhile would inherit the open
/// file, and the kernel executes no file that is open for writing.
pub fn copy_program(program: &Path, to: &Path) {
    let copied = Command::new("cp").arg(program).arg(to).status().expect("cp can be started");
    assert!(copied.success(), "{} cannot be copied", program.display());
}

/// Options of a server.
#[derive(Debug, Clone)]
pub struct Setup {
    /// `--state-dir`.
    pub state_dir: PathBuf,
    /// `--datasource`.
    pub datasource: String,
    /// More flags, which take precedence.
    pub flags: Vec<String>,
    /// More variables, which its agents inherit.
    pub environment: Vec<(String, String)>,
    /// Arguments of `ulimit` for it; `None`: the limits of the test.
    pub limit: Option<String>,
    /// A program that executes it, with its arguments; empty: none.
    pub wrapper: Vec<String>,
}

impl Setup {
    /// A server for this data source, with its state in `dir`. An SQLite file that does not exist may be created.
    pub fn new(dir: &Path, datasource: impl Into<String>) -> Self {
        Self {
            state_dir: dir.join("state"),
            datasource: creatable(datasource.into()),
            flags: Vec::new(),
            environment: Vec::new(),
            limit: None,
            wrapper: Vec::new(),
        }
    }

    /// With one more flag.
    #[must_use]
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// With one more variable in its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With all of these.
    #[must_use]
    pub fn envs(mut self, variables: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.environment.extend(variables.into_iter().map(|(name, value)| (name.to_owned(), value)));
        self
    }

    /// Executed by this program with these arguments.
    #[must_use]
    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().copied().map(str::to_owned).collect();
        self
    }

    /// With this limit of open files.
    #[must_use]
    pub fn descriptors(mut self, most: u32) -> Self {
        self.limit = Some(format!("-n {most}"));
        self
    }

    /// With this soft limit of open files.
    #[must_use]
    pub fn soft_descriptors(mut self, limit: u32) -> Self {
        self.limit = Some(format!("-S -n {limit}"));
        self
    }

    /// Starts it, and waits until it is ready.
    ///
    /// # Errors
    /// It ended before it was ready; the message has its output.
    pub fn start(&self) -> anyhow::Result<Server> {
        let mut command = match (&self.limit, &self.wrapper[..]) {
            (None, [wrapper, arguments @ ..]) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(program("sqlflow-server"));
                command
            }
            (Some(limit), _) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!(r#"ulimit {limit} && exec "$0" "$@""#)]);
                shell.arg(program("sqlflow-server"));
                shell
            }
            (None, []) => Command::new(program("sqlflow-server")),
        };
        command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--log-format", "json"]);
        command.arg("--state-dir").arg(&self.state_dir).args(["--datasource", &self.datasource]);
        command.arg("--python").arg(python::program()).args(&self.flags);
        command.env("PYTHONPATH", python::package_path()).env("RUST_LOG", "info");
        // Not the socket of the user who runs the tests.
        command.env_remove("XDG_RUNTIME_DIR");
        // Submitters have bytecode, as on a user's machine: benchmarks would measure the compiler.
        command.env_remove("PYTHONDONTWRITEBYTECODE");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(process.stderr.take().expect("stderr is piped")).lines();
        let mut output = String::new();
        let [address, http] = loop {
            let Some(line) = lines.next().transpose()? else {
                process.wait()?;
                bail!("the server ended before it was ready: {output}");
            };
            if let Some(addresses) = listen_addresses(&line) {
                break addresses;
            }
            output.push_str(&line);
            output.push('\n');
        };
        // Reads on, so that the server never blocks. The lines are kept to debug a failure.
        std::fs::create_dir_all(&self.state_dir)?;
        let mut log = File::options().create(true).append(true).open(self.state_dir.join("server.log"))?;
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if std::io::Write::write_all(&mut log, format!("{line}\n").as_bytes()).is_err() {
                    // The disk is full: a failed test shows the line.
                    eprintln!("{line}");
                }
            }
        });
        Ok(Server { process, address, http })
    }
}

fn creatable(datasource: String) -> String {
    let file = datasource.strip_prefix("sqlite://").map(Path::new);
    match file {
        Some(file) if !file.exists() && !datasource.contains('?') => format!("{datasource}?mode=rwc"),
        _ => datasource,
    }
}

fn listen_addresses(line: &str) -> Option<[String; 2]> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields")?;
    fields.get("state_dir")?;
    Some([fields.get("listen")?.as_str()?.to_owned(), fields.get("http")?.as_str()?.to_owned()])
}

/// A running server. Dropping it kills it; its jobs continue.
#[derive(Debug)]
pub struct Server {
    process: Child,
    /// Address for clients: `127.0.0.1:port`.
    pub address: String,
    /// Address for browsers.
    pub http: String,
}

impl Server {
    /// A new client.
    ///
    /// # Errors
    /// It cannot connect.
    pub async fn client(&self) -> anyhow::Result<Client> {
        Client::connect(&self.address).await
    }

    /// Kills it with KILL, as a lost machine would.
    pub fn kill(mut self) {
        self.end();
    }

    /// Stops it with TERM, as an operator would, and waits for its end.
    ///
    /// # Errors
    /// It is gone already, or its exit code is not 0.
    pub fn stop(mut self) -> anyhow::Result<()> {
        kill(self.pid(), Signal::SIGTERM)?;
        let status = self.process.wait().context("cannot wait for the server")?;
        anyhow::ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }

    /// Stops it with TERM. After this time it is killed, which is an error.
    ///
    /// # Errors
    /// It is gone already, took too long, or its exit code is not 0.
    pub fn stop_within(mut self, bound: Duration) -> anyhow::Result<()> {
        kill(self.pid(), Signal::SIGTERM)?;
        let begun = Instant::now();
        while begun.elapsed() < bound {
            if let Some(status) = self.process.try_wait()? {
                anyhow::ensure!(status.success(), "the server ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the server was still there {bound:?} after TERM")
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// It is gone.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        crate::agent::memory(self.pid(), "VmRSS:").context("it is gone")
    }

    /// Number of its open files.
    ///
    /// # Errors
    /// It is gone.
    pub fn open_descriptors(&self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    /// Largest resident memory so far, in bytes; 0 if it is gone.
    pub fn memory_peak(&self) -> u64 {
        crate::agent::memory_peak(self.pid())
    }

    /// Its process, for signals.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).expect("pids are positive i32"))
    }

    fn end(&mut self) {
        // An error means that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
