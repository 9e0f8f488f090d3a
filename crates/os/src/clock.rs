//! The wall clock, and tickers. Pure code gets times as arguments.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn now_ms() -> i64 {
    now_micros() / 1000
}

/// Microseconds since the Unix epoch.
#[must_use]
pub fn now_micros() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

/// A ticker with its first tick after one period. Missed ticks are skipped.
#[must_use]
pub fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
