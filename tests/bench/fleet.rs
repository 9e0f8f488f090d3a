//! A server with many jobs that are all alive. Each has a real agent and a program that waits for a line. Agents have
//! the lowest priority: in production they run on other machines and take no time from their server.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::v1::{Result as Page, Token, response::Response};
use sqlflow_tests::client::Client;
use sqlflow_tests::http;
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::stand_in::{self, STEP};
use tempfile::TempDir;

use crate::agent;

/// Timeout until the agents of all jobs are attached.
const LONGEST_START: Duration = Duration::from_secs(600);

/// The program of each job: prints a line, and then each line from a pipe in its folder.
const PROGRAM: &str = "mkfifo wake
echo up
exec cat <> wake
";

/// A server with jobs, each with its agent.
pub struct Fleet {
    /// The server. Its jobs may all run at once, and its user has no limits.
    pub server: Server,
    /// An open connection.
    pub client: Client,
    /// The jobs.
    pub jobs: Vec<Token>,
    state_dir: PathBuf,
    agents: Agents,
    dir: TempDir,
}

impl Fleet {
    /// A server without jobs, in a new folder below `folder`.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let dir = TempDir::new_in(folder.canonicalize()?)?;
        let program = stand_in::python_that(dir.path(), "program", PROGRAM);
        let agent = format!("#!/bin/sh\nexec nice -n 19 {} \"$@\"\n", agent::shipped()?.display());
        let agent = script(&dir, "agent", &agent)?;
        let setup = Setup::new(dir.path(), format!("sqlite://{}", dir.path().join("none.db").display()))
            .flag("--max-running=0")
            .flag(format!("--agent={}", agent.display()))
            .flag(format!("--python={}", program.display()));
        let server = setup.start()?;
        let client = server.client().await?;
        let agents = Agents(setup.state_dir.join("run"));
        Ok(Self { server, client, jobs: Vec::new(), state_dir: setup.state_dir, agents, dir })
    }

    /// Runs jobs up to this number, and waits until each has its agent.
    pub async fn grow_to(&mut self, count: usize) -> anyhow::Result<()> {
        while self.jobs.len() < count {
            self.jobs.push(self.client.run(STEP).await?);
        }
        let deadline = Instant::now() + LONGEST_START;
        while self.attached()? < self.jobs.len() {
            ensure!(Instant::now() < deadline, "not all agents attached within {LONGEST_START:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    fn attached(&self) -> anyhow::Result<usize> {
        let metrics = http::get(&self.server.http, "/metrics").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("sqlflow_agents_attached "));
        Ok(line.context("the server counts its agents")?.trim().parse()?)
    }

    /// Gives the job's program a line, which it prints. Returns when.
    pub fn write_line(&self, job: &Token) -> anyhow::Result<Instant> {
        let pipe = self.state_dir.join("run").join(&job.job_id).join("0-1/workspace/wake");
        let mut pipe = File::options().write(true).open(&pipe).with_context(|| pipe.display().to_string())?;
        let begin = Instant::now();
        pipe.write_all(b"woken\n")?;
        Ok(begin)
    }

    /// Stops the server, kills the agents and removes everything.
    pub fn end(self) -> anyhow::Result<()> {
        self.server.stop()?;
        drop(self.agents);
        Ok(self.dir.close()?)
    }
}

/// Whether a page has a line of a job's program.
pub fn has_line(page: &Page) -> bool {
    page.results.iter().any(|it| matches!(it.response, Some(Response::Log(_))))
}

fn script(folder: &TempDir, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.path().join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// The agents with run folders in this folder. They outlive their server, so dropping this kills them; their programs
/// end with them.
struct Agents(PathBuf);

impl Agents {
    fn pids(&self) -> Vec<i32> {
        let folder = self.0.display().to_string();
        let is_agent = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).split('\0').any(|word| word.starts_with(&folder))
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(is_agent).collect()
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        for pid in self.pids() {
            // One that is gone already needs nothing.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
