//! Since when this server sees Pods being deleted. A Pod that outstays its deletion is lost with its node. The time is this
//! server's own, from when it first saw the deletion: the cluster's clock may be another one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlflow_sync::mutex::lock;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// Time after its grace that a Pod which is being deleted may still be there: then its node does not answer any more.
const OVERDUE: Duration = Duration::from_secs(15);

/// The deletions that were seen, by the Pod's name; no more than there are Pods.
#[derive(Clone, Default)]
pub(super) struct Deletions(Arc<Mutex<HashMap<String, Deletion>>>);

#[derive(Clone, Copy)]
struct Deletion {
    /// When the grace ends, by the cluster's clock. A later deletion may shorten it.
    ends: Timestamp,
    seen: Instant,
}

impl Deletions {
    /// Notes the Pod as it is now. Whether it should be gone, and its node does not say that it is.
    pub(super) fn is_overdue(&self, pod: &Pod, now: Instant) -> bool {
        let Some(ends) = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0) else { return false };
        let mut known = lock(&self.0);
        let deletion = known.entry(pod.name_any()).or_insert(Deletion { ends, seen: now });
        if deletion.ends != ends {
            *deletion = Deletion { ends, seen: now };
        }
        let grace = pod.metadata.deletion_grace_period_seconds.and_then(|it| u64::try_from(it).ok());
        let allowed = Duration::from_secs(grace.unwrap_or(0)).saturating_add(OVERDUE);
        now.saturating_duration_since(deletion.seen) > allowed
    }

    /// The Pod is gone.
    pub(super) fn forget(&self, name: &str) {
        lock(&self.0).remove(name);
    }

    /// These are all the Pods that there are.
    pub(super) fn note_all(&self, pods: &[Arc<Pod>], now: Instant) {
        let names: HashMap<_, _> = pods.iter().map(|pod| (pod.name_any(), pod)).collect();
        lock(&self.0).retain(|name, _| names.contains_key(name));
        for pod in pods {
            self.is_overdue(pod, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A Pod that is deleted with this grace, whose end is so many seconds before this server's time: its clock is ahead.
    fn deleted(name: &str, grace: u64, ended_before: u64) -> Pod {
        let ends = Timestamp::now() - Duration::from_secs(ended_before);
        let metadata =
            json!({ "name": name, "deletionTimestamp": ends, "deletionGracePeriodSeconds": grace });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn a_deleted_pod_has_its_grace_whatever_the_clocks_say() {
        for ended_before in [0, 60, 3600] {
            let (deletions, begin) = (Deletions::default(), Instant::now());
            let pod = deleted("a", 30, ended_before);
            let is_overdue = |seconds| deletions.is_overdue(&pod, begin + Duration::from_secs(seconds));
            assert_eq!(
                [0, 29, 45, 46].map(is_overdue),
                [false, false, false, true],
                "{ended_before} s ahead"
            );
        }
    }

    #[test]
    fn a_second_deletion_begins_its_own_grace() {
        let (deletions, begin) = (Deletions::default(), Instant::now());
        let later = begin + Duration::from_secs(200);
        assert!(!deletions.is_overdue(&deleted("a", 180, 0), begin));
        let forced = deleted("a", 0, 100);
        assert!(!deletions.is_overdue(&forced, later));
        assert!(deletions.is_overdue(&forced, later + OVERDUE + Duration::from_secs(1)));
    }

    #[test]
    fn only_pods_that_are_there_and_are_deleted_are_remembered() {
        let (deletions, now) = (Deletions::default(), Instant::now());
        let [a, b, c] = ["a", "b", "c"].map(|name| Arc::new(deleted(name, 30, 0)));
        let lives = serde_json::from_value(json!({ "metadata": { "name": "d" } })).unwrap();
        deletions.note_all(&[a.clone(), b, Arc::new(lives)], now);
        deletions.note_all(&[a, c], now);
        deletions.forget("c");
        assert_eq!(lock(&deletions.0).keys().collect::<Vec<_>>(), ["a"]);
    }
}
