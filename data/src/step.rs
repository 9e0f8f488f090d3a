//! The step document, `step.json`: the step that the server assigns.

use std::path::Path;

use serde::Deserialize;

/// Version of the documents that this program reads.
const VERSION: u32 = 1;

/// A step: standard statements, or one extended statement.
#[derive(Debug, Deserialize)]
pub struct Step {
    /// Statements that change settings of the session, to run first.
    #[serde(default)]
    pub replay: Vec<Replay>,
    /// The statements.
    pub statements: Vec<Statement>,
}

/// An earlier statement.
#[derive(Debug, Deserialize)]
pub struct Replay {
    /// Its text.
    pub sql: String,
}

/// A statement.
#[derive(Debug, Deserialize)]
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
    /// What to write instead, if the statement is of another database.
    #[serde(default)]
    pub hint: String,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Step {
    /// Reads a document.
    ///
    /// # Errors
    /// In one line: it does not exist, is not JSON, or has another version.
    pub fn read(path: &Path) -> Result<Self, String> {
        let cannot = |cause: String| format!("cannot read the step document {}: {cause}", path.display());
        let bytes = std::fs::read(path).map_err(|error| cannot(error.to_string()))?;
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
