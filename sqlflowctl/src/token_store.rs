//! Token store: the tokens of jobs that were started on this machine, so that a job can be named by its id.
//!
//! One line per job, `JOB TOKEN`, oldest first, in `$XDG_STATE_HOME/sqlflow/tokens`. Tokens are secrets: only the owner
//! can read the file.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use anyhow::Context as _;

use crate::failure::Failure;
use crate::token;

/// Minimum number of characters that identify a job.
pub(crate) const SHORTEST_PREFIX: usize = 4;
/// Maximum number of ids in the error for an ambiguous prefix.
const LISTED: usize = 10;
/// Maximum number of jobs in the file.
const REMEMBERED: usize = 1_000;

/// The token store of a user.
#[derive(Debug)]
pub(crate) struct Memory {
    folder: PathBuf,
}

impl Memory {
    /// The token store of the current user.
    pub(crate) fn of_user() -> anyhow::Result<Self> {
        let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
        let state = state.context("neither XDG_STATE_HOME nor HOME names a folder")?;
        Ok(Self { folder: state.join("sqlflow") })
    }

    /// Stores the token of a job, and removes the oldest if there are too many.
    pub(crate) fn add(&self, job: &str, token: &str) -> anyhow::Result<()> {
        let file = self.file();
        self.add_line(&format!("{job} {token}"))
            .with_context(|| format!("cannot store the job's token in {}", file.display()))
    }

    fn add_line(&self, line: &str) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let private =
            |path: PathBuf| OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        // Concurrent commands each add their job: the lock is held until the new file is in place.
        let lock: File = private(self.folder.join("tokens.lock"))?;
        lock.lock()?;
        let text = self.read()?;
        let mut lines: Vec<&str> = text.lines().collect();
        lines.push(line);
        let kept = &lines[lines.len().saturating_sub(REMEMBERED)..];
        let new = self.folder.join("tokens.new");
        let mut written = private(new.clone())?;
        written.write_all(format!("{}\n", kept.join("\n")).as_bytes())?;
        // The tokens exist nowhere else. A power failure may undo the rename, but does not lose the earlier content.
        written.sync_all()?;
        fs::rename(new, self.file())
    }

    fn file(&self) -> PathBuf {
        self.folder.join("tokens")
    }

    /// The text of the file; empty if it does not exist.
    fn read(&self) -> io::Result<String> {
        match fs::read_to_string(self.file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            text => text,
        }
    }

    /// The token of a job, by its id, a prefix of it, or `last` for the newest.
    fn find(&self, job: &str) -> io::Result<Found> {
        let text = self.read()?;
        let newest_first = || text.lines().rev().filter_map(|line| line.split_once(' '));
        if let Some((_, token)) = newest_first().find(|(id, _)| job == "last" || *id == job) {
            return Ok(Found::Token(token.to_owned()));
        }
        let mut begun: Vec<(&str, &str)> = newest_first().filter(|(id, _)| id.starts_with(job)).collect();
        begun.dedup_by_key(|(id, _)| *id);
        Ok(match &begun[..] {
            _ if job.is_empty() => Found::Nothing,
            [] => Found::Nothing,
            _ if job.len() < SHORTEST_PREFIX => Found::TooShort,
            [(_, token)] => Found::Token((*token).to_owned()),
            several => Found::Several(several.iter().map(|(id, _)| (*id).to_owned()).collect()),
        })
    }
}

/// Result of a search for a job.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Token(String),
    /// Several jobs have ids with this prefix, newest first.
    Several(Vec<String>),
    /// The prefix is too short.
    TooShort,
    Nothing,
}

/// The error for an ambiguous prefix.
pub(crate) fn ambiguous(prefix: &str, ids: &[String]) -> Failure {
    let more = if ids.len() > LISTED { format!(", and {} more", ids.len() - LISTED) } else { String::new() };
    let listed = ids[..ids.len().min(LISTED)].join(", ");
    Failure::Usage(format!(
        "{} jobs have ids that begin with {prefix:?}: {listed}{more}; give more characters",
        ids.len()
    ))
}

