//! Rows per second, and the cost of many rows in memory and on disk.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use sqlflow_proto::v1::response::Response;
use sqlflow_proto::v1::{Result as Page, Token};
use sqlflow_tests::client::{Client, is_over};

use crate::measure::Measurement;
use crate::peers;
use crate::world::{World, follow};

const SELECT: &str = "SELECT * FROM large";
const MIB: f64 = 1024.0 * 1024.0;

/// The large table as a job, compared with Python's own driver, and what remains in memory and on disk.
pub async fn all(world: &mut World) -> anyhow::Result<Vec<Measurement>> {
    let what = format!("{SELECT}, {} rows × 4", world.scale.rows);
    let mut rate = Measurement::new("rows_per_second", "rows/s", what).beside("rows_python");
    let mut python = Measurement::new("rows_python", "rows/s", "  sqlite3's fetchall in Python");
    let mut memory = Measurement::new("server_memory", "MiB", "server's memory after that");
    let mut log = Measurement::new("log_bytes_per_row", "bytes", "result log per row");
    let mut last = Token::default();
    for _ in 0..world.scale.selects {
        world.rest().await;
        let begin = Instant::now();
        last = select(&mut world.client, SELECT, world.scale.rows).await?;
        rate.add(per_second(world.scale.rows.into(), begin));
        memory.add(world.server.resident_bytes()? as f64 / MIB);
        log.add(log_bytes(&world.state_dir, &last.job_id)? as f64 / f64::from(world.scale.rows));
        python.add(peers::fetch_all(&world.data, SELECT)?);
    }
    let mut all = vec![rate, python];
    all.extend(read_again(world, last).await?);
    all.extend([memory, log]);
    Ok(all)
}

/// Runs a select, and decodes all values at the client: numbers in vectors, texts in one buffer for each column.
pub async fn select(client: &mut Client, sql: &str, expected: u32) -> anyhow::Result<Token> {
    let token = client.run(sql).await?;
    let mut rows = 0;
    let mut malformed = None;
    follow(client, &token, |page| match decoded_rows(page) {
        Ok(count) => rows += count,
        Err(error) => malformed = Some(error),
    })
    .await?;
    malformed.map_or(Ok(()), Err)?;
    ensure!(rows == u64::from(expected), "{rows} rows came");
    Ok(token)
}

/// Reads the result of an ended job, page by page.
async fn read_again(world: &mut World, token: Token) -> anyhow::Result<[Measurement; 3]> {
    let mut time = Measurement::time("fetch_full_page", "Fetch of a full page").beside("bare_call");
    let mut page_rows = Measurement::new("page_rows", "rows", "  rows in a page");
    let mut rate =
        Measurement::new("rows_again", "rows/s", "the same job's rows, fetched again").beside("rows_python");
    let (begin, mut rows) = (Instant::now(), 0);
    let mut cursor = Token { token: format!("{}.0", token.token), ..token };
    loop {
        let fetched = Instant::now();
        let page = world.client.api.fetch(cursor).await?.into_inner();
        let count = decoded_rows(&page)?;
        rows += count;
        if is_over(&page.job_status.clone().unwrap_or_default()) {
            break;
        }
        // The last page is not full, so it tells nothing.
        time.add_since(fetched);
        page_rows.add(count as f64);
        cursor = page.next.context("a page that does not end the log has a successor")?;
    }
    rate.add(per_second(rows, begin));
    Ok([rate, time, page_rows])
}

/// Rate of something that began then and ends now.
pub fn per_second(count: u64, begin: Instant) -> f64 {
    count as f64 / begin.elapsed().as_secs_f64()
}

/// Decodes the rows of a page. Returns their number.
fn decoded_rows(page: &Page) -> anyhow::Result<u64> {
    let mut count = 0;
    for result in &page.results {
        if let Some(Response::Rows(rows)) = &result.response {
            // Otherwise the compiler could leave out what is not used.
            count += u64::from(black_box(rows.decoded()?).count);
        }
    }
    Ok(count)
}

/// Bytes of all files in the job's folder of the result log, which is named after the job.
fn log_bytes(state_dir: &Path, job_id: &str) -> anyhow::Result<u64> {
    let shards = entries(&state_dir.join("log"))?;
    let folder = shards.iter().map(|shard| shard.join(job_id)).find(|folder| folder.is_dir());
    let files = entries(&folder.context("the job has no result log")?)?;
    files.iter().map(|file| Ok(std::fs::metadata(file)?.len())).sum()
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}
