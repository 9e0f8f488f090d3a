//! Polling: one process whose clients each follow a job of their own, over one connection. The jobs run and are silent,
//! so that the server holds each Fetch back until its wait ends. What counts is a Fetch's time beyond that, and how soon
//! a client has a line of its job. A Fetch that fails ends the measurement.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use sqlflow_proto::v1::Token;
use sqlflow_tests::client::Client;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::arguments::Scale;
use crate::fetch::at;
use crate::fleet::{Fleet, has_line};
use crate::measure::{Goal, Measurement, Relation, Statistic, millis};
use crate::peers;
use crate::usage::Usage;

/// Time that the server holds a Fetch back while there is nothing new.
const WAIT: Duration = Duration::from_secs(1);
/// Goal for the 99th percentile of a Fetch beyond that, in milliseconds.
const BEYOND_WAIT: Goal = Goal::AtMost(50.0);
/// Time until the work of starting the agents is over.
const REST: Duration = Duration::from_secs(10);
/// Time for the first pages, which hold what the jobs printed before.
const FIRST_PAGES: Duration = Duration::from_secs(3);
/// Pause between two calls of another client, and between two lines.
const PACE: Duration = Duration::from_millis(20);
/// Timeout for a line.
const LONGEST_LINE: Duration = Duration::from_secs(30);
/// Distance in the list of jobs between two that print a line.
const STRIDE: usize = 7;

/// A page that a client got.
struct Polled {
    /// Index of the job.
    job: usize,
    /// Duration of the call.
    taken: Duration,
    arrived: Instant,
    is_empty: bool,
    has_line: bool,
}

/// Clients that poll until this is dropped.
struct Clients {
    tasks: JoinSet<anyhow::Result<()>>,
    pages: UnboundedReceiver<Polled>,
}

/// All figures.
pub async fn all(folder: &Path, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let count = scale.polls;
    let mut memory = Measurement::new(
        "polls_memory",
        "MB",
        format!("server: memory, {count} running jobs, as many clients"),
    )
    .beside("polls_memory_jobs");
    let mut memory_of_jobs =
        Measurement::new("polls_memory_jobs", "MB", format!("  server: memory, {count} running jobs"));

    let mut fleet = Fleet::start(folder).await?;
    fleet.grow_to(count).await?;
    tokio::time::sleep(REST).await;
    memory_of_jobs.add(fleet.server.resident_bytes()? as f64 / 1e6);
    let mut clients = Clients::start(&fleet);
    clients.pass(FIRST_PAGES).await;
    let mut measured = waits(&fleet, &mut clients, scale).await?;
    memory.add(fleet.server.resident_bytes()? as f64 / 1e6);
    measured.push(lines(&fleet, &mut clients, scale).await?);
    clients.check()?;
    drop(clients);
    fleet.end()?;
    measured.extend([memory, memory_of_jobs]);
    Ok(measured)
}

