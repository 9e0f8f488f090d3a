//! Reconcilers move jobs forward. Each server has one `Reconciler`, which claims jobs that no server reconciles and
//! runs one task per job. A task keeps no state outside the store: it reads the job, asks the pure function
//! `Job::next` for the next action, carries it out, records it under the job's lease, and repeats. It may be killed
//! at any point.
//!
//! `job` reconciles one job. `inferred_outcome` infers the outcome of an attempt whose agent reported none.
//! `housekeeping` runs periodic tasks. `released` remembers jobs that were released for other servers. `log_throttle`
//! limits log lines of repeated failures.

mod housekeeping;
mod inferred_outcome;
mod job;
mod log_throttle;
mod released;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use released::ReleasedJobs;
use sqlflow_job::{Job, JobId, LauncherId};
use sqlflow_job_store::Membership;
use sqlflow_job_store::{Lease, ServerId, Store};
use sqlflow_launcher::Launchers;
use sqlflow_result_log::ResultLog;
use sqlflow_sync::lock;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::attach_errors::AttachErrors;
use crate::codegen::Assigner;
use crate::memory_peaks::MemoryPeaks;
use crate::metrics::Metrics;
use crate::trace::Tracer;
pub use housekeeping::Housekeeping;

/// Dependencies of reconcilers.
pub struct Context {
    /// State of jobs.
    pub store: Arc<dyn Store>,
    /// Output of jobs.
    pub log: Arc<dyn ResultLog>,
    /// Start, observe and terminate attempts.
    pub launchers: Launchers,
    /// Makes assignments for attempts whose launcher has no agent that asks for one.
    pub assigner: Assigner,
    /// Why agents could not attach.
    pub attach_errors: AttachErrors,
    /// Peak memory use of attempts, from heartbeats.
    pub memory_peaks: MemoryPeaks,
    /// This server among the servers of the same store.
    pub membership: Membership,
    /// Timeouts and periods.
    pub limits: Limits,
    /// Exports the spans of jobs that end.
    pub tracer: Tracer,
    /// Metrics of this server.
    pub metrics: Metrics,
}

/// Timeouts and periods of reconciling.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Duration of a lease without a heartbeat.
    pub lease: Duration,
    /// Timeout for attaching, from the launch.
    pub attach: Duration,
    /// Grace period between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Retention time of ended jobs and their logs.
    pub retain_jobs: Duration,
    /// Time without a message after which an agent is reported as silent.
    pub silence: Duration,
}

/// Delay before a job is released whose reconciler panicked, so that a repeated panic costs little.
const PANIC_PAUSE: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };
/// Pause after the store could not take a job back.
const RELEASE_PAUSE: Duration = Duration::from_secs(1);

/// Handle of this server's reconciler.
#[derive(Clone)]
pub struct Reconciler {
    context: Arc<Context>,
    tasks: Arc<Mutex<HashMap<JobId, ReconcilerTask>>>,
    released: Arc<ReleasedJobs>,
    shutdown: CancellationToken,
}

/// Task that reconciles one job.
struct ReconcilerTask {
    /// Epoch of its lease.
    epoch: i64,
    task: AbortHandle,
}

impl Reconciler {
    /// Reconciler without jobs. `shutdown` ends its tasks; the jobs continue without them.
    #[must_use]
    pub fn new(context: Context, shutdown: CancellationToken) -> Self {
        Self { context: Arc::new(context), tasks: Arc::default(), released: Arc::default(), shutdown }
    }

    /// Reconciles a job whose lease this server holds. Replaces a task with an older lease. Does nothing if a task
    /// has this lease or a newer one.
    pub fn reconcile(&self, id: JobId, lease: Lease) {
        let epoch = lease.epoch;
        // The lock is held until the task is entered, so that a task that ends at once finds its entry.
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

    /// A panic ends this task only. After a pause the job is released, and claimed again.
    async fn drive_to_end(&self, id: &JobId, lease: Lease) {
        let (context, released) = (Arc::clone(&self.context), Arc::clone(&self.released));
        let reconciler = job::JobReconciler::new(context, released, id.clone(), lease.clone());
        if AssertUnwindSafe(reconciler.run()).catch_unwind().await.is_ok() {
            return;
        }
        self.context.metrics.driver_panicked();
        tracing::error!(job = %id, "the job's reconciler panicked; the job is released in {} s", PANIC_PAUSE.as_secs());
        tokio::time::sleep(PANIC_PAUSE).await;
        while let Err(error) = self.context.store.release(id, &lease).await {
            tracing::warn!(job = %id, %error, "cannot release the job; will try again");
            tokio::time::sleep(RELEASE_PAUSE).await;
        }
    }

    /// The server of this reconciler.
    #[must_use]
    pub fn server(&self) -> &ServerId {
        self.context.membership.id()
    }

    /// Launcher of a new job's first attempt.
    #[must_use]
    pub fn first_launcher_id(&self) -> LauncherId {
        self.context.launchers.first().id()
    }

    /// Whether the trace of this new job is kept; `None`: this server exports no spans.
    #[must_use]
    pub fn samples(&self, job: &Job) -> Option<bool> {
        self.context.tracer.samples(job)
    }

    /// Duration of this server's leases.
    #[must_use]
    pub fn lease_duration(&self) -> Duration {
        self.context.limits.lease
    }
}
