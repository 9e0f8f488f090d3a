//! Resources that a step requests for its Pod.

use serde::{Deserialize, Serialize};

/// Resources of a Pod, from the `pod.*` attributes of the step's statements. Launchers without Pods ignore them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodResources {
    /// CPU request, such as `2` or `500m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Memory request and limit, such as `4Gi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Number of GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Image of the submitter's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl PodResources {
    /// Names of the requested resources.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let Self { cpu, memory, gpu, image } = self;
        let all = [("cpu", cpu), ("memory", memory), ("gpu", gpu), ("image", image)];
        all.into_iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_of_steps_keep_their_form() {
        let text = r#"{"memory":"4Gi","image":"own:2"}"#;
        let resources: PodResources = serde_json::from_str(text).unwrap();
        assert_eq!(resources.names().collect::<Vec<_>>(), ["memory", "image"]);
        assert_eq!(serde_json::to_string(&resources).unwrap(), text);
        assert_eq!(serde_json::from_str::<PodResources>("{}").unwrap(), PodResources::default());
    }
}
