use std::sync::{Arc, Mutex};

use sqlflow_proto::agent::{CommitRequest, Heartbeat, Outcome, Phase};
use sqlflow_sync::lock;
use tokio::sync::Notify;

/// What the attempt says and asks: its heartbeat, its request to commit, its outcome.
#[derive(Debug)]
pub struct AttemptState {
    state: Mutex<State>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    commit: Option<CommitRequest>,
    /// Number of commit requests so far: a stream sends each once.
    commits: u64,
    outcome: Option<Outcome>,
    phase: Phase,
    memory: Memory,
}

/// Resident memory of the attempt's processes, in bytes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Memory {
    /// In the last sample.
    pub now: u64,
    /// Maximum of all samples.
    pub peak: u64,
}

impl AttemptState {
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        let state = State {
            commit: None,
            commits: 0,
            outcome: None,
            phase: Phase::Fetching,
            memory: Memory::default(),
        };
        Self { state: Mutex::new(state), changed }
    }

    /// Asks for the commit grant, on every stream until it is answered.
    pub fn ask_commit(&self, request: CommitRequest) {
        let mut state = lock(&self.state);
        state.commit = Some(request);
        state.commits += 1;
        self.changed.notify_one();
    }

    /// Ends the request for the grant: it was answered, or is not needed any more.
    pub fn settle_commit(&self) -> Settled {
        match lock(&self.state).commit.take() {
            Some(_) => Settled::Pending,
            None => Settled::NotAsked,
        }
    }

    /// Reports the outcome, after all records.
    pub fn report(&self, outcome: Outcome) {
        lock(&self.state).outcome = Some(outcome);
        self.changed.notify_one();
    }

    /// Sets the phase of the next heartbeats.
    pub fn set_phase(&self, phase: Phase) {
        lock(&self.state).phase = phase;
    }

    /// Adds a sample of the memory.
    pub fn observe_memory(&self, now: u64) {
        let memory = &mut lock(&self.state).memory;
        *memory = Memory { now, peak: memory.peak.max(now) };
    }

    /// Memory seen so far.
    pub fn memory(&self) -> Memory {
        lock(&self.state).memory
    }

    pub(super) fn heartbeat(&self, spool_bytes: u64) -> Heartbeat {
        let state = lock(&self.state);
        Heartbeat {
            phase: state.phase.into(),
            memory_bytes: state.memory.now,
            memory_peak_bytes: state.memory.peak,
            spool_bytes,
        }
    }

    /// The request for the grant, unless the stream has sent it.
    pub(super) fn commit_after(&self, sent: &mut u64) -> Option<CommitRequest> {
        let state = lock(&self.state);
        let commit = state.commit.as_ref().filter(|_| *sent < state.commits)?;
        *sent = state.commits;
        Some(commit.clone())
    }

    pub(super) fn outcome(&self) -> Option<Outcome> {
        lock(&self.state).outcome.clone()
    }
}

/// Whether a request for the commit grant was pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Yes.
    Pending,
    /// No: an answer to it has no meaning.
    NotAsked,
}
