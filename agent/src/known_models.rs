//! The models of a storage that the user of an attempt may know of.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use serde_json::json;
use sqlflow_model_storage::RetryPolicy;
use sqlflow_model_storage::models::{Model, Models};
use sqlflow_os::paths::inside;
use sqlflow_proto::agent::{Listing, ModelVisibility};

/// Maximum number of suggestions.
const MAX_NEAR: usize = 3;

/// Suggests visible models of the same storage with similar names. None if the storage cannot be listed.
pub(crate) fn near_misses(name: &str, uri: &str, visibility: Option<&ModelVisibility>) -> String {
    let Some(root) = uri.strip_suffix(name).map(|root| root.trim_end_matches('/')) else {
        return String::new();
    };
    let models = Models::at(root).and_then(|models| visible(&models, visibility)).unwrap_or_default();
    // Two edits, more in a long name; or the same last segment, as `flowers` for `team/flowers`.
    let most = (name.chars().count() / 4).max(2);
    let last = |name: &str| name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let mut near: Vec<(usize, String)> = models
        .into_iter()
        .filter_map(|model| {
            let slips = strsim::damerau_levenshtein(&name.to_lowercase(), &model.name.to_lowercase());
            (slips <= most || last(&model.name) == last(name)).then_some((slips, model.name))
        })
        .collect();
    near.sort();
    let near: Vec<_> = near.into_iter().take(MAX_NEAR).map(|(_, name)| name).collect();
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

/// The models that a user may know of.
fn visible(models: &Models, visibility: Option<&ModelVisibility>) -> anyhow::Result<Vec<Model>> {
    let mut found = models.list()?;
    found.retain(|model| visibility.is_none_or(|it| it.shows(&model.name)));
    Ok(found)
}

/// Writes the list of the visible models of a storage, for the command.
///
/// # Errors
/// Those of the storage.
pub fn list(
    workspace: &Path,
    listing: &Listing,
    visibility: Option<&ModelVisibility>,
    retry: &Arc<RetryPolicy>,
) -> anyhow::Result<()> {
    let path = inside(workspace, &listing.path)?;
    let models = retry.retry(|| visible(&Models::at(&listing.uri)?, visibility), |_| true)?;
    let entry = |model: &Model| {
        let since_1970 = model.modified.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let published = since_1970.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
        json!({ "name": model.name, "size_bytes": model.bytes, "published_ms": published })
    };
    let document = serde_json::Value::Array(models.iter().map(entry).collect());
    std::fs::write(&path, document.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlflow_proto::agent::ModelVisibilityRule;

    use super::*;

    #[test]
    fn misspelt_model_gets_suggestions() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["team/flowers", "floors", "iris"] {
            let folder = dir.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("{}.tar.gz", name.rsplit('/').next().unwrap())), "x").unwrap();
        }
        let uri = |name: &str| format!("file://{}/{name}", dir.path().display());
        let near = |name: &str| near_misses(name, &uri(name), None);
        assert_eq!(near("irsi"), "; did you mean iris?");
        assert_eq!(near("flowers"), "; did you mean floors or team/flowers?");
        assert_eq!(near("something"), "");
        assert_eq!(near_misses("m", "file:///no/such/folder/m", None), "");
        let rule = ModelVisibilityRule { name: "team/".to_owned(), is_prefix: true, is_visible: false };
        let hidden = ModelVisibility { rules: vec![rule], own: Vec::new() };
        assert_eq!(near_misses("flowers", &uri("flowers"), Some(&hidden)), "; did you mean floors?");
    }

    #[test]
    fn hidden_models_are_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["iris", "risk", "risky"] {
            std::fs::create_dir_all(dir.path().join("models").join(name)).unwrap();
            std::fs::write(dir.path().join(format!("models/{name}/{name}.tar.gz")), "x").unwrap();
        }
        let retry = Arc::new(RetryPolicy::new(Duration::ZERO));
        let listed = |visibility: Option<&ModelVisibility>| {
            let uri = format!("file://{}/models", dir.path().display());
            let listing = Listing { uri, path: "list.json".to_owned() };
            list(dir.path(), &listing, visibility, &retry).unwrap();
            let text = std::fs::read_to_string(dir.path().join("list.json")).unwrap();
            let models: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
            models.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(listed(None), ["iris", "risk", "risky"]);
        let rule = ModelVisibilityRule { name: "risk".to_owned(), is_prefix: true, is_visible: false };
        let visibility = ModelVisibility { rules: vec![rule], own: vec!["risky".to_owned()] };
        assert_eq!(listed(Some(&visibility)), ["iris", "risky"]);
    }
}
