//! Many small jobs: the server's cost of one. SELECT 1 with the real data process, some at a time, on a new state. Also
//! the latency of Run in a burst.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use sqlflow_proto::v1::job_status::Code;
use sqlflow_tests::client::Client;
use sqlflow_tests::python;
use sqlflow_tests::server::Server;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::agent;
use crate::arguments::Scale;
use crate::measure::{Measurement, millis};
use crate::peers::{self, Disk};
use crate::tell;
use crate::usage::Usage;

/// Clients, each with one job at a time.
pub const CLIENTS: u32 = 4;
/// Programs of a burst.
const BURST: u32 = 50;
/// Warm-up jobs, after which the server's threads and caches exist.
const WARM_UP: u32 = 50;

/// All figures.
pub async fn all(folder: &Path, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let dir = TempDir::new_in(folder.canonicalize()?)?;
    let setup = agent::setup(dir.path(), python::iris(&dir.path().join("data.db"))?)?;
    let server = setup.start()?;
    run_jobs(&server, CLIENTS, WARM_UP).await?;
    let mut measured = many(&server, &setup.state_dir, scale).await?;
    measured.extend(burst(&server, dir.path(), scale).await?);
    server.stop()?;
    dir.close()?;
    Ok(measured)
}

async fn many(server: &Server, state_dir: &Path, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut rate =
        Measurement::new("small_jobs_rate", "jobs/s", format!("jobs of SELECT 1, {CLIENTS} clients"))
            .beside("small_jobs_python");
    let mut starts =
        Measurement::new("small_jobs_python", "starts/s", "  Python + submitter library, one per core");
    let mut cpu = Measurement::new("small_jobs_cpu", "ms/job", "server: time");
    let mut syncs = Measurement::new("small_jobs_syncs", "syncs/job", "server: fsync and fdatasync");
    let mut disk = Measurement::new("small_jobs_disk", "kB/job", "server: disk");
    let mut files = Measurement::new("small_jobs_files", "files/job", "server: files and folders");
    let mut memory = Measurement::new("small_jobs_memory", "kB/job", "server: memory of ended jobs");

    let pid = u32::try_from(server.pid().as_raw())?;
    for _ in 0..scale.bursts {
        let (before, space, resident) = (Usage::of(pid)?, Space::of(state_dir)?, server.resident_bytes()?);
        let begin = Instant::now();
        run_jobs(server, CLIENTS, scale.small_jobs).await?;
        let jobs = f64::from(scale.small_jobs);
        rate.add(jobs / begin.elapsed().as_secs_f64());
        cpu.add(Usage::of(pid)?.cpu_seconds_since(&before) * 1e3 / jobs);
        let after = Space::of(state_dir)?;
        disk.add((after.bytes as f64 - space.bytes as f64) / 1e3 / jobs);
        files.add((after.entries as f64 - space.entries as f64) / jobs);
        memory.add((server.resident_bytes()? as f64 - resident as f64) / 1e3 / jobs);
        let counted = scale.small_jobs.min(200);
        if let Some(count) = count_syncs(pid, run_jobs(server, CLIENTS, counted)).await? {
            syncs.add(count / f64::from(counted));
        }
        starts.add(peers::python_starts_per_second(scale.trainings)?);
    }
    Ok(vec![rate, starts, cpu, syncs, disk, files, memory])
}

/// Runs `count` jobs to their ends, which must be successes, from so many clients with one job at a time each.
pub async fn run_jobs(server: &Server, clients: u32, count: u32) -> anyhow::Result<()> {
    let begun = Arc::new(AtomicU32::new(0));
    let mut running: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for _ in 0..clients {
        let (mut client, begun) = (server.client().await?, Arc::clone(&begun));
        running.spawn(async move {
            loop {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(());
                }
                run_one(&mut client, number).await?;
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

async fn run_one(client: &mut Client, number: u32) -> anyhow::Result<()> {
    let token = client.run(format!("SELECT {number}")).await?;
    let ended = client.follow(&token).await?;
    ensure!(ended.status.code() == Code::Succeeded, "the job failed: {}", ended.status.message);
    Ok(())
}

/// Programs that arrive at once, compared with one durable block of the disk.
async fn burst(server: &Server, dir: &Path, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut token_time =
        Measurement::time("burst_run_to_token", format!("Run → token, {BURST} at the same time"))
            .beside("burst_fdatasync");
    let mut sync = Measurement::time("burst_fdatasync", "  4 KiB made durable on the same disk");
    let mut disk = Disk::new(dir)?;
    for _ in 0..scale.bursts {
        let client = server.client().await?;
        let mut calls = JoinSet::new();
        for number in 0..BURST {
            let mut client = client.clone();
            calls.spawn(async move {
                let begin = Instant::now();
                let token = client.run(format!("SELECT {number}")).await?;
                Ok::<_, tonic::Status>((token, millis(begin.elapsed())))
            });
        }
        let mut tokens = Vec::new();
        while let Some(called) = calls.join_next().await {
            let (token, millis) = called??;
            token_time.add(millis);
            tokens.push(token);
        }
        for token in tokens {
            client.clone().follow(&token).await?;
        }
        for _ in 0..20 {
            sync.clock(async { disk.sync_block() }).await?;
        }
    }
    Ok(vec![token_time, sync])
}

/// Disk usage of a folder.
pub struct Space {
    pub bytes: u64,
    /// Files and folders.
    pub entries: u64,
}

impl Space {
    pub fn of(dir: &Path) -> anyhow::Result<Self> {
        let mut space = Self { bytes: 0, entries: 0 };
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            // A run folder may go meanwhile.
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                space.entries += 1;
                // Always of this size, whatever the file system's blocks are.
                space.bytes += metadata.blocks() * 512;
                if metadata.is_dir() {
                    dirs.push(entry.path());
                }
            }
        }
        Ok(space)
    }
}

/// Number of syncs of the process during the work; `None` if this machine cannot count them.
async fn count_syncs(
    pid: u32,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Option<f64>> {
    const EVENTS: &str = "syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync";
    let counter = Command::new("perf")
        .args(["stat", "-x", ",", "-e", EVENTS, "-p", &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut counter) = counter else {
        tell("no perf: syncs are not counted");
        return Ok(None);
    };
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    if counter.try_wait()?.is_some() {
        tell("perf may not count here: syncs are not counted");
        return Ok(None);
    }
    work.await?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(counter.id())?),
        nix::sys::signal::Signal::SIGINT,
    )?;
    let said = counter.wait_with_output()?.stderr;
    let counts = String::from_utf8_lossy(&said).lines().map(first_number).sum::<Option<f64>>();
    Ok(Some(counts.context("perf tells numbers")?))
}

/// The first field of a line of `perf stat -x,`.
fn first_number(line: &str) -> Option<f64> {
    line.split(',').next()?.parse().ok()
}
