//! Selection of the Python for submitters on this machine, which must be able to import the submitter.
//!
//! The first usable candidate is selected. A task of the server checks them at the start, and again while none is
//! usable, so a repaired virtual environment is found without a restart. Launches wait for the first check, and are
//! refused with its error.

mod probe;

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlflow_os::inherited_variables::PassedVariables;
use sqlflow_os::run_as::RunAs;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use probe::{PROBE_TIMEOUT, UsablePython};

/// Interval of checks while no candidate is usable.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Minimum interval between two checks.
const FRESH: Duration = Duration::from_secs(1);
/// Time for which a launch waits for a check before it is retried later.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// A candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Program: an absolute path, or a name that is searched on PATH.
    pub program: PathBuf,
    /// Origin of the name, for people.
    pub origin: &'static str,
}

/// The Python of the submitters.
#[derive(Debug, Clone)]
pub struct Python(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    candidates: Vec<Candidate>,
    /// `PYTHONPATH` with absolute paths, if it is set, because submitters run in another folder than the server.
    path: Option<OsString>,
    /// Further variables of the server's environment that submitters inherit.
    passed_variables: PassedVariables,
    /// User of submitters; `None`: the server's.
    user: Option<RunAs>,
    /// `None`: no check.
    looks: Option<Looks>,
}

#[derive(Debug)]
struct Looks {
    last: watch::Sender<Option<Look>>,
    wanted: Notify,
}

/// A completed check.
#[derive(Debug, Clone)]
struct Look {
    at: Instant,
    seen: Result<UsablePython, String>,
}

/// The reason for which no Python is usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// No candidate can import the submitter; with the errors and a fix.
    No(String),
    /// It is not known yet.
    NotKnown(String),
}

impl Python {
    /// The first of these candidates that can import the submitter, as this user. [`Self::keep_looking`] must run.
    #[must_use]
    pub fn first_of(
        candidates: Vec<Candidate>,
        passed_variables: PassedVariables,
        user: Option<RunAs>,
    ) -> Self {
        let path = env::var_os("PYTHONPATH");
        let folder = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let path = path.map(|path| absolute_entries(&path, &folder));
        let looks = Looks { last: watch::Sender::default(), wanted: Notify::new() };
        Self(Arc::new(Shared { candidates, path, passed_variables, user, looks: Some(looks) }))
    }

    /// A Python of another machine or image, which this server cannot check.
    #[must_use]
    pub fn unchecked(program: &str) -> Self {
        let candidates = vec![Candidate { program: program.into(), origin: "--python" }];
        let passed_variables = PassedVariables::default();
        Self(Arc::new(Shared { candidates, path: None, passed_variables, user: None, looks: None }))
    }

    /// The program: the usable one, otherwise the first candidate that may be usable.
    #[must_use]
    pub fn program(&self) -> String {
        let seen = self.0.looks.as_ref().and_then(|looks| {
            let last = looks.last.borrow();
            let seen = last.as_ref()?.seen.as_ref().ok()?;
            Some(seen.program.clone())
        });
        let program = seen.or_else(|| self.0.candidates.first().map(|it| it.program.clone()));
        program.map_or_else(|| "python3".to_owned(), |program| program.display().to_string())
    }

    /// `PYTHONPATH` of the submitters, if it differs from the server's.
    #[must_use]
    pub fn path(&self) -> Option<&OsStr> {
        self.0.path.as_deref()
    }

