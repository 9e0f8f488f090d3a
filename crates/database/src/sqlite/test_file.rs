//! A SQLite file for tests.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use sqlflow_data_source::Reach;
use tempfile::TempDir;

use crate::test_servers::{run, texts};
use crate::{ConnectOptions, Database, Error, Notice, connect};

/// A file in a folder of its own. It does not exist before it is opened.
pub(super) struct File {
    folder: TempDir,
    /// What its statements may reach.
    pub(super) reach: Reach,
    pub(super) notices: Arc<Mutex<Vec<Notice>>>,
}

impl File {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), reach: Reach::default(), notices: Arc::default() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.beside("data.db")
    }

    /// Another file of its folder.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Opens it without waiting for locks.
    pub(super) fn open(&self) -> Box<dyn Database> {
        self.open_with("?mode=rwc", &["PRAGMA busy_timeout = 0"])
    }

    /// Opens it with an option of the data source, such as `?mode=ro`.
    pub(super) fn open_with(&self, option: &str, replay: &[&str]) -> Box<dyn Database> {
        self.connect(option, replay, true).unwrap()
    }

    /// Opens it, and does not create it.
    pub(super) fn open_existing(&self) -> Box<dyn Database> {
        self.connect("?mode=rwc", &[], false).unwrap()
    }

    /// Opens it with an option of the data source.
    pub(super) fn connect(
        &self,
        option: &str,
        replay: &[&str],
        may_create: bool,
    ) -> Result<Box<dyn Database>, Error> {
        let notices = Arc::clone(&self.notices);
        let options = ConnectOptions {
            replay: replay.iter().map(|it| (*it).to_owned()).collect(),
            may_create,
            reach: self.reach.clone(),
            notify: Arc::new(move |notice| notices.lock().unwrap().push(notice)),
        };
        connect(&format!("sqlite:///{}{option}", self.path().display()), options)
    }

    pub(super) fn run(&self, statements: &[&str]) {
        let mut database = self.open();
        statements.iter().for_each(|sql| run(&mut *database, sql));
    }

    pub(super) fn texts(&self, sql: &str) -> Vec<String> {
        texts(&mut *self.open(), sql)
    }

    /// The names of the tables.
    pub(super) fn tables(&self) -> Vec<String> {
        self.texts("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    }
}
