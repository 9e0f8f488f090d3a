//! Which Pods may have changed since they were looked at last. That is a level: a change that nobody waited for is found by
//! a later caller.

use std::sync::{Arc, Mutex};

use sqlflow_sync::mutex::lock;
use sqlflow_sync::watched::Watched;

/// Whether each Pod may have changed, by its name.
#[derive(Clone, Default)]
pub(super) struct Changes(Arc<Mutex<Watched<String, bool>>>);

impl Changes {
    /// The Pod is looked at from here on: what changes later is another change.
    pub(super) fn begin_look(&self, pod: &str) {
        self.set(pod, false);
    }

    /// The Pod has changed.
    pub(super) fn note(&self, pod: &str) {
        self.set(pod, true);
    }

    fn set(&self, pod: &str, has_changed: bool) {
        if let Some(changed) = lock(&self.0).get(pod) {
            changed.send_replace(has_changed);
        }
    }

    /// Any Pod may have changed.
    pub(super) fn note_all(&self) {
        lock(&self.0).all().for_each(|changed| {
            changed.send_replace(true);
        });
    }

    /// PendingTracker until the Pod may have changed since it was looked at, for one that is not known not at all.
    pub(super) async fn changed(&self, pod: &str) {
        // What it did before is not known.
        let mut changed = lock(&self.0).subscribe(&pod.to_owned(), true);
        // An error says that it is not of interest any more; then a look does no harm.
        let _ = changed.wait_for(|changed| *changed).await;
    }

    /// Nobody is interested in the Pod any more.
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
    fn a_change_that_nobody_waited_for_is_found_until_the_pod_is_looked_at() {
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
    async fn who_waits_is_woken_by_a_change_and_when_the_pod_is_forgotten() {
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
    fn pods_that_nobody_waits_for_any_more_are_forgotten() {
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
