//! The outcome: the exit report with its figures, and its file for a server that comes later.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use prost::Message as _;
use sqlflow_agent_files::Seal;
use sqlflow_os::durable;
use sqlflow_proto::agent::{LargestProcess, Outcome, Phase, PhaseTime, Usage};
use sqlflow_proto::record::ModelPublished;
use sqlflow_sync::lock;

use crate::output::link::Link;
use crate::process::cgroup::MemoryGroup;
use crate::process::tree::Process;
use crate::resource_usage::{self, SharedLargest, reaped_usage};
use crate::supervisor::{ExitReport, ExitStatus};

/// Name in the run folder.
pub const FILE: &str = "outcome";

/// Gathers the figures of an outcome while the attempt runs.
#[derive(Debug)]
pub struct OutcomeBuilder {
    memory: Option<MemoryGroup>,
    oom_kills_before: u32,
    phases: Vec<(Phase, Instant)>,
    largest: SharedLargest,
    terminated_by: String,
}

impl OutcomeBuilder {
    /// Begins to gather.
    pub fn begin() -> Self {
        let memory = MemoryGroup::of_self();
        let oom_kills_before = memory.as_ref().map_or(0, MemoryGroup::oom_kills);
        Self {
            memory,
            oom_kills_before,
            phases: vec![(Phase::Fetching, Instant::now())],
            largest: SharedLargest::default(),
            terminated_by: String::new(),
        }
    }

    /// OOM kills since the beginning. In a shared cgroup, they concern the command only if it failed too.
    pub fn oom_kills(&self) -> u32 {
        let now = self.memory.as_ref().map_or(0, MemoryGroup::oom_kills);
        now.saturating_sub(self.oom_kills_before)
    }

    /// Limit of the cgroup in bytes; 0: none, or not known.
    pub fn memory_limit(&self) -> u64 {
        self.memory.as_ref().map_or(0, MemoryGroup::limit_bytes)
    }

    /// Peak of the cgroup in bytes, also by other processes and before the attempt; 0: not known.
    pub fn memory_peak(&self) -> u64 {
        self.memory.as_ref().map_or(0, MemoryGroup::peak_bytes)
    }

    /// The largest process of all samples.
    pub fn largest(&self) -> SharedLargest {
        self.largest.clone()
    }

    /// Notes the sender of a termination signal. The first one counts.
    pub fn terminated_by(&mut self, sender: &str) {
        if self.terminated_by.is_empty() {
            sender.clone_into(&mut self.terminated_by);
        }
    }

    /// Sets the start of the attempt to the time of its first attach.
    pub fn began(&mut self, attached: Instant) {
        if let [(_, first)] = &mut self.phases[..] {
            *first = attached;
        }
    }

    /// Begins a phase, unless it is the current one.
    pub fn enter(&mut self, phase: Phase) {
        if self.phases.last().is_none_or(|(last, _)| *last != phase) {
            self.phases.push((phase, Instant::now()));
        }
    }

