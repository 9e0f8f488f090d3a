//! Read access to the whole store for the doctor, page by page. It changes nothing, takes part in nothing, and creates
//! and migrates nothing.
//!
//! If no server has the file open, SQLite would have to create two files beside it to read it. Therefore it is opened
//! as immutable then, and read again in the ordinary way once a server has opened it.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, ErrorCode, OpenFlags, Params, Row, params};
use sqlflow_job::{Job, JobId};
use sqlflow_result_log::SmallLog;

use super::beside;
use super::database::BUSY_TIMEOUT;
use super::migrations::{self, Versions};
use super::rows::{Document, check_version, document, job_id};
use super::secrets;
use super::small_logs::{self, Parts};
use crate::secret_keys::SecretKeys;
use crate::types::{Lease, ServerId, StoreError};

/// A store, opened for reading.
pub struct Survey {
    path: PathBuf,
    connection: Connection,
    /// State of the file when it was opened as immutable; `None`: it was not.
    still: Option<Stamp>,
}

/// Why a store cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// There is no file.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// The file is not a store.
    #[error("{} is not the database of a server", .0.display())]
    Foreign(PathBuf),
    /// A newer server made it.
    #[error("{} is of a newer server: its version is {found}, and this program knows versions up to {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// An older server made it.
    #[error("{} is of an older server: its version is {found}, and this program reads version {known}", path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The version that this program knows.
        known: i64,
    },
    /// The file's version has the right number and different content.
    #[error("{} is of another build, whose version {version} is different", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// The version.
        version: i64,
    },
    /// A server of an older version uses the file.
    #[error(
        "cannot bring {} to version {to}: server {server} of an older version runs on it, and would take the logs of \
         new jobs for empty; stop that server first",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// The version that it would get.
        to: i64,
        /// The running server.
        server: String,
    },
    /// The file system failed.
    #[error("cannot read {}: {error}", path.display())]
    Unseen {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for SurveyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A job's row.
#[derive(Debug)]
pub struct Surveyed {
    /// The content of its id column, which may be invalid.
    pub key: String,
    /// Its id.
    pub id: Option<JobId>,
    /// Its document.
    pub document: SurveyedDocument,
    /// Time of its creation.
    pub created_ms: i64,
    /// Time of its end.
    pub ended_ms: Option<i64>,
    /// Its lease; the owner is empty if there is none.
    pub lease: Lease,
    /// Whether a server ended it because of a damaged document.
    pub was_buried: bool,
}

impl Surveyed {
    /// Whether no server holds it, not even a dead one.
    #[must_use]
    pub fn is_given_back(&self) -> bool {
        self.lease.owner.0.is_empty()
    }
}

/// A job's document.
#[derive(Debug)]
pub enum SurveyedDocument {
    /// A valid document.
    Whole(Job),
    /// A damaged document, with the damage.
    Damaged(String),
    /// A document of an unknown version.
    Newer {
        /// Its version.
        version: i64,
        /// The newest version that this program knows.
        known: i64,
    },
}

/// A server's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLease {
    /// The server.
    pub server: ServerId,
    /// Time at which it expires.
    pub until_ms: i64,
}

/// Columns of [`Surveyed`].
macro_rules! surveyed_where {
    ($rest:literal) => {
        concat!(
            "SELECT job_id, state, doc, doc_version, created_ms, ended_ms, lease_owner, lease_epoch, ",
            "damaged_doc IS NOT NULL AS was_buried FROM jobs WHERE ",
            $rest
        )
    };
}

