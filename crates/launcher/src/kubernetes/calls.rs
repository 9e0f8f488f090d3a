//! Calls to the API server that change objects, and what their errors mean for a launch.

use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use sqlflow_job::AttemptId;

use super::{CONFLICTS, KubernetesLauncher, claim, in_words, pod};
use crate::LaunchError;

impl KubernetesLauncher {
    /// Removes only the launcher's finalizer: there may be others.
    pub(super) async fn remove_finalizer(&self, name: &str) -> Result<(), kube::Error> {
        for _ in 0..CONFLICTS {
            let Some(pod) = self.pods.get_opt(name).await? else { return Ok(()) };
            let Some(left) = pod::without_ours(pod.finalizers()) else { return Ok(()) };
            let patch =
                json!({ "metadata": { "finalizers": left, "resourceVersion": pod.resource_version() } });
            let patched = self.pods.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await;
            match patched {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => return ignore_missing(other.map(drop)),
            }
        }
        // Housekeeping retries.
        Ok(())
    }

    /// Creates the claim, once for all attempts of a step.
    pub(super) async fn create_claim(&self, attempt: &AttemptId) -> Result<(), LaunchError> {
        let Some(spec) = &self.options.workspace_claim else { return Ok(()) };
        let claim = claim::claim(spec, attempt, self.options.owner.as_ref());
        let claim = claim.map_err(|error| LaunchError::Refused {
            message: format!("--workspace-claim does not make a claim: {error}"),
            retryable: false,
        })?;
        match self.claims.create(&PostParams::default(), &claim).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            created => created.map(drop).map_err(|error| refusal("the claim for the workspace", error)),
        }
    }

    pub(super) async fn delete_claim(&self, attempt: &AttemptId) -> Result<(), kube::Error> {
        if self.options.workspace_claim.is_none() {
            return Ok(());
        }
        ignore_missing(self.claims.delete(&claim::name(attempt), &DeleteParams::default()).await.map(drop))
    }
}

pub(super) fn ignore_missing(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

/// The launch error for a failed creation of `what`.
pub(super) fn refusal(what: &str, error: kube::Error) -> LaunchError {
    let kube::Error::Api(status) = error else {
        return LaunchError::Later(format!("the Kubernetes API cannot be reached: {}", in_words(&error)));
    };
    let message = format!("{what} was refused: {}", status.message);
    match status.code {
        403 if is_retryable(&status.message) => LaunchError::Later(message),
        400 | 403 | 404 | 405 | 413 | 415 | 422 => LaunchError::Refused { message, retryable: false },
        _ => LaunchError::Later(format!("the Kubernetes API did not take {what}: {}", status.message)),
    }
}

/// Whether a forbidden request is retryable: a quota has room again when other Pods end, and a new quota has no usage
/// yet. The API server distinguishes these from missing permissions only by the message.
fn is_retryable(forbidden: &str) -> bool {
    ["exceeded quota", "status unknown for quota"].iter().any(|words| forbidden.contains(words))
}
