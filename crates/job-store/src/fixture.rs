//! Jobs and stores for tests.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "for tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use sqlflow_job::fixture::{job, step};
use sqlflow_job::{Job, TokenHash};
use sqlflow_result_log::TieredLog;
use sqlflow_result_log::fixture::log;

use crate::{NewJob, ServerId, SqliteStore};

/// Changes the state file without the servers' knowledge.
pub fn tamper(state_file: &Path, sql: &str) {
    rusqlite::Connection::open(state_file).unwrap().execute_batch(sql).unwrap();
}

/// A new job with one step, as Run records it.
pub fn new_job(job: Job, owner: &ServerId) -> NewJob {
    NewJob {
        job,
        token: TokenHash([1; 32]),
        principal: "unix:ada".to_owned(),
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

/// Logs as in a server: small ones in the state, others below this folder.
pub fn tiered_log(store: &SqliteStore, dir: &Path) -> TieredLog {
    TieredLog::new(Arc::new(store.clone()), log(dir), 64 << 10)
}
