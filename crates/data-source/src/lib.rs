//! Data sources: `Session.db_conn_str`. Only the form is read here; crate sqlflow-database connects.

mod clients;
mod duckdb;
mod mysql;
mod postgresql;
mod reach;
mod step_digest;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sqlflow_sql::Dialect;

pub use clients::{Sockets, check_of_client};
pub use duckdb::{duckdb_path, is_duckdb};
pub use mysql::{MysqlAddress, MysqlSource, MysqlTls, mysql};
pub use postgresql::{
    ChannelBinding, Keepalives, Password, PostgresqlHost, PostgresqlSource, PostgresqlTls, SslMode, SslRoot,
    postgresql,
};
pub use reach::{NamedFile, Reach, Refusal};
pub use step_digest::{STEP_DIGEST, step_digest};

/// The reason to reject a data source. The message does not contain its text, which has a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataSourceError {
    /// Neither the session nor the server has one.
    #[error("no data source; set db_conn_str in the session, such as sqlite:////absolute/path/to/file.db")]
    Missing,
    /// It has no `scheme://`.
    #[error(
        "the data source has no scheme; write sqlite:////absolute/path/to/file.db, mysql://user:password@tcp(host:3306)/database or postgresql://user:password@host:5432/database"
    )]
    NoScheme,
    /// The scheme is not supported.
    #[error("the data source's scheme {0:?} is not supported; use sqlite, duckdb, mysql or postgresql")]
    UnknownScheme(String),
    /// The form is wrong for the scheme.
    #[error("the data source does not have the form of its scheme; write {form}")]
    Malformed {
        /// The form of the scheme.
        form: &'static str,
    },
    /// An option that SQLite data sources do not have.
    #[error(
        "the SQLite data source has an option that is not supported; supported: ?mode=ro, ?mode=rw and ?mode=rwc"
    )]
    SqliteOption,
    /// An option that DuckDB data sources do not have.
    #[error(
        "the DuckDB data source has an option that is not supported; supported: ?mode=ro, ?mode=rw and ?mode=rwc"
    )]
    DuckdbOption,
    /// An option that PostgreSQL data sources do not have.
    #[error("the PostgreSQL data source has the option {0}, which does not exist; see libpq's options")]
    PostgresqlOption(String),
    /// An option of libpq that is not supported.
    #[error("option {0} of the PostgreSQL data source is not supported; leave it out")]
    PostgresqlUnsupported(&'static str),
    /// A value of an option is not supported.
    #[error("option {option} of the PostgreSQL data source must be {expected}")]
    PostgresqlValue {
        /// Name of the option.
        option: &'static str,
        /// What is supported.
        expected: &'static str,
    },
    /// An option requires another one.
    #[error("the PostgreSQL data source has the option {given} without {missing}; add {missing}")]
    PostgresqlOptionMissing {
        /// Name of the option that is missing.
        missing: &'static str,
        /// Name of the option that requires it.
        given: &'static str,
    },
    /// An unknown value of the option `tls` of a MySQL data source.
    #[error(
        "the MySQL data source has an unknown value of the option tls; write tls=true, tls=skip-verify, tls=preferred or tls=false"
    )]
    MysqlTls,
    /// A client's data source has an option with a file, which is the server's user's.
    #[error(
        "the data source of a session names no files of the server, and it has the option {0}; leave it out, or use the \
         name of a data source that the server's operator has set up"
    )]
    FileOfClient(String),
    /// A client's data source has a Unix socket, over which a database knows the server's user.
    #[error(
        "the data source of a session has no Unix socket here: the database would take the client for the server's user; \
         write host and port, or use the name of a data source that the server's operator has set up"
    )]
    SocketOfClient,
}

/// Maximum length of a data source's name.
const MAX_NAME_BYTES: usize = 64;

/// Whether the text may be the name of a data source, which the server's operator gave it. It has no dot, which is in most
/// names of files.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_part)
}

const SQLITE_FORM: &str = "sqlite:////absolute/path/to/file.db";

