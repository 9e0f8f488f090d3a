//! The run folder of an executor, and its content after the agent has ended.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use prost::Message as _;
use sqlflow_agent_files::Seal;
use sqlflow_job::{AttemptId, ExecutorRef, JobId};
use sqlflow_proto::agent::{Outcome, outcome};

use super::{AgentArtifacts, End, RecordSource, Spool};

/// Size of the agent log tail for an agent without an outcome.
const LAST_WORDS_BYTES: u64 = 2048;
/// Message for a success of an agent that never attached.
const UNPROVEN: &str = "the agent left a success, and this server's state does not say that it ever attached: the state \
                        is an older copy, or another program wrote the success";
/// File with the agent's outcome.
const OUTCOME: &str = "outcome";

/// The run folder of an executor: `<job>/<step>-<attempt>` if it was started for an attempt, so that the folders of a
/// step are in one place.
pub(super) fn of(all: &Path, executor: &ExecutorRef) -> PathBuf {
    executor.as_str().splitn(2, '-').fold(all.to_owned(), |dir, part| dir.join(part))
}

/// The jobs that have a run folder here.
///
/// # Errors
/// It cannot be listed.
pub(super) fn jobs_in(all: &Path) -> io::Result<Vec<JobId>> {
    Ok(names_in(all)?.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
}

/// The attempts that have a run folder in the job's.
///
/// # Errors
/// It cannot be listed.
pub(super) fn attempts_of(job: &JobId, job_dir: &Path) -> io::Result<Vec<AttemptId>> {
    let mut found = Vec::new();
    for name in names_in(job_dir)? {
        let numbers = name.to_str().and_then(|name| name.split_once('-'));
        if let Some((Ok(step), Ok(number))) = numbers.map(|(step, number)| (step.parse(), number.parse())) {
            found.push(AttemptId { job: job.clone(), step, number });
        }
    }
    Ok(found)
}

/// The entries of a folder, which need not exist.
///
/// # Errors
/// It cannot be listed.
fn names_in(dir: &Path) -> io::Result<Vec<OsString>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The agent's artifacts, if they have its seal; `None`: it makes none.
///
/// # Errors
/// Its outcome cannot be read.
pub(super) fn artifacts(dir: &Path, seal: Option<&Seal>) -> io::Result<AgentArtifacts> {
    let outcome = read_if_there(&dir.join(OUTCOME))?.map(|bytes| decode(&bytes, seal));
    let log_tail = match &outcome {
        Some(Ok(_)) => String::new(),
        Some(Err(what)) => damaged(what),
        None => tail(&dir.join("agent.log")),
    };
    let end = outcome.and_then(Result::ok).map_or(End::Unknown, End::Reported);
    Ok(AgentArtifacts { end, ..with_records(dir, seal, log_tail) })
}

/// What is believed of the artifacts of an agent that no server knows to have attached: it had no key to seal them with, so
/// anyone may have written them. They are no success, and no results. Nothing is run again either: the state may be an
/// older copy, from before the agent attached.
pub(super) fn without_proof(artifacts: AgentArtifacts) -> AgentArtifacts {
    let end = match artifacts.end {
        End::Reported(outcome) if outcome.reason() == outcome::Reason::Succeeded => End::Reported(Outcome {
            reason: outcome::Reason::Lost.into(),
            message: UNPROVEN.to_owned(),
            retryable: false,
            last_seq: outcome.last_seq,
            ..Outcome::default()
        }),
        end => end,
    };
    AgentArtifacts { end, records: None, terminal_records: None, ..artifacts }
}

/// The outcome, or what is wrong with it.
fn decode(bytes: &[u8], seal: Option<&Seal>) -> Result<Outcome, String> {
    if seal.is_some_and(|seal| !seal.is_of_outcome(bytes)) {
        return Err("it does not have the agent's seal".to_owned());
    }
    let outcome = Outcome::decode(bytes).map_err(|error| error.to_string())?;
    if outcome.reason() == outcome::Reason::Unspecified {
        // After a power failure the file may have its name and not its bytes.
        return Err("it has no reason".to_owned());
    }
    Ok(outcome)
}

/// Whether an agent has ended there and said how.
///
/// # Errors
/// That cannot be seen.
pub(super) fn has_outcome(dir: &Path) -> io::Result<bool> {
    dir.join(OUTCOME).try_exists()
}

/// Whether the agent has reported that every process of the attempt had ended. That is believed only with its seal.
pub(super) fn has_nothing_left(dir: &Path, seal: Option<&Seal>) -> bool {
    let bytes = fs::read(dir.join(OUTCOME)).unwrap_or_default();
    let is_believed = seal.is_some_and(|seal| seal.is_of_outcome(&bytes));
    is_believed && Outcome::decode(bytes.as_slice()).is_ok_and(|outcome| outcome.nothing_left)
}

/// The same with an outcome that is lost, for it cannot be read.
pub(super) fn remains_without_outcome(dir: &Path, seal: Option<&Seal>, error: &io::Error) -> AgentArtifacts {
    with_records(dir, seal, damaged(&error.to_string()))
}

fn damaged(what: &str) -> String {
    format!("the outcome that it left is damaged: {what}")
}

fn with_records(dir: &Path, seal: Option<&Seal>, log_tail: String) -> AgentArtifacts {
    let spool: Box<dyn RecordSource> = Box::new(Spool::at(dir.join("spool"), seal.cloned()));
    AgentArtifacts { records: Some(spool), log_tail, ..AgentArtifacts::default() }
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn tail(path: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_owned()
}