    /// Checks whether there is a usable one: again if there was none a moment ago, or if it was removed.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub async fn usable(&self) -> Result<(), Unusable> {
        let Some(looks) = &self.0.looks else { return Ok(()) };
        let mut news = looks.last.subscribe();
        let before = news.borrow_and_update().clone();
        match before {
            Some(Look { seen: Ok(seen), .. }) if seen.is_still_there() => return Ok(()),
            Some(Look { at, seen: Err(why) }) if at.elapsed() < FRESH => return Err(Unusable::No(why)),
            Some(_) => looks.wanted.notify_one(),
            // The first check is under way.
            None => {}
        }
        match tokio::time::timeout(ANSWER_TIME, news.changed()).await {
            Ok(Ok(())) => match news.borrow().as_ref() {
                Some(Look { seen: Err(why), .. }) => Err(Unusable::No(why.clone())),
                _ => Ok(()),
            },
            Ok(Err(_)) => Err(Unusable::NotKnown("the server is shutting down".to_owned())),
            Err(_) => {
                let name = self.program();
                Err(Unusable::NotKnown(format!("still waiting for {name} to import the submitter")))
            }
        }
    }

    /// Checks candidates, now and whenever needed, until `shutdown` is cancelled.
    pub async fn keep_looking(self, shutdown: CancellationToken) {
        let Some(looks) = &self.0.looks else { return };
        loop {
            let Some(seen) = shutdown.run_until_cancelled(self.look()).await else { return };
            let is_usable = seen.is_ok();
            looks.last.send_modify(|last| {
                tell(last.as_ref().map(|look| &look.seen), &seen);
                *last = Some(Look { at: Instant::now(), seen });
            });
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = looks.wanted.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN_AFTER), if !is_usable => {}
            }
        }
    }

    /// A single check, to validate a configuration.
    ///
    /// # Errors
    /// No candidate can import the submitter, in one sentence.
    pub async fn look_once(&self) -> Result<(), String> {
        self.look().await.map(drop)
    }

    async fn look(&self) -> Result<UsablePython, String> {
        let mut why_not = Vec::new();
        for candidate in &self.0.candidates {
            let Shared { passed_variables, user, .. } = &*self.0;
            match probe::at(&candidate.program, self.path(), passed_variables, *user, PROBE_TIMEOUT).await {
                Ok(seen) => return Ok(seen),
                Err(why) => {
                    why_not.push(format!("{} ({}) {why}", candidate.program.display(), candidate.origin));
                }
            }
        }
        let user = self.0.user.map_or_else(String::new, |user| format!(" as user {}", user.uid));
        Err(format!(
            "cannot run submitters{user}: {}; install SQLFlow by `make install`, or name a Python that can import \
             sqlflow_submitter with --python (SQLFLOW_PYTHON)",
            why_not.join("; ")
        ))
    }
}

/// Logs a changed result.
fn tell(before: Option<&Result<UsablePython, String>>, now: &Result<UsablePython, String>) {
    if before == Some(now) {
        return;
    }
    match now {
        Ok(seen) => {
            let UsablePython { program, version, package, missing } = seen;
            let (program, package) = (program.display(), package.display());
            tracing::info!(%program, version, %package, "submitters run with this Python");
            if !missing.is_empty() {
                let missing = missing.join(", ");
                tracing::warn!(%program, missing, "statements that need these packages will fail");
            }
        }
        Err(why) => tracing::error!("{why}; every job fails until then"),
    }
}

/// The candidates on this machine, in order. A configured Python is the only candidate.
#[must_use]
pub fn candidates(named: Option<&str>) -> Vec<Candidate> {
    let folder = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let program = env::current_exe().unwrap_or_default();
    candidates_of(named, env::var_os("VIRTUAL_ENV").as_deref(), &program, &folder)
}

fn candidates_of(
    named: Option<&str>,
    virtual_env: Option<&OsStr>,
    own_program: &Path,
    folder: &Path,
) -> Vec<Candidate> {
    if let Some(named) = named {
        // A name without a slash is looked for on PATH; a path is relative to where the server was started.
        let program = if named.contains('/') { folder.join(named) } else { named.into() };
        return vec![Candidate { program, origin: "--python" }];
    }
    let mut found = Vec::new();
    let mut add = |program: PathBuf, origin| found.push(Candidate { program, origin });
    if let Some(active) = virtual_env.filter(|it| !it.is_empty()) {
        add(folder.join(active).join("bin/python"), "the active virtual environment, VIRTUAL_ENV");
    }
    // The link's own target: `make install` may be linked to from elsewhere.
    let own_program = own_program.canonicalize().unwrap_or_else(|_| own_program.to_owned());
    if let Some(prefix) = own_program.parent().and_then(Path::parent) {
        let installed = prefix.join("lib/sqlflow/venv/bin/python");
        if installed.symlink_metadata().is_ok() {
            add(installed, "installed beside the server");
        }
    }
    add("python3".into(), "on PATH");
    found
}

