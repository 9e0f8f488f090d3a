//! Names of this machine's users, by their numbers. A directory service may take long to answer, so they are remembered.

use std::collections::HashMap;
use std::sync::Mutex;

use sqlflow_identity::{Principal, local_user};
use sqlflow_sync::lock;

/// Maximum number of remembered users.
const REMEMBERED: usize = 1024;

/// Names of users.
#[derive(Default)]
pub struct LocalUsers(Mutex<HashMap<u32, Principal>>);

impl LocalUsers {
    /// The principal of a user.
    pub async fn of(&self, uid: u32) -> Principal {
        if let Some(known) = lock(&self.0).get(&uid) {
            return known.clone();
        }
        let number = || Principal::new(sqlflow_identity::Method::Unix, &uid.to_string());
        let found =
            tokio::task::spawn_blocking(move || local_user::of(uid)).await.unwrap_or_else(|_| number());
        let mut known = lock(&self.0);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(uid, found.clone());
        found
    }
}
