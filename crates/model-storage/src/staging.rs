//! Staging folders of attempts within a model's folder: their owners, and when they are removed.

use std::cell::LazyCell;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest as _, Sha256};
use sqlflow_proto::agent::AttemptRef;

use super::ModelLocation;

/// Age at which staging counts as abandoned. An attempt that takes longer finds its staged file gone, and stages again.
pub(super) const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Bound on one sweep; the next one continues.
const LONGEST_SWEEP: Duration = Duration::from_secs(10);

const PREFIX: &str = ".staging-";
/// File systems allow names of 255 bytes.
const LONGEST_SUFFIX: usize = 100;

/// Whether this is the name of a staging folder.
pub(super) fn is_staging(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Operations on the folders in a model's folder. Each has a short timeout: what is not removed now is removed later.
pub(super) trait Folders {
    /// Names of the staging folders; none if there is no model's folder.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Last change of a folder or a file in it, by the storage's clock; `None`: unknown.
    fn changed(&self, name: &str) -> io::Result<Option<SystemTime>>;

    /// Removes a folder recursively.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// Owner of a staging folder.
#[derive(Debug, Clone)]
pub(super) struct Staging {
    /// `.staging-<job>-<step>-`
    step: String,
    attempt: u32,
    /// Separates the outputs of one attempt if their models share a folder.
    suffix: String,
}

impl Staging {
    pub(super) fn new(attempt: &AttemptRef, location: &ModelLocation) -> Self {
        // A model's own folder has its name, and no files of other models.
        let is_models =
            location.folder.rsplit('/').next() == Some(&location.last) || location.last.is_empty();
        let suffix = match &location.last {
            _ if is_models => String::new(),
            last if last.len() <= LONGEST_SUFFIX => format!("-{last}"),
            last => format!("-{:x}", Sha256::digest(last)),
        };
        let step = format!("{PREFIX}{}-{}-", attempt.job_id, attempt.step);
        Self { step, attempt: attempt.attempt, suffix }
    }

    /// Name of this attempt's folder.
    pub(super) fn folder(&self) -> String {
        format!("{}{}{}", self.step, self.attempt, self.suffix)
    }

    /// Removes the folders of this attempt and of earlier attempts of the same step.
    ///
    /// # Errors
    /// Those of the storage.
    pub(super) fn clear(&self, storage: &dyn Folders) -> io::Result<()> {
        let mut names = storage.names()?;
        names.retain(|name| self.number(name).is_some_and(|it| it <= self.attempt));
        names.iter().try_for_each(|name| storage.remove(name))
    }

    /// Removes the folders of dead writers, since their room may be needed: of earlier attempts of the same step, which
    /// are fenced off, and of writers without a change for a day. Failures do not matter.
    pub(super) fn sweep(&self, storage: &dyn Folders) {
        let begun = Instant::now();
        let names = storage.names().unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot list staging folders");
            Vec::new()
        });
        // The file that was staged just now shows the storage's clock. Otherwise the local clock is close enough.
        let now =
            LazyCell::new(|| storage.changed(&self.folder()).ok().flatten().unwrap_or_else(SystemTime::now));
        for name in names.iter().take_while(|_| begun.elapsed() < LONGEST_SWEEP) {
            let is_dead = match self.number(name) {
                Some(number) => Ok(number < self.attempt),
                None => storage.changed(name).map(|it| it.is_some_and(|it| is_old(it, *now))),
            };
            let swept = match is_dead {
                Ok(true) => storage.remove(name),
                other => other.map(drop),
            };
            // It may belong to another user.
            if let Err(error) = swept {
                tracing::debug!(name, %error, "cannot remove the staging folder of a dead writer");
            }
        }
    }

    /// Attempt number in a folder name of the same step and file.
    fn number(&self, folder: &str) -> Option<u32> {
        folder.strip_prefix(&self.step)?.strip_suffix(&self.suffix)?.parse().ok()
    }
}

fn is_old(changed: SystemTime, now: SystemTime) -> bool {
    now.duration_since(changed).is_ok_and(|age| age > ABANDONED_AFTER)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Folders, with the seconds since their last change.
    struct Storage(RefCell<Vec<(&'static str, u64)>>);

    impl Folders for Storage {
        fn names(&self) -> io::Result<Vec<String>> {
            Ok(self.0.borrow().iter().map(|it| it.0.to_owned()).collect())
        }

        fn changed(&self, name: &str) -> io::Result<Option<SystemTime>> {
            if name.contains("foreign") {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            // Its clock is a year behind the local one.
            let now = SystemTime::now() - Duration::from_secs(365 * 24 * 60 * 60);
            let age = self.0.borrow().iter().find(|it| it.0 == name).unwrap().1;
            Ok(Some(now - Duration::from_secs(age)).filter(|_| age != UNKNOWN))
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.borrow_mut().retain(|it| it.0 != name);
            Ok(())
        }
    }

    const UNKNOWN: u64 = 1;
    const DAY: u64 = ABANDONED_AFTER.as_secs();

    fn storage() -> (Staging, Storage) {
        let location = ModelLocation::new("file:///models/m", "m").unwrap();
        let staging = Staging::new(&AttemptRef { job_id: "j".into(), step: 1, attempt: 2 }, &location);
        let folders = vec![
            (".staging-foreign-0-1", DAY + 5),
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
    fn sweep_removes_staging_of_dead_writers() {
        let (staging, storage) = storage();
        staging.sweep(&storage);
        let expected = ["foreign-0-1", "j-1-2", "j-1-3", "j-2-1", "new-0-1"];
        assert_eq!(left(&storage), expected.map(|it| format!("{PREFIX}{it}")));
    }

    #[test]
    fn files_of_one_folder_have_separate_staging() {
        let attempt = AttemptRef { job_id: "j".into(), step: 1, attempt: 2 };
        let long = "x".repeat(240);
        let staging = ["a", "1", "models", &long]
            .map(|name| Staging::new(&attempt, &ModelLocation::new("file:///models", name).unwrap()));
        let folders = staging.each_ref().map(Staging::folder);
        assert_eq!(folders[..3], [".staging-j-1-2-a", ".staging-j-1-2-1", ".staging-j-1-2"]);
        assert!(folders[3].len() < 255, "{}", folders[3]);
        for (at, one) in staging.iter().enumerate() {
            for (other, folder) in folders.iter().enumerate() {
                assert_eq!(one.number(folder).is_some(), at == other, "{folder}");
            }
        }
    }

    #[test]
    fn clear_removes_staging_of_this_and_earlier_attempts() {
        let (staging, storage) = storage();
        staging.clear(&storage).unwrap();
        let others = ["foreign-0-1", "j-1-3", "j-2-1", "dead-0-1", "new-0-1"];
        assert_eq!(left(&storage), others.map(|it| format!("{PREFIX}{it}")));
    }
}