/// Checks the form of a data source; returns its SQL dialect.
///
/// # Errors
/// See [`DataSourceError`].
pub fn dialect(data_source: &str) -> Result<Dialect, DataSourceError> {
    if data_source.is_empty() {
        return Err(DataSourceError::Missing);
    }
    let (scheme, rest) = data_source.split_once("://").ok_or(DataSourceError::NoScheme)?;
    let check =
        |well_formed: bool, form| if well_formed { Ok(()) } else { Err(DataSourceError::Malformed { form }) };
    match scheme {
        "sqlite" | "sqlite3" => {
            check(rest.starts_with('/') && rest.len() > 1, SQLITE_FORM)?;
            sqlite_mode(rest).ok_or(DataSourceError::SqliteOption)?;
            Ok(Dialect::Sqlite)
        }
        // DuckDB's grammar comes from PostgreSQL's. What divides a program into statements is the same.
        "duckdb" => {
            duckdb::check(rest)?;
            Ok(Dialect::Postgresql)
        }
        "mysql" => {
            mysql::parse(rest)?;
            Ok(Dialect::Mysql)
        }
        "postgresql" | "postgres" => {
            postgresql(data_source)?;
            Ok(Dialect::Postgresql)
        }
        // The scheme is shown. Other text could be secret if it contains no `://`.
        other if other.len() <= 32 && other.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            Err(DataSourceError::UnknownScheme(other.to_owned()))
        }
        _ => Err(DataSourceError::NoScheme),
    }
}

/// The file of an SQLite data source, as the submitter opens it: always absolute. `None`: not SQLite, or of another
/// form.
#[must_use]
pub fn sqlite_path(data_source: &str) -> Option<PathBuf> {
    let rest = ["sqlite://", "sqlite3://"].iter().find_map(|scheme| data_source.strip_prefix(scheme))?;
    let path = rest.split('?').next()?.strip_prefix('/')?;
    Some(Path::new("/").join(path.trim_start_matches('/')))
}

/// An SQLite data source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteSource {
    /// Path of the file: always absolute, since the user does not know the working folder of a step. `/:memory:` is a
    /// database in memory.
    pub path: PathBuf,
    /// How the file is opened.
    pub mode: SqliteMode,
}

/// Why an SQLite file that does not exist cannot be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// It would be in the root folder, which is probably a mistake.
    AtRoot,
    /// Its folder does not exist.
    NoFolder(PathBuf),
}

impl SqliteSource {
    /// Whether it is a database in memory.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.path == Path::new("/:memory:")
    }

    /// Whether its file certainly does not exist. One that cannot be looked up may exist, for example in a folder of
    /// another user: opening it shows the true cause.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        let is_absent = match self.path.try_exists() {
            Ok(exists) => !exists,
            Err(error) => error.kind() == ErrorKind::NotADirectory,
        };
        is_absent && !self.is_in_memory()
    }

    /// Why its file, which does not exist, cannot be created.
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        let folder = self.path.parent()?;
        if folder == Path::new("/") {
            return Some(Obstacle::AtRoot);
        }
        (!folder.is_dir()).then(|| Obstacle::NoFolder(folder.to_owned()))
    }
}

/// How an SQLite file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqliteMode {
    /// To read.
    ReadOnly,
    /// To read and write. It must exist: the default.
    ReadWrite,
    /// To read and write. It may be created.
    Create,
}

impl SqliteMode {
    /// Its name in a data source, and in URIs of SQLite.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "ro",
            Self::ReadWrite => "rw",
            Self::Create => "rwc",
        }
    }
}

/// Parses an SQLite data source. `None`: not SQLite, or of another form.
#[must_use]
pub fn sqlite(data_source: &str) -> Option<SqliteSource> {
    Some(SqliteSource { path: sqlite_path(data_source)?, mode: sqlite_mode(data_source)? })
}

