//! Resource usage of the attempt's processes: sampled while they run, and counted by the kernel when they end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use sqlflow_sync::lock;
use tokio::time::Instant;

use crate::output::link::Link;
use crate::process::tree::{self, Process};

const INTERVAL: Duration = Duration::from_secs(1);
/// Block size of `getrusage`, for any device.
const BLOCK: u64 = 512;

/// The process with the largest resident memory in any sample.
pub type SharedLargest = Arc<Mutex<Option<Process>>>;

/// Samples until it is dropped. Heartbeats carry the result.
pub async fn sample(link: Arc<Link>, largest: SharedLargest) {
    // A short command is not sampled: the kernel reports the peak of ended processes, and reading `/proc` makes reaping
    // slower.
    let mut tick = tokio::time::interval_at(Instant::now() + INTERVAL, INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // A failed sample keeps the last one.
        let Ok(processes) = tree::live() else { continue };
        // Shared pages count for each process.
        link.attempt.observe_memory(processes.iter().map(|it| it.memory).sum());
        let mut largest = lock(&largest);
        *largest = larger(largest.take(), processes.into_iter().max_by_key(|it| it.memory));
    }
}

/// The process with more memory.
pub fn larger(one: Option<Process>, other: Option<Process>) -> Option<Process> {
    std::cmp::max_by_key(one, other, |process| process.as_ref().map(|it| it.memory))
}

/// Usage of all reaped processes.
#[derive(Debug, Default, Clone, Copy)]
pub struct ReapedUsage {
    /// Processor time, user and system.
    pub cpu_micros: u64,
    /// Read from block devices.
    pub read_bytes: u64,
    /// Written to block devices.
    pub written_bytes: u64,
}

/// Usage of all reaped processes.
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
