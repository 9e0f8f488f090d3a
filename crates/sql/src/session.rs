//! State of a database session, as far as the program's text shows it: the open transaction, and the objects that end
//! with the session.

use std::collections::HashMap;
use std::fmt;

use super::classify::StandardKind;
use super::dialect::Dialect;
use super::tokens::Tokens;

/// Maximum number of open savepoints. It bounds the time of a lookup.
const MAX_SAVEPOINTS: usize = 100;

/// An object that ends with its session and cannot be replayed. Names are in lower case.
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

/// Session of one run of standard statements.
#[derive(Debug)]
pub(super) struct Session {
    dialect: Dialect,
    /// Index of the statement that opened the current transaction.
    transaction: Option<usize>,
    opened_by_savepoint: bool,
    savepoints: Vec<String>,
    autocommit_off: Option<usize>,
    /// The session's objects, each with the index of the statement that created it.
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

    /// Applies the effect of statement `index`. The error says which limit the statement exceeds.
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

    /// Adds a savepoint. It matters in SQLite only: in other databases a savepoint outside a transaction has no effect.
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

    /// Releases the latest savepoint of this name, and those that were set after it.
    fn release(&mut self, name: &str) {
        if let Some(position) = self.savepoints.iter().rposition(|savepoint| savepoint == name) {
            self.savepoints.truncate(position);
            if position == 0 && self.opened_by_savepoint {
                self.end_transaction();
            }
        }
    }

    /// The statement that left a transaction open, and the words for it in a message.
    pub(super) fn open_transaction(&self) -> Option<(usize, &'static str)> {
        let off = self.autocommit_off.map(|index| (index, "the transaction that autocommit=0 opens"));
        self.transaction.map(|index| (index, "the transaction opened here")).or(off)
    }

    /// The objects that end with this session, each with the index of the statement that created it.
    pub(super) fn objects(self) -> HashMap<SessionObject, usize> {
        self.objects
    }
}

/// A reference to an object that ended with an earlier session.
#[derive(Debug)]
pub(super) struct EndedReference {
    pub(super) object: SessionObject,
    /// Index of the statement that created the object.
    pub(super) created_by: usize,
    /// Index of the extended statement before which the object's session ended.
    pub(super) ended_by: usize,
}

/// Objects that ended with earlier sessions.
#[derive(Debug)]
pub(super) struct EndedObjects {
    dialect: Dialect,
    /// For each object: the statement that created it, and the extended statement before which its session ended.
    objects: HashMap<SessionObject, (usize, usize)>,
}

impl EndedObjects {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, objects: HashMap::new() }
    }

    pub(super) fn add(&mut self, objects: HashMap<SessionObject, usize>, ended_by: usize) {
        self.objects.extend(objects.into_iter().map(|(object, created_by)| (object, (created_by, ended_by))));
    }

    /// Removes the temporary table of this name, because a new one is created.
    pub(super) fn replace(&mut self, table: &str) {
        self.objects.remove(&SessionObject::TemporaryTable(table.to_owned()));
    }

    /// The first reference of `sql` to an object that ended: a quoted or unquoted name for a table, `@name` for a variable.
    pub(super) fn first_reference(&self, sql: &str) -> Option<EndedReference> {
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
            if let Some((object, &(created_by, ended_by))) =
                object.and_then(|object| self.objects.get_key_value(&object))
            {
                return Some(EndedReference { object: object.clone(), created_by, ended_by });
            }
        }
        None
    }
}
