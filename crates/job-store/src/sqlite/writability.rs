//! Whether this process can write, as its own heartbeats show: they are written each second anyway, so that nobody who asks
//! has to write for it. Free space is looked at as well, since SQLite writes heartbeats to blocks that it has already.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;
use sqlflow_sync::mutex::lock;
use sqlflow_text::with_causes;

use crate::types::StoreError;

/// Age of the last heartbeat from which on writing is no longer believed to work. A write that waits for another process
/// fails earlier, and says for whom it waited.
const MAX_AGE: Duration = Duration::from_secs(10);
/// Free space with which a new job can be recorded, if it is not a large one.
const MIN_FREE_BYTES: u64 = 1 << 20;

/// What became of the heartbeats of this process.
#[derive(Debug)]
pub(super) struct Writability(Mutex<Heartbeats>);

#[derive(Debug)]
struct Heartbeats {
    /// When the last one was written, or the store was opened.
    written: Instant,
    /// Why the one after it was not.
    failure: Option<String>,
}

impl Writability {
    /// Of a store that was opened just now, which needs a write.
    pub(super) fn begin(now: Instant) -> Self {
        Self(Mutex::new(Heartbeats { written: now, failure: None }))
    }

    /// A heartbeat was written, or was not.
    pub(super) fn note(&self, heartbeat: &Result<(), StoreError>, now: Instant) {
        let mut heartbeats = lock(&self.0);
        match heartbeat {
            Ok(()) => *heartbeats = Heartbeats { written: now, failure: None },
            Err(error) => heartbeats.failure = Some(with_causes(error)),
        }
    }

    /// # Errors
    /// Why writing does not work now.
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

/// Whether the disk of this file has space for new jobs. It may block.
///
/// # Errors
/// Why not.
pub(super) fn check_space(file: &Path) -> Result<(), String> {
    let dir = file.parent().unwrap_or(file);
    let found = statvfs(dir)
        .map_err(|error| format!("cannot tell the free space of {}: {}", dir.display(), error.desc()))?;
    if found.blocks() == 0 {
        // This file system does not tell.
        return Ok(());
    }
    // Some file systems keep a reserve for root.
    let blocks = if Uid::effective().is_root() { found.blocks_free() } else { found.blocks_available() };
    enough(blocks.saturating_mul(found.fragment_size()))
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
    fn a_heartbeat_that_failed_or_is_old_is_a_reason_until_the_next_one() {
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
    fn a_full_disk_has_no_space_for_new_jobs() {
        assert!(enough(4096).unwrap_err().contains("4 KiB are left"));
        assert_eq!(enough(MIN_FREE_BYTES), Ok(()));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check_space(&dir.path().join("state.db")), Ok(()));
    }
}
