//! The rights that a server needs at the API server. They are checked before the first launch: without one of them a job
//! would begin, and then hang or leave its Pod behind.

use std::sync::atomic::Ordering;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};

use super::{KubernetesLauncher, KubernetesOptions};

/// A verb on a kind of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Right {
    group: &'static str,
    resource: &'static str,
    verb: &'static str,
    place: Place,
}

/// Where a right is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the namespace of the Pods.
    Namespace,
    /// In the whole cluster.
    Cluster,
}

/// What the API server says about a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Granted,
    Missing,
    /// It does not answer such questions. The calls themselves will show it.
    Unknown,
}

/// The rights that a server with these options needs. `manifests/` grants the same.
fn needed(options: &KubernetesOptions) -> Vec<Right> {
    let of = |resource, verb| Right { group: "", resource, verb, place: Place::Namespace };
    let mut rights: Vec<_> =
        ["create", "get", "list", "watch", "delete"].map(|verb| of("pods", verb)).to_vec();
    if options.finalizer {
        // To remove it.
        rights.push(of("pods", "patch"));
    }
    rights.push(of("events", "list"));
    if options.workspace_claim.is_some() {
        rights.extend(["create", "list", "delete"].map(|verb| of("persistentvolumeclaims", verb)));
    }
    rights.push(Right {
        group: "authentication.k8s.io",
        resource: "tokenreviews",
        verb: "create",
        place: Place::Cluster,
    });
    rights
}

impl Right {
    fn review(&self, namespace: &str) -> SelfSubjectAccessReview {
        let attributes = ResourceAttributes {
            group: Some(self.group.to_owned()),
            resource: Some(self.resource.to_owned()),
            verb: Some(self.verb.to_owned()),
            namespace: match self.place {
                Place::Namespace => Some(namespace.to_owned()),
                Place::Cluster => None,
            },
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() }
    }

    fn in_words(&self) -> String {
        let place = match self.place {
            Place::Namespace => "",
            Place::Cluster => " in the whole cluster",
        };
        format!("cannot {} resource \"{}\"{place}", self.verb, self.resource)
    }
}

/// One sentence for missing rights, which are not empty.
pub(super) fn in_words(missing: &[Right], namespace: &str) -> String {
    let all: Vec<_> = missing.iter().map(Right::in_words).collect();
    let needs_cluster_role = missing.iter().any(|it| it.place == Place::Cluster);
    let role = if needs_cluster_role { "its Role or ClusterRole" } else { "its Role" };
    format!(
        "cannot run jobs in namespace {namespace}: the server's account {}; add each verb to {role}",
        all.join(", ")
    )
}

impl KubernetesLauncher {
    /// The needed rights that the server's account lacks. Once all were granted, it asks no more.
    pub(super) async fn missing_rights(&self) -> Result<Vec<Right>, kube::Error> {
        if self.has_all_rights.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        let mut asked = Vec::new();
        for right in needed(&self.options) {
            asked.push(self.ask_for(right));
        }
        let answers = futures::future::try_join_all(asked).await?;
        if answers.iter().all(|(_, answer)| *answer == Answer::Granted) {
            self.has_all_rights.store(true, Ordering::Relaxed);
        }
        let missing = answers.into_iter().filter(|(_, answer)| *answer == Answer::Missing);
        Ok(missing.map(|(right, _)| right).collect())
    }

    async fn ask_for(&self, right: Right) -> Result<(Right, Answer), kube::Error> {
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let review = right.review(&self.options.namespace);
        let answer = match reviews.create(&PostParams::default(), &review).await {
            Ok(review) => match review.status {
                Some(status) if status.allowed => Answer::Granted,
                Some(_) => Answer::Missing,
                None => Answer::Unknown,
            },
            Err(kube::Error::Api(_) | kube::Error::SerdeError(_)) => Answer::Unknown,
            Err(error) => return Err(error),
        };
        Ok((right, answer))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::pod::fixture::options;
    use super::*;

    fn words(options: &KubernetesOptions) -> Vec<String> {
        needed(options).iter().map(|it| format!("{} {}", it.verb, it.resource)).collect()
    }

    #[test]
    fn only_what_the_options_use_is_needed() {
        let all = KubernetesOptions { workspace_claim: Some(json!({})), ..options(json!({})) };
        let all = words(&all);
        for right in ["create pods", "patch pods", "list events", "delete persistentvolumeclaims"] {
            assert!(all.iter().any(|it| it == right), "{right}: {all:?}");
        }
        let least = words(&KubernetesOptions { finalizer: false, ..options(json!({})) });
        let expected = [
            "create pods",
            "get pods",
            "list pods",
            "watch pods",
            "delete pods",
            "list events",
            "create tokenreviews",
        ];
        assert_eq!(least, expected);
    }

    #[test]
    fn missing_verbs_are_named() {
        let rights = needed(&options(json!({})));
        let find = |verb: &str, resource: &str| {
            rights.iter().find(|it| it.verb == verb && it.resource == resource).unwrap().clone()
        };
        let message = in_words(&[find("watch", "pods"), find("create", "tokenreviews")], "ana");
        let expected = "cannot run jobs in namespace ana: the server's account cannot watch resource \"pods\", \
                        cannot create resource \"tokenreviews\" in the whole cluster; add each verb to its Role or \
                        ClusterRole";
        assert_eq!(message, expected);
    }
}
