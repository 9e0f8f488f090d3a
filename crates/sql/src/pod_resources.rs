//! Attributes that begin with `pod.`: resources that a statement requests for its Pod. They are not passed to the
//! submitter, and launchers without Pods ignore them.

use super::ast::Attribute;
use super::expr::Expr;
use super::json::attribute_json;

/// A resource of a Pod: `pod.memory = "4Gi"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodResource {
    /// CPU, as a quantity of Kubernetes.
    Cpu,
    /// Memory, as a quantity of Kubernetes.
    Memory,
    /// Number of GPUs.
    Gpu,
    /// Image of the submitter's container.
    Image,
}

/// Suffixes of quantities, a subset of
/// [those of Kubernetes](https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/).
const UNITS: [&str; 10] = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"];

impl PodResource {
    /// Prefix of the names of such attributes.
    pub const PREFIX: &str = "pod.";
    const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::Gpu, Self::Image];

    /// The attribute's name without the prefix.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Gpu => "gpu",
            Self::Image => "image",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Checks the value of an attribute, whose name is given without the prefix.
    ///
    /// # Errors
    /// A message about the name or the value.
    pub(super) fn check(name: &str, value: &Expr) -> Result<(), String> {
        let Some(resource) = Self::of_name(name) else {
            let known = Self::ALL.map(|it| format!("pod.{}", it.name())).join(", ");
            return Err(format!("attribute pod.{name} does not exist (known: {known})"));
        };
        let text = text(value);
        let (is_good, expected) = match resource {
            Self::Image => (is_image(&text), "an image name"),
            Self::Cpu | Self::Memory | Self::Gpu => (is_quantity(&text), "a quantity such as 2, 500m or 4Gi"),
        };
        if is_good { Ok(()) } else { Err(format!("attribute pod.{name} is {text:?}, expected {expected}")) }
    }

    /// The resources among these attributes, with their values.
    pub fn of(attributes: &[Attribute]) -> impl Iterator<Item = (Self, String)> {
        attributes.iter().filter_map(|attribute| {
            let resource = Self::of_name(attribute.name.text.strip_prefix(Self::PREFIX)?)?;
            Some((resource, text(&attribute.value)))
        })
    }
}

fn text(value: &Expr) -> String {
    match attribute_json(value) {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

fn is_quantity(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - unit.len()];
    UNITS.contains(&unit) && number.parse::<f64>().is_ok_and(|number| number > 0.0)
}

fn is_image(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_quantity_or_image_is_rejected() {
        for good in ["1", "0.5", "500m", "4Gi"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "Gi", "-1", "0", "4GB", "1 Gi", "NaN", "inf"] {
            assert!(!is_quantity(bad), "{bad}");
        }
        assert!(is_image("registry:5000/team/image@sha256:00") && !is_image("a b") && !is_image(""));
    }
}
