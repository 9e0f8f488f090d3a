//! Machine and time of the measurements: figures of different machines cannot be compared.

use std::thread::available_parallelism;

use serde_json::{Value, json};
use sqlflow_tests::python;

use crate::arguments::Scale;

const PYTHON_FACTS: &str = "
import datetime, platform, sqlite3
print(datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'))
print(platform.python_version(), sqlite3.sqlite_version)
";

/// Facts for the report.
pub fn facts(scale: &Scale) -> anyhow::Result<Value> {
    let said = python::run(PYTHON_FACTS, &[])?;
    let mut words = said.split_whitespace();
    Ok(json!({
        "cores": available_parallelism()?.get(),
        "processor": processor()?,
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "date": words.next(),
        "python": words.next(),
        "sqlite": words.next(),
        "is_quick": scale.is_quick,
        "is_optimized": !cfg!(debug_assertions),
    }))
}

fn processor() -> anyhow::Result<Option<String>> {
    let said = std::fs::read_to_string("/proc/cpuinfo")?;
    let line = said.lines().find(|line| line.starts_with("model name"));
    Ok(line.and_then(|line| line.split_once(": ")).map(|(_, model)| model.to_owned()))
}