/// As submitters read the options. `None`: they reject one of them.
fn sqlite_mode(rest: &str) -> Option<SqliteMode> {
    let options = rest.split_once('?').map_or("", |(_, options)| options);
    let mut options = options.split('&').filter(|option| !option.is_empty());
    options.try_fold(SqliteMode::ReadWrite, |_, option| match option {
        "mode=ro" => Some(SqliteMode::ReadOnly),
        "mode=rw" => Some(SqliteMode::ReadWrite),
        "mode=rwc" => Some(SqliteMode::Create),
        _ => None,
    })
}

/// The SQLite file of a data source that does not exist, though its folder does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbsentFile {
    /// Its path.
    pub path: PathBuf,
    /// Whether a submitter on this machine creates it once a program makes a table. Otherwise programs fail.
    pub is_created: bool,
}

/// The SQLite file of a data source, if it does not exist. `None`: it exists, or it is no SQLite file, or its folder does
/// not exist.
#[must_use]
pub fn absent_sqlite_file(data_source: &str) -> Option<AbsentFile> {
    let source = sqlite(data_source).filter(|source| source.is_absent() && source.obstacle().is_none())?;
    Some(AbsentFile { path: source.path, is_created: source.mode == SqliteMode::Create })
}

/// Why a submitter on this machine cannot open the SQLite file of a data source: it does not exist, and is not created.
/// `None`: no problem, or no SQLite file.
#[must_use]
pub fn missing_sqlite_file(data_source: &str) -> Option<String> {
    let source = sqlite(data_source).filter(SqliteSource::is_absent)?;
    let path = source.path.display();
    match source.obstacle() {
        Some(Obstacle::AtRoot) => Some(format!(
            "{path} does not exist, and the path of a data source is absolute; write sqlite:////folder{path}"
        )),
        Some(Obstacle::NoFolder(folder)) => Some(format!("the folder {} does not exist", folder.display())),
        None if source.mode == SqliteMode::Create => None,
        None => Some(format!(
            "{path} does not exist; correct the path, or add ?mode=rwc to the data source, so that CREATE TABLE creates \
             the file"
        )),
    }
}

/// The database file of an SQLite or DuckDB data source. `None`: it is in memory, or a server's.
#[must_use]
pub fn database_file(data_source: &str) -> Option<PathBuf> {
    let of_sqlite = || sqlite(data_source).filter(|it| !it.is_in_memory()).map(|it| it.path);
    duckdb_path(data_source).or_else(of_sqlite)
}

