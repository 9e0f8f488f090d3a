//! Migration of the state file to the version that this server knows, and detection of a file's version.
//!
//! The table of applied migrations is that of the library that earlier servers used (sqlx). So they refuse a file with
//! a version that they do not know, and this server knows their versions.

use std::path::Path;

use rusqlite::{Connection, params};
use sha2::{Digest as _, Sha384};

use super::survey::SurveyError;
use crate::Membership;
use crate::types::ServerId;

/// One step from a version to the next.
struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 8] = [
    Migration { version: 1, name: "jobs", sql: include_str!("../migrations/0001_jobs.sql") },
    Migration { version: 2, name: "servers", sql: include_str!("../migrations/0002_servers.sql") },
    Migration { version: 3, name: "revisions", sql: include_str!("../migrations/0003_revisions.sql") },
    Migration { version: 4, name: "shifts", sql: include_str!("../migrations/0004_shifts.sql") },
    Migration { version: 5, name: "small logs", sql: include_str!("../migrations/0005_small_logs.sql") },
    Migration { version: 6, name: "cancelled", sql: include_str!("../migrations/0006_cancelled.sql") },
    Migration { version: 7, name: "principals", sql: include_str!("../migrations/0007_principals.sql") },
    Migration { version: 8, name: "secret keys", sql: include_str!("../migrations/0008_secret_keys.sql") },
];

/// From this version on the file has logs of jobs, which older servers do not know.
const SMALL_LOGS: i64 = 5;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
)";

impl Migration {
    fn checksum(&self) -> Vec<u8> {
        Sha384::digest(self.sql).to_vec()
    }
}

/// Version of a file.
pub(super) struct Versions {
    /// The newest applied version.
    pub(super) newest: i64,
    /// The first version that differs from the one that this program knows by its number.
    pub(super) other: Option<i64>,
}

/// The newest version that this program knows.
pub(super) fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, |it| it.version)
}

/// The migrations that were applied to this file, which must have the table.
pub(super) fn versions(connection: &Connection) -> rusqlite::Result<Versions> {
    let mut applied =
        connection.prepare("SELECT version, checksum FROM _sqlx_migrations ORDER BY version")?;
    let applied = applied.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let applied = applied.collect::<rusqlite::Result<Vec<(i64, Vec<u8>)>>>()?;
    let newest = applied.last().map_or(0, |(version, _)| *version);
    let is_there = |it: &Migration| applied.contains(&(it.version, it.checksum()));
    let other = MIGRATIONS.iter().find(|it| it.version <= newest && !is_there(it));
    Ok(Versions { newest, other: other.map(|it| it.version) })
}

/// Migrates the file; `path` is for errors. The caller holds the lock for migrations.
pub(super) fn run(connection: &mut Connection, path: &Path) -> Result<(), SurveyError> {
    run_to(connection, path, newest())
}

/// Migrates the file up to a version, as an older server would.
pub(super) fn run_to(connection: &mut Connection, path: &Path, last: i64) -> Result<(), SurveyError> {
    connection.execute_batch(TABLE)?;
    let Versions { newest: found, other } = versions(connection)?;
    let (path, known) = (path.to_owned(), newest());
    if found > known {
        return Err(SurveyError::Newer { path, found, known });
    }
    if let Some(version) = other {
        return Err(SurveyError::Other { path, version });
    }
    if (1..SMALL_LOGS).contains(&found)
        && last >= SMALL_LOGS
        && let Some(server) = live_server(&path)
    {
        return Err(SurveyError::InUse { path, to: last, server });
    }
    for migration in MIGRATIONS.iter().filter(|it| (found + 1..=last).contains(&it.version)) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration.sql)?;
        transaction.execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (?, ?, TRUE, ?, -1)",
            params![migration.version, migration.name, migration.checksum()],
        )?;
        transaction.commit()?;
    }
    Ok(())
}

/// A server that runs on this file, which holds a lock beside it for its whole life. A server that was stopped for long
/// is no longer in the file's own list.
fn live_server(path: &Path) -> Option<String> {
    let dir = path.parent()?.join("servers");
    let names = std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let servers = names.filter_map(|name| Some(ServerId(name.to_str()?.strip_suffix(".lock")?.to_owned())));
    // A server whose lock cannot be queried counts as running.
    servers.into_iter().find(|it| Membership::is_held(&dir, it).unwrap_or(true)).map(|server| server.0)
}

/// A file as a server of this version made it.
#[cfg(test)]
pub(crate) fn older_file(path: &Path, version: i64) -> Connection {
    let mut connection = Connection::open(path).unwrap();
    run_to(&mut connection, path, version).unwrap();
    connection
}
