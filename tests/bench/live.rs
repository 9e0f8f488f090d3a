//! Many jobs at once: the cost of an attached idle agent and of a waiting client for the server, and the latency of Run
//! and Fetch meanwhile. The same server is measured with one job, with many, and with a client for each of these. All
//! agents are real, and each runs a program that waits for a line. They have the lowest priority: in production they
//! run on other machines and take no time from their server.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::v1::{Token, response::Response as Payload};
use sqlflow_tests::client::Client;
use sqlflow_tests::http;
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::stand_in::{self, STEP};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::agent;
use crate::arguments::Scale;
use crate::measure::Measurement;
use crate::usage::Usage;

/// Time for the work of starting agents, or of earlier calls, to end.
const REST: Duration = Duration::from_secs(10);
/// Pause between two measured calls, so that they do not queue behind each other's work.
const PACE: Duration = Duration::from_millis(20);
/// Timeout until the agents of all jobs are attached.
const LONGEST_START: Duration = Duration::from_secs(600);
/// Time that a Fetch has waited when its line is written.
const BEFORE_LINE: Duration = Duration::from_millis(100);
/// Clients that share a connection.
const CLIENTS_PER_CONNECTION: usize = 100;

/// The program of each job: prints a line, and then each line from a pipe in its folder.
const PROGRAM: &str = "mkfifo wake
echo up
exec cat <> wake
";

/// Names of the figures of one state of the server.
struct Names {
    /// Title of the state, for people.
    state: &'static str,
    cpu: &'static str,
    writes: &'static str,
    disk: &'static str,
    memory: &'static str,
    descriptors: &'static str,
    run: &'static str,
    fetch: &'static str,
    wake: &'static str,
}

const ONE: Names = Names {
    state: "one agent",
    cpu: "live_one_cpu",
    writes: "live_one_writes",
    disk: "live_one_disk",
    memory: "live_one_memory",
    descriptors: "live_one_descriptors",
    run: "live_one_run",
    fetch: "live_one_fetch",
    wake: "live_one_wake",
};

const MANY: Names = Names {
    state: "agents",
    cpu: "live_agents_cpu",
    writes: "live_agents_writes",
    disk: "live_agents_disk",
    memory: "live_agents_memory",
    descriptors: "live_agents_descriptors",
    run: "live_agents_run",
    fetch: "live_agents_fetch",
    wake: "live_agents_wake",
};

const WAITED_FOR: Names = Names {
    state: "agents and as many clients",
    cpu: "live_clients_cpu",
    writes: "live_clients_writes",
    disk: "live_clients_disk",
    memory: "live_clients_memory",
    descriptors: "live_clients_descriptors",
    run: "live_clients_run",
    fetch: "live_clients_fetch",
    wake: "live_clients_wake",
};

/// All three states, one after the other.
pub async fn all(folder: &Path, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut fleet = Fleet::start(folder).await?;
    fleet.grow_to(1).await?;
    let mut measured = fleet.measure(scale, &ONE, None).await?;
    fleet.grow_to(scale.agents).await?;
    measured.extend(fleet.measure(scale, &MANY, Some(&ONE)).await?);
    let clients = fleet.wait_for_all().await?;
    measured.extend(fleet.measure(scale, &WAITED_FOR, Some(&MANY)).await?);
    drop(clients);
    fleet.end()?;
    Ok(measured)
}

/// A server with jobs, each with its agent.
struct Fleet {
    server: Server,
    client: Client,
    state_dir: PathBuf,
    jobs: Vec<Token>,
    agents: Agents,
    dir: TempDir,
}

impl Fleet {
    async fn start(folder: &Path) -> anyhow::Result<Self> {
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
        Ok(Self { server, client, state_dir: setup.state_dir, jobs: Vec::new(), agents, dir })
    }

