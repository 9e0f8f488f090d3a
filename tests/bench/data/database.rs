//! The databases, as each peer names them.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use sqlflow_tests::services::{Mariadb, PASSWORD, Postgresql};

/// A database of this run.
pub enum Database {
    Sqlite(PathBuf),
    Mariadb(Mariadb),
    Postgresql(Postgresql),
}

impl Database {
    /// A new file in the folder.
    pub fn sqlite(dir: &Path) -> Self {
        Self::Sqlite(dir.join("data.db"))
    }

    /// A new server. Its cache holds the tables, as it would on a machine that is made for them.
    pub fn mariadb(_: &Path) -> Self {
        Self::Mariadb(Mariadb::start_with("127.0.0.1", &["--innodb-buffer-pool-size=1G"]))
    }

    /// A new server.
    pub fn postgresql(_: &Path) -> Self {
        Self::Postgresql(Postgresql::start())
    }

    /// Ends the server, which would cost the next one some of its time.
    pub fn end(self) {
        match self {
            Self::Sqlite(_) => {}
            Self::Mariadb(it) => it.service.end(Signal::SIGKILL),
            // At once too, but its processes and its shared memory go.
            Self::Postgresql(it) => it.service.end(Signal::SIGQUIT),
        }
    }

    /// Part of the measurements' names.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Mariadb(_) => "mariadb",
            Self::Postgresql(_) => "postgresql",
        }
    }

    /// Its name for people.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "SQLite",
            Self::Mariadb(_) => "MariaDB",
            Self::Postgresql(_) => "PostgreSQL",
        }
    }

    /// Python's usual driver.
    pub fn driver(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite3",
            Self::Mariadb(_) => "PyMySQL",
            Self::Postgresql(_) => "psycopg",
        }
    }

    /// For `sqlflow-server --datasource`.
    pub fn dsn(&self) -> String {
        match self {
            Self::Sqlite(_) => self.url(),
            Self::Mariadb(it) => it.dsn.clone(),
            Self::Postgresql(it) => it.dsn.clone(),
        }
    }

    /// For connectorx and our scripts.
    pub fn url(&self) -> String {
        match self {
            Self::Sqlite(file) => format!("sqlite://{}", file.display()),
            Self::Mariadb(it) => {
                format!("mysql://u:{}@127.0.0.1:{}/test", percent_encoded(PASSWORD), it.port)
            }
            Self::Postgresql(it) => it.dsn.clone(),
        }
    }

    /// For SQLAlchemy, which wants the driver's name.
    pub fn sqlalchemy_url(&self) -> String {
        let (from, to) = match self {
            Self::Sqlite(_) => ("sqlite://", "sqlite:///"),
            Self::Mariadb(_) => ("mysql://", "mysql+pymysql://"),
            Self::Postgresql(_) => ("postgresql://", "postgresql+psycopg://"),
        };
        self.url().replacen(from, to, 1)
    }
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_has_the_url_of_each_peer() {
        let database = Database::sqlite(Path::new("/tmp/a"));
        assert_eq!(database.url(), "sqlite:///tmp/a/data.db");
        assert_eq!(database.sqlalchemy_url(), "sqlite:////tmp/a/data.db");
    }

    #[test]
    fn password_is_quoted_for_a_url() {
        assert_eq!(percent_encoded("pass/w@rd:1"), "pass%2Fw%40rd%3A1");
    }
}
