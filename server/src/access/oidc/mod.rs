//! OpenID Connect: tokens of a provider that signs in the people of an organization, for all its programs.
//!
//! `jwt` checks a token and `keys` reads the provider's keys, both without I/O; `signatures` is the cryptography.
//! `provider` knows what the provider publishes, and `fetch` asks it.

mod fetch;
mod jwt;
mod keys;
mod provider;
mod signatures;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use sqlflow_identity::Principal;

use super::{Refused, TokenVerifier};
use fetch::Fetcher;
use jwt::{Unverified, Wrong};
use provider::Provider;

pub use fetch::{Answer, address};
pub use jwt::{Claims, NameClaims, check_sign_in};
pub use provider::Published;

/// Verifies tokens of one provider.
pub struct Oidc {
    provider: Arc<Provider>,
    names: NameClaims,
}

impl Oidc {
    /// Of the provider with this name. `ca` is a file with certificates to trust in place of the system's.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn new(issuer: &str, names: NameClaims, ca: Option<&Path>) -> anyhow::Result<Self> {
        let provider = Arc::new(Provider::new(issuer, Fetcher::new(ca)?));
        Ok(Self { provider, names })
    }

    /// The provider's name.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.provider.issuer()
    }

    /// Keeps what the provider publishes up to date. Never returns.
    pub async fn keep_fresh(&self) {
        self.provider.keep_fresh().await;
    }

    /// What the provider publishes.
    ///
    /// # Errors
    /// It was never reached.
    pub async fn published(&self) -> Result<Arc<Published>, Refused> {
        self.provider.published(|_| true).await.map_err(Refused::Unavailable)
    }

    /// The provider's answer to a form.
    ///
    /// # Errors
    /// There is none.
    pub async fn post(
        &self,
        url: &reqwest::Url,
        form: String,
        client: Option<(&str, &str)>,
    ) -> Result<Answer, Refused> {
        self.provider.fetcher().post(url, form, client).await.map_err(Refused::Unavailable)
    }

    /// What a token for one of these audiences says.
    ///
    /// # Errors
    /// It is not valid, or the provider's keys are not known yet.
    pub async fn claims(&self, token: &str, audiences: &[String]) -> Result<Claims, Refused> {
        let unverified = Unverified::of(token).ok_or(Refused::Token)?;
        self.claims_of(&unverified, token, audiences).await
    }

    async fn claims_of(
        &self,
        unverified: &Unverified,
        token: &str,
        audiences: &[String],
    ) -> Result<Claims, Refused> {
        let (key, algorithm) = unverified.signed_with().map_err(wrong)?;
        let has_key = |published: &Published| published.keys.find(key, algorithm).is_some();
        let published = self.provider.published(has_key).await.map_err(Refused::Unavailable)?;
        unverified.verify(token, &published.keys, self.issuer(), audiences).map_err(wrong)
    }

    /// The principal of a verified token.
    ///
    /// # Errors
    /// The token does not name one.
    pub fn principal(&self, claims: &Claims) -> Result<Principal, Refused> {
        self.names.principal(claims).map_err(wrong)
    }
}

/// The refusal of a token.
pub fn wrong(why: Wrong) -> Refused {
    Refused::Wrong(why.to_string())
}

/// Bearer tokens of a provider.
pub struct OidcTokens {
    oidc: Arc<Oidc>,
    /// Names of this server at the provider. A token for another program is not valid here: that program could use it
    /// in its owner's place.
    audiences: Vec<String>,
    /// Whether another verifier may know tokens of other issuers.
    has_others: bool,
}

impl OidcTokens {
    /// For these audiences. Tokens of other issuers are left to the next verifier if it `has_others`, and refused with the
    /// reason otherwise.
    #[must_use]
    pub fn new(oidc: Arc<Oidc>, audiences: Vec<String>, has_others: bool) -> Self {
        Self { oidc, audiences, has_others }
    }
}

#[async_trait]
impl TokenVerifier for OidcTokens {
    async fn principal(&self, token: &str) -> Result<Option<Principal>, Refused> {
        let Some(unverified) = Unverified::of(token) else { return Ok(None) };
        if unverified.issuer() != self.oidc.issuer() {
            let why = Wrong::Issuer(self.oidc.issuer().to_owned());
            return if self.has_others { Ok(None) } else { Err(wrong(why)) };
        }
        let claims = self.oidc.claims_of(&unverified, token, &self.audiences).await?;
        self.oidc.principal(&claims).map(Some)
    }
}
