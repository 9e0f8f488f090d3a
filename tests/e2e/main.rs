//! The main job, end to end: the real server, agent, submitter, SQLite and client.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod agent_killed;
mod bytes;
mod damaged_log;
mod delivery;
mod doctor;
mod documented;
mod ended_early;
mod exhausted;
mod failpoints;
mod first_job;
mod full_disk;
mod launching;
mod model_files;
mod models;
mod open_page;
mod python;
mod refusals;
mod run_again;
mod scratch_tables;
mod server_killed;
mod silent;
mod slow_peers;
mod sql_reference;
mod stopped_server;
mod two_servers;
mod verdicts;
