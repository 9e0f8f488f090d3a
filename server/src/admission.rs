//! What one principal may use of a server at a time, so that it leaves room for the others. Administrators have no limits:
//! among them is the user of the server itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlflow_identity::Caller;
use sqlflow_job::JobId;
use sqlflow_job_store::{Store, StoreError};
use sqlflow_sync::lock;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Time after which a refused call may succeed, if the caller uses less by then.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Time for which the size of a principal's programs is remembered, with what it adds meanwhile.
const REMEMBERED_TIME: Duration = Duration::from_secs(30);
/// Maximum number of connections of browsers that open one job's page by its link, which may be anywhere.
const LINK_CONNECTIONS: u64 = 64;
/// Maximum number of principals whose size is remembered.
const REMEMBERED: usize = 1024;

/// Limits of a principal; 0: none.
#[derive(Debug, Clone, Copy, Default)]
pub struct PrincipalLimits {
    /// Jobs that have not ended.
    pub jobs: u64,
    /// Bytes of the programs of all jobs that are kept.
    pub program_bytes: u64,
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
    /// A search in a log.
    Search,
    /// A connection for gRPC.
    Connection,
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
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, limit, option } = self;
        write!(
            f,
            "you have {limit} {what}, the most for one user; try again in {} s or when you use less, or let the operator \
             raise --{option}",
            RETRY_AFTER.as_secs()
        )
    }
}

impl std::error::Error for Exceeded {}

impl From<Exceeded> for Status {
    fn from(exceeded: Exceeded) -> Self {
        let hint = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
        Self::with_error_details(Code::ResourceExhausted, format!("cannot serve this call: {exceeded}"), hint)
    }
}

