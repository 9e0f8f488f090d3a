//! What a provider publishes: its addresses (OpenID Connect Discovery) and its keys. Both are fetched when they are
//! needed, kept, and fetched again. While the provider is away the last ones stay in use.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Url;
use serde::Deserialize;
use sqlflow_sync::lock;

use super::fetch::{Fetcher, address};
use super::keys::Keys;

/// Time after which keys are fetched again: one that the provider withdraws is refused after it.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Minimum time between two fetches: anyone can send a token that names an unknown key.
const PAUSE: Duration = Duration::from_secs(10);
/// The same while there is nothing yet.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A provider.
pub struct Provider {
    issuer: String,
    fetcher: Fetcher,
    state: Mutex<State>,
    /// One fetch at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    published: Option<Arc<Published>>,
    /// When that was fetched.
    at: Option<Instant>,
    /// When the last fetch began.
    asked: Option<Instant>,
    /// Why the last fetch failed; empty: it did not.
    failure: String,
}

/// What it publishes.
pub struct Published {
    /// For its tokens.
    pub keys: Keys,
    /// Where browsers go to sign in.
    pub authorization: Option<Url>,
    /// Where a code is exchanged for tokens.
    pub token: Option<Url>,
    /// Whether clients send their secret by basic authentication there, otherwise in the form.
    pub takes_basic: bool,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Provider {
    /// The provider with this name, which is also its address.
    pub fn new(issuer: &str, fetcher: Fetcher) -> Self {
        Self {
            issuer: issuer.to_owned(),
            fetcher,
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Its name.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// For requests to it.
    pub fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// What it publishes. It is asked again if that `is_enough` not, at most once in [`PAUSE`].
    ///
    /// # Errors
    /// It was never reached; one sentence.
    pub async fn published(
        self: &Arc<Self>,
        is_enough: impl Fn(&Published) -> bool,
    ) -> Result<Arc<Published>, String> {
        let (known, is_old) = {
            let state = lock(&self.state);
            (state.published.clone(), state.at.is_none_or(|at| at.elapsed() > LIFETIME))
        };
        let fetching = || tokio::spawn(Arc::clone(self).fetch());
        match known {
            Some(known) if is_enough(&known) => {
                if is_old && lock(&self.state).may_ask() {
                    // Nobody waits: the old ones are valid, too.
                    drop(fetching());
                }
                Ok(known)
            }
            // A task of its own, which goes on if this caller leaves: others wait for it, too.
            _ => {
                let _ = fetching().await;
                let state = lock(&self.state);
                state.published.clone().ok_or_else(|| state.failure.clone())
            }
        }
    }

    /// Asks the provider, unless somebody did shortly before.
    async fn fetch(self: Arc<Self>) {
        let _turn = self.turn.lock().await;
        {
            let mut state = lock(&self.state);
            if !state.may_ask() {
                return;
            }
            state.asked = Some(Instant::now());
        }
        let fetched = self.ask().await;
        let mut state = lock(&self.state);
        match fetched {
            Ok(published) => {
                state.published = Some(Arc::new(published));
                state.at = Some(Instant::now());
                state.failure.clear();
            }
            Err(failure) => {
                if failure != state.failure {
                    let has_keys = state.published.is_some();
                    tracing::warn!(
                        issuer = self.issuer,
                        has_keys,
                        "cannot fetch the keys of the OpenID Connect provider: {failure}"
                    );
                }
                state.failure = failure;
            }
        }
    }

    async fn ask(&self) -> Result<Published, String> {
        let discovery =
            address(&format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/')))?;
        let document = self.fetcher.get(&discovery).await?;
        let document: Document = serde_json::from_slice(&document)
            .map_err(|error| format!("{discovery} is no document of OpenID Connect Discovery: {error}"))?;
        if document.issuer != self.issuer {
            return Err(format!(
                "{discovery} is of the issuer {:?} and not of {:?}; write --oidc-issuer exactly like it",
                document.issuer, self.issuer
            ));
        }
        let keys = address(&document.jwks_uri)?;
        let keys = Keys::parse(&self.fetcher.get(&keys).await?)
            .map_err(|why| format!("no keys at {keys}: {why}"))?;
        let endpoint = |text: Option<String>| text.map(|it| address(&it)).transpose();
        Ok(Published {
            keys,
            authorization: endpoint(document.authorization_endpoint)?,
            token: endpoint(document.token_endpoint)?,
            takes_basic: document
                .token_endpoint_auth_methods_supported
                // The default of the specification.
                .is_none_or(|all| all.iter().any(|it| it == "client_secret_basic")),
        })
    }
}

impl State {
    fn may_ask(&self) -> bool {
        let pause = if self.published.is_some() { PAUSE } else { FIRST_PAUSE };
        self.asked.is_none_or(|at| at.elapsed() >= pause)
    }
}
