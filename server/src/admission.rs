//! What one principal may use of a server at a time, so that it leaves room for the others. Administrators have no limits:
//! among them is the user of the server itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlflow_identity::Caller;
use sqlflow_job::JobId;
use sqlflow_job_store::{Store, StoreError};
use sqlflow_result_log::{LogError, ResultLog};
use sqlflow_sync::lock;
use tonic::{Code, Status};

use crate::{connections, retry_hint};

/// Time after which a refused call may succeed, if the caller uses less by then.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Time for which the sizes of a principal's programs and logs are remembered, with the programs that it adds meanwhile.
const REMEMBERED_TIME: Duration = Duration::from_secs(30);
/// Maximum number of connections of browsers that open one job's page by its link, which may be anywhere.
const LINK_CONNECTIONS: u64 = 64;
/// What an operator raises for more connections by the token of one job, and by those of all.
const OF_TOKEN: &str = "--limit-connections and its limit of open files";
const OF_TOKENS: &str = "its limit of open files";
/// Maximum number of sizes that are remembered.
const REMEMBERED: usize = 1024;

/// Limits of a principal; 0: none.
#[derive(Debug, Clone, Copy, Default)]
pub struct PrincipalLimits {
    /// Jobs that have not ended.
    pub jobs: u64,
    /// Bytes of the programs of all jobs that are kept.
    pub program_bytes: u64,
    /// Bytes of the logs of all jobs that are kept.
    pub log_bytes: u64,
    /// Web pages that are kept fresh.
    pub pages: u64,
    /// Searches in logs.
    pub searches: u64,
    /// Connections for gRPC, and as many of browsers.
    pub connections: u64,
}

/// Something of which a principal may use so much at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A call of Run.
    Run,
    /// A web page that is kept fresh.
    Page,
    /// A call of a published client that follows its job.
    Follow,
    /// A search in a log.
    Search,
    /// A connection for gRPC.
    Connection,
    /// A connection for gRPC whose caller has a job's token or link, and no other right.
    Token,
    /// A connection of a browser.
    Browser,
    /// A connection of a browser that has a job's link and no other right.
    Link,
}

/// A principal uses as much as it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    what: &'static str,
    limit: u64,
    option: &'static str,
    user: User,
}

/// Whose uses are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    Principal,
    /// Everybody who has the link of one job, and no other right.
    Link,
    /// Everybody who calls with the token or link of one job, and no other right.
    Token,
    /// All of these, of all jobs.
    Tokens,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, limit, option, user } = self;
        let (have, whom, they) = match user {
            User::Principal => ("you have", "one user", "you"),
            User::Link => ("the readers with this link have", "one link", "they"),
            User::Token => ("the callers with this job's token or link have", "one job", "they"),
            User::Tokens => ("the callers who have only a job's token or link have", "all of them", "they"),
        };
        write!(
            f,
            "{have} {limit} {what}, the most for {whom}; try again in {} s or when {they} use less, or let the operator \
             raise {option}",
            RETRY_AFTER.as_secs()
        )
    }
}

impl std::error::Error for Exceeded {}

impl From<Exceeded> for Status {
    fn from(exceeded: Exceeded) -> Self {
        let message = format!("cannot serve this call: {exceeded}");
        retry_hint::status(Code::ResourceExhausted, message, RETRY_AFTER)
    }
}

/// Why a program is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// Its principal uses as much as it may.
    #[error("cannot serve this call: {0}")]
    Exceeded(#[from] Exceeded),
    /// The jobs of the principal are not known.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The size of its logs is not known.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Counts what principals use.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    limits: PrincipalLimits,
    /// Connections by tokens and links of all jobs, whose callers have no other right; 0: no limit.
    token_connections: u64,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    used: HashMap<(Resource, String), u64>,
    sizes: HashMap<(Stored, String), Size>,
}

