//! Publishes models, on threads that may block.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::Runner;
use crate::publish::{Publication, PublishError, PublishErrorKind};
use crate::supervisor::{Event, PublishEvent, PublishFault};

/// Timeout for the size of the outputs after a termination signal. The disk may hang, and the command must be signaled.
const SIZE_TIME: Duration = Duration::from_millis(500);
/// Assumed size if it is unknown: publishing then gets its maximum of time.
const LARGE: u64 = 1 << 50;

impl Runner {
    pub(super) fn stage(&mut self) {
        let (publication, events) = (self.publication(), self.events.clone());
        let link = self.link.clone();
        spawn_blocking(move || {
            let _ = events.send(match publication.stage(&|text| link.outbox.warn(text)) {
                Ok(models) => Event::Publish(PublishEvent::Staged(models)),
                Err(error) => publish_failed(error),
            });
        });
    }

    pub(super) fn commit(&mut self) {
        let (publication, events, staged) =
            (self.publication(), self.events.clone(), std::mem::take(&mut self.staged));
        spawn_blocking(move || {
            let _ = events.send(match publication.commit(staged) {
                Ok(models) => Event::Publish(PublishEvent::Committed(models)),
                Err(error) => publish_failed(error),
            });
        });
    }

    pub(super) fn abandon_publish(&mut self) {
        let publication = self.publication();
        publication.abandon();
        self.last_work.push(spawn_blocking(move || publication.clear()));
    }

    /// Bytes of what will be published; `None`: nothing will be.
    pub(super) async fn output_bytes(&self) -> Option<u64> {
        let publication = self.publication.clone()?;
        within(SIZE_TIME, move || publication.source_bytes()).await
    }

    pub(super) fn publication(&self) -> Arc<Publication> {
        self.publication.clone().expect("preparing made it")
    }
}

async fn within(limit: Duration, size: impl FnOnce() -> Option<u64> + Send + 'static) -> Option<u64> {
    match tokio::time::timeout(limit, spawn_blocking(size)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) | Err(_) => {
            tracing::warn!("cannot find the size of the outputs in time");
            Some(LARGE)
        }
    }
}

fn publish_failed(error: PublishError) -> Event {
    let PublishError { message, committed, kind } = error;
    let fault = match kind {
        PublishErrorKind::WriteConflict => {
            tracing::warn!("{message}; staging it again");
            return Event::Publish(PublishEvent::WriteConflict { message, committed });
        }
        PublishErrorKind::Storage => PublishFault::Retryable,
        PublishErrorKind::UserError => PublishFault::UserError,
        PublishErrorKind::Abandoned => PublishFault::Final,
    };
    Event::Publish(PublishEvent::PublishFailed { message, committed, fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hanging_disk_does_not_delay_the_end() {
        assert_eq!(within(Duration::from_secs(60), || Some(7)).await, Some(7));
        assert_eq!(within(Duration::from_secs(60), || None).await, None);
        let (answered, answer) = std::sync::mpsc::channel();
        // With a timeout, since the runtime waits for its threads.
        let hang = move || answer.recv_timeout(Duration::from_secs(10)).ok();
        assert_eq!(within(Duration::from_millis(50), hang).await, Some(LARGE));
        drop(answered);
    }
}