impl Survey {
    /// Opens the file, which must be of the version that this program knows.
    ///
    /// # Errors
    /// It does not exist, is no store of this version, or cannot be read.
    pub fn open(path: &Path) -> Result<Self, SurveyError> {
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(SurveyError::Missing(path.to_owned())),
            Err(error) => return Err(SurveyError::Unseen { path: path.to_owned(), error }),
        }
        let still = Stamp::of_still(path);
        let connection = connect(path, still.is_some())?;
        let survey = Self { path: path.to_owned(), connection, still };
        survey.check_version()?;
        Ok(survey)
    }

    fn check_version(&self) -> Result<(), SurveyError> {
        let path = self.path.clone();
        let versions = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'";
        let has_versions = self.connection.prepare(versions).and_then(|mut query| query.exists([]));
        if !has_versions.map_err(|error| foreign(error, &path))? {
            return Err(SurveyError::Foreign(path));
        }
        let known = migrations::newest();
        let Versions { newest: found, other } = migrations::versions(&self.connection)?;
        match (found.cmp(&known), other) {
            (Ordering::Less, _) => Err(SurveyError::Older { path, found, known }),
            (Ordering::Greater, _) => Err(SurveyError::Newer { path, found, known }),
            (Ordering::Equal, Some(version)) => Err(SurveyError::Other { path, version }),
            (Ordering::Equal, None) => Ok(()),
        }
    }

    /// The result of SQLite's integrity check; `None`: no fault.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn fault(&mut self) -> Result<Option<String>, SurveyError> {
        let said: Vec<String> = self.read("PRAGMA quick_check(1)", [], |row| Ok(row.get(0)?))?;
        Ok(said.into_iter().next().filter(|said| said != "ok"))
    }

    /// Up to `limit` jobs after this one, by id.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn jobs(&mut self, after: &str, limit: u32) -> Result<Vec<Surveyed>, SurveyError> {
        let sql = surveyed_where!("job_id > ? ORDER BY job_id LIMIT ?");
        self.read(sql, params![after, limit], surveyed)
    }

    /// A job's row.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn job(&mut self, id: &JobId) -> Result<Option<Surveyed>, SurveyError> {
        let found = self.read(surveyed_where!("job_id = ?"), [id.as_str()], surveyed)?;
        Ok(found.into_iter().next())
    }

    /// Whether the job exists.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn knows(&mut self, id: &JobId) -> Result<bool, SurveyError> {
        let found = self.read("SELECT 1 FROM jobs WHERE job_id = ?", [id.as_str()], |_| Ok(()))?;
        Ok(!found.is_empty())
    }

    /// The job's small log, if any.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn small_log(&mut self, id: &JobId) -> Result<SmallLog, SurveyError> {
        let parts =
            self.read(small_logs::PARTS, [id.as_str()], |row| Ok(row.get::<_, Option<Vec<u8>>>(0)?))?;
        let mut log = Parts::default();
        parts.iter().for_each(|part| log.add(part.as_deref()));
        Ok(log.into_log())
    }

    /// Live jobs whose secrets these keys do not decrypt, with the reason.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn unreadable_secrets(&mut self, keys: &SecretKeys) -> Result<Vec<(JobId, StoreError)>, SurveyError> {
        let all = self.read(secrets::ALL, [], |row| Ok(secrets::found(row)?))?;
        Ok(secrets::unreadable(all.into_iter().flatten().collect(), keys))
    }

    /// The leases of all servers.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn servers(&mut self) -> Result<Vec<ServerLease>, SurveyError> {
        self.read("SELECT server_id, alive_until_ms FROM servers", [], |row| {
            Ok(ServerLease { server: ServerId(row.get("server_id")?), until_ms: row.get("alive_until_ms")? })
        })
    }

    /// Reads rows, and reads them again if a server began to change the file meanwhile.
    fn read<T>(
        &mut self,
        sql: &'static str,
        values: impl Params + Clone,
        row: impl Fn(&Row<'_>) -> Result<T, SurveyError>,
    ) -> Result<Vec<T>, SurveyError> {
        let read = rows(&self.connection, sql, values.clone(), &row);
        let Some(still) = self.still.take() else { return read };
        if Stamp::of_still(&self.path) == Some(still) {
            self.still = Some(still);
            return read;
        }
        self.connection = connect(&self.path, false)?;
        rows(&self.connection, sql, values, row)
    }
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, SurveyError>,
) -> Result<Vec<T>, SurveyError> {
    let mut query = connection.prepare_cached(sql)?;
    let mut rows = query.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// Size and time of the file on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: SystemTime,
}

impl Stamp {
    /// `None`: a write may be pending. SQLite first writes changes to its write-ahead log, which exists while a process
    /// has the file open, and after a crash. On a full disk a process may not get beyond creating it.
    fn of_still(path: &Path) -> Option<Self> {
        match std::fs::metadata(beside(path, "-wal")) {
            Ok(wal) if wal.len() > 0 => return None,
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return None,
            Ok(_) | Err(_) => {}
        }
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { bytes: metadata.len(), modified: metadata.modified().ok()? })
    }
}

fn connect(path: &Path, is_still: bool) -> Result<Connection, SurveyError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri(path, is_still), flags);
    let connection = connection.map_err(|error| foreign(error, path))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// The URI of the file. Only a URI can mark a file as immutable; see "URI Filenames" in SQLite's documentation.
fn uri(path: &Path, is_still: bool) -> String {
    let mut uri = "file:".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    if is_still {
        uri.push_str("?immutable=1");
    }
    uri
}

/// Detects a file that is no database.
fn foreign(error: rusqlite::Error, path: &Path) -> SurveyError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => SurveyError::Foreign(path.to_owned()),
        _ => error.into(),
    }
}

fn surveyed(row: &Row<'_>) -> Result<Surveyed, SurveyError> {
    let key: String = row.get("job_id")?;
    let id = job_id(row).ok();
    // The version comes first: a newer document may contain data that this program would drop, even if it can be
    // parsed.
    let document = match check_version(row).and_then(|()| document(row)) {
        Ok(Document::Whole(job)) => SurveyedDocument::Whole(job),
        Err(StoreError::Newer { version, known, .. }) => SurveyedDocument::Newer { version, known },
        Ok(Document::Damaged(_, error) | Document::Newer(error)) | Err(error) => {
            SurveyedDocument::Damaged(cause(&error))
        }
    };
    let owner: Option<String> = row.get("lease_owner")?;
    Ok(Surveyed {
        key,
        id,
        document,
        created_ms: row.get("created_ms")?,
        ended_ms: row.get("ended_ms")?,
        lease: Lease { owner: ServerId(owner.unwrap_or_default()), epoch: row.get("lease_epoch")? },
        was_buried: row.get("was_buried")?,
    })
}

/// The damage of the document.
fn cause(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}
