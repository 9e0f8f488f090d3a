//! The Python of the submitters, and data made with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};

/// The Python that can import the submitter's dependencies: `SQLFLOW_TEST_PYTHON`, which `make` sets.
pub fn program() -> PathBuf {
    std::env::var_os("SQLFLOW_TEST_PYTHON")
        .expect("SQLFLOW_TEST_PYTHON names a Python; `make test` sets it")
        .into()
}

/// The folder to import `sqlflow_submitter` from.
pub fn package_path() -> PathBuf {
    repository().join("images/submitter")
}

/// Root of the clone in which cargo runs this program. Another clone with the same target folder may have compiled it.
pub fn repository() -> PathBuf {
    repository_of(std::env::var_os("CARGO_MANIFEST_DIR"))
}

/// `None`: cargo does not run this program.
fn repository_of(crate_folder: Option<OsString>) -> PathBuf {
    let compiled = || env!("CARGO_MANIFEST_DIR").into();
    let folder = PathBuf::from(crate_folder.unwrap_or_else(compiled));
    folder.parent().expect("the crate lies in the repository").to_owned()
}

/// Runs Python code with these arguments. Returns its standard output.
///
/// # Errors
/// It cannot be started, or fails.
pub fn run(code: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(program());
    command.arg("-c").arg(code).args(arguments).env("PYTHONPATH", package_path());
    // As on a user's machine: benchmarks would measure the compiler.
    command.env_remove("PYTHONDONTWRITEBYTECODE");
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", program().display()))?;
    ensure!(status.success(), "python failed: {}", String::from_utf8_lossy(&stderr));
    Ok(String::from_utf8(stdout)?)
}

/// Expects of the output of `python -v` that no module was compiled, and that some are from each of these folders.
pub fn expect_only_bytecode(output: &str, folders: &[&str]) {
    let loaded: Vec<&str> =
        output.lines().filter_map(|line| line.trim().strip_prefix("# code object from ")).collect();
    // Only names of files with bytecode are in quotes.
    let compiled: Vec<&&str> = loaded.iter().filter(|file| file.starts_with('/')).collect();
    assert!(compiled.is_empty(), "compiled from source: {compiled:?}");
    for folder in folders {
        let is_there = loaded.iter().any(|file| file.starts_with(&format!("'{folder}")));
        assert!(is_there, "nothing of {folder} was loaded, only {loaded:?}");
    }
}

/// Creates an SQLite file with Fisher's irises in the table `iris`. Returns its DSN.
///
/// # Errors
/// Python or SQLite failed.
pub fn iris(file: &Path) -> anyhow::Result<String> {
    let path = file.to_str().context("the path is text")?;
    run(&std::fs::read_to_string(repository().join("tests/data/load_iris.py"))?, &[path])?;
    Ok(format!("sqlite://{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_is_the_clone_in_which_cargo_runs() {
        assert_eq!(repository_of(Some("/other/clone/tests".into())), Path::new("/other/clone"));
        assert!(repository().join("ARCHITECTURE.md").exists());
    }
}
