//! The folders in which attempts stage their files, within the model's: whose they are, and when they may go.

use std::io;
use std::time::{Duration, SystemTime};

use sqlflow_proto::agent::AttemptRef;

/// No attempt takes so long from the first byte that it stages to its commit. One that does finds nothing to commit, and
/// stages again.
pub(super) const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

const PREFIX: &str = ".staging-";

/// Whether a folder of this name is somebody's staging folder.
pub(super) fn is_staging(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What a storage can do with the folders in a model's folder. Neither takes long: what is not removed now is removed
/// by somebody later.
pub(super) trait Folders {
    /// Those that [`is_staging`] is true of; none where there is no model's folder.
    fn folders(&self) -> io::Result<Vec<Folder>>;

    /// Removes one with all that is in it.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A staging folder.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) name: String,
    /// When it, or a file in it, was last changed, by the storage's clock; `None`: the storage does not tell.
    pub(super) changed: Option<SystemTime>,
}

/// Whose staging folder it is.
#[derive(Debug, Clone)]
pub(super) struct Staging {
    /// `.staging-<job>-<step>-`
    step: String,
    attempt: u32,
}

impl Staging {
    pub(super) fn new(attempt: &AttemptRef) -> Self {
        Self { step: format!("{PREFIX}{}-{}-", attempt.job_id, attempt.step), attempt: attempt.attempt }
    }

    /// Ours.
    pub(super) fn folder(&self) -> String {
        format!("{}{}", self.step, self.attempt)
    }

    /// Removes ours and those of earlier attempts of the same step.
    ///
    /// # Errors
    /// Those of the storage.
    pub(super) fn clear(&self, storage: &dyn Folders) -> io::Result<()> {
        let found = storage.folders()?;
        let mut ours = found.iter().filter(|it| self.number(&it.name).is_some_and(|it| it <= self.attempt));
        ours.try_for_each(|it| storage.remove(&it.name))
    }

    /// Removes what dead writers left, since its room may be needed: earlier attempts of the same step, which no server
    /// lets commit, and whoever has changed nothing for a day. It is no fault of anybody's when that cannot be done.
    pub(super) fn sweep(&self, storage: &dyn Folders) {
        let sweeping = storage.folders().and_then(|found| {
            // What we staged just now tells how the storage's clock stands; if not, ours will not be off by hours.
            let ours = found.iter().find(|it| it.name == self.folder());
            let now = ours.and_then(|it| it.changed).unwrap_or_else(SystemTime::now);
            let mut left = found.iter().filter(|it| self.is_left_behind(it, now));
            left.try_for_each(|it| {
                tracing::info!(folder = it.name, "removing what a writer left that is gone");
                storage.remove(&it.name)
            })
        });
        if let Err(error) = sweeping {
            tracing::debug!(%error, "what dead writers left cannot be removed");
        }
    }

    fn is_left_behind(&self, folder: &Folder, now: SystemTime) -> bool {
        let is_old = |changed| now.duration_since(changed).is_ok_and(|age| age > ABANDONED_AFTER);
        match self.number(&folder.name) {
            Some(number) => number < self.attempt,
            None => folder.changed.is_some_and(is_old),
        }
    }

    /// Of an attempt of the same step.
    fn number(&self, folder: &str) -> Option<u32> {
        folder.strip_prefix(&self.step)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Folders, and how many seconds ago they were changed.
    struct Storage(RefCell<Vec<(&'static str, u64)>>);

    impl Folders for Storage {
        fn folders(&self) -> io::Result<Vec<Folder>> {
            // Its clock is a year behind ours.
            let now = SystemTime::now() - Duration::from_secs(365 * 24 * 60 * 60);
            let folder = |(name, age): &(&str, u64)| Folder {
                name: (*name).to_owned(),
                changed: Some(now - Duration::from_secs(*age)).filter(|_| *age != UNKNOWN),
            };
            Ok(self.0.borrow().iter().map(folder).collect())
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.borrow_mut().retain(|it| it.0 != name);
            Ok(())
        }
    }

    const UNKNOWN: u64 = 1;
    const DAY: u64 = ABANDONED_AFTER.as_secs();

    fn storage() -> (Staging, Storage) {
        let staging = Staging::new(&AttemptRef { job_id: "j".into(), step: 1, attempt: 2 });
        let folders = vec![
            (".staging-j-1-2", 0),
            (".staging-j-1-1", 5),
            (".staging-j-1-3", DAY + 5),
            (".staging-j-2-1", DAY - 5),
            (".staging-dead-0-1", DAY + 5),
            (".staging-new-0-1", UNKNOWN),
        ];
        (staging, Storage(RefCell::new(folders)))
    }

    fn left(storage: &Storage) -> Vec<&'static str> {
        storage.0.borrow().iter().map(|it| it.0).collect()
    }

    #[test]
    fn whoever_stages_removes_what_dead_writers_left() {
        let (staging, storage) = storage();
        staging.sweep(&storage);
        assert_eq!(
            left(&storage),
            [".staging-j-1-2", ".staging-j-1-3", ".staging-j-2-1", ".staging-new-0-1"]
        );
    }

    #[test]
    fn whoever_is_done_removes_its_own_and_what_its_step_left() {
        let (staging, storage) = storage();
        staging.clear(&storage).unwrap();
        let others = [".staging-j-1-3", ".staging-j-2-1", ".staging-dead-0-1", ".staging-new-0-1"];
        assert_eq!(left(&storage), others);
    }
}
