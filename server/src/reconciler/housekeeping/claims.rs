//! Takes jobs that nobody reconciles, and reconciles those that this server holds.

use std::time::Instant;

use async_trait::async_trait;
use sqlflow_job::JobId;
use sqlflow_job_store::Claim;

use super::task::{Progress, Work};
use crate::reconciler::Reconciler;

/// Claimed in one pass at the most, so that servers that start together share what there is.
const CLAIM_LIMIT: u32 = 256;
/// Jobs that one pass checks to be reconciled.
const HELD_LIMIT: u32 = 1024;

/// Claims jobs whose server is gone, and jobs that were given back, but for those that this server leaves to others.
pub(super) struct Claims {
    reconciler: Reconciler,
}

impl Claims {
    pub(super) fn new(reconciler: Reconciler) -> Self {
        Self { reconciler }
    }
}

#[async_trait]
impl Work for Claims {
    async fn pass(&mut self) -> anyhow::Result<Progress> {
        let context = &self.reconciler.context;
        let owners = context.store.lease_owners(context.membership.id()).await?;
        let claim = Claim {
            owner: context.membership.id().clone(),
            dead: owners.into_iter().filter(|owner| context.membership.is_gone(owner)).collect(),
            except: self.reconciler.released.resting(Instant::now()),
            lease: context.limits.lease,
            limit: CLAIM_LIMIT,
        };
        for (id, lease) in context.store.claim(claim).await? {
            tracing::info!(job = %id, epoch = lease.epoch, "took the job over");
            self.reconciler.reconcile(id, lease);
        }
        Ok(Progress::Done)
    }
}

/// Drives what this server holds and does not reconcile: for example a job whose claim was written, and whose answer was
/// lost. Nobody else would, as long as this server lives.
pub(super) struct Held {
    reconciler: Reconciler,
    after: Option<JobId>,
}

impl Held {
    pub(super) fn new(reconciler: Reconciler) -> Self {
        Self { reconciler, after: None }
    }
}

#[async_trait]
impl Work for Held {
    async fn pass(&mut self) -> anyhow::Result<Progress> {
        let context = &self.reconciler.context;
        let held = context.store.held(context.membership.id(), self.after.as_ref(), HELD_LIMIT).await?;
        self.after = held.last().map(|(id, _)| id.clone()).filter(|_| held.len() >= HELD_LIMIT as usize);
        for (id, lease) in held {
            // Nothing happens to a job that is reconciled.
            self.reconciler.reconcile(id, lease);
        }
        Ok(if self.after.is_some() { Progress::More } else { Progress::Done })
    }
}
