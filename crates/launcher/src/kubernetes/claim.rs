//! The claim of a step that makes something to be published: a volume for its work that outlives its Pods, so that a
//! model which could not be published is published by a later one. Pure.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};
use sqlflow_job::AttemptId;

use super::pod::{ATTEMPT, JOB, MANAGED_BY, MANAGER, STEP, attempt_of_labels, merge};
use crate::Target;

/// `sqlflow-<job>-<step>`: all attempts of a step have one.
pub(super) fn name(attempt: &AttemptId) -> String {
    format!("sqlflow-{}-{}", attempt.job, attempt.step)
}

/// Builds the claim; `spec` is what the operator says of it.
///
/// # Errors
/// The operator's is no spec of a claim.
pub(super) fn claim(spec: &Value, attempt: &AttemptId) -> Result<PersistentVolumeClaim, serde_json::Error> {
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
    if spec.get("accessModes").is_none() {
        // One Pod at a time has it.
        claim["spec"]["accessModes"] = json!(["ReadWriteOnce"]);
    }
    merge(&mut claim["spec"], spec);
    serde_json::from_value(claim)
}

/// Whom a claim of ours was made for.
pub(super) fn target_of(claim: &PersistentVolumeClaim) -> Option<Target> {
    let attempt = attempt_of_labels(&claim.metadata)?;
    (claim.metadata.name.as_deref() == Some(&name(&attempt))).then(|| Target::own(attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_its_steps() {
        let attempt =
            |number| AttemptId { job: "01kb3x7h8m9n0p1q2r3s4t5v6w".parse().unwrap(), step: 2, number };
        let spec = json!({ "resources": { "requests": { "storage": "20Gi" } }, "storageClassName": "fast" });
        let claim = claim(&spec, &attempt(1)).unwrap();
        assert_eq!(target_of(&claim), Some(Target::own(attempt(1))));
        assert_eq!(name(&attempt(1)), name(&attempt(2)));
        let made = claim.spec.unwrap();
        assert_eq!(made.access_modes.unwrap(), ["ReadWriteOnce"]);
        assert_eq!(made.storage_class_name.unwrap(), "fast");
    }
}
