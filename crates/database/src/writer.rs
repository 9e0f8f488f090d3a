//! Writing tables: a staging table is created, filled in batches, and replaces the old table in one step.

use std::fmt;

use crate::{Batch, Column, Database, Error};

/// First words of the comment of a table that SQLFlow created.
const MARKER: &str = "SQLFlow result table";

/// Writes tables. It may be a second connection, to write while the first one reads.
pub trait TableWriter {
    /// The connection, with any settings: to end its statements, and to accept them again.
    fn connection(&mut self) -> &mut dyn Database;

    /// The connection with the user's settings, for queries.
    ///
    /// # Errors
    /// The settings cannot be changed back.
    fn database(&mut self) -> Result<&mut dyn Database, Error> {
        Ok(self.connection())
    }

    /// Maximum length of a table's name in bytes; `None`: there is none.
    fn name_limit(&self) -> Option<usize> {
        None
    }

    /// Parses `t`, `d.t` or, in PostgreSQL, `d.s.t`, by the database's rules for names without quotes. Parts in double
    /// quotes are taken as they are.
    fn table_name(&self, text: &str) -> TableName {
        TableName::parse(text)
    }

    /// Quotes one part of a name.
    fn quote(&self, name: &str) -> String;

    /// The schema that statements must have for a table without one.
    fn default_schema(&self) -> Option<&str> {
        None
    }

    /// A name for statements.
    fn quoted(&self, table: &TableName) -> String {
        let schema: Vec<&str> = match &table.schema {
            Some(schema) => schema.split('.').collect(),
            None => self.default_schema().into_iter().collect(),
        };
        let parts = schema.into_iter().chain([table.name.as_str()]).map(|it| self.quote(it));
        parts.collect::<Vec<_>>().join(".")
    }

    /// Whether a text that is not UTF-8 can be written.
    fn takes_any_text(&self) -> bool {
        true
    }

    /// The type of a column with computed values.
    fn type_of(&self, kind: ComputedKind) -> &'static str;

    /// A column of CREATE TABLE.
    fn definition(&self, name: &str, database_type: &str) -> String {
        format!("{} {database_type}", self.quote(name))
    }

    /// The object with this name.
    ///
    /// # Errors
    /// As of [`Database::execute`]. The same holds for the other functions.
    fn find_table(&mut self, table: &TableName) -> Result<Option<ExistingTable>, Error>;

    /// Why a table of this name cannot be created, as far as that is known.
    fn creation_obstacle(&mut self, table: &TableName) -> Result<Option<String>, Error>;

    /// Why this user cannot replace an existing table, as far as that is known.
    fn replacement_obstacle(&mut self, _table: &TableName) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// The objects that prevent the replacement of a table, such as views and foreign keys.
    fn dependents(&mut self, table: &TableName) -> Result<Vec<String>, Error>;

    /// What users added to a table, and what is lost when it is replaced, such as indexes and triggers.
    fn attached(&mut self, table: &TableName) -> Result<Vec<String>, Error>;

    /// Creates an empty table with columns of a select, in the database's own types, and computed columns after them.
    /// `kept` has at least one. The table gets this mark.
    fn create(
        &mut self,
        table: &TableName,
        kept: Option<PassthroughColumns<'_>>,
        computed: &[ComputedColumn],
        mark: Mark<'_>,
    ) -> Result<(), Error>;

    /// Adds rows. The columns are all of the table's, in order, as `create` got them: those of the select as they were
    /// read from this database, and then the computed ones.
    fn insert(&mut self, table: &TableName, columns: &[Column], batch: &Batch) -> Result<(), Error>;

    /// Drops a table, if it exists.
    fn drop_table(&mut self, table: &TableName) -> Result<(), Error>;

    /// Replaces `table` by `staging`. Readers see the old table or the new one at every moment. `check` is called in the
    /// transaction, if there is one, and says whether `table` may be replaced.
    ///
    /// # Errors
    /// The old table cannot be replaced, for example because a view depends on it. It is unchanged. After another error,
    /// [`Error::is_unclear`] says whether it may have been replaced.
    fn swap(
        &mut self,
        staging: &TableName,
        table: &TableName,
        suffix: &str,
        check: &mut dyn FnMut(&mut dyn TableWriter) -> Result<(), Error>,
    ) -> Result<(), Error>;

    /// The tables that an attempt with this suffix may have left.
    fn leftovers(&self, table: &TableName, suffix: &str) -> Vec<TableName> {
        vec![table.with_suffix(suffix, self.name_limit())]
    }
}

/// Columns of a select that a table keeps, with their types and values.
#[derive(Debug, Clone, Copy)]
pub struct PassthroughColumns<'a> {
    /// The select.
    pub select: &'a str,
    /// For each column its place in the select, and its name in the table.
    pub columns: &'a [(usize, String)],
    /// All columns of the select, as described.
    pub described: &'a [Column],
}

impl PassthroughColumns<'_> {
    /// A select of these columns, without rows.
    pub(crate) fn without_rows(&self, quote: impl Fn(&str) -> String) -> String {
        let column = |(place, name): &(usize, String)| {
            let source = self.described.get(*place).map_or(name, |it| &it.name);
            let alias = if source == name { String::new() } else { format!(" AS {}", quote(name)) };
            format!("{}{alias}", quote(source))
        };
        let columns: Vec<_> = self.columns.iter().map(column).collect();
        // The newline ends a comment that the select may end with.
        format!("SELECT {} FROM ({}\n) AS sqlflow_select WHERE 1 = 0", columns.join(", "), self.select)
    }
}

/// A column whose values a statement computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputedColumn {
    /// Its name.
    pub name: String,
    /// The kind of its values.
    pub kind: ComputedKind,
}

