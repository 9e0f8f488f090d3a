//! One look at one Python: can it import the submitter?

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use sqlflow_os::inherited_variables::PassedVariables;
use sqlflow_os::run_as::RunAs;
use sqlflow_os::short_command::{self, CommandError, Limits};
use sqlflow_text::escape::escaped;

/// Time after which a Python that still imports is killed. A cold network file system takes a while.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum bytes of its output that are read.
const READ: u64 = 64 * 1024;
/// Maximum characters of its error that are quoted.
const REPEATED: usize = 300;
/// What its answer begins with: packages may print too.
const ANSWER: &str = "sqlflow ";

/// The import is the one of a job's own program. What only some statements need is looked for, and not imported.
const PROGRAM: &str = r#"
import sys
if sys.version_info < (3, 11):
    sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0])
from sqlflow_submitter import run_step
import importlib.util, json
import sqlflow_submitter
needed = ("numpy", "scipy", "xgboost", "matplotlib", "nanoarrow")
print("\nsqlflow " + json.dumps({
    "executable": sys.executable,
    "version": sys.version.split()[0],
    "package": sqlflow_submitter.__file__,
    "missing": [name for name in needed if importlib.util.find_spec(name) is None],
}))
"#;

/// A Python that can import the submitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UsablePython {
    pub(super) program: PathBuf,
    pub(super) version: String,
    /// The package's first file.
    pub(super) package: PathBuf,
    /// Packages that some statements need and that are not there.
    pub(super) missing: Vec<String>,
}

impl UsablePython {
    /// Whether nobody removed it since. Costs next to nothing.
    pub(super) fn is_still_there(&self) -> bool {
        self.package.exists() && (!self.program.is_absolute() || self.program.exists())
    }
}

#[derive(Deserialize)]
struct Answer {
    version: String,
    package: PathBuf,
    missing: Vec<String>,
}

/// Looks at one, as a submitter would be started. The error is the rest of a sentence that begins with its name.
pub(super) async fn at(
    program: &Path,
    path: Option<&OsStr>,
    passed: &PassedVariables,
    user: Option<RunAs>,
    bound: Duration,
) -> Result<UsablePython, String> {
    let mut command = Command::new(program);
    let inherited = std::env::vars_os().filter(|(name, _)| passed.includes(name));
    command.args(["-c", PROGRAM]).current_dir("/").env_clear().envs(inherited);
    command.envs(path.map(|path| ("PYTHONPATH", path)));
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    let ended = short_command::run(command, Limits { timeout: bound, bytes: READ }).await;
    let ended = ended.map_err(|error| match error {
        CommandError::NotStarted(error) => format!("cannot be started: {error}"),
        CommandError::NotAwaited(error) => format!("cannot be waited for: {error}"),
        CommandError::Late => format!("does not import sqlflow_submitter within {} s", bound.as_secs()),
    })?;
    let out = String::from_utf8_lossy(&ended.stdout);
    let answer = out.lines().rev().find_map(|line| line.strip_prefix(ANSWER));
    match answer.filter(|_| ended.status.success()).and_then(|it| serde_json::from_str::<Answer>(it).ok()) {
        Some(Answer { version, package, missing }) => {
            Ok(UsablePython { program: program.to_owned(), version, package, missing })
        }
        None => {
            let why = ended.last_error(REPEATED).unwrap_or_else(|| ended.status.to_string());
            Err(format!("cannot import sqlflow_submitter: {}", escaped(&why)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    async fn probe(script: &str) -> Result<UsablePython, String> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("python");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        at(&program, None, &PassedVariables::default(), None, Duration::from_secs(2)).await
    }

    #[test]
    fn dependencies_of_the_submitter_are_looked_for() {
        // At run time: the program may have been compiled in another clone that shares the target folder.
        let folder =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let file = Path::new(&folder).join("../../images/submitter/pyproject.toml");
        let project = fs::read_to_string(file).unwrap();
        let (_, list) = project.split_once("dependencies = [").unwrap();
        let (list, _) = list.split_once(']').unwrap();
        let names =
            list.lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once(">=").map(|it| it.0));
        let mut expected: Vec<_> = names.map(|name| name.trim_end_matches("-cpu")).collect();
        let (_, needed) = PROGRAM.split_once("needed = (").unwrap();
        let mut found: Vec<_> =
            needed.split_once(')').unwrap().0.split(", ").map(|it| it.trim_matches('"')).collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn reason_is_the_last_line_of_stderr() {
        let why = probe("printf 'Traceback:\\n  x\\nImportError: libfoo\\033.so\\n\\n' >&2; exit 1").await;
        assert_eq!(why.unwrap_err(), "cannot import sqlflow_submitter: ImportError: libfoo\\x1b.so");
        let why = probe("exit 7").await.unwrap_err();
        assert_eq!(why, "cannot import sqlflow_submitter: exit status: 7");
        let why =
            at(Path::new("/no/python"), None, &PassedVariables::default(), None, Duration::from_secs(1))
                .await
                .unwrap_err();
        assert!(why.starts_with("cannot be started: No such file"), "{why}");
    }

    #[tokio::test]
    async fn hanging_or_verbose_python_is_killed() {
        let why = probe("sleep 1000").await.unwrap_err();
        assert_eq!(why, "does not import sqlflow_submitter within 2 s");
        assert!(probe("yes; exit 1").await.is_err());
    }
}
