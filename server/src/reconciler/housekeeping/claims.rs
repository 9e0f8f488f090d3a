//! Claims of jobs without a reconciler, and a check that all held jobs are reconciled.

use std::time::Instant;

use async_trait::async_trait;
use sqlflow_job::JobId;
use sqlflow_job_store::Claim;

use super::task::{Progress, Work};
use crate::reconciler::Reconciler;

/// Maximum number of jobs claimed per pass, so that servers that start together share the jobs.
const CLAIM_LIMIT: u32 = 256;
/// Maximum number of held jobs that one pass checks.
const HELD_LIMIT: u32 = 1024;

/// Claims released jobs and jobs of servers that ended, except those that this server released itself.
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
            except: self.reconciler.released.excluded(Instant::now()),
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

/// Reconciles held jobs that have no task, for example because the answer to their claim was lost. No other server
/// does so while this one lives.
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
            // Has no effect on a job that is reconciled.
            self.reconciler.reconcile(id, lease);
        }
        Ok(if self.after.is_some() { Progress::More } else { Progress::Done })
    }
}
