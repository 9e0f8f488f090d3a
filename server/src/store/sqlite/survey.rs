//! The store as an operator's tool reads it: the whole of it, a page at a time, without changing a byte of it and
//! without a part in it. Nothing is created or brought up to date.
//!
//! Where no server has the file open, SQLite would have to make two files beside it to read it. It is opened as one that
//! does not change instead, and read again the ordinary way once a server has come.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sqlx::migrate::Migrate as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};

use super::rows::{Document, check_version, document, job_id};
use super::{BUSY_TIMEOUT, MIGRATIONS, beside};
use crate::job::{Job, JobId};
use crate::store::types::{Lease, ServerId, StoreError};

/// A store that is looked at.
pub struct Survey {
    path: PathBuf,
    connection: SqliteConnection,
    /// Opened as a file that does not change, when it was in this state.
    still: Option<Stamp>,
}

/// Why a store cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// There is no file.
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    /// It is not a store.
    #[error("{} is not the database of a server", .0.display())]
    Foreign(PathBuf),
    /// A newer server made it.
    #[error("{} is of a newer server: its version is {found}, and this program knows up to {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// An older server made it.
    #[error("{} is of an older server: its version is {found}, and this program looks at {known}", path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The version that this program knows.
        known: i64,
    },
    /// A version of the same number is another one there.
    #[error("{} is of another build: version {version} is not the same there", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// The version.
        version: i64,
    },
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for SurveyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A job's row.
#[derive(Debug)]
pub struct Surveyed {
    /// What stands where its id should, which may not be one.
    pub key: String,
    /// Its id.
    pub id: Option<JobId>,
    /// Its document.
    pub document: SurveyedDocument,
    /// When it was recorded.
    pub created_ms: i64,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// Who drives it; the owner is empty when nobody does.
    pub lease: Lease,
    /// Its document was damaged, and a server ended it for that.
    pub was_buried: bool,
}

impl Surveyed {
    /// Whether no server has it, not even one that ended.
    #[must_use]
    pub fn is_given_back(&self) -> bool {
        self.lease.owner.0.is_empty()
    }
}

/// A job's document.
#[derive(Debug)]
pub enum SurveyedDocument {
    /// It can be read.
    Whole(Job),
    /// It cannot; what is wrong.
    Damaged(String),
    /// This program does not know its version.
    Newer {
        /// Its version.
        version: i64,
        /// The newest that this program knows.
        known: i64,
    },
}

/// A server's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLease {
    /// The server.
    pub server: ServerId,
    /// When it runs out.
    pub until_ms: i64,
}

