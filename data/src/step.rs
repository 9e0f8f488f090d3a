//! The step document, `step.json`: the step that the server assigns.

use std::path::Path;

use serde::Deserialize;
use sqlflow_data_source::step_digest;
use sqlflow_database::ResultSpec;

use crate::requests::Select;

/// Version of the documents that this program reads.
const VERSION: u32 = 1;

/// A step: standard statements, or one extended statement.
#[derive(Debug, Deserialize)]
pub struct Step {
    /// Suffix of the staging tables of this attempt.
    #[serde(rename = "scratch_suffix", default)]
    pub staging_suffix: String,
    /// The task only to drop what earlier attempts left in the database.
    #[serde(default)]
    pub clean_up: Option<CleanUp>,
    /// Statements of later steps, which the submitter has checked.
    #[serde(rename = "ahead", default)]
    pub later: Vec<Statement>,
    /// Statements that change settings of the session, to run first.
    #[serde(default)]
    pub replay: Vec<Replay>,
    /// The statements.
    pub statements: Vec<Statement>,
}

/// Drops what earlier attempts of the step left in the database.
#[derive(Debug, Deserialize)]
pub struct CleanUp {
    /// The attempt that had the grant to replace the result table, and did not report its outcome.
    pub granted_attempt: Option<u32>,
}

/// An earlier statement.
#[derive(Debug, Deserialize)]
pub struct Replay {
    /// Its text.
    pub sql: String,
}

/// A statement.
#[derive(Debug, Clone, Deserialize)]
pub struct Statement {
    /// Index in the program, from 0.
    pub index: u32,
    /// `standard`, or the kind of an extended statement.
    pub kind: String,
    /// Its text.
    #[serde(default)]
    pub sql: String,
    /// Whether it may be executed twice.
    #[serde(default)]
    pub repeatable: bool,
    /// The select of an extended statement.
    #[serde(default)]
    pub select: String,
    /// Attributes of an extended statement.
    #[serde(default)]
    pub attributes: serde_json::Map<String, serde_json::Value>,
    /// The table that an extended statement writes.
    #[serde(default)]
    pub result_table: Option<String>,
    /// In a later standard statement: what it changes, such as `rows`.
    #[serde(default)]
    pub effect: String,
    /// What to write instead, if the statement is of another database.
    #[serde(default)]
    pub hint: String,
}

impl Statement {
    /// One of its selects; empty if it has none.
    pub fn select_of(&self, select: Select) -> &str {
        match select {
            Select::Statement => &self.select,
            Select::Validation => {
                self.attributes.get("validation.select").and_then(|it| it.as_str()).unwrap_or_default()
            }
        }
    }

    /// The texts that read tables.
    pub fn selects(&self) -> Vec<&str> {
        if self.kind == "standard" {
            return vec![&self.sql];
        }
        let all = [Select::Statement, Select::Validation].map(|it| self.select_of(it));
        all.into_iter().filter(|it| !it.is_empty()).collect()
    }

    /// Its result table. `selects` are the statement's.
    pub fn result<'a>(&'a self, suffix: &'a str, selects: &'a [&'a str]) -> Option<ResultSpec<'a>> {
        let replace = self.attributes.get("result.replace").and_then(serde_json::Value::as_bool);
        Some(ResultSpec {
            name: self.result_table.as_deref()?,
            suffix,
            replace: replace.unwrap_or_default(),
            selects,
        })
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Step {
    /// Reads a document, which must have this digest if it is known.
    ///
    /// # Errors
    /// In one line: it does not exist, was changed, is not JSON, or has another version.
    pub fn read(path: &Path, digest: Option<&str>) -> Result<Self, String> {
        let cannot = |cause: String| format!("cannot read the step document {}: {cause}", path.display());
        let bytes = std::fs::read(path).map_err(|error| cannot(error.to_string()))?;
        if digest.is_some_and(|digest| step_digest(&bytes) != digest) {
            return Err(cannot("a program has changed it since the server assigned it".to_owned()));
        }
        let Version { version } =
            serde_json::from_slice(&bytes).map_err(|error| cannot(error.to_string()))?;
        if version != VERSION {
            return Err(cannot(format!(
                "it has version {version}, and this program reads version {VERSION}"
            )));
        }
        serde_json::from_slice(&bytes).map_err(|error| cannot(error.to_string()))
    }

    /// Whether a statement may succeed in an empty database: CREATE TABLE, CREATE VIEW. Only then may a missing SQLite
    /// file be created. Otherwise a misspelt path would leave an empty file.
    pub fn may_create_table(&self) -> bool {
        self.statements.iter().any(|statement| {
            let words = sqlflow_sql::leading_words(&statement.sql, sqlflow_sql::Dialect::Sqlite, 2);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            statement.kind == "standard" && matches!(words[..], ["CREATE", "TABLE" | "VIRTUAL" | "VIEW"])
        })
    }
}
