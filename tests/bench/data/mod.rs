//! The work that the product is for, at scale, beside the scripts that a person would write in its place: TRAIN, PREDICT
//! and SELECT of a million rows in each database, and SELECT 1. Peers run in turn with ours, in an environment of Python
//! of their own (`requirements-bench.txt`), and each starts as it starts for a user: its imports count.

mod database;
mod memory;

mod script;
mod selects;
mod start;
mod train_predict;

use std::path::Path;

use sqlflow_tests::client::Client;
use sqlflow_tests::server::Server;
use tempfile::TempDir;

use self::database::Database;
use crate::arguments::Scale;
use crate::measure::Measurement;
use crate::{agent, tell};

/// All figures.
pub async fn all(folder: &Path, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    if !nix::unistd::Uid::effective().is_root() {
        tell("not root: the memory of jobs is not measured, because that of a data process is closed");
    }
    let mut measured = Vec::new();
    for start in [Database::sqlite, Database::mariadb, Database::postgresql] {
        let mut ours = Ours::start(folder, start, scale.rows).await?;
        measured.extend(train_predict::all(&mut ours, scale).await?);
        measured.extend(selects::all(&mut ours, scale).await?);
        if matches!(ours.database, Database::Sqlite(_)) {
            measured.extend(start::all(&mut ours, scale).await?);
        }
        ours.end()?;
    }
    Ok(measured)
}

/// TRAIN alone.
pub async fn trainings(folder: &Path, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut measured = Vec::new();
    for start in [Database::sqlite, Database::mariadb, Database::postgresql] {
        let mut ours = Ours::start(folder, start, scale.rows).await?;
        measured.extend(train_predict::trainings(&mut ours, scale).await?);
        ours.end()?;
    }
    Ok(measured)
}

/// SELECTs alone.
pub async fn selects(folder: &Path, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut measured = Vec::new();
    for start in [Database::sqlite, Database::postgresql] {
        let mut ours = Ours::start(folder, start, scale.rows).await?;
        measured.extend(selects::all(&mut ours, scale).await?);
        ours.end()?;
    }
    Ok(measured)
}

/// A database with the tables, and a server for it.
struct Ours {
    database: Database,
    server: Server,
    client: Client,
    dir: TempDir,
}

impl Ours {
    async fn start(folder: &Path, start: fn(&Path) -> Database, rows: u32) -> anyhow::Result<Self> {
        let dir = TempDir::new_in(folder.canonicalize()?)?;
        let database = start(dir.path());
        tell(&format!("{}: loading {rows} rows three times", database.title()));
        script::load(&database, rows, dir.path())?;
        let server = agent::setup(dir.path(), database.dsn())?.start()?;
        let client = server.client().await?;
        Ok(Self { database, server, client, dir })
    }

    fn end(self) -> anyhow::Result<()> {
        self.server.stop()?;
        self.database.end();
        Ok(self.dir.close()?)
    }
}
