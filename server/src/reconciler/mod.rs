//! Reconcilers move jobs on. Every server runs one `Reconciler`; it claims jobs that nobody reconciles and runs one task for
//! each. A task holds nothing that is not in the store: it looks at the job, asks the pure `Job::next` what to do,
//! does it, records it under its lease, and looks again. It may be killed between any two of these.
//!
//! `job` reconciles one job, `inferred_outcome` says how an attempt ended whose agent cannot report it, `housekeeping` does what is
//! due from time to time, `released` is about jobs that it leaves to other servers for a while, `log_throttle` limits what is
//! logged of lasting failures.

mod housekeeping;
mod inferred_outcome;
mod job;
mod log_throttle;
mod released;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use released::ReleasedJobs;
use sqlflow_job::{JobId, LauncherId};
use sqlflow_job_store::Membership;
use sqlflow_job_store::{Lease, ServerId, Store};
use sqlflow_launcher::Launchers;
use sqlflow_result_log::ResultLog;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::attach_errors::AttachErrors;
use crate::codegen::Assigner;
use crate::memory_peaks::MemoryPeaks;
use crate::metrics::Metrics;
use crate::trace::Tracer;
pub use housekeeping::Housekeeping;

/// What reconciling requirements.
pub struct Context {
    /// The state of jobs.
    pub store: Arc<dyn Store>,
    /// What jobs said.
    pub log: Arc<dyn ResultLog>,
    /// Start attempts.
    pub launchers: Launchers,
    /// Says what attempts are to do, where no agent asks for it.
    pub assigner: Assigner,
    /// Why agents could not attach.
    pub attach_errors: AttachErrors,
    /// What heartbeats said of attempts' memory.
    pub memory_peaks: MemoryPeaks,
    /// This server among others on the same store.
    pub membership: Membership,
    /// Time limits.
    pub limits: Limits,
    /// Takes the spans of jobs that end.
    pub tracer: Tracer,
    /// Counts what goes wrong.
    pub metrics: Metrics,
}

/// Time limits of reconciling.
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
    /// An agent that is not heard for so long is said to be silent.
    pub silence: Duration,
}

/// How long a job waits whose reconciler panicked, so that a fault that repeats costs little.
const PANIC_PAUSE: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };
/// Pause after the store could not take a job back.
const RELEASE_PAUSE: Duration = Duration::from_secs(1);

/// A handle to this server's reconciler.
#[derive(Clone)]
pub struct Reconciler {
    context: Arc<Context>,
    tasks: Arc<Mutex<HashMap<JobId, ReconcilerTask>>>,
    released: Arc<ReleasedJobs>,
    shutdown: CancellationToken,
}

/// A task that reconciles a job.
struct ReconcilerTask {
    /// Of its lease.
    epoch: i64,
    task: AbortHandle,
}

impl Reconciler {
    /// A reconciler that has no jobs yet. `shutdown` ends its tasks; the jobs go on without them.
    #[must_use]
    pub fn new(context: Context, shutdown: CancellationToken) -> Self {
        Self { context: Arc::new(context), tasks: Arc::default(), released: Arc::default(), shutdown }
    }

    /// Drives a job that this server holds the lease of. A task with an older lease is replaced; nothing happens if
    /// the job is reconciled under this lease, or a newer one, already.
    pub fn reconcile(&self, id: JobId, lease: Lease) {
        let epoch = lease.epoch;
        // Held until the task is in it, so that one that ends at once finds its entry.
        let mut tasks = lock(&self.tasks);
        if tasks.get(&id).is_some_and(|reconciling| reconciling.epoch >= epoch) {
            return;
        }
        let (this, job) = (self.clone(), id.clone());
        let task = tokio::spawn(async move {
            tokio::select! {
                () = this.drive_to_end(&job, lease) => {}
                () = this.shutdown.cancelled() => {}
            }
            let mut tasks = lock(&this.tasks);
            if tasks.get(&job).is_some_and(|reconciling| reconciling.epoch == epoch) {
                tasks.remove(&job);
            }
        });
        if let Some(older) = tasks.insert(id, ReconcilerTask { epoch, task: task.abort_handle() }) {
            older.task.abort();
        }
    }

    /// A panic ends this task and nothing else: after a pause the job is given back, and claimed again.
    async fn drive_to_end(&self, id: &JobId, lease: Lease) {
        let (context, released) = (Arc::clone(&self.context), Arc::clone(&self.released));
        let reconciler = job::JobReconciler::new(context, released, id.clone(), lease.clone());
        if AssertUnwindSafe(reconciler.run()).catch_unwind().await.is_ok() {
            return;
        }
        self.context.metrics.driver_panicked();
        tracing::error!(job = %id, "the job's reconciler panicked; the job is given back in {} s", PANIC_PAUSE.as_secs());
        tokio::time::sleep(PANIC_PAUSE).await;
        while let Err(error) = self.context.store.release(id, &lease).await {
            tracing::warn!(job = %id, %error, "cannot give the job back, will try again");
            tokio::time::sleep(RELEASE_PAUSE).await;
        }
    }

    /// The server that this reconciler belongs to.
    #[must_use]
    pub fn server(&self) -> &ServerId {
        self.context.membership.id()
    }

    /// Where the first attempt of a new job runs.
    #[must_use]
    pub fn first_launcher_id(&self) -> LauncherId {
        self.context.launchers.first().id()
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
