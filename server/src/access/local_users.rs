//! Names of this machine's users, by their numbers. A directory service may answer late or never, so a lookup has a timeout,
//! there are few at a time, and names are remembered.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlflow_identity::{Principal, local_user};
use sqlflow_sync::lock;
use tokio::sync::Semaphore;

/// Time after which a name is looked up again. While lookups fail, the last name stays in use.
const LIFETIME: Duration = Duration::from_secs(60);
/// Timeout of a lookup with its wait for others.
const LOOKUP_TIME: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 2000 });
/// Maximum number of lookups at a time. One that hangs has its thread until it returns.
const MAX_LOOKUPS: usize = 4;
/// Maximum number of remembered users.
const REMEMBERED: usize = 1024;

/// Names of users.
pub struct LocalUsers {
    lookup: Arc<dyn Fn(u32) -> io::Result<Principal> + Send + Sync>,
    places: Arc<Semaphore>,
    known: Mutex<HashMap<u32, Known>>,
    /// Whether the last lookup failed, which is logged once.
    is_failing: AtomicBool,
}

/// A user, and when the name was looked up.
#[derive(Clone)]
struct Known {
    principal: Principal,
    at: Instant,
}

impl Default for LocalUsers {
    fn default() -> Self {
        Self::by(local_user::lookup)
    }
}

impl LocalUsers {
    /// Looked up by this function, which may block.
    fn by(lookup: impl Fn(u32) -> io::Result<Principal> + Send + Sync + 'static) -> Self {
        Self {
            lookup: Arc::new(lookup),
            places: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            known: Mutex::default(),
            is_failing: AtomicBool::new(false),
        }
    }

    /// The principal of a user. `None`: the name cannot be looked up now. Not the number in its place, which would be
    /// another principal.
    pub async fn of(&self, uid: u32) -> Option<Principal> {
        let known = lock(&self.known).get(&uid).cloned();
        if let Some(Known { principal, at }) = &known
            && at.elapsed() < LIFETIME
        {
            return Some(principal.clone());
        }
        let found = self.look_up(uid).await;
        self.note(uid, found.is_none());
        let principal = found.or(known.map(|it| it.principal))?;
        let mut all = lock(&self.known);
        if all.len() >= REMEMBERED && !all.contains_key(&uid) {
            all.clear();
        }
        all.insert(uid, Known { principal: principal.clone(), at: Instant::now() });
        Some(principal)
    }

    async fn look_up(&self, uid: u32) -> Option<Principal> {
        let (lookup, places) = (Arc::clone(&self.lookup), Arc::clone(&self.places));
        let looking = async move {
            let place = places.acquire_owned().await.ok()?;
            let look = move || {
                let _place = place;
                lookup(uid)
            };
            tokio::task::spawn_blocking(look).await.ok()?.ok()
        };
        tokio::time::timeout(LOOKUP_TIME, looking).await.ok().flatten()
    }

    fn note(&self, uid: u32, has_failed: bool) {
        if has_failed && !self.is_failing.swap(has_failed, Ordering::Relaxed) {
            tracing::warn!(uid, "cannot look up the name of a user; those who are not known yet are nobody");
        }
        self.is_failing.store(has_failed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_identity::Method;

    use super::*;

    fn named(uid: u32) -> io::Result<Principal> {
        Ok(Principal::new(Method::Unix, &uid.to_string()))
    }

    impl LocalUsers {
        async fn name(&self, uid: u32) -> Option<String> {
            self.of(uid).await.map(|it| it.name().to_owned())
        }

        /// As after [`LIFETIME`].
        fn age(&self) {
            for known in lock(&self.known).values_mut() {
                known.at -= LIFETIME;
            }
        }
    }

    #[tokio::test]
    async fn lookup_that_hangs_delays_nobody_for_long() {
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let users = LocalUsers::by(move |uid| {
            if uid == 2 {
                let _ = lock(&gate).recv();
            }
            named(uid)
        });
        assert_eq!(users.name(1).await.as_deref(), Some("unix:1"));
        for _ in 0..2 * MAX_LOOKUPS {
            assert_eq!(users.name(2).await, None, "not its number");
        }
        assert_eq!(users.places.available_permits(), 0, "no more threads than this hang");
        assert_eq!(users.name(3).await, None);
        users.age();
        assert_eq!(users.name(1).await.as_deref(), Some("unix:1"), "a known user stays known");
        drop(release);
        while users.name(3).await.is_none() {}
        assert_eq!(users.name(2).await.as_deref(), Some("unix:2"));
    }

    #[tokio::test]
    async fn name_is_looked_up_again_after_its_time_and_errors_are_not_remembered() {
        let lookups = Arc::new(Mutex::new(Vec::new()));
        let counted = Arc::clone(&lookups);
        let users = LocalUsers::by(move |uid| {
            lock(&counted).push(uid);
            if uid == 9 { Err(io::ErrorKind::Other.into()) } else { named(uid) }
        });
        for _ in 0..3 {
            users.of(1).await;
        }
        users.age();
        users.of(1).await;
        assert_eq!((users.of(9).await, users.of(9).await), (None, None));
        assert_eq!(*lock(&lookups), [1, 1, 9, 9]);
        for uid in 10..10 + 2 * u32::try_from(REMEMBERED).unwrap() {
            users.of(uid).await;
        }
        assert!(lock(&users.known).len() <= REMEMBERED);
    }
}
