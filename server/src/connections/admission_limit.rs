//! Limit of connections per listener whose peers are not admitted yet.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;

use sqlflow_sync::lock;

use super::places::{self, Place};

/// Maximum number of connections of one listener whose peers are not admitted yet. A further one ends the
/// oldest: an honest peer is admitted within milliseconds, so it is not affected.
pub const MAX_UNADMITTED: usize = 1024;

/// The connections of a listener whose peers are not admitted yet.
#[derive(Debug, Clone)]
pub struct AdmissionLimit {
    who: &'static str,
    most: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    /// By age. Cancelling a token ends its connection.
    oldest: BTreeMap<u64, CancellationToken>,
    /// Whether the limit was logged.
    is_told: bool,
}

/// A connection whose peer is not admitted yet.
pub struct Unadmitted<S> {
    pub(super) stream: S,
    pub(super) place: Place,
    pub(super) slot: AdmissionSlot,
}

/// Held until the peer is admitted or the connection ends.
pub(super) struct AdmissionSlot {
    id: u64,
    limit: AdmissionLimit,
    /// Cancelled when a newer connection takes the slot.
    pub(super) lost: CancellationToken,
}

impl AdmissionLimit {
    /// No connections yet. `who` names the peers in the log.
    #[must_use]
    pub fn of(who: &'static str) -> Self {
        // Admitted ones have room in any case.
        Self::new(who, MAX_UNADMITTED.min(places::most_of_process() / 2))
    }

    pub(super) fn new(who: &'static str, most: usize) -> Self {
        Self { who, most, held: Arc::default() }
    }

    /// Takes a slot for an accepted connection.
    pub fn hold<S>(&self, stream: S, place: Place) -> Unadmitted<S> {
        let lost = CancellationToken::new();
        let mut held = self.held();
        let id = held.next;
        held.next += 1;
        held.oldest.insert(id, lost.clone());
        if held.oldest.len() > self.most {
            if let Some((_, oldest)) = held.oldest.pop_first() {
                oldest.cancel();
            }
            if !std::mem::replace(&mut held.is_told, true) {
                let (who, most) = (self.who, self.most);
                tracing::warn!(
                    who,
                    most,
                    "too many peers are not admitted yet; closing the oldest connections"
                );
            }
        }
        drop(held);
        Unadmitted { stream, place, slot: AdmissionSlot { id, limit: self.clone(), lost } }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

impl<S> Unadmitted<S> {
    /// The stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The same connection, with the stream that this makes of it. `None`: it failed, or the connection lost its slot
    /// meanwhile.
    pub async fn try_map<T, F: Future<Output = io::Result<T>>>(
        self,
        wrap: impl FnOnce(S) -> F,
    ) -> Option<Unadmitted<T>> {
        let Self { stream, place, slot } = self;
        let lost = slot.lost.clone();
        tokio::select! {
            wrapped = wrap(stream) => Some(Unadmitted { stream: wrapped.ok()?, place, slot }),
            () = lost.cancelled() => None,
        }
    }

    /// The same connection, with another stream.
    pub fn map<T>(self, wrap: impl FnOnce(S) -> T) -> Unadmitted<T> {
        Unadmitted { stream: wrap(self.stream), place: self.place, slot: self.slot }
    }
}

impl Drop for AdmissionSlot {
    fn drop(&mut self) {
        let mut held = self.limit.held();
        held.oldest.remove(&self.id);
        if held.oldest.len() < self.limit.most / 2 {
            held.is_told = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_connection_is_closed_at_the_limit() {
        let limit = AdmissionLimit::new("agents", MAX_UNADMITTED);
        let mut unadmitted: Vec<_> = (0..MAX_UNADMITTED).map(|_| limit.hold((), Place::default())).collect();
        let lost = |unadmitted: &[Unadmitted<()>]| {
            unadmitted.iter().filter(|it| it.slot.lost.is_cancelled()).count()
        };
        drop(unadmitted.pop());
        unadmitted.push(limit.hold((), Place::default()));
        assert_eq!(lost(&unadmitted), 0, "one was admitted meanwhile");
        unadmitted.push(limit.hold((), Place::default()));
        assert_eq!(lost(&unadmitted), 1);
        assert!(unadmitted[0].slot.lost.is_cancelled());
        drop(unadmitted);
        assert_eq!(limit.held().oldest.len(), 0);
    }
}