/// The kind of computed values. Not a number is NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComputedKind {
    /// A boolean.
    Bool,
    /// An integer.
    Int,
    /// A floating point number.
    Float,
    /// A text.
    Text,
}

/// The name of a table, with or without a schema or database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// Schema or database.
    pub schema: Option<String>,
    /// Name.
    pub name: String,
}

impl TableName {
    /// Parses `t`, `d.t` or `d.s.t`. Parts may be in double quotes, and have no dots and no quotes inside.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::folded(text, str::to_owned)
    }

    /// The same, with parts without quotes as `fold` makes them.
    #[must_use]
    pub fn folded(text: &str, fold: impl Fn(&str) -> String) -> Self {
        let part = |part: &str| match part.strip_prefix('"').and_then(|it| it.strip_suffix('"')) {
            Some(quoted) => quoted.to_owned(),
            None => fold(part),
        };
        let mut parts: Vec<String> = text.split('.').map(part).collect();
        let name = parts.pop().unwrap_or_default();
        Self { schema: (!parts.is_empty()).then(|| parts.join(".")), name }
    }

    /// The name of an internal table in the same schema: `<table>__<suffix>`. If it is longer than `limit` bytes, the
    /// table's part is cut, and its checksum is appended.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str, limit: Option<usize>) -> Self {
        let room = limit.map_or(usize::MAX, |it| it.saturating_sub(suffix.len() + 2));
        let mut part = self.name.clone();
        if part.len() > room {
            let mut checksum = flate2::Crc::new();
            checksum.update(part.as_bytes());
            let kept = part.floor_char_boundary(room.saturating_sub(9));
            part = format!("{}_{:08x}", &part[..kept], checksum.sum());
        }
        Self { schema: self.schema.clone(), name: format!("{part}__{suffix}") }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

/// An existing object with a table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingTable {
    /// `table`, `view` …
    pub kind: String,
    /// The comment of a table; in SQLite, the marker if the text of its CREATE TABLE has it.
    pub comment: String,
    /// The marker of this name in this place.
    pub marker: String,
}

impl ExistingTable {
    /// Whether it is a table that SQLFlow created with this name in this place.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.kind == "table"
            && self.after_marker().is_some_and(|rest| rest.is_empty() || attempt(rest).is_some())
    }

    /// The attempt that made it, as in [`Mark::made_by`]. `None`: an earlier version of SQLFlow made it, or somebody
    /// else.
    #[must_use]
    pub fn made_by(&self) -> Option<&str> {
        if self.kind == "table" { attempt(self.after_marker()?) } else { None }
    }

    fn after_marker(&self) -> Option<&str> {
        self.comment.strip_prefix(&self.marker)
    }

    /// The name in a marker that is not of this name and place.
    #[must_use]
    pub fn marked_as(&self) -> Option<&str> {
        let other = self.comment.strip_prefix(MARKER)?.strip_prefix(' ')?;
        let name = match other.rfind(ATTEMPT) {
            Some(end) if attempt(&other[end..]).is_some() => &other[..end],
            _ => other,
        };
        (self.kind == "table" && !self.is_marked()).then_some(name)
    }
}

/// What a table is marked with that a statement creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark<'a> {
    /// The table's final name, without its schema.
    pub name: &'a str,
    /// The attempt that makes it: the suffix of its staging table. It is no secret.
    pub made_by: &'a str,
}

impl Mark<'_> {
    /// The comment of a table with this mark in this schema.
    #[must_use]
    pub fn comment(&self, schema: Option<&str>) -> String {
        format!("{}{ATTEMPT}{}", marker(self.name, schema), self.made_by.to_lowercase())
    }
}

/// Begins the attempt in a marker.
const ATTEMPT: &str = ", attempt ";

/// The attempt in what follows a name in a marker.
fn attempt(rest: &str) -> Option<&str> {
    let attempt = rest.strip_prefix(ATTEMPT)?;
    let is_suffix = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (!attempt.is_empty() && attempt.bytes().all(is_suffix)).then_some(attempt)
}

/// The beginning of the comment of a table that SQLFlow created, and may therefore replace. It has the table's name,
/// and its schema or database if it has one. So a table that was renamed, moved or copied does not count as SQLFlow's.
/// The attempt follows that made it; earlier versions wrote none.
#[must_use]
pub fn marker(name: &str, schema: Option<&str>) -> String {
    let schema = schema.map(|it| format!("{it}.")).unwrap_or_default();
    format!("{MARKER} {}", format!("{schema}{name}").to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marker_has_the_name_and_the_attempt() {
        let found = |comment: &str| {
            let table = ExistingTable {
                kind: "table".to_owned(),
                comment: comment.to_owned(),
                marker: marker("T", Some("S")),
            };
            (table.is_marked(), table.made_by().map(str::to_owned), table.marked_as().map(str::to_owned))
        };
        let own = Mark { name: "T", made_by: "01JX_0_2" }.comment(Some("S"));
        assert_eq!(found(&own), (true, Some("01jx_0_2".into()), None));
        assert_eq!(found("SQLFlow result table s.t"), (true, None, None), "of an earlier version");
        let renamed = Mark { name: "t2", made_by: "01jx_0_2" }.comment(Some("s"));
        assert_eq!(found(&renamed), (false, None, Some("s.t2".into())));
        let longer = Mark { name: "t, attempt x", made_by: "01jx_0_2" }.comment(Some("s"));
        assert_eq!(found(&longer), (false, None, Some("s.t, attempt x".into())));
        assert_eq!(found("my table"), (false, None, None));
    }
}
