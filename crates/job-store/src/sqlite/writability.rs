//! Writability of the state, as shown by this process's heartbeats, so that a check needs no write. Free space is
//! checked too, because SQLite writes heartbeats to blocks that it has already.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sqlflow_os::disk;
use sqlflow_sync::lock;
use sqlflow_text::with_causes;

use crate::types::StoreError;

/// Age of the last heartbeat beyond which the state counts as not writable. A write that waits for another process
/// fails earlier, and its error names that process.
const MAX_AGE: Duration = Duration::from_secs(10);
/// Minimum free space for a new job of ordinary size.
const MIN_FREE_BYTES: u64 = 1 << 20;

/// Results of this process's heartbeats.
#[derive(Debug)]
pub(super) struct Writability(Mutex<Heartbeats>);

#[derive(Debug)]
struct Heartbeats {
    /// Time of the last successful one, or of the store's opening.
    written: Instant,
    /// Error of the one after it.
    failure: Option<String>,
}

impl Writability {
    /// The state of a store that was just opened, which required a write.
    pub(super) fn begin(now: Instant) -> Self {
        Self(Mutex::new(Heartbeats { written: now, failure: None }))
    }

    /// Records the result of a heartbeat.
    pub(super) fn note(&self, heartbeat: &Result<(), StoreError>, now: Instant) {
        let mut heartbeats = lock(&self.0);
        match heartbeat {
            Ok(()) => *heartbeats = Heartbeats { written: now, failure: None },
            Err(error) => heartbeats.failure = Some(with_causes(error)),
        }
    }

    /// # Errors
    /// The reason for which writes fail.
    pub(super) fn check(&self, now: Instant) -> Result<(), String> {
        let heartbeats = lock(&self.0);
        if let Some(why) = &heartbeats.failure {
            return Err(format!("cannot write this server's heartbeat: {why}"));
        }
        let age = now.saturating_duration_since(heartbeats.written);
        if age > MAX_AGE {
            return Err(format!(
                "cannot write this server's heartbeat: the last one is {} s old; see whether the disk of the state folder \
                 answers",
                age.as_secs()
            ));
        }
        Ok(())
    }
}

/// Checks that the disk of this file has space for new jobs. It may block.
///
/// # Errors
/// The reason.
pub(super) fn check_space(file: &Path) -> Result<(), String> {
    let dir = file.parent().unwrap_or(file);
    let free = disk::free_bytes(dir)
        .map_err(|error| format!("cannot query the free space of {}: {}", dir.display(), error.desc()))?;
    free.map_or(Ok(()), enough)
}

fn enough(free_bytes: u64) -> Result<(), String> {
    if free_bytes < MIN_FREE_BYTES {
        return Err(format!(
            "cannot record new jobs: {} KiB are left; free space on the disk of the server's state folder",
            free_bytes >> 10
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_or_old_heartbeat_is_an_error_until_the_next_one() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let writability = Writability::begin(begun);
        assert_eq!(writability.check(at(10)), Ok(()));
        assert!(writability.check(at(11)).unwrap_err().contains("is 11 s old"));
        writability.note(&Ok(()), at(12));
        assert_eq!(writability.check(at(13)), Ok(()));
        writability.note(&Err(StoreError::Busy { why: "process 17 writes".to_owned() }), at(13));
        assert!(writability.check(at(13)).unwrap_err().ends_with("process 17 writes"));
        writability.note(&Ok(()), at(14));
        assert_eq!(writability.check(at(14)), Ok(()));
    }

    #[test]
    fn full_disk_has_no_space_for_new_jobs() {
        assert!(enough(4096).unwrap_err().contains("4 KiB are left"));
        assert_eq!(enough(MIN_FREE_BYTES), Ok(()));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check_space(&dir.path().join("state.db")), Ok(()));
    }
}