/// Times of Fetches that found nothing, beside another client's calls on the same connection.
async fn waits(fleet: &Fleet, clients: &mut Clients, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let count = scale.polls;
    let mut beyond =
        Measurement::time("polls_beyond_wait", format!("Fetch beyond its wait, {count} clients"))
            .compared(Statistic::P99, Relation::Alone, Some(BEYOND_WAIT))
            .compared(Statistic::P99, Relation::RatioTo("polls_bare_call".to_owned()), None);
    let mut rate = Measurement::new("polls_rate", "calls/s", format!("Fetches, {count} clients"));
    let mut cpu = Measurement::new("polls_cpu", "% core", format!("server: time, {count} clients"));

    let pid = u32::try_from(fleet.server.pid().as_raw())?;
    let (used, begin) = (Usage::of(pid)?, Instant::now());
    let bare = tokio::spawn(bare_calls(fleet.client.clone(), scale.idle_time));
    while let Some(left) = scale.idle_time.checked_sub(begin.elapsed()) {
        let Ok(page) = timeout(left, clients.next()).await else { break };
        let page = page?;
        if page.is_empty {
            beyond.add(millis(page.taken) - millis(WAIT));
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    rate.add(beyond.count() as f64 / seconds);
    cpu.add(Usage::of(pid)?.cpu_seconds_since(&used) / seconds * 100.0);
    Ok(vec![beyond, bare.await??, rate, cpu])
}

/// Calls without a look-up, for so long.
async fn bare_calls(mut client: Client, time: Duration) -> anyhow::Result<Measurement> {
    let mut bare = Measurement::time("polls_bare_call", "  call that looks nothing up, meanwhile");
    let begin = Instant::now();
    while begin.elapsed() < time {
        bare.clock(peers::bare_call(&mut client)).await?;
        tokio::time::sleep(PACE).await;
    }
    Ok(bare)
}

/// Time until the client of a job has its next line, while the others poll.
async fn lines(fleet: &Fleet, clients: &mut Clients, scale: &Scale) -> anyhow::Result<Measurement> {
    let count = fleet.jobs.len();
    let mut line =
        Measurement::time("polls_line", format!("line written → its client has it, {count} clients"));
    for number in 0..scale.live_calls {
        let job = number * STRIDE % count;
        let begin = fleet.write_line(&fleet.jobs[job])?;
        let arrived = timeout(LONGEST_LINE, clients.line_of(job)).await;
        let arrived = arrived.with_context(|| format!("no line within {LONGEST_LINE:?}"))??;
        line.add(millis(arrived.duration_since(begin)));
        tokio::time::sleep(PACE).await;
    }
    Ok(line)
}

impl Clients {
    /// A client for each job, all on the connection of the fleet.
    fn start(fleet: &Fleet) -> Self {
        let (seen, pages) = unbounded_channel();
        let mut tasks = JoinSet::new();
        let apart = WAIT / u32::try_from(fleet.jobs.len()).unwrap_or(u32::MAX).max(1);
        for job in 0..fleet.jobs.len() {
            let (client, cursor, seen) = (fleet.client.clone(), at(&fleet.jobs[job], 0), seen.clone());
            // People do not begin together.
            let delay = apart * u32::try_from(job).unwrap_or(u32::MAX);
            tasks.spawn(async move {
                tokio::time::sleep(delay).await;
                poll(client, cursor, job, seen).await
            });
        }
        Self { tasks, pages }
    }

    /// Ignores the pages of some time.
    async fn pass(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
        while self.pages.try_recv().is_ok() {}
    }

    /// The next page of any client.
    async fn next(&mut self) -> anyhow::Result<Polled> {
        self.check()?;
        self.pages.recv().await.context("all clients have ended")
    }

    /// Fails if a client has ended: its Fetch failed.
    fn check(&mut self) -> anyhow::Result<()> {
        let Some(ended) = self.tasks.try_join_next() else { return Ok(()) };
        ended??;
        bail!("a client has ended")
    }

    /// When the client of this job got a line.
    async fn line_of(&mut self, job: usize) -> anyhow::Result<Instant> {
        loop {
            let page = self.next().await?;
            if page.job == job && page.has_line {
                return Ok(page.arrived);
            }
        }
    }
}

/// Fetches from a job as `sqlflowctl` does, for as long as somebody wants the pages.
async fn poll(
    client: Client,
    mut cursor: Token,
    job: usize,
    seen: UnboundedSender<Polled>,
) -> anyhow::Result<()> {
    let mut api = client.api;
    loop {
        let begin = Instant::now();
        let page = api.fetch(cursor).await?.into_inner();
        let (taken, arrived) = (begin.elapsed(), Instant::now());
        let (is_empty, has_line) = (page.results.is_empty(), has_line(&page));
        cursor = page.next.context("the job goes on")?;
        ensure!(
            seen.send(Polled { job, taken, arrived, is_empty, has_line }).is_ok(),
            "nobody wants the pages"
        );
    }
}