/// A search path with the entries that are relative taken from `folder`.
fn absolute_entries(path: &OsStr, folder: &Path) -> OsString {
    let entries: Vec<PathBuf> = env::split_paths(path).map(|entry| folder.join(entry)).collect();
    env::join_paths(entries).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|it| it.program.to_str().unwrap()).collect()
    }

    #[test]
    fn named_python_is_the_only_candidate() {
        let of =
            |named| candidates_of(Some(named), Some("/active".as_ref()), Path::new("/x"), "/cwd".as_ref());
        assert_eq!(names(&of("venv/bin/python")), ["/cwd/venv/bin/python"]);
        assert_eq!(names(&of("/abs/python")), ["/abs/python"]);
        assert_eq!(names(&of("python3.12")), ["python3.12"], "from PATH");
    }

    #[test]
    fn active_environment_precedes_installed_and_path() {
        let prefix = tempfile::tempdir().unwrap();
        let prefix = prefix.path().canonicalize().unwrap();
        let (server, venv) = (prefix.join("bin/sqlflow-server"), prefix.join("lib/sqlflow/venv/bin"));
        fs::create_dir_all(prefix.join("bin")).unwrap();
        fs::write(&server, "").unwrap();
        let of = |active: Option<&str>| {
            let found = candidates_of(None, active.map(OsStr::new), &server, "/cwd".as_ref());
            found.into_iter().map(|it| it.program).collect::<Vec<_>>()
        };
        assert_eq!(of(None), [PathBuf::from("python3")]);
        fs::create_dir_all(&venv).unwrap();
        fs::write(venv.join("python"), "").unwrap();
        let installed = venv.join("python");
        assert_eq!(of(None), [installed.clone(), "python3".into()]);
        assert_eq!(of(Some("/a")), ["/a/bin/python".into(), installed, PathBuf::from("python3")]);
    }

    #[test]
    fn relative_path_starts_at_the_servers_folder() {
        let absolute = absolute_entries("images/submitter:/abs:".as_ref(), Path::new("/clone"));
        assert_eq!(absolute, "/clone/images/submitter:/abs:/clone/");
    }

    fn script(file: &Path, text: &str) {
        fs::write(file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What a good Python prints, for this package.
    fn good(package: &Path) -> String {
        let package = package.display();
        format!(
            r#"echo 'sqlflow {{"executable": "/bin/sh", "version": "3.11.0", "package": "{package}", "missing": []}}'"#
        )
    }

    #[tokio::test]
    async fn first_usable_python_is_taken_and_repaired_one_found() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second, package] = ["first", "second", "package"].map(|name| dir.path().join(name));
        script(&first, "echo \"ModuleNotFoundError: No module named 'sqlflow_submitter'\" >&2; exit 1");
        let candidates = [&first, &second].map(|it| Candidate { program: it.clone(), origin: "a test" });
        let python = Python::first_of(candidates.to_vec(), PassedVariables::default(), None);
        let shutdown = CancellationToken::new();
        let looking = tokio::spawn(python.clone().keep_looking(shutdown.clone()));

        let Err(Unusable::No(why)) = python.usable().await else { panic!("none can") };
        for part in
            ["first (a test) cannot import sqlflow_submitter: ModuleNotFoundError", "second", "make install"]
        {
            assert!(why.contains(part), "{part}: {why}");
        }

        fs::write(&package, "").unwrap();
        script(&second, &good(&package));
        // Callers within the first second get the same answer again.
        while python.usable().await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(python.program(), second.to_str().unwrap());

        fs::remove_file(&package).unwrap();
        script(&second, "exit 1");
        assert!(python.usable().await.is_err(), "what was found is gone");
        shutdown.cancel();
        looking.await.unwrap();
    }

    #[tokio::test]
    async fn python_of_another_machine_is_skipped() {
        let python = Python::unchecked("/not/here");
        assert_eq!((python.usable().await, python.program().as_str()), (Ok(()), "/not/here"));
    }
}