impl Inner {
    /// What everybody uses of a resource.
    fn used_by_all(&self, resource: Resource) -> u64 {
        self.used.iter().filter(|((of, _), _)| *of == resource).map(|(_, used)| used).sum()
    }
}

/// How much a principal stores.
#[derive(Debug, Clone, Copy)]
struct Size {
    measured: Instant,
    bytes: u64,
    /// Bytes that were admitted since.
    added: u64,
}

/// What a principal stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stored {
    Programs,
    Logs,
}

/// A use, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    of: Admission,
    key: (Resource, String),
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = lock(&self.of.inner);
        if let Some(used) = inner.used.get_mut(&self.key) {
            *used -= 1;
            if *used == 0 {
                inner.used.remove(&self.key);
            }
        }
    }
}

impl Admission {
    /// With these limits.
    #[must_use]
    pub fn new(limits: PrincipalLimits) -> Self {
        // Those who may use the server have room in any case.
        let token_connections = connections::most_of_process() as u64 / 2;
        Self { limits, token_connections, inner: Arc::default() }
    }

    /// Takes a use of a resource; `None`: the caller has no limits.
    ///
    /// # Errors
    /// The caller uses as much as it may.
    pub fn take(&self, resource: Resource, caller: &Caller) -> Result<Option<Slot>, Exceeded> {
        if caller.is_admin() {
            return Ok(None);
        }
        self.take_as(resource, caller.name()).map(Some)
    }

    /// Takes a use by a reader of this job's page; `None`: the reader has no limits. Readers whose only right is the link
    /// are counted by job: they have no name, and the link of one job leaves room for the readers of others.
    ///
    /// # Errors
    /// The reader, or those with the job's link, use as much as they may.
    pub fn take_of_reader(
        &self,
        resource: Resource,
        caller: &Caller,
        job: &JobId,
    ) -> Result<Option<Slot>, Exceeded> {
        if caller.is_allowed() {
            return self.take(resource, caller);
        }
        // No principal has this name: there is no such method.
        let slot = self.take_as(resource, &format!("link:{job}"));
        slot.map(Some).map_err(|exceeded| Exceeded { user: User::Link, ..exceeded })
    }

    /// Takes a connection of a browser that has the link of this job and no other right; `None`: there are as many as may be.
    pub fn take_of_link(&self, job: &JobId) -> Option<Slot> {
        self.take_as(Resource::Link, job.as_str()).ok()
    }

    /// Takes a connection for gRPC of a caller who has the token or the link of this job, and no other right. They are
    /// counted by job, and all of them together.
    ///
    /// # Errors
    /// Those with the job's token or link, or with those of all jobs, have as many as they may.
    pub fn take_of_token(&self, job: &JobId) -> Result<Slot, Exceeded> {
        self.take_as(Resource::Token, job.as_str()).map_err(|exceeded| match exceeded.user {
            User::Principal => Exceeded { user: User::Token, ..exceeded },
            User::Link | User::Token | User::Tokens => exceeded,
        })
    }

    /// Maximum number of connections by the token of one job. Holders of one leave room for those of others, also where
    /// few files may be open.
    fn connections_of_token(&self) -> u64 {
        let limits = [self.limits.connections, self.token_connections / 4];
        limits.into_iter().filter(|limit| *limit > 0).min().unwrap_or(0)
    }

