//! `--on-exit cancel`: what a server does with its jobs before it ends. By default they continue without it. With `cancel`
//! it cancels the jobs that it holds, serves on until nothing of them is left at the launcher, and then ends. The time is
//! bounded, because a platform that ends a server kills it soon.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlflow_job::{Cause, Event, Failure, JobId};
use sqlflow_job_store::{ServerId, Store, StoreError};
use sqlflow_launcher::{Execution, Launchers};
use sqlflow_os::clock;
use tokio_util::sync::CancellationToken;

/// Time after the grace period of jobs in which agents report, and launchers remove what ran. With the default grace period
/// the whole end takes less than the 30 seconds that Kubernetes gives a Pod.
const MARGIN: Duration = Duration::from_secs(12);
/// Time for asking the launcher to end what is left.
const ASK_TIME: Duration = Duration::from_secs(2);
/// Pause between two looks at what is left.
const PERIOD: Duration = Duration::from_millis(500);
/// Number of jobs that are read at a time.
const PAGE: u32 = 1_000;

/// Cancels the jobs of a server that ends.
pub(crate) struct CancelOnExit {
    /// State of jobs.
    pub(crate) store: Arc<dyn Store>,
    /// Where attempts run.
    pub(crate) launchers: Launchers,
    /// The server that ends.
    pub(crate) me: ServerId,
    /// Grace period between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
}

impl CancelOnExit {
    /// Waits until the server is `asked` to end. Cancels `shutdown` when nothing of its jobs is left, or the time is over.
    pub(crate) async fn run(self, asked: CancellationToken, shutdown: CancellationToken) {
        asked.cancelled().await;
        let mut cancelled = HashSet::new();
        let time = self.grace + MARGIN;
        let ended = tokio::time::timeout(time, self.until_nothing_is_left(&mut cancelled)).await;
        match ended {
            Ok(()) => tracing::info!(
                cancelled = cancelled.len(),
                "no job of this server runs any more, and nothing is left of them"
            ),
            Err(_) => self.ask_the_rest_to_end(&cancelled, time).await,
        }
        shutdown.cancel();
    }

    /// Also jobs that clients start meanwhile.
    async fn until_nothing_is_left(&self, cancelled: &mut HashSet<JobId>) {
        loop {
            match self.pass(cancelled).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot cancel the jobs of this server; will try again"),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Returns how many jobs have not ended, plus how many attempts are left at the launchers.
    async fn pass(&self, cancelled: &mut HashSet<JobId>) -> Result<usize, StoreError> {
        let live = self.cancel_held(cancelled).await?;
        let left = self.left(cancelled).await?;
        for Left { execution, state } in &left {
            match state {
                // Its reconciler ends it.
                LeftState::Live => {}
                LeftState::Ended => {
                    if let Err(error) = execution.cleanup(false).await {
                        let attempt = execution.attempt();
                        tracing::warn!(%attempt, error = format!("{error:#}"), "cannot clean up the attempt; will try again");
                    }
                }
            }
        }
        Ok(live + left.len())
    }

    /// Cancels the jobs that this server holds. Returns the number of those that have not ended.
    async fn cancel_held(&self, cancelled: &mut HashSet<JobId>) -> Result<usize, StoreError> {
        let mut live = 0;
        let mut after: Option<JobId> = None;
        loop {
            let held = self.store.held(&self.me, after.as_ref(), PAGE).await?;
            let Some((last, _)) = held.last() else { return Ok(live) };
            after = Some(last.clone());
            live += held.len();
            for (id, _) in held {
                if cancelled.contains(&id) {
                    continue;
                }
                let why = "the job was cancelled because its server ended (--on-exit cancel)";
                let cancel = Event::CancelRequested(Failure::new(Cause::Cancelled, why));
                match self.store.update(&id, None, cancel, clock::now_ms()).await {
                    Ok(_) => {
                        tracing::info!(job = %id, "cancelled, because the server ends");
                        cancelled.insert(id);
                    }
                    // The next pass finds it again, unless it has ended.
                    Err(error) => tracing::warn!(job = %id, %error, "cannot cancel the job now"),
                }
            }
        }
    }

    /// What is left at the launchers of the cancelled jobs, and of jobs that have ended before. Attempts of jobs that the
    /// store does not know are those of another server.
    async fn left(&self, cancelled: &HashSet<JobId>) -> Result<Vec<Left>, StoreError> {
        let mut left = Vec::new();
        for execution in self.launchers.attempts().await {
            let Some(record) = self.store.load(&execution.attempt().job).await? else { continue };
            let state = if record.job.state.is_final() {
                LeftState::Ended
            } else if cancelled.contains(&record.job.id) {
                LeftState::Live
            } else {
                // Another server of the same state folder holds it.
                continue;
            };
            left.push(Left { execution: execution.recorded_in(&record.job), state });
        }
        Ok(left)
    }

    /// Asks the launcher to end what is left, which happens without this server, and logs it.
    async fn ask_the_rest_to_end(&self, cancelled: &HashSet<JobId>, time: Duration) {
        let asked = async {
            let left = self.left(cancelled).await?;
            let mut stops = Vec::with_capacity(left.len());
            for Left { execution, .. } in &left {
                stops.push(execution.stop(false));
            }
            futures::future::join_all(stops).await;
            Ok::<_, StoreError>(left)
        };
        let seconds = time.as_secs();
        match tokio::time::timeout(ASK_TIME, asked).await {
            Ok(Ok(left)) => {
                for Left { execution, .. } in left {
                    let attempt = execution.attempt();
                    tracing::warn!(%attempt, "the attempt was still there after {seconds} s; it was asked to end");
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot tell what is left of the jobs after {seconds} s");
            }
            Err(_) => {
                tracing::warn!("jobs were still there after {seconds} s, and their launcher does not answer");
            }
        }
    }
}

/// An attempt that has anything at its launcher.
struct Left {
    execution: Execution,
    state: LeftState,
}

/// State of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeftState {
    /// It has not ended.
    Live,
    /// It has ended.
    Ended,
}
