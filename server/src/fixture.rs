//! What the tests of several modules begin with.

mod hooked_log;

use std::path::Path;
use std::time::Duration;

use crate::log::{LogOptions, SegmentLog, TieredLog};
use crate::metrics::Metrics;
use crate::store::{NewJob, ServerId, SqliteStore};
pub use hooked_log::{HookedLog, LogHooks};
pub use sqlflow_job::fixture::{job, step};
use sqlflow_job::{Job, TokenHash};

/// Changes the state file behind the servers' back.
pub fn tamper(state_file: &Path, sql: &str) {
    rusqlite::Connection::open(state_file).unwrap().execute_batch(sql).unwrap();
}

/// What Run would record of a job of one step.
pub fn new_job(job: Job, owner: &ServerId) -> NewJob {
    NewJob {
        job,
        token: TokenHash([1; 32]),
        user_id: String::new(),
        sql: "SELECT 1".to_owned(),
        headings: vec!["SELECT".to_owned()],
        step_specs: vec!["{}".to_owned()],
        secrets: Vec::new(),
        fetch_timeout_ms: 0,
        owner: owner.clone(),
        lease: Duration::from_secs(3600),
        created_ms: 0,
        request: None,
    }
}

/// How often a job was loaded through the [`MeasuredStore`](crate::metrics::MeasuredStore) of these metrics.
pub fn loads(metrics: &Metrics) -> u64 {
    let name = "sqlflow_store_operation_duration_seconds_count{operation=\"load\"} ";
    let text = metrics.text();
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |count| count.parse().unwrap())
}

/// Logs as a server has them: small ones with the state, others below this folder.
pub fn tiered_log(store: &SqliteStore, dir: &Path) -> TieredLog {
    TieredLog::new(std::sync::Arc::new(store.clone()), log(dir), 64 << 10)
}

/// A log without limits, which does not sync.
pub fn log(dir: &Path) -> SegmentLog {
    let options = LogOptions {
        dir: dir.to_owned(),
        segment_bytes: 1 << 20,
        retain_output_bytes_per_job: u64::MAX,
        max_bytes_per_job: u64::MAX,
        opened_micros: 0,
        fsync: false,
    };
    SegmentLog::open(options).unwrap()
}
