//! Whose token an agent or a client shows, by a TokenReview of the API server.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};

use super::KubernetesLauncher;
use super::find::Found;
use super::pod::{self, AUDIENCE};
use crate::Target;

/// The Pod that a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodIdentity {
    /// The Pod's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, which distinguishes it from later Pods of the same name.
    pub uid: String,
}

impl KubernetesLauncher {
    /// The Pod of this token, from the API server. `None`: the token is invalid, or for another audience.
    ///
    /// # Errors
    /// The API server could not be queried.
    pub async fn review(&self, token: &str) -> Result<Option<PodIdentity>, kube::Error> {
        let Some(user) = reviewed(&self.client, token, AUDIENCE).await? else {
            return Ok(None);
        };
        let extra = user.extra.unwrap_or_default();
        let first = |key: &str| extra.get(&format!("authentication.kubernetes.io/{key}"))?.first().cloned();
        // system:serviceaccount:<namespace>:<name>
        let username = user.username.unwrap_or_default();
        let namespace = username.strip_prefix("system:serviceaccount:").and_then(|it| it.split(':').next());
        let identity = namespace.zip(first("pod-name")).zip(first("pod-uid"));
        Ok(identity.map(|((namespace, name), uid)| PodIdentity {
            namespace: namespace.to_owned(),
            name,
            uid,
        }))
    }

    /// Whether this is the target's Pod: not an earlier one of its name, nor one that another program made.
    ///
    /// # Errors
    /// The API server could not be queried.
    pub async fn is_pod_of(&self, identity: &PodIdentity, target: &Target) -> Result<bool, kube::Error> {
        if identity.namespace != self.options.namespace || identity.name != pod::name(&target.executor) {
            return Ok(false);
        }
        Ok(match self.find_now(target).await? {
            Found::Own(pod) => pod.uid().as_deref() == Some(&identity.uid),
            Found::Foreign | Found::None => false,
        })
    }
}

/// Audience of tokens that clients show. Agents' tokens have another, since a submitter may read its agent's.
pub const CLIENT_AUDIENCE: &str = "sqlflow-clients";

/// Reviews tokens that clients show.
#[derive(Clone)]
pub struct TokenReviews {
    client: kube::Client,
}

/// The user of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUser {
    /// Name, such as `system:serviceaccount:team:default`.
    pub name: String,
    /// Groups.
    pub groups: Vec<String>,
}

impl TokenReviews {
    /// At this API server.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    /// The user of a token for [`CLIENT_AUDIENCE`]. `None`: it is not valid for it.
    ///
    /// # Errors
    /// The API server did not answer; one sentence.
    pub async fn user(&self, token: &str) -> Result<Option<TokenUser>, String> {
        let status = reviewed(&self.client, token, CLIENT_AUDIENCE).await;
        let user = status.map_err(|error| super::in_words(&error).to_string())?;
        Ok(user.map(|user| TokenUser {
            name: user.username.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
        }))
    }
}

/// The user of a token that is valid for this audience.
async fn reviewed(
    client: &kube::Client,
    token: &str,
    audience: &str,
) -> Result<Option<UserInfo>, kube::Error> {
    let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![audience.to_owned()]) };
    let review = TokenReview { spec, ..TokenReview::default() };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let status = reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
    // An API server that does not know audiences would accept every token.
    let for_us = status.audiences.unwrap_or_default().iter().any(|it| it == audience);
    Ok(status.user.filter(|_| status.authenticated == Some(true) && for_us))
}