    /// Runs jobs up to this number, and waits until each has its agent.
    async fn grow_to(&mut self, count: usize) -> anyhow::Result<()> {
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

    /// All figures of the server in its present state.
    async fn measure(
        &mut self,
        scale: &Scale,
        names: &Names,
        before: Option<&Names>,
    ) -> anyhow::Result<Vec<Measurement>> {
        let (count, state) = (self.jobs.len(), names.state);
        let what = |what: &str| match count {
            1 => format!("  {what}, {state}"),
            _ => format!("{what}, {count} {state}"),
        };
        let quantity = |name, unit, text: &str, peer: fn(&Names) -> &'static str| {
            let quantity = Measurement::new(name, unit, what(text));
            match before {
                Some(before) => quantity.beside(peer(before)),
                None => quantity,
            }
        };
        let mut cpu = quantity(names.cpu, "% core", "server: time, idle", |it| it.cpu);
        let mut writes = quantity(names.writes, "calls/s", "server: writes", |it| it.writes);
        let mut disk = quantity(names.disk, "kB/s", "server: writes to disk", |it| it.disk);
        let mut memory = quantity(names.memory, "MB", "server: memory", |it| it.memory);
        let mut files = quantity(names.descriptors, "files", "server: open files", |it| it.descriptors);
        let mut fetch = quantity(names.fetch, "ms", "Fetch of what is there", |it| it.fetch);
        let mut wake = quantity(names.wake, "ms", "line written → a Fetch that waits has it", |it| it.wake);
        let mut run = quantity(names.run, "ms", "Run → token", |it| it.run);

        tokio::time::sleep(REST).await;
        let pid = u32::try_from(self.server.pid().as_raw())?;
        let rates = Usage::over(pid, scale.idle_time).await?;
        cpu.add(rates.cpu_percent);
        writes.add(rates.write_calls);
        disk.add(rates.disk_kilobytes);
        memory.add(self.server.resident_bytes()? as f64 / 1e6);
        files.add(self.server.open_descriptors()? as f64);
        for number in 0..scale.live_calls {
            let job = self.jobs[number % self.jobs.len()].clone();
            let page = fetch.clock(self.client.api.fetch(at(&job, 0))).await?.into_inner();
            ensure!(!page.results.is_empty(), "there was nothing to read");
            tokio::time::sleep(PACE).await;
        }
        for number in 0..scale.live_calls.min(100) {
            let job = self.jobs[number % self.jobs.len()].clone();
            wake.add_since(self.wake(job).await?);
        }
        // Each starts an agent, so these come last.
        for _ in 0..scale.live_calls {
            self.jobs.push(run.clock(self.client.run(STEP)).await?);
            tokio::time::sleep(PACE).await;
        }
        Ok(vec![cpu, writes, disk, memory, files, run, fetch, wake])
    }

    /// Waits for a job's next line, with a Fetch that was sent before. Returns when the line was written.
    async fn wake(&mut self, job: Token) -> anyhow::Result<Instant> {
        let mut cursor = at(&job, 0);
        let waiting = loop {
            let mut api = self.client.api.clone();
            let waiting = tokio::spawn(async move { api.fetch(cursor).await });
            tokio::time::sleep(BEFORE_LINE).await;
            if !waiting.is_finished() {
                break waiting;
            }
            cursor = waiting.await??.into_inner().next.context("the job goes on")?;
        };
        let pipe = self.state_dir.join("run").join(&job.job_id).join("0-1/workspace/wake");
        let mut pipe = File::options().write(true).open(&pipe).with_context(|| pipe.display().to_string())?;
        let begin = Instant::now();
        pipe.write_all(b"woken\n")?;
        let page = waiting.await??.into_inner();
        let is_line = |it: &sqlflow_proto::v1::Response| matches!(it.response, Some(Payload::Log(_)));
        ensure!(page.results.iter().any(is_line), "the line did not come: {page:?}");
        Ok(begin)
    }

    /// Follows each job with a client, as `sqlflowctl` does, until the return value is dropped.
    async fn wait_for_all(&self) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
        let mut clients = JoinSet::new();
        for jobs in self.jobs.chunks(CLIENTS_PER_CONNECTION) {
            let client = self.server.client().await?;
            for job in jobs {
                let (mut api, mut cursor) = (client.api.clone(), at(job, 0));
                clients.spawn(async move {
                    loop {
                        let page = api.fetch(cursor).await?.into_inner();
                        cursor = page.next.context("the job goes on")?;
                    }
                });
            }
        }
        Ok(clients)
    }

    fn end(self) -> anyhow::Result<()> {
        self.server.stop()?;
        drop(self.agents);
        Ok(self.dir.close()?)
    }
}

fn script(folder: &TempDir, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.path().join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn at(token: &Token, cursor: u64) -> Token {
    Token { token: format!("{}.{cursor}", token.token), ..token.clone() }
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
