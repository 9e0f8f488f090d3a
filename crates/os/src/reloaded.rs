//! A file that somebody else changes while this process runs: it is read again when it has changed. A file that cannot be used leaves
//! what was read before in use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Period of checking for a changed file.
pub const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// What a file holds, as last read.
pub struct Reloaded<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
    state: Mutex<State<T>>,
}

struct State<T> {
    content: Arc<T>,
    version: Version,
    checked: Instant,
}

/// Time and size of a file, which change with its content.
type Version = Option<(SystemTime, u64)>;

impl<T> Reloaded<T> {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read or parsed.
    pub fn open(path: &Path, parse: fn(&str) -> Result<T, String>) -> io::Result<Self> {
        let version = version(path);
        let state = State { content: Arc::new(read(path, parse)?), version, checked: Instant::now() };
        Ok(Self { path: path.to_owned(), parse, state: Mutex::new(state) })
    }

    /// What it holds now. `on_error` gets the error of a changed file that cannot be used, once.
    pub fn current(&self, on_error: impl FnOnce(&io::Error)) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.checked.elapsed() >= CHECK_PERIOD {
            state.checked = Instant::now();
            let version = version(&self.path);
            if version != state.version {
                state.version = version;
                match read(&self.path, self.parse) {
                    Ok(content) => state.content = Arc::new(content),
                    Err(error) => on_error(&error),
                }
            }
        }
        Arc::clone(&state.content)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the next call check the file.
    #[cfg(any(test, feature = "test-support"))]
    pub fn check_soon(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.checked -= CHECK_PERIOD;
    }
}

fn version(path: &Path) -> Version {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

fn read<T>(path: &Path, parse: fn(&str) -> Result<T, String>) -> io::Result<T> {
    parse(&std::fs::read_to_string(path)?).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<u32, String> {
        text.trim().parse().map_err(|_| format!("{text:?} is no number"))
    }

    #[test]
    fn changed_file_is_read_and_a_broken_one_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let file = Reloaded::open(&path, number).unwrap();
        let current = || *file.current(|error| panic!("{error}"));
        assert_eq!(current(), 1);
        std::fs::write(&path, "22").unwrap();
        file.check_soon();
        assert_eq!(current(), 22);
        std::fs::write(&path, "no number").unwrap();
        file.check_soon();
        let mut said = None;
        assert_eq!(*file.current(|error| said = Some(error.to_string())), 22);
        assert!(said.is_some_and(|it| it.contains("is no number")));
        file.check_soon();
        assert_eq!(current(), 22);
        std::fs::remove_file(&path).unwrap();
        file.check_soon();
        assert_eq!(*file.current(|_| ()), 22);
        assert!(Reloaded::open(&path, number).is_err());
    }
}
