//! The data source of a program, checked before it is sent.

use std::path::Path;

use sqlflow_data_source::AbsentFile;

use crate::connection::is_this_machine;
use crate::failure::Failure;

/// A data source, and the option or variable that it comes from.
#[derive(Debug, Default)]
pub(super) struct DataSource {
    pub(super) text: Option<String>,
    pub(super) origin: String,
}

impl DataSource {
    /// The text for the session; empty for the server's own data source.
    ///
    /// # Errors
    /// It is invalid, or a relative path was meant.
    pub(super) fn checked(&self, server: &str) -> Result<String, Failure> {
        let Some(text) = self.text.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(String::new());
        };
        let wrong =
            |why: &str| Failure::Usage(format!("cannot use the data source (from {}): {why}", self.origin));
        if sqlflow_data_source::is_name(text) {
            // The server knows those that its operator gave.
            return Ok(text.to_owned());
        }
        sqlflow_data_source::dialect(text).map_err(|error| wrong(&error.to_string()))?;
        let folder = std::env::current_dir().unwrap_or_default();
        match meant_path(text, &folder) {
            Some(meant) if is_this_machine(server) => Err(wrong(&format!(
                "the path of an SQLite file is absolute, and {text} does not exist; write sqlite:///{}",
                meant
            ))),
            _ => Ok(text.to_owned()),
        }
    }
}

impl DataSource {
    /// A warning if a server on this machine would not find the file.
    pub(super) fn warning(&self, server: &str) -> Option<String> {
        let text = self.text.as_deref().filter(|_| is_this_machine(server))?;
        let AbsentFile { path, is_created } = sqlflow_data_source::absent_sqlite_file(text)?;
        let what = match is_created {
            true => "it is created if the program creates a table",
            false => "correct the path, or add ?mode=rwc, so that CREATE TABLE creates it",
        };
        Some(format!("warning: SQLite file {} (from {}) does not exist; {what}", path.display(), self.origin))
    }
}

/// The absolute path of a file in this folder that was given as if it were in the root folder, as in
/// `sqlite:///iris.db`.
fn meant_path(text: &str, folder: &Path) -> Option<String> {
    let path = sqlflow_data_source::sqlite_path(text)?;
    let meant = folder.join(path.strip_prefix("/").ok()?);
    (!path.exists() && meant.is_file()).then(|| meant.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_in_the_current_folder_is_suggested_with_its_absolute_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("beside.db");
        std::fs::write(&file, "").unwrap();
        let meant = file.display().to_string();
        assert_eq!(meant_path("sqlite:///beside.db", folder.path()), Some(meant));
        assert_eq!(meant_path("sqlite:///not-beside.db", folder.path()), None);
        assert_eq!(
            meant_path(&format!("sqlite://{}", file.display()), folder.path()),
            None,
            "the path exists"
        );
        assert_eq!(meant_path("mysql://h/beside.db", folder.path()), None);
    }
}
