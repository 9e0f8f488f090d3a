//! How connections to the file are opened.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// How long a write waits for one of another process. That one may be stopped, and must not stop this one.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// What a connection keeps of the file in memory, in KiB. What is read is small and was written a moment ago, so it is in the
/// system's cache anyway.
const CACHE_KIB: i64 = 512;
/// Statements that a connection keeps prepared; there are fewer.
const STATEMENTS: usize = 64;

/// A connection that writes. The file is made if it is not there.
pub(super) fn open_to_write(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A job that Run has answered for survives a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    // One thread at a time has it.
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    // Savepoints and sorting need no temporary files: a container may have no folder for them.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}
