//! A file that somebody else changes while this process runs: it is read again when it has changed. A file that cannot be used leaves
//! what was read before in use.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    /// Each error is reported once.
    last_error: String,
}

/// What changes with a file's content, also if a program restores the time of the content, and when it becomes readable.
type Version = Option<[i64; 7]>;

impl<T> Reloaded<T> {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read or parsed.
    pub fn open(path: &Path, parse: fn(&str) -> Result<T, String>) -> io::Result<Self> {
        let version = version(path);
        let state = State {
            content: Arc::new(read(path, parse)?),
            version,
            checked: Instant::now(),
            last_error: String::new(),
        };
        Ok(Self { path: path.to_owned(), parse, state: Mutex::new(state) })
    }

    /// What it holds now. `on_error` gets the error of a changed file that cannot be used, once.
    pub fn current(&self, on_error: impl FnOnce(&io::Error)) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.checked.elapsed() >= CHECK_PERIOD {
            state.checked = Instant::now();
            let version = version(&self.path);
            if version != state.version {
                match read(&self.path, self.parse) {
                    Ok(content) => {
                        state.content = Arc::new(content);
                        // A file that could not be used is tried again: the cause may be elsewhere.
                        state.version = version;
                        state.last_error.clear();
                    }
                    Err(error) => {
                        let said = error.to_string();
                        if said != state.last_error {
                            state.last_error = said;
                            on_error(&error);
                        }
                    }
                }
            }
        }
        Arc::clone(&state.content)
    }

    /// Makes the next call check the file.
    #[cfg(any(test, feature = "test-support"))]
    pub fn check_soon(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.checked -= CHECK_PERIOD;
    }
}

fn version(path: &Path) -> Version {
    let it = std::fs::metadata(path).ok()?;
    let identity = [it.dev().cast_signed(), it.ino().cast_signed(), it.size().cast_signed()];
    Some([identity[0], identity[1], identity[2], it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()])
}

fn read<T>(path: &Path, parse: fn(&str) -> Result<T, String>) -> io::Result<T> {
    parse(&std::fs::read_to_string(path)?).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

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
        // Of the same length and time as the first one.
        let kept = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, "333333333").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(kept).unwrap();
        file.check_soon();
        assert_eq!(current(), 333_333_333);
        std::fs::remove_file(&path).unwrap();
        file.check_soon();
        assert_eq!(*file.current(|_| ()), 333_333_333);
        assert!(Reloaded::open(&path, number).is_err());
    }

    /// For a moment it is not there, or cannot be used for a reason that leaves no trace in it.
    #[test]
    fn file_that_could_not_be_used_is_read_again() {
        thread_local! { static IS_USABLE: Cell<bool> = const { Cell::new(true) } }
        let usable = |text: &str| if IS_USABLE.get() { number(text) } else { Err("not now".to_owned()) };
        let dir = tempfile::tempdir().unwrap();
        let [path, away, other] = ["number", "away", "other"].map(|it| dir.path().join(it));
        std::fs::write(&path, "1").unwrap();
        let file = Reloaded::open(&path, usable).unwrap();
        let current = || {
            file.check_soon();
            let mut errors = 0;
            (*file.current(|_| errors += 1), errors)
        };

        std::fs::write(&path, "2").unwrap();
        IS_USABLE.set(false);
        assert_eq!(current(), (1, 1));
        assert_eq!(current(), (1, 0), "the error is reported once");
        IS_USABLE.set(true);
        assert_eq!(current(), (2, 0));

        std::fs::rename(&path, &away).unwrap();
        assert_eq!(current(), (2, 1));
        std::fs::write(&away, "3").unwrap();
        std::fs::rename(&away, &path).unwrap();
        assert_eq!(current(), (3, 0));

        // Another file of the same time and size in its place.
        std::fs::write(&other, "4").unwrap();
        let kept = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::File::options().write(true).open(&other).unwrap().set_modified(kept).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(current(), (4, 0));
    }
}
