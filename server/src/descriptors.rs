//! The limit of open files: raised for this server, and given back to what it starts.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// No more are taken: some programs that agents start go through all numbers up to the limit.
const MOST_DESCRIPTORS: u64 = 1 << 20;

/// Takes as many descriptors as this process may have: each client, agent and log needs one. Returns the soft limit from
/// before, for the programs that the server starts: the usual one of 1024 protects those that use select(2).
pub fn raise_limit() -> Option<u64> {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(MOST_DESCRIPTORS)), hard)?;
        Ok(soft)
    });
    match raised {
        Ok(soft) => Some(soft),
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            None
        }
    }
}
