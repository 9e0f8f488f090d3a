//! Limit of open files: raised for this server, and restored for the programs that it starts.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Maximum of the raised limit, because some programs that agents start iterate over all descriptors up to it.
const MAX_LIMIT: u64 = 1 << 20;

/// Raises the limit of open files to this process's hard limit: each client, agent and log needs one. Returns the
/// previous soft limit for the programs that the server starts: the usual 1024 protects those that use select(2).
pub fn raise_limit() -> Option<u64> {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(MAX_LIMIT)), hard)?;
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
