//! The main job, end to end: the real server, agent, submitter, SQLite and client.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod first_job;
mod refusals;
mod server_killed;
