//! One pass over a state folder, which reports each finding. With [`Repairs`] each finding is repaired before the
//! next one is searched.
//!
//! Memory bounds: a page of jobs, the names in one folder of logs, and the ids of [`SUSPECTS`] jobs; one chunk of a
//! log's file, or all of it during its repair.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use sqlflow_job::JobId;
use sqlflow_job_store::{Membership, SecretKeys};
use sqlflow_job_store::{Survey, SurveyError, Surveyed, SurveyedDocument};
use sqlflow_os::clock;
use sqlflow_result_log::{Found, Health, LogError, Maintenance};
use tokio_util::sync::CancellationToken;

use super::diagnose;
use super::finding::{Finding, Kind, Remedy};
use super::repair::Repairs;
use super::report::Report;
use super::state::{State, modified_ms};
use super::stuck::{self, ServerState, Servers, StuckContext};

/// Jobs that are read at once.
const PAGE: u32 = 64;
/// Maximum number of jobs that seem stuck and are checked again together.
const SUSPECTS: usize = 4096;
/// Time after which a job that still seems stuck is reported: servers claim released jobs within a second.
const CONFIRM: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 3 });
/// A deletion in progress is left alone for this time.
const DELETION_MS: i64 = 60_000;

/// Why the pass ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    /// Interrupted by a signal.
    #[error("interrupted")]
    Interrupted,
    /// The reader of the output is gone.
    #[error("cannot write what was found")]
    Output(#[from] io::Error),
    /// The database cannot be read.
    #[error(transparent)]
    Survey(#[from] SurveyError),
}

/// One pass.
pub(super) struct Scan<W> {
    pub(super) state: State,
    pub(super) survey: Survey,
    pub(super) report: Report<W>,
    /// `None`: nothing is changed.
    pub(super) repairs: Option<Repairs>,
    pub(super) stop: CancellationToken,
    /// Keys of secrets; without any, encrypted ones are not checked.
    pub(super) keys: SecretKeys,
}

impl<W: Write> Scan<W> {
    /// Checks everything.
    pub(super) async fn run(&mut self) -> Result<(), ScanError> {
        self.database().await?;
        self.secrets().await?;
        // Before this pass adds to it.
        self.lost_and_found().await?;
        self.jobs().await?;
        self.logs().await?;
        self.run_folders().await
    }

    async fn database(&mut self) -> Result<(), ScanError> {
        let Some(fault) = self.survey.fault()? else { return Ok(()) };
        self.found(Finding {
            kind: Kind::DamagedDatabase,
            job: None,
            what: format!("{}: {fault}", self.state.database().display()),
            since_ms: None,
            fix: "stop the servers and restore it from a backup, or what `sqlite3 state.db .recover` gives"
                .to_owned(),
            remedy: Remedy::None,
        })
        .await
    }

    /// Data sources of live jobs that the given keys do not decrypt.
    async fn secrets(&mut self) -> Result<(), ScanError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        for (job, error) in self.survey.unreadable_secrets(&self.keys)? {
            self.go_on()?;
            self.found(diagnose::unreadable_secret(&job, &error)).await?;
        }
        Ok(())
    }

    async fn jobs(&mut self) -> Result<(), ScanError> {
        let mut scene =
            StuckContext { servers: self.servers().await?, here: self.state.launcher_id(), busy: Vec::new() };
        let mut suspects = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.survey.jobs(&after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.key.clone();
            for row in page {
                self.go_on()?;
                self.job(&row).await?;
                if let SurveyedDocument::Whole(job) = &row.document {
                    scene.note(job);
                    suspects.extend(stuck::stuck(&row, &scene).map(|_| job.id.clone()));
                }
                if suspects.len() >= SUSPECTS {
                    self.stuck(&mut scene, std::mem::take(&mut suspects)).await?;
                }
            }
        }
        self.stuck(&mut scene, suspects).await
    }

    async fn job(&mut self, row: &Surveyed) -> Result<(), ScanError> {
        self.report.counts.jobs += 1;
        if let Some(finding) = diagnose::document(row) {
            self.found(finding).await?;
        }
        match &row.id {
            Some(id) => self.log_of(row, id).await,
            None => Ok(()),
        }
    }

    async fn log_of(&mut self, row: &Surveyed, id: &JobId) -> Result<(), ScanError> {
        let logs = self.state.logs();
        if let Ok(files) = logs.kept_aside(id)
            && let Some(finding) =
                diagnose::kept_aside(id, &files, files.first().and_then(|it| modified_ms(&it.path)))
        {
            self.found(finding).await?;
        }
        let checked = inspect(logs.clone(), id.clone(), self.stop.clone()).await;
        if !matches!(checked, Ok(Some(Health::Missing))) {
            self.report.counts.logs += 1;
        }
        match checked {
            Ok(None) => Err(ScanError::Interrupted),
            Ok(Some(Health::Good)) => Ok(()),
            Ok(Some(Health::Damaged(damage))) => {
                self.found(diagnose::damaged_log(id, &damage, modified_ms(&damage.file))).await
            }
            Ok(Some(Health::Missing)) => self.log_without_folder(row, id, &logs.path(id)).await,
            Err(error) => self.found(diagnose::unreadable(Some(id), describe(&error))).await,
        }
    }

    async fn log_without_folder(
        &mut self,
        row: &Surveyed,
        id: &JobId,
        folder: &Path,
    ) -> Result<(), ScanError> {
        let small = self.survey.small_log(id)?;
        if small.length > 0 {
            self.report.counts.logs += 1;
            return match small.fault() {
                Some(what) => self.found(diagnose::damaged_small_log(id, &self.state.database(), what)).await,
                None => Ok(()),
            };
        }
        // Retention deletes the log first, then the job. Or the log has just moved to its folder.
        if diagnose::should_have_log(row) && self.is_known_after_a_moment(id).await? && !folder.exists() {
            self.found(diagnose::missing_log(row, folder)).await?;
        }
        Ok(())
    }

    /// Checks again the jobs that seemed stuck: with running servers they may have been between two of them.
    async fn stuck(&mut self, scene: &mut StuckContext, suspects: Vec<JobId>) -> Result<(), ScanError> {
        if suspects.is_empty() {
            return Ok(());
        }
        if scene.servers.running() > 0 {
            self.pause(CONFIRM).await?;
        }
        scene.servers = self.servers().await?;
        for id in suspects {
            self.go_on()?;
            let row = self.survey.job(&id)?;
            if let Some(finding) = row.and_then(|row| stuck::stuck(&row, scene)) {
                self.found(finding).await?;
            }
        }
        Ok(())
    }

    async fn servers(&mut self) -> Result<Servers, ScanError> {
        let dir = self.state.servers();
        let mut signs = BTreeMap::new();
        for lease in self.survey.servers()? {
            // A server whose lock cannot be checked counts as alive: nothing is taken from it.
            let is_held = Membership::is_held(&dir, &lease.server).unwrap_or(true);
            signs.insert(lease.server.0, ServerState { until_ms: lease.until_ms, is_held });
        }
        Ok(Servers::new(signs, clock::now_ms()))
    }

    async fn logs(&mut self) -> Result<(), ScanError> {
        let logs = self.state.logs();
        let shards = match logs.shards() {
            Ok(shards) => shards,
            Err(error) => return self.found(diagnose::unreadable(None, describe(&error))).await,
        };
        for shard in shards {
            match logs.entries(&shard) {
                Ok(entries) => {
                    for entry in entries {
                        self.go_on()?;
                        self.log_folder(entry).await?;
                    }
                }
                Err(error) => self.found(diagnose::unreadable(None, describe(&error))).await?,
            }
        }
        Ok(())
    }

    async fn log_folder(&mut self, found: Found) -> Result<(), ScanError> {
        match found {
            Found::Log { job, path, is_in_place } => {
                let is_orphan = !is_in_place || !self.survey.knows(&job)?;
                // A job that was just removed has no log any more.
                if is_orphan && path.exists() {
                    let since_ms = modified_ms(&path);
                    self.found(diagnose::orphan_log(&job, path, is_in_place, since_ms)).await?;
                }
                Ok(())
            }
            Found::HalfRemoved(path) => match modified_ms(&path) {
                Some(since_ms) if clock::now_ms() - since_ms > DELETION_MS => {
                    self.found(diagnose::half_removed(path, Some(since_ms))).await
                }
                Some(_) | None => Ok(()),
            },
        }
    }

    async fn run_folders(&mut self) -> Result<(), ScanError> {
        let runs = self.state.run_folders();
        let jobs = match runs.jobs() {
            Ok(jobs) => jobs,
            Err(error) => {
                let why = format!("cannot list the run folders: {error}");
                return self.found(diagnose::unreadable(None, why)).await;
            }
        };
        for job in jobs {
            self.go_on()?;
            let folder = runs.path(&job);
            if self.survey.knows(&job)? || !folder.exists() {
                continue;
            }
            let finding = match runs.agent(&job) {
                Ok(agent) => diagnose::orphan_run_folder(&job, &folder, agent, modified_ms(&folder)),
                Err(error) => diagnose::unreadable(Some(&job), format!("{}: {error}", folder.display())),
            };
            self.found(finding).await?;
        }
        Ok(())
    }

    async fn lost_and_found(&mut self) -> Result<(), ScanError> {
        let folder = self.state.lost_and_found();
        match count(&folder.join("log")) + count(&folder.join("run")) {
            0 => Ok(()),
            entries => self.found(diagnose::lost_and_found(&folder, entries)).await,
        }
    }

    async fn found(&mut self, finding: Finding) -> Result<(), ScanError> {
        self.report.found(&finding)?;
        let done = match &mut self.repairs {
            Some(repairs) => repairs.apply(&self.state, &finding.remedy).await,
            None => None,
        };
        Ok(self.report.done(&finding, done.as_ref())?)
    }

    async fn is_known_after_a_moment(&mut self, id: &JobId) -> Result<bool, ScanError> {
        self.pause(Duration::from_millis(100)).await?;
        Ok(self.survey.knows(id)?)
    }

    async fn pause(&self, pause: Duration) -> Result<(), ScanError> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.stop.cancelled() => Err(ScanError::Interrupted),
        }
    }

    fn go_on(&self) -> Result<(), ScanError> {
        if self.stop.is_cancelled() { Err(ScanError::Interrupted) } else { Ok(()) }
    }
}

/// Checks a log on a thread that may block.
async fn inspect(logs: Maintenance, id: JobId, stop: CancellationToken) -> Result<Option<Health>, LogError> {
    let checked = tokio::task::spawn_blocking(move || logs.inspect(&id, &|| !stop.is_cancelled()));
    // It panics only because of a bug; then there is nothing to report.
    checked.await.unwrap_or(Ok(None))
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

fn describe(error: &LogError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
