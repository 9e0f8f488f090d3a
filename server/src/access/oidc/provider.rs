//! What a provider publishes: its addresses (OpenID Connect Discovery) and its keys. Both are fetched when the
//! server starts, kept, and fetched again. While the provider is away the last ones stay in use.

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
    /// When the last fetch began.
    asked: Option<Instant>,
    /// Why the last fetch failed; empty: it did not.
    failure: String,
}

/// What it publishes.
pub struct Published {
    /// For its tokens.
    pub keys: Keys,
    /// Where browsers go to sign in, by TLS.
    pub authorization: Option<Url>,
    /// Where a code is exchanged for tokens, by TLS.
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
        let known = lock(&self.state).published.clone();
        match known {
            Some(known) if is_enough(&known) => Ok(known),
            // A task of its own, which goes on if this caller leaves: others wait for it, too.
            _ => {
                let _ = tokio::spawn(Arc::clone(self).fetch()).await;
                let state = lock(&self.state);
                state.published.clone().ok_or_else(|| state.failure.clone())
            }
        }
    }

    /// Asks the provider now and each [`LIFETIME`], sooner after a failure. So a key that it withdraws is refused after
    /// that time although no token arrives meanwhile. Never returns.
    pub async fn keep_fresh(&self) {
        self.keep_fresh_each(LIFETIME, PAUSE).await;
    }

    async fn keep_fresh_each(&self, lifetime: Duration, after_failure: Duration) {
        loop {
            let is_fetched = {
                let _turn = self.turn.lock().await;
                self.refresh().await
            };
            tokio::time::sleep(if is_fetched { lifetime } else { after_failure }).await;
        }
    }

    /// Asks the provider, unless somebody did shortly before.
    async fn fetch(self: Arc<Self>) {
        let _turn = self.turn.lock().await;
        let may_ask = lock(&self.state).may_ask();
        if may_ask {
            self.refresh().await;
        }
    }

    /// Asks the provider. Whether it answered; the caller has the turn.
    async fn refresh(&self) -> bool {
        lock(&self.state).asked = Some(Instant::now());
        let fetched = self.ask().await;
        let is_fetched = fetched.is_ok();
        let mut state = lock(&self.state);
        match fetched {
            Ok(published) => {
                state.published = Some(Arc::new(published));
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
        is_fetched
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
        // Only sign-ins need these: tokens are verified without them.
        let endpoint = |text: Option<String>| text.and_then(|it| address(&it).ok());
        Ok(Published {
            keys,
            authorization: endpoint(document.authorization_endpoint),
            token: endpoint(document.token_endpoint),
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A provider that answers each request with this document, in which it is the issuer. Sends a message for each.
    async fn provider(mut document: serde_json::Value) -> (Arc<Provider>, tokio::sync::mpsc::Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        document["issuer"] = json!(issuer);
        document["jwks_uri"] = json!(format!("{issuer}/keys"));
        let (sender, requests) = tokio::sync::mpsc::channel(100);
        tokio::spawn(async move {
            let body = document.to_string();
            let length = body.len();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // The request is small: it comes as one piece.
                let _ = stream.read(&mut [0; 4096]).await;
                let head =
                    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                let _ = sender.send(()).await;
            }
        });
        (Arc::new(Provider::new(&issuer, Fetcher::new(None).unwrap())), requests)
    }

    fn keys() -> serde_json::Value {
        let key = json!({ "kty": "EC", "crv": "P-256", "x": "A".repeat(43), "y": "A".repeat(43) });
        json!({ "keys": [key] })
    }

    #[tokio::test]
    async fn keys_are_fetched_again_although_no_token_arrives() {
        let (provider, mut requests) = provider(keys()).await;
        let (lifetime, never) = (Duration::from_millis(10), Duration::from_secs(3600));
        let asked_again = async {
            for _ in 0..10 {
                requests.recv().await.unwrap();
            }
        };
        tokio::select! {
            () = provider.keep_fresh_each(lifetime, never) => {}
            () = asked_again => {}
        }
        assert!(lock(&provider.state).published.is_some());
    }

    #[tokio::test]
    async fn tokens_are_verified_although_an_address_of_sign_ins_has_no_tls() {
        let mut document = keys();
        document["authorization_endpoint"] = json!("http://login.example.com/authorize");
        document["token_endpoint"] = json!("https://login.example.com/token");
        let (provider, _requests) = provider(document).await;
        let published = provider.published(|_| true).await.unwrap();
        assert!(published.authorization.is_none());
        assert_eq!(published.token.as_ref().map(Url::as_str), Some("https://login.example.com/token"));
    }

    #[tokio::test]
    async fn failed_fetch_is_repeated_sooner() {
        let (provider, mut requests) = provider(json!({})).await;
        let (never, pause) = (Duration::from_secs(3600), Duration::from_millis(10));
        let asked_again = async {
            for _ in 0..10 {
                requests.recv().await.unwrap();
            }
        };
        tokio::select! {
            () = provider.keep_fresh_each(never, pause) => {}
            () = asked_again => {}
        }
        assert!(lock(&provider.state).published.is_none());
    }
}
