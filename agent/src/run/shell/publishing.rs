//! The command's models on their way out, on threads that may block.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::Shell;
use crate::publish::{Publication, PublishError};
use crate::supervise::Event;

impl Shell {
    pub(super) fn stage(&mut self) {
        let (publication, events) = (self.publication(), self.events.clone());
        spawn_blocking(move || {
            let _ = events.send(match publication.stage() {
                Ok(models) => Event::Staged(models),
                Err(error) => publish_failed(error),
            });
        });
    }

    pub(super) fn commit(&mut self) {
        let (publication, events, staged) =
            (self.publication(), self.events.clone(), std::mem::take(&mut self.staged));
        spawn_blocking(move || {
            let _ = events.send(match publication.commit(staged) {
                Ok(models) => Event::Committed(models),
                Err(error) => publish_failed(error),
            });
        });
    }

    pub(super) fn abandon_publish(&mut self) {
        let publication = self.publication();
        publication.abandon();
        self.last_work.push(spawn_blocking(move || publication.clear()));
    }

    pub(super) fn publication(&self) -> Arc<Publication> {
        self.publication.clone().expect("preparing made it")
    }
}

fn publish_failed(error: PublishError) -> Event {
    let PublishError { message, committed, may_pass, is_overtaken } = error;
    if is_overtaken {
        tracing::warn!("{message}; staging it again");
        return Event::Overtaken { message, committed };
    }
    Event::PublishFailed { message, committed, may_pass }
}
