//! Pods that may have changed since they were last observed. It is level-triggered: a change without a waiter is found
//! by a later caller.

use std::sync::{Arc, Mutex};

use sqlflow_sync::lock;
use sqlflow_sync::watched::Watched;

/// A flag for each Pod that may have changed, by name.
#[derive(Clone, Default)]
pub(super) struct Changes(Arc<Mutex<Watched<String, bool>>>);

impl Changes {
    /// Marks the Pod as observed: later events are new changes.
    pub(super) fn begin_look(&self, pod: &str) {
        self.set(pod, false);
    }

    /// Marks the Pod as changed.
    pub(super) fn note(&self, pod: &str) {
        self.set(pod, true);
    }

    fn set(&self, pod: &str, has_changed: bool) {
        if let Some(changed) = lock(&self.0).get(pod) {
            changed.send_replace(has_changed);
        }
    }

    /// Marks all Pods as changed.
    pub(super) fn note_all(&self) {
        lock(&self.0).all().for_each(|changed| {
            changed.send_replace(true);
        });
    }

    /// Waits until the Pod may have changed since it was observed; returns at once for a Pod that is not known.
    pub(super) async fn changed(&self, pod: &str) {
        // Earlier changes of it are not known.
        let mut changed = lock(&self.0).subscribe(&pod.to_owned(), true);
        // An error means that it was removed; an observation is harmless then.
        let _ = changed.wait_for(|changed| *changed).await;
    }

    /// Removes the Pod.
    pub(super) fn forget(&self, pod: &str) {
        lock(&self.0).remove(pod);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use sqlflow_sync::watched::SPARE;

    use super::*;

    fn has_changed(changes: &Changes, pod: &str) -> bool {
        changes.changed(pod).now_or_never().is_some()
    }

    #[test]
    fn change_without_a_waiter_is_found_until_the_pod_is_observed() {
        let changes = Changes::default();
        assert!(
            has_changed(&changes, "a") && has_changed(&changes, "b"),
            "what they did before is not known"
        );
        changes.begin_look("a");
        changes.begin_look("b");
        assert!(!has_changed(&changes, "a"));
        changes.note("a");
        assert!(has_changed(&changes, "a") && has_changed(&changes, "a") && !has_changed(&changes, "b"));
        changes.begin_look("a");
        assert!(!has_changed(&changes, "a"));
        changes.note_all();
        assert!(has_changed(&changes, "a") && has_changed(&changes, "b"));
    }

    #[tokio::test]
    async fn waiter_is_woken_by_change_and_forget() {
        let changes = Changes::default();
        for wake in [|it: &Changes| it.note("a"), |it: &Changes| it.forget("a")] {
            assert!(has_changed(&changes, "a"));
            changes.begin_look("a");
            let mut waiting = Box::pin(changes.changed("a"));
            assert!((&mut waiting).now_or_never().is_none());
            wake(&changes);
            waiting.await;
        }
    }

    /// As of Pods whose jobs another server took over.
    #[test]
    fn pods_without_waiters_are_removed() {
        let changes = Changes::default();
        assert!(has_changed(&changes, "waited-for"));
        changes.begin_look("waited-for");
        let mut waiting = Box::pin(changes.changed("waited-for"));
        assert!((&mut waiting).now_or_never().is_none());
        for pod in 0..10_000 {
            has_changed(&changes, &pod.to_string());
        }
        assert!(lock(&changes.0).len() <= 2 + SPARE);
        changes.note("waited-for");
        assert!((&mut waiting).now_or_never().is_some(), "one that is waited for stays");
    }
}
