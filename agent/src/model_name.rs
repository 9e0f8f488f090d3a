//! Names and places of models, shared by what fetches and what publishes them.

use std::path::{Path, PathBuf};

/// Where a model lives in a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPlace {
    /// The model's folder.
    pub folder: PathBuf,
    /// Last segment of its name; names its files.
    pub last: String,
}

impl ModelPlace {
    /// From a `file://` URI and the model's name. What follows `file://` is taken as it is: no percent-decoding, so
    /// that every name that the server accepts has exactly one place.
    ///
    /// # Errors
    /// One sentence.
    pub fn new(uri: &str, name: &str) -> Result<Self, String> {
        let path = uri
            .strip_prefix("file://")
            .ok_or_else(|| format!("cannot use {uri}: only file:// is supported"))?;
        if !path.starts_with('/') {
            return Err(format!("cannot use {uri}: file:// needs an absolute path and no host"));
        }
        if name.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(format!("`{name}` is no name for a model: it has an empty, `.` or `..` segment"));
        }
        let last = name.rsplit('/').next().unwrap_or(name).to_owned();
        Ok(Self { folder: Path::new(path).to_owned(), last })
    }

    /// The file that is the model.
    pub fn tarball(&self) -> PathBuf {
        self.folder.join(format!("{}.tar.gz", self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_the_last_segment() {
        let place = ModelPlace::new("file:///models/team/m 100%", "team/m 100%").unwrap();
        assert_eq!(place.tarball(), Path::new("/models/team/m 100%/m 100%.tar.gz"));
    }

    #[test]
    fn what_would_leave_the_folder_is_refused() {
        for name in ["", ".", "..", "a/../b", "/a", "a//b", "a/"] {
            assert!(ModelPlace::new("file:///models", name).is_err(), "{name}");
        }
        assert!(ModelPlace::new("s3://bucket/m", "m").is_err());
        assert!(ModelPlace::new("file://host/m", "m").is_err());
    }
}
