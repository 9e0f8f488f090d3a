//! Heartbeat of this server, which extends its lease.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::task::{Progress, Work};
use crate::reconciler::Context;

/// Maximum gap between two heartbeats that counts as a healthy server. After a longer one, the time does not count
/// towards clients' fetch timeouts.
const TOLERANCE: Duration = Duration::from_secs(4);

pub(super) struct Heartbeat {
    context: Arc<Context>,
}

impl Heartbeat {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

#[async_trait]
impl Work for Heartbeat {
    async fn pass(&mut self) -> anyhow::Result<Progress> {
        let Context { store, membership, limits, .. } = &*self.context;
        store.heartbeat(membership.id(), limits.lease, TOLERANCE).await?;
        Ok(Progress::Done)
    }
}
