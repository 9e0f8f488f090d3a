//! Models in real storages: HDFS by both of its protocols, and S3.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod concurrent_readers;
mod credentials;
mod drills;
mod faults;
mod jobs;
mod locations;
mod model_cache;
mod models_cli;
mod process_limit;
mod publish_after_failure;
mod publishing;
mod staging_cleanup;
