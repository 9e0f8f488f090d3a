use std::sync::Mutex;
use std::time::Instant;

use sqlflow_sync::lock;

/// State of the connection to the control plane.
#[derive(Debug, Default)]
pub struct ConnectionState {
    first_attached: Mutex<Option<Instant>>,
    stalled: Mutex<Option<String>>,
}

impl ConnectionState {
    pub(super) fn note_attached(&self) {
        lock(&self.first_attached).get_or_insert_with(Instant::now);
    }

    /// Time at which a control plane took records for the first time.
    pub fn first_attached(&self) -> Option<Instant> {
        *lock(&self.first_attached)
    }

    /// Sets why records are not taken now; `None`: they are.
    pub fn set_stalled(&self, why: Option<String>) {
        *lock(&self.stalled) = why;
    }

    /// Why records are not taken now.
    pub fn stalled(&self) -> Option<String> {
        lock(&self.stalled).clone()
    }
}