/// Counts what principals use.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    limits: PrincipalLimits,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    used: HashMap<(Resource, String), u64>,
    /// Bytes of principals' programs, and since when they are known.
    programs: HashMap<String, (Instant, u64)>,
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
        Self { limits, inner: Arc::default() }
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

    /// Takes a connection of a browser that has the link of this job and no other right; `None`: there are as many as may be.
    pub fn take_of_link(&self, job: &JobId) -> Option<Slot> {
        self.take_as(Resource::Link, job.as_str()).ok()
    }

    fn take_as(&self, resource: Resource, who: &str) -> Result<Slot, Exceeded> {
        let (what, limit, option) = match resource {
            // Counted with the jobs.
            Resource::Run => ("", 0, ""),
            Resource::Page => ("open pages of jobs", self.limits.pages, "limit-pages"),
            Resource::Search => ("searches", self.limits.searches, "limit-searches"),
            Resource::Connection => ("connections", self.limits.connections, "limit-connections"),
            Resource::Browser => ("connections of browsers", self.limits.connections, "limit-connections"),
            // Beyond it a connection is served, and keeps the limits of one without a right.
            Resource::Link => ("", LINK_CONNECTIONS, ""),
        };
        let key = (resource, who.to_owned());
        let mut inner = lock(&self.inner);
        let used = inner.used.entry(key.clone()).or_default();
        if limit > 0 && *used >= limit {
            return Err(Exceeded { what, limit, option });
        }
        *used += 1;
        Ok(Slot { of: self.clone(), key })
    }

    /// Admits a program of this length. The slot is held until its job is recorded.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: the caller has as many jobs, or programs, as it may. Those of the store.
    pub async fn program(
        &self,
        store: &dyn Store,
        caller: &Caller,
        length: usize,
        of_store: impl Fn(StoreError) -> Status,
    ) -> Result<Option<Slot>, Status> {
        let Some(slot) = self.take(Resource::Run, caller)? else { return Ok(None) };
        let PrincipalLimits { jobs, program_bytes, .. } = self.limits;
        if jobs > 0 {
            let recorded = store.live_jobs_of(caller.name()).await.map_err(&of_store)?;
            // Others of its calls may be about to record one.
            let calls = lock(&self.inner).used.get(&slot.key).copied().unwrap_or(1);
            if recorded + calls > jobs {
                let what = "jobs that have not ended";
                return Err(Exceeded { what, limit: jobs, option: "limit-jobs" }.into());
            }
        }
        if program_bytes > 0 {
            let remembered = lock(&self.inner).programs.get(caller.name()).copied();
            let known = remembered.filter(|(since, bytes)| {
                since.elapsed() < REMEMBERED_TIME && bytes.saturating_add(length as u64) <= program_bytes
            });
            let (since, bytes) = match known {
                Some(known) => known,
                None => (Instant::now(), store.program_bytes_of(caller.name()).await.map_err(&of_store)?),
            };
            let bytes = bytes.saturating_add(length as u64);
            if bytes > program_bytes {
                let what = "bytes of programs in jobs that are kept";
                return Err(Exceeded { what, limit: program_bytes, option: "limit-programs" }.into());
            }
            let mut inner = lock(&self.inner);
            if inner.programs.len() >= REMEMBERED {
                inner.programs.clear();
            }
            inner.programs.insert(caller.name().to_owned(), (since, bytes));
        }
        Ok(Some(slot))
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_identity::{Method, Policy, Principal};
    use sqlflow_job_store::SqliteStore;

    use super::*;
    use crate::fixture;

    fn caller(name: &str) -> Caller {
        let known = |it: &str| vec![it.parse().unwrap()];
        let policy = Policy { allowed: known("token:*"), admins: known("token:op"), ..Policy::default() };
        policy.caller(Some(Principal::new(Method::Token, name)))
    }

    #[test]
    fn each_principal_has_its_own_limit_and_administrators_none() {
        let admission = Admission::new(PrincipalLimits { pages: 2, ..PrincipalLimits::default() });
        let take = |name| admission.take(Resource::Page, &caller(name));
        let held = [take("ana").unwrap(), take("ana").unwrap(), take("bob").unwrap()];
        let refused = Status::from(take("ana").unwrap_err());
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("--limit-pages"), "{refused}");
        assert_eq!(refused.get_details_retry_info().unwrap().retry_delay, Some(RETRY_AFTER));
        assert!(admission.take(Resource::Search, &caller("ana")).is_ok(), "another resource");
        for _ in 0..3 {
            assert!(take("op").unwrap().is_none());
        }
        drop(held);
        assert!(take("ana").is_ok());
        assert_eq!(lock(&admission.inner).used.len(), 0, "nothing is remembered");
    }

    #[tokio::test]
    async fn programs_are_counted_with_those_in_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("state.db")).await.unwrap();
        let owner = sqlflow_job_store::ServerId::generate();
        let mut new = fixture::new_job(fixture::job(true), &owner);
        new.principal = "token:ana".to_owned();
        new.sql = "x".repeat(100);
        store.create(new).await.unwrap();
        let program = async |limits, name: &str, length| {
            let admission = Admission::new(limits);
            let caller = caller(name);
            let of_store = |error: StoreError| Status::internal(error.to_string());
            let admitted = admission.program(&store, &caller, length, of_store);
            admitted.await.map(|_| ()).map_err(|status| (status.code(), status.message().to_owned()))
        };
        let jobs = |jobs| PrincipalLimits { jobs, ..PrincipalLimits::default() };
        assert_eq!(program(jobs(2), "ana", 1).await, Ok(()));
        let (code, message) = program(jobs(1), "ana", 1).await.unwrap_err();
        assert!(code == Code::ResourceExhausted && message.contains("--limit-jobs"), "{message}");
        assert_eq!(program(jobs(1), "bob", 1).await, Ok(()));
        assert_eq!(program(jobs(1), "op", 1).await, Ok(()));
        let bytes = |program_bytes| PrincipalLimits { program_bytes, ..PrincipalLimits::default() };
        assert_eq!(program(bytes(150), "ana", 50).await, Ok(()));
        let (code, message) = program(bytes(150), "ana", 51).await.unwrap_err();
        assert!(code == Code::ResourceExhausted && message.contains("--limit-programs"), "{message}");
        let add = async |admission: &Admission| {
            let of_store = |error: StoreError| Status::internal(error.to_string());
            admission.program(&store, &caller("ana"), 30, of_store).await.is_ok()
        };
        // What it adds meanwhile counts.
        let admission = Admission::new(bytes(170));
        assert_eq!((add(&admission).await, add(&admission).await), (true, true));
        assert_eq!(lock(&admission.inner).programs["token:ana"].1, 160);
        // Before a refusal the store is asked again.
        let admission = Admission::new(bytes(150));
        assert_eq!(
            (add(&admission).await, add(&admission).await),
            (true, true),
            "the store has none of them, and is asked again"
        );
    }
}
