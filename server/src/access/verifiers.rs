//! Verifiers of bearer tokens.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use sqlflow_identity::token_file::TokenFile;
use sqlflow_identity::{Method, Principal};
use sqlflow_launcher::kubernetes::TokenReviews;
use sqlflow_sync::lock;
use tokio::sync::Semaphore;

use super::Refused;

/// Time for which an answer of Kubernetes is used again. A deleted account is refused after it.
const REVIEW_LIFETIME: Duration = Duration::from_secs(30);
/// Maximum number of reviews at a time, and time limit of one with its wait.
const MAX_REVIEWS: usize = 16;
const REVIEW_TIME: Duration = Duration::from_secs(5);
/// Maximum number of remembered answers: about 300 bytes each.
const REMEMBERED: usize = 1024;
/// Maximum length of a token that is parsed or sent for a review, in bytes.
pub(super) const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Finds the principal of a bearer token.
#[async_trait]
pub trait TokenVerifier: Send + Sync + 'static {
    /// The principal; `None`: it is not a valid token of this kind.
    ///
    /// # Errors
    /// It is of this kind and not valid, or cannot be verified now.
    async fn principal(&self, token: &str) -> Result<Option<Principal>, Refused>;

    /// The principal of an entry that this verifier has, by its name and the SHA-256 of its token. `None` also from one
    /// that has no entries.
    fn entry(&self, _name: &str, _is_right: &dyn Fn(&[u8; 32]) -> bool) -> Option<Principal> {
        None
    }
}

/// Tokens of the token file.
pub struct Tokens(pub TokenFile);

#[async_trait]
impl TokenVerifier for Tokens {
    async fn principal(&self, token: &str) -> Result<Option<Principal>, Refused> {
        Ok(self.0.principal(token, report))
    }

    fn entry(&self, name: &str, is_right: &dyn Fn(&[u8; 32]) -> bool) -> Option<Principal> {
        self.0.entry(name, is_right, report)
    }
}

fn report(error: &std::io::Error) {
    tracing::error!(%error, "cannot read the token file again; using the previous tokens");
}

/// Tokens of Kubernetes, by reviews of the API server.
pub struct KubernetesTokens {
    reviews: TokenReviews,
    /// By the token's hash.
    known: Mutex<HashMap<[u8; 32], Known>>,
    places: Semaphore,
}

/// An answer, and when it was given.
type Known = (Option<Principal>, Instant);

impl KubernetesTokens {
    /// Reviewed there.
    #[must_use]
    pub fn new(reviews: TokenReviews) -> Self {
        Self { reviews, known: Mutex::default(), places: Semaphore::new(MAX_REVIEWS) }
    }
}

#[async_trait]
impl TokenVerifier for KubernetesTokens {
    async fn principal(&self, token: &str) -> Result<Option<Principal>, Refused> {
        // No request for what cannot be one.
        if token.split('.').count() != 3 || token.len() > MAX_TOKEN_BYTES {
            return Ok(None);
        }
        let hash = Sha256::digest(token).into();
        if let Some((principal, at)) = lock(&self.known).get(&hash)
            && at.elapsed() < REVIEW_LIFETIME
        {
            return Ok(principal.clone());
        }
        let reviewed = async {
            let _place = self.places.acquire().await;
            self.reviews.user(token).await
        };
        let late = |_| Err("the Kubernetes API does not answer in time".to_owned());
        let user = tokio::time::timeout(REVIEW_TIME, reviewed).await.unwrap_or_else(late);
        let user = user.map_err(Refused::Unavailable)?;
        let principal = user.map(|user| {
            let groups = user.groups.iter().map(String::as_str);
            Principal::new(Method::Kubernetes, &user.name).with_groups(Method::Kubernetes, groups)
        });
        if principal.is_none() {
            // Anyone can make these: they must not push out the others.
            return Ok(None);
        }
        let mut known = lock(&self.known);
        if known.len() >= REMEMBERED {
            known.retain(|_, (_, at)| at.elapsed() < REVIEW_LIFETIME);
            if known.len() >= REMEMBERED {
                known.clear();
            }
        }
        known.insert(hash, (principal.clone(), Instant::now()));
        Ok(principal)
    }
}
