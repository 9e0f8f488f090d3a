//! A database session, as far as a program shows it: the open transaction, and things that end with the session.

use std::collections::HashMap;
use std::fmt;

use super::classify::{StandardKind, Tokens};
use super::dialect::Dialect;

/// Most savepoints open at once; keeps looking one up cheap.
const MAX_SAVEPOINTS: usize = 100;

/// Something that ends with its session and that no replay brings back. Names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum SessionObject {
    TemporaryTable(String),
    Variable(String),
}

impl fmt::Display for SessionObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TemporaryTable(name) => write!(f, "temporary table {name}"),
            Self::Variable(name) => write!(f, "the computed variable @{name}"),
        }
    }
}

/// The session of one run of standard statements.
#[derive(Debug)]
pub(super) struct Session {
    dialect: Dialect,
    /// The statement that opened the transaction.
    transaction: Option<usize>,
    opened_by_savepoint: bool,
    savepoints: Vec<String>,
    autocommit_off: Option<usize>,
    /// What there is, and the statement that made it.
    objects: HashMap<SessionObject, usize>,
}

impl Session {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            transaction: None,
            opened_by_savepoint: false,
            savepoints: Vec::new(),
            autocommit_off: None,
            objects: HashMap::new(),
        }
    }

    /// Does what statement `index` does. The error says which bound it breaks.
    pub(super) fn apply(&mut self, index: usize, kind: &StandardKind) -> Result<(), String> {
        match kind {
            StandardKind::CreateTemporaryTable { name } => {
                self.objects.insert(SessionObject::TemporaryTable(name.clone()), index);
            }
            StandardKind::DropTables { names } => {
                for name in names {
                    self.objects.remove(&SessionObject::TemporaryTable(name.clone()));
                }
            }
            StandardKind::SetVariables { names } => {
                let variables = names.iter().map(|name| (SessionObject::Variable(name.clone()), index));
                self.objects.extend(variables);
            }
            StandardKind::SetAutocommit { on: true } => {
                self.autocommit_off = None;
                self.end_transaction();
            }
            StandardKind::SetAutocommit { on: false } => self.autocommit_off = Some(index),
            StandardKind::BeginTransaction => {
                self.end_transaction();
                self.transaction = Some(index);
            }
            StandardKind::EndTransaction => self.end_transaction(),
            StandardKind::Savepoint { name } => self.savepoint(index, name)?,
            StandardKind::ReleaseSavepoint { name } => self.release(name),
            StandardKind::Query | StandardKind::Use { .. } | StandardKind::Set | StandardKind::Other => {}
        }
        Ok(())
    }

    fn end_transaction(&mut self) {
        self.transaction = None;
        self.opened_by_savepoint = false;
        self.savepoints.clear();
    }

    /// Elsewhere than in SQLite a savepoint outside a transaction does nothing.
    fn savepoint(&mut self, index: usize, name: &str) -> Result<(), String> {
        if self.dialect != Dialect::Sqlite {
            return Ok(());
        }
        if self.savepoints.len() == MAX_SAVEPOINTS {
            return Err(format!("more than {MAX_SAVEPOINTS} savepoints are open"));
        }
        if self.transaction.is_none() {
            self.transaction = Some(index);
            self.opened_by_savepoint = true;
        }
        self.savepoints.push(name.to_owned());
        Ok(())
    }

    /// Releases the latest savepoint of that name and those set since.
    fn release(&mut self, name: &str) {
        if let Some(position) = self.savepoints.iter().rposition(|savepoint| savepoint == name) {
            self.savepoints.truncate(position);
            if position == 0 && self.opened_by_savepoint {
                self.end_transaction();
            }
        }
    }

    /// The statement that left a transaction open, and how a message names it.
    pub(super) fn open_transaction(&self) -> Option<(usize, &'static str)> {
        let off = self.autocommit_off.map(|index| (index, "the transaction that autocommit=0 opens"));
        self.transaction.map(|index| (index, "the transaction opened here")).or(off)
    }

    /// What ends with this session, and the statements that made it.
    pub(super) fn objects(self) -> HashMap<SessionObject, usize> {
        self.objects
    }
}

/// What ended with earlier sessions.
#[derive(Debug)]
pub(super) struct Lost {
    dialect: Dialect,
    /// The statement that made it, and the extended statement that it did not survive.
    objects: HashMap<SessionObject, (usize, usize)>,
}

impl Lost {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, objects: HashMap::new() }
    }

    pub(super) fn add(&mut self, objects: HashMap<SessionObject, usize>, border: usize) {
        self.objects.extend(objects.into_iter().map(|(object, made)| (object, (made, border))));
    }

    /// A new temporary table of that name takes the place of a lost one.
    pub(super) fn replace(&mut self, table: &str) {
        self.objects.remove(&SessionObject::TemporaryTable(table.to_owned()));
    }

    /// The first lost thing that `sql` names: a table by a name, bare or quoted, a variable by `@name`.
    pub(super) fn mentioned(&self, sql: &str) -> Option<(SessionObject, usize, usize)> {
        if self.objects.is_empty() {
            return None;
        }
        let mut signs = 0;
        for token in Tokens::new(sql, self.dialect) {
            if token.is_symbol('@') {
                signs += 1;
                continue;
            }
            let object = match (token.name(), signs) {
                (Some(name), 0) => Some(SessionObject::TemporaryTable(name)),
                (Some(name), 1) => Some(SessionObject::Variable(name)),
                _ => None,
            };
            signs = 0;
            if let Some((object, &(made, border))) =
                object.and_then(|object| self.objects.get_key_value(&object))
            {
                return Some((object.clone(), made, border));
            }
        }
        None
    }
}
