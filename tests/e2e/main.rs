//! The main job, end to end: the real server, agent, submitter, SQLite and client.

mod first_job;
mod server_killed;
