//! What the attempt's processes use: looked at now and then while they live, and counted by the kernel when they end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use sqlflow_sync::lock;
use tokio::time::Instant;

use crate::output::link::Link;
use crate::process::tree::{self, Process};

const EVERY: Duration = Duration::from_secs(1);
/// `getrusage` counts blocks of this size, whatever the device's are.
const BLOCK: u64 = 512;

/// The process with the largest resident memory in any look.
pub type Largest = Arc<Mutex<Option<Process>>>;

/// Looks until it is dropped; heartbeats carry what it sees.
pub async fn watch(link: Arc<Link>, largest: Largest) {
    // A short command costs no look at all: the kernel tells the peak of what has ended. What was looked up below `/proc`
    // makes the ends of these processes dear, for who reaps them.
    let mut tick = tokio::time::interval_at(Instant::now() + EVERY, EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // Without a look the last one stands.
        let Ok(processes) = tree::live() else { continue };
        // Shared pages count once per process.
        link.attempt.observe_memory(processes.iter().map(|it| it.memory).sum());
        let mut largest = lock(&largest);
        *largest = larger(largest.take(), processes.into_iter().max_by_key(|it| it.memory));
    }
}

/// The one with more memory.
pub fn larger(one: Option<Process>, other: Option<Process>) -> Option<Process> {
    std::cmp::max_by_key(one, other, |process| process.as_ref().map(|it| it.memory))
}

/// What all processes that were reaped used.
#[derive(Debug, Default, Clone, Copy)]
pub struct ReapedUsage {
    /// Processor time, user and system.
    pub cpu_micros: u64,
    /// Read from block devices.
    pub read_bytes: u64,
    /// Written to block devices.
    pub written_bytes: u64,
}

/// What all processes that were reaped used.
pub fn reaped_usage() -> ReapedUsage {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return ReapedUsage::default() };
    let micros: i64 = [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() * 1_000_000 + time.tv_usec())
        .sum();
    ReapedUsage {
        cpu_micros: micros.unsigned_abs(),
        read_bytes: usage.block_reads().unsigned_abs() * BLOCK,
        written_bytes: usage.block_writes().unsigned_abs() * BLOCK,
    }
}
