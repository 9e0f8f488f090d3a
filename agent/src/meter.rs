//! How much memory the attempt's processes use, looked at now and then.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::process::tree;
use crate::ship::link::Link;

const EVERY: Duration = Duration::from_secs(2);

/// Looks until it is dropped; heartbeats carry what it sees.
pub async fn watch(link: Arc<Link>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        link.observe_memory(tree::resident_bytes());
    }
}

/// Processor time of everything that was reaped, in microseconds, and the peak memory of the largest process, in bytes.
pub fn reaped_usage() -> (u64, u64) {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return (0, 0) };
    let micros: i64 = [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() * 1_000_000 + time.tv_usec())
        .sum();
    (micros.unsigned_abs(), usage.max_rss().unsigned_abs() * 1024)
}
