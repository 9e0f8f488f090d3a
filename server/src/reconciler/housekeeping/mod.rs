//! Periodic tasks of a server. Each is a task of its own, so that a slow or stuck one delays no other one, above all
//! not the heartbeat: without it, other servers claim this one's jobs.
//!
//! `task` runs one kind of work; `bounded` limits one pass. `heartbeat`, `claims`, `fetch_timeouts`, `retention` and
//! `garbage_collection` are the work. Their only inputs are the store and the launcher.

mod bounded;
mod claims;
mod fetch_timeouts;
mod garbage_collection;
mod heartbeat;
mod retention;
mod task;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use self::task::{Task, Work};
use super::Reconciler;

/// Period of heartbeats, claims and fetch timeouts.
const PERIOD: Duration = Duration::from_secs(1);
/// Period of checking that this server reconciles all jobs that it holds.
const HELD_PERIOD: Duration = Duration::from_secs(30);
/// Period of retention and garbage collection.
const CLEANUP_PERIOD: Duration = Duration::from_secs(30);

/// Periodic tasks of one server.
pub struct Housekeeping {
    reconciler: Reconciler,
}

impl Housekeeping {
    /// Housekeeping for this reconciler's server.
    #[must_use]
    pub fn new(reconciler: Reconciler) -> Self {
        Self { reconciler }
    }

    /// Runs until the reconciler is shut down.
    pub async fn run(self) {
        let mut tasks = JoinSet::new();
        for task in self.tasks() {
            tasks.spawn(task.run(self.reconciler.shutdown.clone()));
        }
        tasks.join_all().await;
    }

    fn tasks(&self) -> Vec<Task> {
        let context = &self.reconciler.context;
        let task =
            |name, period, work: Box<dyn Work>| Task { name, period, work, metrics: context.metrics.clone() };
        vec![
            task("heartbeat", PERIOD, Box::new(heartbeat::Heartbeat::new(Arc::clone(context)))),
            task("claims", PERIOD, Box::new(claims::Claims::new(self.reconciler.clone()))),
            task("held", HELD_PERIOD, Box::new(claims::Held::new(self.reconciler.clone()))),
            task("fetch_timeouts", PERIOD, Box::new(fetch_timeouts::FetchTimeouts::new(Arc::clone(context)))),
            task("retention", CLEANUP_PERIOD, Box::new(retention::Retention::new(Arc::clone(context)))),
            task(
                "garbage_collection",
                CLEANUP_PERIOD,
                Box::new(garbage_collection::GarbageCollection::new(Arc::clone(context))),
            ),
        ]
    }
}
