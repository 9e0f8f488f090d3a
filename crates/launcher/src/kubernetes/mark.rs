//! The mark of Pods that servers of one state folder make: a MAC in an annotation. A program that may create Pods in the
//! namespace can give one the name and the labels of an attempt, and cannot make its mark.
//!
//! The mark decides only until the Pod's uid is recorded with its attempt, since it can be copied to a later Pod of the
//! same name. It is needed because a server may die between the two.

use std::fmt;

use hmac::{Hmac, Mac as _};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use sha2::Sha256;
use sqlflow_job::ExecutorProof;

use super::pod;
use crate::Target;

/// The annotation with the mark.
pub(super) const ANNOTATION: &str = "sqlflow.org/mark";

/// The key of marks: a secret of the state folder.
#[derive(Clone)]
pub struct MarkKey(pub [u8; 32]);

impl fmt::Debug for MarkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MarkKey(…)")
    }
}

impl MarkKey {
    fn mac(&self, namespace: &str, target: &Target) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length will do");
        let Target { attempt, executor, .. } = target;
        // Neither a namespace nor an executor contains a slash.
        mac.update(format!("pod/{namespace}/{executor}/{attempt}").as_bytes());
        mac
    }

    /// The mark of the target's Pod.
    pub(super) fn mark(&self, namespace: &str, target: &Target) -> String {
        hex::encode(self.mac(namespace, target).finalize().into_bytes())
    }

    fn is_on(&self, pod: &Pod, namespace: &str, target: &Target) -> bool {
        let mark = pod.annotations().get(ANNOTATION).and_then(|text| hex::decode(text).ok());
        mark.is_some_and(|mark| self.mac(namespace, target).verify_slice(&mark).is_ok())
    }

    /// Whether this Pod, which has the name of the target's, is the one that a server made.
    pub(super) fn is_own(&self, pod: &Pod, namespace: &str, target: &Target) -> bool {
        match &target.proof {
            Some(ExecutorProof::Uid(uid)) => pod.metadata.uid.as_ref() == Some(uid),
            Some(ExecutorProof::Mark) => self.is_on(pod, namespace, target),
            // A server of an earlier version made it, and did not mark it.
            None => pod::target_of(pod)
                .is_some_and(|found| found.attempt == target.attempt && found.executor == target.executor),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sqlflow_job::AttemptId;

    use super::*;

    const KEY: MarkKey = MarkKey([7; 32]);

    fn attempt(number: u32, proof: Option<ExecutorProof>) -> Target {
        let job = "01kb3x7h8m9n0p1q2r3s4t5v6w".parse().unwrap();
        Target { proof, ..Target::own(AttemptId { job, step: 0, number }) }
    }

    /// A Pod with the name and the labels of the target's.
    fn pod(target: &Target, mark: Option<&str>, uid: &str) -> Pod {
        let attempt = &target.attempt;
        let mut metadata = json!({
            "name": pod::name(&target.executor),
            "uid": uid,
            "labels": {
                (pod::MANAGED_BY): pod::MANAGER,
                (pod::JOB): attempt.job.as_str(),
                (pod::STEP): attempt.step.to_string(),
                (pod::ATTEMPT): attempt.number.to_string(),
            },
        });
        if let Some(mark) = mark {
            metadata["annotations"] = json!({ ANNOTATION: mark });
        }
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn mark_is_of_one_attempt_in_one_namespace_by_one_key() {
        let target = attempt(1, Some(ExecutorProof::Mark));
        let other = attempt(2, Some(ExecutorProof::Mark));
        let right = KEY.mark("ns", &target);
        let is_own = |mark: Option<&str>| KEY.is_own(&pod(&target, mark, "u"), "ns", &target);
        assert!(is_own(Some(&right)));
        let (other_key, elsewhere) = (MarkKey([8; 32]).mark("ns", &target), KEY.mark("other", &target));
        for wrong in [&*other_key, &elsewhere, &KEY.mark("ns", &other), "", "00", "not hexadecimal"] {
            assert!(!is_own(Some(wrong)), "{wrong}");
        }
        assert!(!is_own(None));
    }

    /// Its mark was copied from the Pod before it.
    #[test]
    fn recorded_uid_outweighs_the_mark() {
        let target = attempt(1, Some(ExecutorProof::Uid("first".to_owned())));
        let mark = KEY.mark("ns", &target);
        assert!(KEY.is_own(&pod(&target, None, "first"), "ns", &target));
        assert!(!KEY.is_own(&pod(&target, Some(&mark), "second"), "ns", &target));
    }

    #[test]
    fn pod_of_an_earlier_version_is_known_by_its_labels() {
        let target = attempt(1, None);
        assert!(KEY.is_own(&pod(&target, None, "u"), "ns", &target));
        let mut other = pod(&target, None, "u");
        other.metadata.labels.as_mut().unwrap().insert(pod::ATTEMPT.to_owned(), "2".to_owned());
        assert!(!KEY.is_own(&other, "ns", &target));
    }
}