    /// Makes the outcome. `reaped` is the largest process of those that have ended.
    pub fn outcome(
        &self,
        report: ExitReport,
        models: Vec<ModelPublished>,
        link: &Link,
        reaped: Option<&Process>,
    ) -> Outcome {
        let (exit_code, signal) = match report.status {
            Some(ExitStatus::Code(code)) => (Some(code), None),
            Some(ExitStatus::Signal(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        let seen = lock(&self.largest).clone();
        let largest = resource_usage::larger(seen, reaped.cloned());
        let reaped = reaped_usage();
        let usage = Usage {
            memory_peak_bytes: link.attempt.memory().peak.max(largest.as_ref().map_or(0, |it| it.memory)),
            memory_limit_bytes: self.memory_limit(),
            cpu_micros: reaped.cpu_micros,
            oom_kills: self.oom_kills(),
            cgroup_peak_bytes: self.memory_peak(),
            read_bytes: reaped.read_bytes,
            written_bytes: reaped.written_bytes,
            largest: largest.map(|it| LargestProcess {
                pid: it.pid.as_raw(),
                name: it.name,
                memory_bytes: it.memory,
            }),
        };
        Outcome {
            reason: report.reason.into(),
            exit_code,
            signal,
            message: report.message,
            detail: report.detail,
            retryable: report.retryable,
            user_error: report.user_error,
            models,
            last_seq: link.outbox.last_seq(),
            usage: Some(usage),
            phases: self.phase_times(),
            ended_by: self.terminated_by.clone(),
            output_kept: report.output_kept,
            unexplained: report.unexplained,
            rank: 0,
            nothing_left: false,
            not_executed: report.not_executed,
            seal: Bytes::new(),
        }
    }

    /// The phases so far. The last one lasts until now.
    pub fn phase_times(&self) -> Vec<PhaseTime> {
        let ends = self.phases.iter().skip(1).map(|(_, start)| *start).chain([Instant::now()]);
        let time = |((phase, start), end): (&(Phase, Instant), Instant)| PhaseTime {
            phase: (*phase).into(),
            duration_micros: u64::try_from(end.duration_since(*start).as_micros()).unwrap_or(u64::MAX),
        };
        self.phases.iter().zip(ends).map(time).collect()
    }
}

/// The file `<dir>/outcome`, written atomically, for a server that comes after the agent's end. Most are never read, so
/// at first it only survives the agent. It is made durable if no server takes the outcome for a while.
#[derive(Debug)]
pub struct OutcomeFile {
    dir: PathBuf,
    seal: Option<Seal>,
    /// An outcome that is not durable and that no server has.
    untaken: Mutex<Option<Outcome>>,
}

impl OutcomeFile {
    /// A file in this folder.
    pub fn in_dir(dir: PathBuf, seal: Option<Seal>) -> Self {
        Self { dir, seal, untaken: Mutex::new(None) }
    }

    /// Folder of the file.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the outcome, so that it survives this process.
    pub fn write(&self, outcome: &Outcome) {
        let written = durable::replace_unsynced(&self.path(), |file| self.write_to(file, outcome));
        self.warn_of(written);
        *self.untaken() = Some(outcome.clone());
    }

    /// A server has recorded the outcome.
    pub fn taken(&self) {
        // If another thread makes it durable now, that is harmless. The caller must not wait for a hanging disk.
        if let Ok(mut untaken) = self.untaken.try_lock() {
            *untaken = None;
        }
    }

    /// Makes it durable, unless it is durable or a server has it. Retries a write that failed before, for example on a
    /// full disk.
    pub fn make_durable(&self) {
        // Locked meanwhile, so that the exit waits for a writer.
        let mut untaken = self.untaken();
        let Some(outcome) = untaken.as_ref() else { return };
        let written = durable::replace(&self.path(), |file| self.write_to(file, outcome));
        if self.warn_of(written) {
            *untaken = None;
        }
    }

    fn write_to(&self, file: &mut File, outcome: &Outcome) -> io::Result<()> {
        durable::close_to_others(file);
        file.write_all(&self.encode(outcome))
    }

    fn encode(&self, outcome: &Outcome) -> Vec<u8> {
        let encoded = outcome.encode_to_vec();
        match &self.seal {
            Some(seal) => seal.sealed_outcome(encoded),
            None => encoded,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    fn warn_of(&self, written: io::Result<()>) -> bool {
        if let Err(error) = &written {
            tracing::error!(%error, file = %self.path().display(), "cannot write the outcome");
        }
        written.is_ok()
    }

    fn untaken(&self) -> MutexGuard<'_, Option<Outcome>> {
        lock(&self.untaken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_write_of_the_outcome_is_retried() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("0-1");
        let file = OutcomeFile::in_dir(dir.clone(), None);
        let outcome = Outcome { message: "no such table: t".to_owned(), ..Outcome::default() };
        file.write(&outcome);
        file.make_durable();
        std::fs::create_dir(&dir).unwrap();
        file.make_durable();
        let written = std::fs::read(dir.join(FILE)).unwrap();
        assert_eq!(Outcome::decode(written.as_slice()).unwrap(), outcome);
        std::fs::remove_file(dir.join(FILE)).unwrap();
        file.make_durable();
        assert!(!dir.join(FILE).exists(), "once is enough");
        file.write(&outcome);
        std::fs::remove_file(dir.join(FILE)).unwrap();
        file.taken();
        file.make_durable();
        assert!(!dir.join(FILE).exists(), "a server has it");
    }
}
