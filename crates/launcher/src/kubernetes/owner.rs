//! The owner of the Pods and claims of jobs: a Pod, with which the cluster's garbage collector removes them.

use std::str::FromStr;

use serde_json::{Value, json};

/// A Pod that owns what the launcher makes. It is in the same namespace: the garbage collector removes an object whose
/// owner it does not find there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodOwner {
    /// Its name.
    name: String,
    /// Its uid, which distinguishes it from later Pods of the same name.
    uid: String,
}

impl FromStr for PodOwner {
    type Err = String;

    /// From `NAME/UID`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |it: &str| {
            !it.is_empty() && it.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
        };
        match text.split_once('/') {
            Some((name, uid)) if is_name(name) && is_name(uid) => {
                Ok(Self { name: name.to_owned(), uid: uid.to_owned() })
            }
            _ => Err("expected NAME/UID of a Pod, both from the downward API".to_owned()),
        }
    }
}

impl PodOwner {
    /// The owner references of an object.
    pub(super) fn references(&self) -> Value {
        json!([{ "apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self.uid }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_has_a_name_and_a_uid() {
        let uid = "8a6ff3b5-7a3c-4f0a-9d52-6a4ad8c9c1d0";
        let owner: PodOwner = format!("notebook-0/{uid}").parse().unwrap();
        assert_eq!(owner.references()[0]["name"], "notebook-0");
        assert_eq!(owner.references()[0]["uid"], uid);
        // Kubernetes leaves a variable that does not exist as it is.
        for wrong in ["", "notebook-0", "notebook-0/", "/uid", "$(POD_NAME)/$(POD_UID)", "a/b/c"] {
            assert!(wrong.parse::<PodOwner>().is_err(), "{wrong}");
        }
    }
}
