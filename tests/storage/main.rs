//! Models in storages that are real: HDFS by both of its protocols, and S3.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod cached;
mod credentials;
mod drills;
mod faults;
mod jobs;
mod kept;
mod left;
mod looked_at;
mod places;
mod processes;
mod published;
mod retrained;
