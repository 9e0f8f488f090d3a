//! The main job, end to end: the real server, agent, submitter, SQLite and client.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod agent_killed;
mod bytes;
mod ended_early;
mod failpoints;
mod first_job;
mod full_disk;
mod model_files;
mod open_page;
mod refusals;
mod run_again;
mod server_killed;
mod two_servers;