/// The token for `job`, which is a token, or a stored job with or without a cursor; `None`: it is not stored.
pub(crate) fn find_token(job: &str) -> Result<Option<String>, Failure> {
    if token::is_token(job) {
        return Ok(Some(job.to_owned()));
    }
    let memory = Memory::of_user()?;
    let (id, cursor) = token::split(job);
    let found = memory
        .find(id)
        .with_context(|| format!("cannot read the stored tokens in {}", memory.file().display()))?;
    match (found, cursor) {
        (Found::Token(found), Some(cursor)) => Ok(Some(token::at(&found, cursor))),
        (Found::Token(found), None) => Ok(Some(found)),
        (Found::Several(ids), _) => Err(ambiguous(id, &ids)),
        (Found::TooShort, _) => Err(Failure::Usage(format!(
            "cannot find a job by {id:?}: the beginning of an id is too short; give at least {SHORTEST_PREFIX} characters"
        ))),
        (Found::Nothing, _) => Ok(None),
    }
}

/// [`find_token`] for commands that need it.
pub(crate) fn token_of(job: &str) -> Result<String, Failure> {
    // By the whole id the server gives the jobs of the user themselves.
    let by_id = || token::is_job_id(job).then(|| job.to_owned());
    find_token(job)?.or_else(by_id).ok_or_else(|| {
        Failure::Usage(if job == "last" {
            "cannot find the last job: no token is stored on this machine; give an id or a token, see sqlflowctl list"
                .to_owned()
        } else {
            format!("cannot access job {job:?}: its token is not stored on this machine; give the token, or the whole id of a job of yours")
        })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn memory(folder: &tempfile::TempDir) -> Memory {
        Memory { folder: folder.path().join("state/sqlflow") }
    }

    fn token(text: &str) -> Found {
        Found::Token(text.to_owned())
    }

    #[test]
    fn job_is_found_by_id_and_by_last() {
        let folder = tempfile::tempdir().unwrap();
        let memory = memory(&folder);
        assert_eq!(memory.find("last").unwrap(), Found::Nothing);
        memory.add("j1", "sqlflow01").unwrap();
        memory.add("j2", "sqlflow02").unwrap();
        assert_eq!(memory.find("j1").unwrap(), token("sqlflow01"));
        assert_eq!(memory.find("last").unwrap(), token("sqlflow02"));
        assert_eq!(memory.find("j3").unwrap(), Found::Nothing);
        assert_eq!(memory.find("").unwrap(), Found::Nothing);
    }

    #[test]
    fn job_is_found_by_a_unique_prefix() {
        let folder = tempfile::tempdir().unwrap();
        let memory = memory(&folder);
        memory.add("01abcd1", "sqlflow01").unwrap();
        memory.add("01abce2", "sqlflow02").unwrap();
        memory.add("01abce2", "sqlflow02").unwrap();
        assert_eq!(memory.find("01abce").unwrap(), token("sqlflow02"));
        assert_eq!(memory.find("01a").unwrap(), Found::TooShort);
        let Found::Several(ids) = memory.find("01ab").unwrap() else { panic!("two have this prefix") };
        let said = ambiguous("01ab", &ids).to_string();
        assert_eq!(said, "2 jobs have ids that begin with \"01ab\": 01abce2, 01abcd1; give more characters");
    }

    #[test]
    fn token_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let memory = memory(&folder);
        memory.add("j1", "sqlflow01").unwrap();
        let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&memory.folder), mode(&memory.file())), (0o700, 0o600));
    }

    #[test]
    fn oldest_tokens_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let memory = memory(&folder);
        memory.add("j0", "sqlflow00").unwrap();
        let many: String = (0..REMEMBERED).map(|index| format!("k{index} sqlflow01\n")).collect();
        fs::write(memory.file(), many).unwrap();
        memory.add("new", "sqlflow02").unwrap();
        assert_eq!(memory.read().unwrap().lines().count(), REMEMBERED);
        assert_eq!(memory.find("k0").unwrap(), Found::Nothing);
        assert!(matches!(memory.find("k1").unwrap(), Found::Token(_)));
    }
}
