//! Shared helpers of end-to-end tests, drills and benchmarks, which run the real programs.
//!
//! The programs are those in the test's target folder. Build the workspace first, as `make test` does.

pub mod access;
pub mod agent;
pub mod agents_port;
pub mod api_relay;
pub mod attach;
pub mod browser;
pub mod cgroup;
pub mod client;
pub mod cluster;
pub mod documents;
pub mod gate;
pub mod gob;
pub mod http;
pub mod http_relay;
pub mod oidc;
pub mod ping_link;
pub mod positions;
pub mod proxy;
pub mod published;
pub mod python;
pub mod raw_codec;
pub mod relay;
pub mod server;
pub mod services;
pub mod slow_link;
pub mod spans;
pub mod sqlite_lock;
pub mod stand_in;
pub mod tcp_relay;
pub mod until;

/// A program that runs until it is terminated. It is a query, so its step may be repeated until a row was read.
pub const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n;";