/// Columns of a [`Surveyed`].
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
    /// It is not there, or no store of this version, or cannot be read.
    pub async fn open(path: &Path) -> Result<Self, SurveyError> {
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(SurveyError::Missing(path.to_owned())),
            Err(error) => return Err(sqlx::Error::Io(error).into()),
        }
        let still = Stamp::of_still(path);
        let connection = connect(path, still.is_some()).await?;
        let mut survey = Self { path: path.to_owned(), connection, still };
        survey.check_version().await?;
        Ok(survey)
    }

    async fn check_version(&mut self) -> Result<(), SurveyError> {
        let path = self.path.clone();
        let has_versions: Option<i64> = sqlx::query_scalar(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'",
        )
        .fetch_optional(&mut self.connection)
        .await
        .map_err(|error| foreign(error, &path))?;
        if has_versions.is_none() {
            return Err(SurveyError::Foreign(path));
        }
        let applied =
            self.connection.list_applied_migrations("_sqlx_migrations").await.map_err(
                |error| match error {
                    sqlx::migrate::MigrateError::Execute(error) => error.into(),
                    _ => SurveyError::Foreign(path.clone()),
                },
            )?;
        let found = applied.iter().map(|it| it.version).max().unwrap_or(0);
        let known = MIGRATIONS.iter().map(|it| it.version).max().unwrap_or(0);
        match found.cmp(&known) {
            std::cmp::Ordering::Less => return Err(SurveyError::Older { path, found, known }),
            std::cmp::Ordering::Greater => return Err(SurveyError::Newer { path, found, known }),
            std::cmp::Ordering::Equal => {}
        }
        for migration in MIGRATIONS.iter() {
            let is_same = |it: &sqlx::migrate::AppliedMigration| {
                it.version == migration.version && it.checksum == migration.checksum
            };
            if !applied.iter().any(is_same) {
                return Err(SurveyError::Other { path, version: migration.version });
            }
        }
        Ok(())
    }

    /// What SQLite's own check says about the file, if it is not well.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn fault(&mut self) -> Result<Option<String>, SurveyError> {
        let rows = self.read("PRAGMA quick_check(1)", |query| query).await?;
        let said: String = match rows.first() {
            Some(row) => row.try_get(0)?,
            None => return Ok(None),
        };
        Ok((said != "ok").then_some(said))
    }

    /// Up to `limit` jobs after this one, in order.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn jobs(&mut self, after: &str, limit: u32) -> Result<Vec<Surveyed>, SurveyError> {
        let sql = surveyed_where!("job_id > ? ORDER BY job_id LIMIT ?");
        let rows = self.read(sql, |query| query.bind(after.to_owned()).bind(limit)).await?;
        rows.iter().map(surveyed).collect()
    }

    /// A job's row.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn job(&mut self, id: &JobId) -> Result<Option<Surveyed>, SurveyError> {
        let rows = self.read(surveyed_where!("job_id = ?"), |query| query.bind(id.to_string())).await?;
        rows.first().map(surveyed).transpose()
    }

    /// Whether there is such a job.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn knows(&mut self, id: &JobId) -> Result<bool, SurveyError> {
        let rows =
            self.read("SELECT 1 FROM jobs WHERE job_id = ?", |query| query.bind(id.to_string())).await?;
        Ok(!rows.is_empty())
    }

    /// The leases of all servers.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn servers(&mut self) -> Result<Vec<ServerLease>, SurveyError> {
        let rows = self.read("SELECT server_id, alive_until_ms FROM servers", |query| query).await?;
        let lease = |row: &SqliteRow| {
            Ok(ServerLease {
                server: ServerId(row.try_get("server_id")?),
                until_ms: row.try_get("alive_until_ms")?,
            })
        };
        rows.iter().map(lease).collect()
    }

    /// Reads rows. What was read while a server began to change the file is read once more.
    async fn read(
        &mut self,
        sql: &'static str,
        bind: impl Fn(Query) -> Query,
    ) -> Result<Vec<SqliteRow>, SurveyError> {
        let read = bind(sqlx::query(sql)).fetch_all(&mut self.connection).await;
        let Some(still) = self.still.take() else { return Ok(read?) };
        if Stamp::of_still(&self.path) == Some(still) {
            self.still = Some(still);
            return Ok(read?);
        }
        self.connection = connect(&self.path, false).await?;
        Ok(bind(sqlx::query(sql)).fetch_all(&mut self.connection).await?)
    }

    /// Closes the file.
    pub async fn close(self) {
        // Nothing was written.
        let _ = self.connection.close().await;
    }
}

type Query = sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// How the file stands on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: SystemTime,
}

impl Stamp {
    /// Of a file to which nothing is to be added: changes stand in SQLite's write-ahead log first, which is there as long as
    /// anyone has the file open, and after a crash. On a full disk nobody may get further than to make it.
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

async fn connect(path: &Path, is_still: bool) -> Result<SqliteConnection, SurveyError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .immutable(is_still)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging();
    options.connect().await.map_err(|error| foreign(error, path))
}

/// An error of a file that is no database.
fn foreign(error: sqlx::Error, path: &Path) -> SurveyError {
    const SQLITE_NOTADB: &str = "26";
    match &error {
        sqlx::Error::Database(database) if database.code().as_deref() == Some(SQLITE_NOTADB) => {
            SurveyError::Foreign(path.to_owned())
        }
        _ => error.into(),
    }
}

fn surveyed(row: &SqliteRow) -> Result<Surveyed, SurveyError> {
    let key: String = row.try_get("job_id")?;
    let id = job_id(row).ok();
    // The version first: one that is newer may have what this program would drop, although it can read the rest.
    let document = match check_version(row).and_then(|()| document(row)) {
        Ok(Document::Whole(job)) => SurveyedDocument::Whole(job),
        Err(StoreError::Newer { version, known, .. }) => SurveyedDocument::Newer { version, known },
        Ok(Document::Damaged(_, error) | Document::Newer(error)) | Err(error) => {
            SurveyedDocument::Damaged(cause(&error))
        }
    };
    let owner: Option<String> = row.try_get("lease_owner")?;
    Ok(Surveyed {
        key,
        id,
        document,
        created_ms: row.try_get("created_ms")?,
        ended_ms: row.try_get("ended_ms")?,
        lease: Lease { owner: ServerId(owner.unwrap_or_default()), epoch: row.try_get("lease_epoch")? },
        was_buried: row.try_get("was_buried")?,
    })
}

/// What is wrong with the text itself.
fn cause(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}