    fn take_as(&self, resource: Resource, who: &str) -> Result<Slot, Exceeded> {
        let (what, limit, option) = match resource {
            // Counted with the jobs.
            Resource::Run => ("", 0, ""),
            Resource::Page => ("open pages of jobs", self.limits.pages, "--limit-pages"),
            Resource::Follow => ("calls of Run that follow a job", self.limits.pages, "--limit-pages"),
            Resource::Search => ("searches", self.limits.searches, "--limit-searches"),
            Resource::Connection => ("connections", self.limits.connections, "--limit-connections"),
            Resource::Token => ("connections", self.connections_of_token(), OF_TOKEN),
            Resource::Browser => ("connections of browsers", self.limits.connections, "--limit-connections"),
            // Beyond it a connection is served, and keeps the limits of one without a right.
            Resource::Link => ("", LINK_CONNECTIONS, ""),
        };
        let key = (resource, who.to_owned());
        let mut inner = lock(&self.inner);
        let all = self.token_connections;
        if resource == Resource::Token && all > 0 && inner.used_by_all(resource) >= all {
            return Err(Exceeded { what, limit: all, option: OF_TOKENS, user: User::Tokens });
        }
        let used = inner.used.entry(key.clone()).or_default();
        if limit > 0 && *used >= limit {
            return Err(Exceeded { what, limit, option, user: User::Principal });
        }
        *used += 1;
        Ok(Slot { of: self.clone(), key })
    }

    /// Admits a program of this length. The slot is held until its job is recorded.
    ///
    /// # Errors
    /// The caller has as many jobs, or stores as much, as it may. Those of the stores.
    pub async fn program(
        &self,
        store: &dyn Store,
        log: &dyn ResultLog,
        caller: &Caller,
        length: usize,
    ) -> Result<Option<Slot>, NotAdmitted> {
        let Some(slot) = self.take(Resource::Run, caller)? else { return Ok(None) };
        let (who, user) = (caller.name(), User::Principal);
        let PrincipalLimits { jobs, program_bytes, log_bytes, .. } = self.limits;
        if jobs > 0 {
            let recorded = store.live_jobs_of(who).await?;
            // Others of its calls may be about to record one.
            let calls = lock(&self.inner).used.get(&slot.key).copied().unwrap_or(1);
            if recorded + calls > jobs {
                let what = "jobs that have not ended";
                return Err(Exceeded { what, limit: jobs, option: "--limit-jobs", user }.into());
            }
        }
        let of_programs = async || Ok(store.program_bytes_of(who).await?);
        if !self.has_room(Stored::Programs, who, length as u64, program_bytes, of_programs).await? {
            let what = "bytes of programs in jobs that are kept";
            return Err(Exceeded { what, limit: program_bytes, option: "--limit-programs", user }.into());
        }
        let of_logs = async || Ok(log.bytes(&store.jobs_of(who).await?).await?);
        if !self.has_room(Stored::Logs, who, 0, log_bytes, of_logs).await? {
            let what = "bytes of logs in jobs that are kept";
            return Err(Exceeded { what, limit: log_bytes, option: "--limit-logs", user }.into());
        }
        Ok(Some(slot))
    }

    /// Whether a principal may store this much more. What it stores is measured now and then, and again before a refusal,
    /// but not for each of many refused calls.
    async fn has_room(
        &self,
        kind: Stored,
        who: &str,
        more: u64,
        limit: u64,
        measure: impl AsyncFnOnce() -> Result<u64, NotAdmitted>,
    ) -> Result<bool, NotAdmitted> {
        if limit == 0 {
            return Ok(true);
        }
        let key = (kind, who.to_owned());
        let remembered = lock(&self.inner).sizes.get(&key).copied();
        let fits = |bytes: u64| bytes.saturating_add(more) <= limit;
        let known = remembered.filter(|size| {
            let age = size.measured.elapsed();
            let is_refused = !fits(size.bytes) && age < RETRY_AFTER;
            is_refused || (fits(size.bytes.saturating_add(size.added)) && age < REMEMBERED_TIME)
        });
        let size = match known {
            Some(size) => size,
            None => Size { measured: Instant::now(), bytes: measure().await?, added: 0 },
        };
        let has_room = fits(size.bytes.saturating_add(size.added));
        let added = size.added.saturating_add(if has_room { more } else { 0 });
        let mut inner = lock(&self.inner);
        if inner.sizes.len() >= REMEMBERED {
            inner.sizes.clear();
        }
        inner.sizes.insert(key, Size { added, ..size });
        Ok(has_room)
    }
}

#[cfg(test)]
mod tests;
