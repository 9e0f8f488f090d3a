//! The system under test: a server on a new state, with one SQLite file of data.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use sqlflow_proto::v1::{Result as Page, Token, job_status::Code};
use sqlflow_tests::client::{Client, is_over};
use sqlflow_tests::python;
use sqlflow_tests::server::Server;
use tempfile::TempDir;

use crate::agent;
use crate::arguments::Scale;

/// Timeout of a job.
const LONGEST_JOB: Duration = Duration::from_secs(300);
/// Time for the agent of an ended job to exit, so that the next job finds an idle machine.
const REST: Duration = Duration::from_millis(50);

const MAKE_LARGE_TABLE: &str = "
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
with connection:
    connection.execute('CREATE TABLE large (id INTEGER, amount INTEGER, price REAL, name TEXT)')
    rows = ((n, n * 7919 % 100003, n / 64, f'item {n}') for n in range(int(sys.argv[2])))
    connection.executemany('INSERT INTO large VALUES (?, ?, ?, ?)', rows)
";

/// The environment of the measurements.
pub struct World {
    /// How much is measured.
    pub scale: Scale,
    /// The server.
    pub server: Server,
    /// An open connection.
    pub client: Client,
    /// The SQLite file with the tables `iris` and `large`.
    pub data: PathBuf,
    /// The server's `--state-dir`.
    pub state_dir: PathBuf,
    dir: TempDir,
}

impl World {
    /// Creates the data and starts the server, in a new folder below `parent`.
    pub async fn make(parent: &Path, scale: Scale) -> anyhow::Result<Self> {
        let dir = TempDir::new_in(parent.canonicalize()?)?;
        let data = dir.path().join("data.db");
        let datasource = python::iris(&data)?;
        let file = data.to_str().context("the path is text")?;
        python::run(MAKE_LARGE_TABLE, &[file, &scale.rows.to_string()])?;
        let setup = agent::setup(dir.path(), datasource)?;
        let server = setup.start()?;
        let client = server.client().await?;
        Ok(Self { scale, server, client, data, state_dir: setup.state_dir, dir })
    }

    /// The folder of server and data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Stops the server and removes everything.
    pub fn end(self) -> anyhow::Result<()> {
        self.server.stop()?;
        Ok(self.dir.close()?)
    }

    /// [`follow`], as this world's client.
    pub async fn follow(&mut self, token: &Token, seen: impl FnMut(&Page)) -> anyhow::Result<()> {
        follow(&mut self.client, token, seen).await
    }

    /// Runs a program to its end.
    pub async fn run_to_end(&mut self, sql: impl Into<String>) -> anyhow::Result<Token> {
        let token = self.client.run(sql).await?;
        self.follow(&token, |_| {}).await?;
        Ok(token)
    }

    /// Waits until the last job's processes are gone.
    pub async fn rest(&self) {
        tokio::time::sleep(REST).await;
    }
}

/// Fetches a job to its end, which must be a success; `seen` gets each page. There is no pause between Fetches: the
/// server holds one back while there is nothing new.
pub async fn follow(client: &mut Client, token: &Token, mut seen: impl FnMut(&Page)) -> anyhow::Result<()> {
    let deadline = Instant::now() + LONGEST_JOB;
    let mut cursor = token.clone();
    while Instant::now() < deadline {
        let page = client.api.fetch(cursor).await?.into_inner();
        seen(&page);
        let status = page.job_status.unwrap_or_default();
        if is_over(&status) {
            ensure!(status.code() == Code::Succeeded, "the job failed: {}", status.message);
            return Ok(());
        }
        cursor = page.next.context("a page that does not end the log has a successor")?;
    }
    bail!("the job did not end within {LONGEST_JOB:?}")
}
