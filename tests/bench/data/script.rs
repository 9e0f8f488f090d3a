//! The peers: scripts that a person would write.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::database::Database;
use super::memory::{Sampler, Tree};
use crate::measure::millis;

const LOAD: &str = include_str!("load.py");
const FETCH_ALL: &str = include_str!("fetchall.py");
pub const TRAIN_CONNECTORX: &str = include_str!("train_connectorx.py");
pub const TRAIN_PANDAS: &str = include_str!("train_pandas.py");
pub const PREDICT_PANDAS: &str = include_str!("predict_pandas.py");

/// A script that has ended.
pub struct Ran {
    /// From its start to its end.
    pub millis: f64,
    /// In megabytes; `None`: not to be seen.
    pub peak: Option<f64>,
    stdout: String,
}

impl Ran {
    /// Of something that prints nothing.
    pub fn new(millis: f64, peak: Option<f64>) -> Self {
        Self { millis, peak, stdout: String::new() }
    }
}

/// Runs a script to its end, which must be a success.
pub fn run(code: &str, arguments: &[&str]) -> anyhow::Result<Ran> {
    let mut command = Command::new(python()?);
    command.arg("-c").arg(code).args(arguments);
    // As on a user's machine: otherwise the compiler would be measured.
    command.env_remove("PYTHONDONTWRITEBYTECODE").env_remove("PYTHONPATH");
    let begun = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let sampler = Sampler::start(Tree::With(child.id()))?;
    let output = child.wait_with_output()?;
    let taken = begun.elapsed();
    let title = code.lines().next().unwrap_or_default();
    ensure!(output.status.success(), "{title}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Ran { millis: millis(taken), peak: sampler.peak()?, stdout: String::from_utf8(output.stdout)? })
}

/// Creates and fills the tables.
pub fn load(database: &Database, rows: u32, dir: &Path) -> anyhow::Result<()> {
    let folder = dir.to_str().context("the path is text")?;
    run(LOAD, &[&database.url(), &rows.to_string(), folder]).map(drop)
}

/// Rows per second of the usual driver's `fetchall`.
pub fn fetch_all(database: &Database, sql: &str) -> anyhow::Result<f64> {
    let said = run(FETCH_ALL, &[&database.url(), sql])?.stdout;
    said.trim().parse().with_context(|| format!("it printed {said:?}"))
}

fn python() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("SQLFLOW_BENCH_PYTHON");
    Ok(path.context("SQLFLOW_BENCH_PYTHON names a Python with the peers; `make bench` sets it")?.into())
}

#[cfg(test)]
mod tests {
    use sqlflow_tests::python::repository;

    #[test]
    fn peers_have_the_submitter_s_versions() {
        let read = |file: &str| std::fs::read_to_string(repository().join(file)).unwrap();
        let (peers, submitter) =
            (read("tests/bench/requirements-bench.txt"), read("images/submitter/requirements.txt"));
        let name = |line: &str| line.split("==").next().unwrap_or_default().to_owned();
        let mut shared = 0;
        for line in peers.lines().filter(|line| line.contains("==")) {
            let of_it: Vec<&str> = submitter.lines().filter(|it| name(it) == name(line)).collect();
            assert!(of_it.is_empty() || of_it.contains(&line), "{line}, but {of_it:?}");
            shared += of_it.len().min(1);
        }
        assert!(shared >= 4, "only {shared}");
    }
}
