//! Whole jobs, end to end: the real server, agent, submitter, SQLite and client.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod agent_killed;
mod bad_input;
mod calls;
mod cancel_and_timeouts;
mod confinement;
mod connections;
mod damaged_log;
mod databases;
mod delivery;
mod docs_commands;
mod doctor;
mod failpoints;
mod first_job;
mod full_disk;
mod idempotent_run;
mod keepalive;
mod launching;
mod model_files;
mod models;
mod outcomes;
mod own_server;
mod printed_errors;
mod program_bytes;
mod published_clients;
mod python;
mod resource_exhaustion;
mod run_as;
mod server_killed;
mod silent_agent;
mod slow_peers;
mod sql_reference;
mod staging_tables;
mod stopped_server;
mod two_servers;
mod web_page_readers;
