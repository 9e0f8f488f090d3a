//! Drivers move jobs on. Every server runs one `Driver`; it claims jobs that nobody drives and runs one task for
//! each. A task holds nothing that is not in the store: it looks at the job, asks the pure `Job::next` what to do,
//! does it, records it under its lease, and looks again. It may be killed between any two of these.
//!
//! `job` drives one job, `verdict` says how an attempt ended that cannot say so itself, `housekeeping` does what is
//! due from time to time.

mod housekeeping;
mod job;
mod verdict;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::job::JobId;
use crate::launch::Launchers;
use crate::log::ResultLog;
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::refusals::Refusals;
use crate::store::{Lease, ServerId, Store};
use crate::trace::Tracer;

pub use housekeeping::Housekeeping;

/// What driving needs.
pub struct Context {
    /// The state of jobs.
    pub store: Arc<dyn Store>,
    /// What jobs said.
    pub log: Arc<dyn ResultLog>,
    /// Start attempts.
    pub launchers: Launchers,
    /// Why agents could not attach.
    pub refusals: Refusals,
    /// This server among others on the same store.
    pub presence: Presence,
    /// Time limits.
    pub limits: Limits,
    /// Takes the spans of jobs that end.
    pub tracer: Tracer,
    /// Counts what goes wrong.
    pub metrics: Metrics,
}

/// Time limits of driving.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a lease lasts without a heartbeat.
    pub lease: Duration,
    /// How long a launched attempt may take until its agent is there.
    pub attach: Duration,
    /// Time between TERM and KILL of a submitter.
    pub grace: Duration,
    /// How long ended jobs and their logs are kept.
    pub retain_jobs: Duration,
}

/// A handle to this server's driver.
#[derive(Clone)]
pub struct Driver {
    context: Arc<Context>,
    tasks: Arc<Mutex<HashMap<JobId, AbortHandle>>>,
    shutdown: CancellationToken,
}

impl Driver {
    /// A driver that has no jobs yet. `shutdown` ends its tasks; the jobs go on without them.
    #[must_use]
    pub fn new(context: Context, shutdown: CancellationToken) -> Self {
        Self { context: Arc::new(context), tasks: Arc::default(), shutdown }
    }

    /// Drives a job that this server holds the lease of.
    pub fn drive(&self, id: JobId, lease: Lease) {
        let task = job::JobDriver::new(Arc::clone(&self.context), id.clone(), lease);
        let (shutdown, tasks, ended) = (self.shutdown.clone(), Arc::clone(&self.tasks), id.clone());
        let handle = tokio::spawn(async move {
            tokio::select! {
                () = task.run() => {}
                () = shutdown.cancelled() => {}
            }
            lock(&tasks).remove(&ended);
        });
        // A newer lease of the same job replaces a task whose lease ran out.
        if let Some(older) = lock(&self.tasks).insert(id.clone(), handle.abort_handle()) {
            older.abort();
        }
        if handle.is_finished() {
            lock(&self.tasks).remove(&id);
        }
    }

    /// The server that this driver belongs to.
    #[must_use]
    pub fn server(&self) -> &ServerId {
        self.context.presence.id()
    }

    /// How long a lease of this server lasts.
    #[must_use]
    pub fn lease_duration(&self) -> Duration {
        self.context.limits.lease
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
