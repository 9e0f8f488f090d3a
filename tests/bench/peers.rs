//! Limits of this machine, and the alternatives that people would use instead.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::thread::{self, available_parallelism};
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use sqlflow_proto::v1::GetJobRequest;
use sqlflow_tests::client::Client;
use sqlflow_tests::python;
use tonic::Code;

/// The least that a database must write to keep a job.
const BLOCK: [u8; 4096] = [7; 4096];

/// A file that grows by durable blocks.
pub struct Disk(File);

impl Disk {
    /// A new file in this folder.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self(File::create(dir.join("blocks"))?))
    }

    /// Writes a block and waits until it is durable (fdatasync).
    pub fn sync_block(&mut self) -> anyhow::Result<()> {
        self.0.write_all(&BLOCK)?;
        Ok(self.0.sync_data()?)
    }
}

/// A call that the server answers without a look-up.
pub async fn bare_call(client: &mut Client) -> anyhow::Result<()> {
    let answer = client.api.get_job(GetJobRequest::default()).await;
    let refusal = answer.err().context("a request that names no job was answered")?;
    anyhow::ensure!(refusal.code() == Code::InvalidArgument, "{refusal}");
    Ok(())
}

/// Starts Python and waits for its end.
pub fn bare_python() -> anyhow::Result<()> {
    python::run("print(1)", &[]).map(drop)
}

/// Starts Python with the submitter's library.
pub fn python_with_submitter() -> anyhow::Result<()> {
    python::run("import sqlflow_submitter; print(1)", &[]).map(drop)
}

/// Starts of Python with the submitter's library per second, `count` of them on each core.
pub fn python_starts_per_second(count: u32) -> anyhow::Result<f64> {
    let cores = available_parallelism()?.get();
    let begin = Instant::now();
    let start_all = move || (0..count).try_for_each(|_| python_with_submitter());
    let threads: Vec<_> = (0..cores).map(|_| thread::spawn(start_all)).collect();
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    Ok(f64::from(count) * cores as f64 / begin.elapsed().as_secs_f64())
}

const FETCH_ALL: &str = "
import sqlite3, sys, time
begin = time.perf_counter()
rows = sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall()
print(len(rows) / (time.perf_counter() - begin))
";

/// Rows per second of Python's own driver, all in one list; Python's start is not counted.
pub fn fetch_all(file: &Path, sql: &str) -> anyhow::Result<f64> {
    let path = file.to_str().context("the path is text")?;
    Ok(python::run(FETCH_ALL, &[path, sql])?.trim().parse()?)
}
