//! The volume claim of a step with output to publish. It outlives the step's Pods, so that a later Pod can publish kept
//! output. Pure.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};
use sqlflow_job::AttemptId;

use super::owner::PodOwner;
use super::pod::{ATTEMPT, JOB, MANAGED_BY, MANAGER, STEP, attempt_of_labels, merge};
use crate::Target;

/// Name of the claim: `sqlflow-<job>-<step>`, one for all attempts of a step.
pub(super) fn name(attempt: &AttemptId) -> String {
    format!("sqlflow-{}-{}", attempt.job, attempt.step)
}

/// Builds the claim; `spec` is from the operator.
///
/// # Errors
/// `spec` is not the spec of a claim.
pub(super) fn claim(
    spec: &Value,
    attempt: &AttemptId,
    owner: Option<&PodOwner>,
) -> Result<PersistentVolumeClaim, serde_json::Error> {
    let mut claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name(attempt),
            "labels": {
                MANAGED_BY: MANAGER,
                JOB: attempt.job.as_str(),
                STEP: attempt.step.to_string(),
                ATTEMPT: attempt.number.to_string(),
            },
        },
        "spec": {},
    });
    if let Some(owner) = owner {
        claim["metadata"]["ownerReferences"] = owner.references();
    }
    if spec.get("accessModes").is_none() {
        // One Pod at a time uses it.
        claim["spec"]["accessModes"] = json!(["ReadWriteOnce"]);
    }
    merge(&mut claim["spec"], spec);
    serde_json::from_value(claim)
}

/// The step that a claim was made for.
pub(super) fn target_of(claim: &PersistentVolumeClaim) -> Option<Target> {
    let attempt = attempt_of_labels(&claim.metadata)?;
    (claim.metadata.name.as_deref() == Some(&name(&attempt))).then(|| Target::own(attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_is_named_after_its_step() {
        let attempt =
            |number| AttemptId { job: "01kb3x7h8m9n0p1q2r3s4t5v6w".parse().unwrap(), step: 2, number };
        let spec = json!({ "resources": { "requests": { "storage": "20Gi" } }, "storageClassName": "fast" });
        let claim = claim(&spec, &attempt(1), None).unwrap();
        assert_eq!(target_of(&claim), Some(Target::own(attempt(1))));
        assert_eq!(name(&attempt(1)), name(&attempt(2)));
        let made = claim.spec.unwrap();
        assert_eq!(made.access_modes.unwrap(), ["ReadWriteOnce"]);
        assert_eq!(made.storage_class_name.unwrap(), "fast");
    }
}
