//! Pods that are being deleted (`Terminating`), and since when this server has seen it. A Pod that exceeds its
//! deletion's grace period is lost with its node. Time is measured by this server's clock, since the cluster's may
//! differ.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlflow_sync::lock;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// Time that a deleted Pod may exist after its grace period, before its node counts as unreachable.
const OVERDUE: Duration = Duration::from_secs(15);

/// The Pods that are being deleted, by name.
#[derive(Clone, Default)]
pub(super) struct TerminatingPods(Arc<Mutex<HashMap<String, TerminatingPod>>>);

#[derive(Clone, Copy)]
struct TerminatingPod {
    /// End of the grace period, by the cluster's clock. A later deletion may shorten it.
    ends: Timestamp,
    seen: Instant,
}

impl TerminatingPods {
    /// Records the Pod's current state, and returns whether it is overdue.
    pub(super) fn is_overdue(&self, pod: &Pod, now: Instant) -> bool {
        let Some(ends) = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0) else { return false };
        let mut known = lock(&self.0);
        let deletion = known.entry(pod.name_any()).or_insert(TerminatingPod { ends, seen: now });
        if deletion.ends != ends {
            *deletion = TerminatingPod { ends, seen: now };
        }
        let grace = pod.metadata.deletion_grace_period_seconds.and_then(|it| u64::try_from(it).ok());
        let allowed = Duration::from_secs(grace.unwrap_or(0)).saturating_add(OVERDUE);
        now.saturating_duration_since(deletion.seen) > allowed
    }

    /// Removes the Pod.
    pub(super) fn forget(&self, name: &str) {
        lock(&self.0).remove(name);
    }

    /// Removes all but these Pods, which are all that exist.
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

    /// A Pod that is deleted with this grace, whose end is so many seconds before this server's time: its clock is
    /// ahead.
    fn deleted(name: &str, grace: u64, ended_before: u64) -> Pod {
        let ends = Timestamp::now() - Duration::from_secs(ended_before);
        let metadata =
            json!({ "name": name, "deletionTimestamp": ends, "deletionGracePeriodSeconds": grace });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn deleted_pod_has_its_grace_period_with_any_clock() {
        for ended_before in [0, 60, 3600] {
            let (terminating, begin) = (TerminatingPods::default(), Instant::now());
            let pod = deleted("a", 30, ended_before);
            let is_overdue = |seconds| terminating.is_overdue(&pod, begin + Duration::from_secs(seconds));
            assert_eq!(
                [0, 29, 45, 46].map(is_overdue),
                [false, false, false, true],
                "{ended_before} s ahead"
            );
        }
    }

    #[test]
    fn second_deletion_begins_its_own_grace_period() {
        let (terminating, begin) = (TerminatingPods::default(), Instant::now());
        let later = begin + Duration::from_secs(200);
        assert!(!terminating.is_overdue(&deleted("a", 180, 0), begin));
        let forced = deleted("a", 0, 100);
        assert!(!terminating.is_overdue(&forced, later));
        assert!(terminating.is_overdue(&forced, later + OVERDUE + Duration::from_secs(1)));
    }

    #[test]
    fn only_existing_deleted_pods_are_kept() {
        let (terminating, now) = (TerminatingPods::default(), Instant::now());
        let [a, b, c] = ["a", "b", "c"].map(|name| Arc::new(deleted(name, 30, 0)));
        let lives = serde_json::from_value(json!({ "metadata": { "name": "d" } })).unwrap();
        terminating.note_all(&[a.clone(), b, Arc::new(lives)], now);
        terminating.note_all(&[a, c], now);
        terminating.forget("c");
        assert_eq!(lock(&terminating.0).keys().collect::<Vec<_>>(), ["a"]);
    }
}
