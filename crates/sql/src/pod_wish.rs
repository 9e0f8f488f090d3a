//! Attributes that begin with `pod.`: what a statement wishes for its Pod. They are no matter of the submitter; launchers
//! without Pods take no notice of them.

use super::ast::Attribute;
use super::expr::Expr;
use super::json::attribute_json;

/// A wish: `pod.memory = "4Gi"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodWish;

const NAMES: [&str; 4] = ["cpu", "memory", "gpu", "image"];
/// Units of quantities, as Kubernetes has them.
const UNITS: [&str; 10] = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"];

impl PodWish {
    /// How the names of such attributes begin.
    pub const PREFIX: &str = "pod.";

    /// Whether there is such a wish, with such a value.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn check(what: &str, value: &Expr) -> Result<(), String> {
        if !NAMES.contains(&what) {
            let known = NAMES.map(|name| format!("pod.{name}")).join(", ");
            return Err(format!("there is no attribute pod.{what}; there are {known}"));
        }
        let text = text(value);
        let is_good = if what == "image" { is_image(&text) } else { is_quantity(&text) };
        let expected =
            if what == "image" { "the name of an image" } else { "a quantity such as 2, 500m or 4Gi" };
        if is_good { Ok(()) } else { Err(format!("attribute pod.{what} is {text:?}, expected {expected}")) }
    }

    /// The wishes among these attributes, by name without the prefix.
    pub fn of(attributes: &[Attribute]) -> impl Iterator<Item = (String, String)> {
        let wish =
            |it: &Attribute| Some((it.name.text.strip_prefix(Self::PREFIX)?.to_owned(), text(&it.value)));
        attributes.iter().filter_map(wish)
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
    fn quantities_and_images_have_their_forms() {
        for good in ["1", "0.5", "500m", "4Gi"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "Gi", "-1", "0", "4GB", "1 Gi", "NaN", "inf"] {
            assert!(!is_quantity(bad), "{bad}");
        }
        assert!(is_image("registry:5000/team/image@sha256:00") && !is_image("a b") && !is_image(""));
    }
}
