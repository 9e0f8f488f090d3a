//! Many jobs at once: the cost of an attached idle agent and of a waiting client for the server, and the latency of Run
//! and Fetch meanwhile. The same server is measured with one job, with many, and with a client for each of these.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sqlflow_proto::v1::Token;
use sqlflow_tests::stand_in::STEP;
use tokio::task::JoinSet;

use crate::arguments::Scale;
use crate::fetch::at;
use crate::fleet::{Fleet, has_line};
use crate::measure::Measurement;
use crate::usage::Usage;

/// Time for the work of starting agents, or of earlier calls, to end.
const REST: Duration = Duration::from_secs(10);
/// Pause between two measured calls, so that they do not queue behind each other's work.
const PACE: Duration = Duration::from_millis(20);
/// Time that a Fetch has waited when its line is written.
const BEFORE_LINE: Duration = Duration::from_millis(100);
/// Clients that share a connection.
const CLIENTS_PER_CONNECTION: usize = 100;

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

impl Fleet {
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
        let begin = self.write_line(&job)?;
        let page = waiting.await??.into_inner();
        ensure!(has_line(&page), "the line did not come: {page:?}");
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
}
