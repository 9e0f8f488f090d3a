//! `--exit-when-idle`: the end of a server that nobody uses. Use is a client's call, a web page that was shown, and a job
//! that has not ended.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlflow_job_store::Store;
use sqlflow_sync::lock;
use tokio_util::sync::CancellationToken;

/// Fraction of the timeout between two checks. Jobs that begin and end between two checks go unnoticed.
const CHECKS: u32 = 10;
/// Minimum time between two checks.
const SHORTEST_PERIOD: Duration = Duration::from_millis(50);
/// States of jobs that have not ended.
const LIVE: [&str; 2] = ["pending", "running"];

/// Time of the last use by clients and browsers.
#[derive(Debug, Clone)]
pub struct LastUse(Arc<Mutex<Instant>>);

impl Default for LastUse {
    /// Now.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl LastUse {
    /// Somebody uses the server now.
    pub fn note(&self) {
        *lock(&self.0) = Instant::now();
    }

    fn get(&self) -> Instant {
        *lock(&self.0)
    }
}

/// What to do after a check.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Check again after this time.
    Wait(Duration),
    /// End the server.
    End,
}

/// Measures how long nobody has used the server.
#[derive(Debug)]
struct IdleTimer {
    timeout: Duration,
    last_use: Instant,
    had_live_jobs: bool,
}

impl IdleTimer {
    fn new(timeout: Duration, now: Instant) -> Self {
        Self { timeout, last_use: now, had_live_jobs: false }
    }

    /// Takes in the time of the last use by clients and browsers, and whether a job has not ended.
    fn check(&mut self, now: Instant, last_use: Instant, has_live_jobs: bool) -> Next {
        // A job that lived at the last check may have ended just now.
        let used = if has_live_jobs || self.had_live_jobs { now } else { last_use };
        self.last_use = self.last_use.max(used);
        self.had_live_jobs = has_live_jobs;
        let rest = self.timeout.saturating_sub(now.saturating_duration_since(self.last_use));
        if rest.is_zero() {
            return Next::End;
        }
        Next::Wait(rest.min((self.timeout / CHECKS).max(SHORTEST_PERIOD)))
    }
}

/// Cancels `shutdown` once nobody has used the server for the timeout.
pub(crate) async fn shut_down_when_idle(
    timeout: Duration,
    last_use: LastUse,
    store: Arc<dyn Store>,
    shutdown: CancellationToken,
) {
    let mut timer = IdleTimer::new(timeout, Instant::now());
    loop {
        // First: a call that arrives meanwhile is seen below, before its job can be.
        let has_live_jobs = has_live_jobs(store.as_ref()).await;
        match timer.check(Instant::now(), last_use.get(), has_live_jobs) {
            Next::Wait(time) => tokio::time::sleep(time).await,
            Next::End => {
                tracing::info!(idle_seconds = timeout.as_secs(), "shutting down: nobody uses the server");
                return shutdown.cancel();
            }
        }
    }
}

/// Also if the store does not answer: then nothing is known.
async fn has_live_jobs(store: &dyn Store) -> bool {
    match store.counts().await {
        Ok(counts) => counts.iter().any(|(state, jobs)| *jobs > 0 && LIVE.contains(&state.as_str())),
        Err(error) => {
            tracing::warn!(%error, "cannot count the jobs that have not ended");
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_job::JobState;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(100);

    /// A timer, and a function of times after its start.
    fn timer() -> (IdleTimer, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (IdleTimer::new(TIMEOUT, start), move |seconds| start + Duration::from_secs(seconds))
    }

    fn wait(seconds: u64) -> Next {
        Next::Wait(Duration::from_secs(seconds))
    }

    #[test]
    fn server_ends_after_the_timeout_without_use() {
        let (mut timer, at) = timer();
        assert_eq!(timer.check(at(0), at(0), false), wait(10));
        assert_eq!(timer.check(at(95), at(0), false), wait(5), "not later than necessary");
        assert_eq!(timer.check(at(100), at(0), false), Next::End);
    }

    #[test]
    fn use_by_a_client_begins_the_timeout_again() {
        let (mut timer, at) = timer();
        assert_eq!(timer.check(at(99), at(98), false), wait(10));
        assert_eq!(timer.check(at(197), at(98), false), wait(1));
        assert_eq!(timer.check(at(198), at(98), false), Next::End);
    }

    #[test]
    fn server_lives_as_long_as_a_job_and_then_for_the_whole_timeout() {
        let (mut timer, at) = timer();
        assert_eq!(timer.check(at(500), at(0), true), wait(10));
        assert_eq!(timer.check(at(510), at(0), false), wait(10), "it may have ended at 509");
        assert_eq!(timer.check(at(609), at(0), false), wait(1));
        assert_eq!(timer.check(at(610), at(0), false), Next::End);
    }

    #[test]
    fn live_states_are_states_of_jobs() {
        assert!(LIVE.iter().all(|state| JobState::NAMES.contains(state)));
    }
}