/// Paths of this machine by which a program without the data source's password could reach its data: the database file,
/// or the database's Unix sockets, which may trust the user of a process.
#[must_use]
pub fn local_paths(data_source: &str) -> Vec<PathBuf> {
    if is_duckdb(data_source) {
        return duckdb::files(data_source);
    }
    match dialect(data_source) {
        Ok(Dialect::Sqlite) => {
            let source = sqlite(data_source).filter(|it| !it.is_in_memory());
            source.map(|it| it.path).into_iter().collect()
        }
        Ok(Dialect::Mysql) => match mysql(data_source).map(|it| it.address) {
            Ok(MysqlAddress::Socket(path)) => vec![path],
            Ok(MysqlAddress::Tcp { .. }) | Err(_) => Vec::new(),
        },
        Ok(Dialect::Postgresql) => {
            let hosts = postgresql(data_source).map(|it| it.hosts).unwrap_or_default();
            hosts.iter().filter_map(PostgresqlHost::socket).map(PathBuf::from).collect()
        }
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_forms_are_accepted() {
        for (text, expected) in [
            ("sqlite:///var/data/iris.db", Dialect::Sqlite),
            ("sqlite:///var/data/iris.db?mode=ro&", Dialect::Sqlite),
            ("mysql://root:root@tcp(127.0.0.1:3306)/?maxAllowedPacket=0", Dialect::Mysql),
            ("mysql://u:p@w/or@d@tcp(db:3306)/shop", Dialect::Mysql),
            ("mysql://u:p@db:3306/shop", Dialect::Mysql),
            ("mysql://u:p@unix(/run/mysqld/mysqld.sock)/shop", Dialect::Mysql),
            ("postgresql://u:p@db:5432/shop", Dialect::Postgresql),
            ("postgres://db/shop", Dialect::Postgresql),
        ] {
            assert_eq!(dialect(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn files_and_sockets_are_local_paths() {
        for (text, expected) in [
            ("sqlite:////data/iris.db?mode=ro", &["/data/iris.db"][..]),
            ("sqlite:///:memory:", &[]),
            ("mysql://u:p@unix(/run/mysqld/mysqld.sock)/shop", &["/run/mysqld/mysqld.sock"]),
            ("mysql://u:p@tcp(db:3306)/shop", &[]),
            ("postgresql:///shop?host=/run/postgresql", &["/run/postgresql/.s.PGSQL.5432"]),
            ("postgresql://u:p@db:5432/shop", &[]),
        ] {
            assert_eq!(local_paths(text), expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn missing_sqlite_folder_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().display();
        let fine = [format!("sqlite://{dir}/new.db?mode=rwc"), format!("sqlite://{dir}")];
        for fine in fine.into_iter().chain(["sqlite:///:memory:".into(), "mysql://h/d".into()]) {
            assert_eq!(missing_sqlite_file(&fine), None, "{fine}");
        }
        for mode in ["", "?mode=ro", "?mode=rw", "?mode=rwc&mode=ro"] {
            let missing = missing_sqlite_file(&format!("sqlite://{dir}/new.db{mode}")).unwrap();
            let expected = format!("{dir}/new.db does not exist; correct the path, or add ?mode=rwc");
            assert!(missing.starts_with(&expected), "{missing}");
        }
        let at_root = missing_sqlite_file("sqlite:///no-such-iris.db").unwrap();
        assert!(at_root.contains("write sqlite:////folder/no-such-iris.db"), "{at_root}");
        let typo = missing_sqlite_file(&format!("sqlite://{dir}/typo/iris.db")).unwrap();
        assert_eq!(typo, format!("the folder {dir}/typo does not exist"));

        let new = |source: &str| {
            absent_sqlite_file(source).map(|it| (it.path.display().to_string(), it.is_created))
        };
        for (options, is_created) in [
            ("", false),
            ("?mode=rwc", true),
            ("?mode=ro", false),
            ("?mode=rw", false),
            ("?mode=rwc&mode=ro", false),
        ] {
            let expected = Some((format!("{dir}/new.db"), is_created));
            assert_eq!(new(&format!("sqlite:///{dir}/new.db{options}")), expected, "{options}");
        }
        for other in
            ["sqlite:///:memory:", "sqlite:///no-such-iris.db", "sqlite:////no/such/iris.db", "mysql://h/d"]
        {
            assert_eq!(new(other), None, "{other}");
        }
        assert_eq!(new(&format!("sqlite://{dir}")), None, "it is there");
    }

    #[test]
    fn file_that_cannot_be_looked_up_is_not_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink("loop.db", path("loop.db")).unwrap();
        std::os::unix::fs::symlink("nowhere.db", path("dangling.db")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        for (name, expected) in
            [("loop.db", false), ("file", false), ("dangling.db", true), ("no.db", true), ("file/x.db", true)]
        {
            let source = sqlite(&format!("sqlite:///{}", path(name).display())).unwrap();
            assert_eq!(source.is_absent(), expected, "{name}");
        }
    }

    #[test]
    fn invalid_forms_are_rejected_without_password() {
        for text in [
            "",
            "hunter2",
            "hunter2://x:y@z",
            "oracle://u:hunter2@h/d",
            "mysql://u:hunter2@tcp(/d",
            "mysql://u:hunter2@tcp(h:port)/d",
            "mysql://u:hunter2@",
            "postgresql://u:hunter2@:5432/d",
            "sqlite://",
            "sqlite:///",
            "sqlite:////a.db?immutable=1",
            "sqlite:////a.db?mode=hunter2",
            "sqlite:////a.db?mode=ro&cache=shared",
            "sqlite:////a.db?mode",
            "u:hunter2@tcp(h:1)/d?x=http://y",
        ] {
            let error = dialect(text).expect_err(text).to_string();
            assert!(!error.contains("hunter2") || text.starts_with("hunter2"), "{error}");
        }
    }
}
