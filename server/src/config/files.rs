//! Files named by options.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub(crate) fn read_yaml(file: &Path) -> anyhow::Result<serde_json::Value> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", file.display()))
}

pub(crate) fn find_agent(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let path = match given {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("sqlflow-agent"),
    };
    fs::canonicalize(&path).with_context(|| {
        format!(
            "cannot use the agent {}; name another one with --agent, or build it with cargo build -p sqlflow-agent",
            path.display()
        )
    })
}
