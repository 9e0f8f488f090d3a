//! Models in storages that are real: HDFS by both of its protocols, and S3.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod concurrent_readers;
mod credentials;
mod drills;
mod faults;
mod jobs;
mod locations;
mod model_cache;
mod models_cli;
mod processes;
mod publish_after_failure;
mod published;
mod staging_cleanup;
