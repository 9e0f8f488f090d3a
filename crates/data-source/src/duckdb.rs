//! Data sources of DuckDB. A data process in Python reads them, since a static program cannot load DuckDB's library.

use std::path::{Path, PathBuf};

use crate::{DataSourceError, sqlite_mode};

const FORM: &str = "duckdb:////absolute/path/to/file.duckdb";
const SCHEME: &str = "duckdb://";

/// Whether it has DuckDB's scheme. Its form may be wrong.
#[must_use]
pub fn is_duckdb(data_source: &str) -> bool {
    data_source.starts_with(SCHEME)
}

/// The file of a DuckDB data source: always absolute. `None`: a database in memory, or not DuckDB.
#[must_use]
pub fn duckdb_path(data_source: &str) -> Option<PathBuf> {
    let path = data_source.strip_prefix(SCHEME)?.split('?').next()?.trim_start_matches('/');
    (!path.is_empty() && path != ":memory:").then(|| Path::new("/").join(path))
}

/// The file of a data source, and its write-ahead log.
pub(crate) fn files(data_source: &str) -> Vec<PathBuf> {
    let Some(file) = duckdb_path(data_source) else { return Vec::new() };
    let mut log = file.clone().into_os_string();
    log.push(".wal");
    vec![file, log.into()]
}

/// Checks what follows the scheme. Without a path, the database is in memory.
pub(crate) fn check(rest: &str) -> Result<(), DataSourceError> {
    let path = rest.split('?').next().unwrap_or_default();
    if !path.is_empty() && !path.starts_with('/') {
        return Err(DataSourceError::Malformed { form: FORM });
    }
    // The modes are those of SQLite's files.
    sqlite_mode(rest).map(drop).ok_or(DataSourceError::DuckdbOption)
}

#[cfg(test)]
mod tests {
    use sqlflow_sql::Dialect;

    use super::*;
    use crate::{Sockets, check_of_client, database_file, dialect, local_paths};

    #[test]
    fn file_or_memory() {
        for (text, path) in [
            ("duckdb://", None),
            ("duckdb:///:memory:", None),
            ("duckdb:////data/iris.duckdb?mode=ro", Some("/data/iris.duckdb")),
            ("duckdb:///data/iris.duckdb", Some("/data/iris.duckdb")),
        ] {
            assert_eq!(dialect(text), Ok(Dialect::Postgresql), "{text}");
            assert!(is_duckdb(text));
            let path = path.map(PathBuf::from);
            assert_eq!(duckdb_path(text), path, "{text}");
            assert_eq!(database_file(text), path, "{text}");
            assert_eq!(local_paths(text).first(), path.as_ref(), "{text}");
            assert_eq!(check_of_client(text, Sockets::Refused), Ok(()), "{text}");
        }
        let files = ["/data/a.duckdb", "/data/a.duckdb.wal"].map(PathBuf::from);
        assert_eq!(local_paths("duckdb:////data/a.duckdb?mode=rwc"), files);
        assert_eq!(database_file("sqlite:////data/a.db"), Some("/data/a.db".into()));
        assert_eq!(database_file("sqlite:///:memory:"), None);
        assert_eq!(database_file("mysql://u:p@tcp(h:1)/d"), None);
    }

    #[test]
    fn other_forms_and_options_are_refused() {
        assert_eq!(dialect("duckdb://iris.duckdb"), Err(DataSourceError::Malformed { form: FORM }));
        for text in ["duckdb:////a.duckdb?access_mode=x", "duckdb://?mode=hunter2"] {
            assert_eq!(dialect(text), Err(DataSourceError::DuckdbOption), "{text}");
        }
    }
}
