//! Fetch: latency of existing results, and cost of a Fetch without results.

use anyhow::ensure;
use sqlflow_proto::v1::{ListJobsRequest, Token};

use crate::measure::Measurement;
use crate::peers;
use crate::world::World;

/// A SELECT of one row makes four records (started, head, rows, ended), so this many make a hundred.
pub const STATEMENTS: usize = 25;
/// A statement that runs without output for longer than all Fetches that wait for it.
const SILENT: &str = "
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers)
SELECT count(*) FROM numbers";

/// Fetches of all kinds.
pub async fn all(world: &mut World) -> anyhow::Result<Vec<Measurement>> {
    let token = world.run_to_end("SELECT 1;".repeat(STATEMENTS)).await?;
    let mut measured = of_a_finished_job(world, &token).await?;
    measured.push(of_a_silent_job(world).await?);
    Ok(measured)
}

async fn of_a_finished_job(world: &mut World, token: &Token) -> anyhow::Result<Vec<Measurement>> {
    let mut page_time = Measurement::time("fetch_100", "Fetch of 100 results").beside("bare_call");
    let mut nothing =
        Measurement::time("fetch_nothing", "Fetch of nothing new, job over").beside("bare_call");
    let mut listing = Measurement::time("list_one", "ListJobs of one job").beside("bare_call");
    let mut bare = Measurement::time("bare_call", "  call that looks nothing up");
    let api = &mut world.client.api.clone();
    for _ in 0..world.scale.fetches {
        let page = page_time.clock(api.fetch(at(token, 0))).await?.into_inner();
        ensure!(page.results.len() >= 100, "a page holds only {} results", page.results.len());
        let end = page.results.last().map_or(0, |result| result.position);
        let page = nothing.clock(api.fetch(at(token, end))).await?.into_inner();
        ensure!(page.results.is_empty(), "the first page did not hold all");
        listing.clock(api.list_jobs(ListJobsRequest { page_size: 1, ..Default::default() })).await?;
        bare.clock(peers::bare_call(&mut world.client)).await?;
    }
    Ok(vec![page_time, nothing, listing, bare])
}

/// The token with this cursor.
pub fn at(token: &Token, cursor: u64) -> Token {
    Token { token: format!("{}.{cursor}", token.token), ..token.clone() }
}

/// The server holds such a Fetch back for a second.
async fn of_a_silent_job(world: &mut World) -> anyhow::Result<Measurement> {
    let mut wait = Measurement::time("fetch_waits", "Fetch of nothing new, job at work");
    let api = &mut world.client.api.clone();
    let mut cursor = world.client.run(SILENT).await?;
    while wait.count() < world.scale.waits as usize {
        let page = wait.clock(api.fetch(cursor.clone())).await?.into_inner();
        if !page.results.is_empty() {
            // It was only starting.
            wait = Measurement::time(wait.name, wait.what);
        }
        let Some(next) = page.next else { anyhow::bail!("the silent job ended: {:?}", page.job_status) };
        cursor = next;
    }
    api.cancel(cursor).await?;
    Ok(wait)
}
