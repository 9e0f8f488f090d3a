//! Opens connections.

use std::sync::Arc;

use sqlflow_data_source::Reach;

use crate::mysql::MysqlDatabase;
use crate::postgresql::PostgresqlDatabase;
use crate::sqlite::SqliteDatabase;
use crate::{Database, Error};

/// Options of a connection.
#[derive(Clone)]
pub struct ConnectOptions {
    /// Statements that change settings of the session, to run first.
    pub replay: Vec<String>,
    /// Whether a missing SQLite file is created, if the data source allows that. Otherwise its database is empty, and no
    /// change is kept.
    pub may_create: bool,
    /// What the data source and statements may reach.
    pub reach: Reach,
    /// Receives messages to the user.
    pub notify: Notify,
}

/// Receives messages to the user.
pub type Notify = Arc<dyn Fn(Notice) + Send + Sync>;

/// What opens another connection with the same settings.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) data_source: String,
    pub(crate) reach: Reach,
    /// Statements that changed settings of the session.
    replay: Vec<String>,
}

impl Origin {
    pub(crate) fn new(data_source: &str) -> Self {
        Self { data_source: data_source.to_owned(), reach: Reach::default(), replay: Vec::new() }
    }

    /// With this reach.
    pub(crate) fn within(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// Adds a statement that changed a setting.
    pub(crate) fn add(&mut self, sql: &str) {
        self.replay.push(sql.to_owned());
    }

    /// Changes the settings of another connection.
    pub(crate) fn replay(&self, database: &mut dyn Database) -> Result<(), Error> {
        self.replay.iter().try_for_each(|sql| database.replay(sql))
    }
}

/// Ignores messages: those of a second connection repeat those of the first one.
pub(crate) fn ignore_notices() -> Notify {
    Arc::new(|_| ())
}

/// What a database says that lets sessions have another encoding.
pub(crate) const ENCODING_NOTE: &str =
    "note: the encoding of the session stays UTF-8: the database converts texts to and from its own encoding";

/// A message to the user beside the results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Something that the user should know about the connection.
    Note(String),
    /// A message of the database, as its command line prints it.
    Server(String),
}

/// Connects to a data source, and replays the session's statements.
///
/// # Errors
/// `User`: the data source is malformed, or the database rejected the user, its name, or a statement. `Unavailable`: the
/// database does not respond. Messages do not contain the password.
pub fn connect(data_source: &str, options: ConnectOptions) -> Result<Box<dyn Database>, Error> {
    use sqlflow_sql::Dialect;

    let dialect =
        sqlflow_data_source::dialect(data_source).map_err(|error| Error::user(error.to_string()))?;
    if sqlflow_data_source::is_duckdb(data_source) {
        return Err(Error::user(
            "cannot open the DuckDB data source: this program has no driver for it; run the step with Python: python -P -m \
             sqlflow_submitter.duckdb_data",
        ));
    }
    let ConnectOptions { replay, may_create, reach, notify } = options;
    let mut database: Box<dyn Database> = match dialect {
        Dialect::Sqlite => Box::new(SqliteDatabase::open(data_source, may_create, reach, &notify)?),
        Dialect::Mysql => Box::new(MysqlDatabase::open(data_source, notify)?),
        Dialect::Postgresql => Box::new(PostgresqlDatabase::open(data_source, reach, &notify)?),
    };
    for sql in &replay {
        database.replay(sql)?;
    }
    Ok(database)
}

/// Name of the user of this process, for a data source without a user.
pub(crate) fn system_user() -> Result<String, Error> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    user.map(|it| it.name).ok_or_else(|| {
        Error::user(
            "cannot connect: the data source has no user, and the user of this process has no name; add the user to the \
             data source",
        )
    })
}
