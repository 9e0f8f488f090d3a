//! Watch channels by key. Entries without watchers are removed when the map has twice as many entries as were watched
//! at the last check, so it has at most that number and [`SPARE`] more.

use std::collections::HashMap;
use std::hash::Hash;

use tokio::sync::watch;

/// Number of entries without watchers that may always stay.
pub const SPARE: usize = 64;

/// Channels by key.
#[derive(Debug)]
pub struct Watched<K, V> {
    senders: HashMap<K, watch::Sender<V>>,
    /// Number of entries at which those without watchers are removed.
    prune_at: usize,
}

impl<K, V> Default for Watched<K, V> {
    fn default() -> Self {
        Self { senders: HashMap::new(), prune_at: 0 }
    }
}

impl<K: Clone + Eq + Hash, V> Watched<K, V> {
    /// Watches a key; a new channel begins with this value.
    pub fn subscribe(&mut self, key: &K, begin: V) -> watch::Receiver<V> {
        if let Some(sender) = self.senders.get(key) {
            return sender.subscribe();
        }
        if self.senders.len() >= self.prune_at.max(SPARE) {
            self.prune();
        }
        self.senders.entry(key.clone()).or_insert(watch::Sender::new(begin)).subscribe()
    }

    /// Removes entries without watchers.
    pub fn prune(&mut self) {
        self.senders.retain(|_, sender| !sender.is_closed());
        self.prune_at = 2 * self.senders.len();
    }

    /// The channel of this key.
    pub fn get<Q>(&self, key: &Q) -> Option<&watch::Sender<V>>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.senders.get(key)
    }

    /// All channels.
    pub fn all(&self) -> impl Iterator<Item = &watch::Sender<V>> {
        self.senders.values()
    }

    /// Closes and removes the channel of this key.
    pub fn remove<Q>(&mut self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.senders.remove(key);
    }

    /// Number of channels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.senders.len()
    }

    /// Whether there are no channels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }
}
