//! Shared test helpers.

use std::time::Duration;

pub use sqlflow_job::fixture::{job, step};
pub use sqlflow_job_store::fixture::{new_job, tamper, tiered_log};
pub use sqlflow_result_log::fixture::{BadBlocks, HookedLog, LogHooks, log};

use crate::metrics::Metrics;

/// Number of loads of jobs through the [`MeasuredStore`](crate::metrics::MeasuredStore) of these metrics.
pub fn loads(metrics: &Metrics) -> u64 {
    let name = "sqlflow_store_operation_duration_seconds_count{operation=\"load\"} ";
    let text = metrics.text();
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |count| count.parse().unwrap())
}

/// Waits until the condition holds, and fails the test after a minute.
pub async fn until(what: &str, is_it: impl AsyncFn() -> bool) {
    let looks = async {
        while !is_it().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looks).await.unwrap_or_else(|_| panic!("never: {what}"));
}
