//! What a server does from time to time, whatever else happens: it says that it is there, takes jobs that nobody
//! drives, cancels what nobody fetches, and forgets what is old. Each pass takes no input but the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Driver;
use crate::clock;
use crate::job::{Cause, Event, Failure};
use crate::store::Claim;

const PERIOD: Duration = Duration::from_secs(1);
/// Claimed in one pass at the most, so that servers that start together share what there is.
const CLAIM_LIMIT: u32 = 256;
/// How often old jobs are looked for.
const RETENTION_PERIOD: Duration = Duration::from_secs(30);
const RETENTION_BATCH: u32 = 256;
/// A server that was silent for longer was away, and that time does not count against clients.
const PRESENCE_TOLERANCE: Duration = Duration::from_secs(4);

/// The periodic work of one server.
pub struct Housekeeping {
    driver: Driver,
    retention_due: Instant,
}

impl Housekeeping {
    /// Housekeeping for this driver's server.
    #[must_use]
    pub fn new(driver: Driver) -> Self {
        Self { driver, retention_due: Instant::now() }
    }

    /// Works until the driver is shut down.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let shutdown = self.driver.shutdown.clone();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            if let Err(error) = self.pass().await {
                self.driver.context.metrics.housekeeping_failed();
                tracing::warn!(error = format!("{error:#}"), "housekeeping failed, will try again");
            }
        }
    }

    async fn pass(&mut self) -> anyhow::Result<()> {
        self.say_present().await?;
        self.claim().await?;
        self.cancel_unfetched().await?;
        if Instant::now() >= self.retention_due {
            self.retention_due = Instant::now() + RETENTION_PERIOD;
            self.forget_old_jobs().await?;
            self.sweep_leftovers().await;
        }
        Ok(())
    }

    async fn say_present(&self) -> anyhow::Result<()> {
        let context = &self.driver.context;
        let now = clock::now_ms();
        let tolerance = millis(PRESENCE_TOLERANCE);
        context
            .store
            .heartbeat(context.presence.id(), now, now + millis(context.limits.lease), tolerance)
            .await?;
        Ok(())
    }

    async fn claim(&self) -> anyhow::Result<()> {
        let context = &self.driver.context;
        let now = clock::now_ms();
        let owners = context.store.lease_owners(context.presence.id(), now).await?;
        let dead = owners.into_iter().filter(|owner| context.presence.is_gone(owner)).collect();
        let claim = Claim {
            owner: context.presence.id().clone(),
            dead,
            now_ms: now,
            until_ms: now + millis(context.limits.lease),
            limit: CLAIM_LIMIT,
        };
        for (id, lease) in context.store.claim(claim).await? {
            tracing::info!(job = %id, epoch = lease.epoch, "took the job over");
            self.driver.drive(id, lease);
        }
        Ok(())
    }

    async fn cancel_unfetched(&self) -> anyhow::Result<()> {
        let store = &self.driver.context.store;
        let now = clock::now_ms();
        for (id, timeout_ms) in store.unfetched(now).await? {
            let message = format!("nobody fetched the job for {} seconds", timeout_ms / 1000);
            let event = Event::CancelRequested(Failure::new(Cause::NotFetched, message));
            store.update(&id, None, event, now).await?;
        }
        Ok(())
    }

    async fn forget_old_jobs(&self) -> anyhow::Result<()> {
        let context = &self.driver.context;
        let before = clock::now_ms().saturating_sub(millis(context.limits.retain_jobs));
        for id in context.store.ended_before(before, RETENTION_BATCH).await? {
            // The log first: a job without a log can be found and removed again, a log without a job not.
            context.log.delete(&id).await?;
            context.store.remove(&id).await?;
            tracing::info!(job = %id, "forgot the job: it is older than the retention time");
        }
        Ok(())
    }

    /// Removes what attempts left behind whose job is over, or of which nobody knows.
    async fn sweep_leftovers(&self) {
        let context = Arc::clone(&self.driver.context);
        for launcher in context.launchers.all() {
            for attempt in launcher.leftovers().await {
                match context.store.load(&attempt.job).await {
                    Ok(Some(record)) if !record.job.state.is_final() => {}
                    Ok(Some(_)) => launcher.clean_up(&attempt, false).await,
                    Ok(None) => launcher.clean_up_orphan(&attempt).await,
                    Err(_) => return,
                }
            }
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
