//! Finds the Pod of an attempt, and tells it from another program's of the same name.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::ObjectRef;

use super::{KubernetesLauncher, pod};
use crate::Target;

/// The Pod that has the name of an attempt's.
pub(super) enum Found {
    /// A server made it for the attempt.
    Own(Arc<Pod>),
    /// Another program made it.
    Foreign,
    /// There is none.
    None,
}

impl KubernetesLauncher {
    /// The Pod, from the watch where that is certain.
    pub(super) async fn find(&self, target: &Target) -> Result<Found, kube::Error> {
        match self.cached(target) {
            Some(pod) if !self.terminating.is_overdue(&pod, Instant::now()) => Ok(Found::Own(pod)),
            // The watch may lag, also behind the end of an overdue Pod, or of another program's.
            Some(_) | None => self.find_now(target).await,
        }
    }

    /// The attempt's Pod as last reported by the watch.
    pub(super) fn cached(&self, target: &Target) -> Option<Arc<Pod>> {
        let reference = ObjectRef::new(&pod::name(&target.executor)).within(&self.options.namespace);
        self.cache.get(&reference).filter(|pod| self.is_own(pod, target))
    }

    /// The Pod as the API server has it now.
    pub(super) async fn find_now(&self, target: &Target) -> Result<Found, kube::Error> {
        Ok(match self.pods.get_opt(&pod::name(&target.executor)).await? {
            Some(pod) if self.is_own(&pod, target) => Found::Own(Arc::new(pod)),
            Some(_) => Found::Foreign,
            None => Found::None,
        })
    }

    fn is_own(&self, pod: &Pod, target: &Target) -> bool {
        self.options.mark_key.is_own(pod, &self.options.namespace, target)
    }
}
