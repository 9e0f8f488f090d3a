//! Limit of all connections of a listener. Beyond it no connection is accepted, so that there are descriptors left for
//! jobs, logs and the other listeners.

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Part of the limit of open files that one listener may use, and bounds of the result.
const PART: u64 = 4;
const FEWEST: u64 = 64;
const MOST: u64 = 16_384;

/// Places for connections of a listener.
#[derive(Debug, Clone)]
pub struct Places {
    who: &'static str,
    free: Arc<Semaphore>,
}

/// A connection of a listener, until it is dropped.
#[derive(Debug, Default)]
pub struct Place {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// As many as this process's limit of open files allows. `who` names the peers in the log.
    #[must_use]
    pub fn of(who: &'static str) -> Self {
        Self::new(who, most_of_process())
    }

    fn new(who: &'static str, most: usize) -> Self {
        Self { who, free: Arc::new(Semaphore::new(most)) }
    }

    /// Waits for a free place. Cancel safe.
    pub async fn take(&self) -> Place {
        if let Ok(free) = Arc::clone(&self.free).try_acquire_owned() {
            return Place { _permit: Some(free) };
        }
        tracing::warn!(who = self.who, "too many connections; further ones wait until others end");
        Place { _permit: Arc::clone(&self.free).acquire_owned().await.ok() }
    }
}

/// Maximum number of connections of a listener of this process.
#[must_use]
pub fn most_of_process() -> usize {
    most(getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft))
}

fn most(descriptors: u64) -> usize {
    usize::try_from((descriptors / PART).clamp(FEWEST, MOST)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn connections_wait_for_a_free_place() {
        let places = Places::new("clients", 2);
        let held = [places.take().await, places.take().await];
        assert!(places.take().now_or_never().is_none());
        drop(held);
        assert!(places.take().now_or_never().is_some());
        assert_eq!([64, 1024, 4096, 1 << 20].map(most), [64, 256, 1024, 16_384]);
    }
}
