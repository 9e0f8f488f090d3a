//! Remedies of `--repair`. Each is safe with running servers: it takes the same lock as they do, or is fenced as they
//! are. An interrupted one can be repeated.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use sqlflow_job::{JobId, JobState};
use sqlflow_job_store::{Lease, SqliteStore, Store as _};
use sqlflow_launcher::Agent;
use sqlflow_result_log::{Health, Moved, ResultLog as _, SegmentLog, TieredLog, free_name};

use super::finding::{Done, Remedy};
use super::state::State;

/// What to do with logs and folders of unknown jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orphans {
    /// Move them to lost+found.
    SetAside,
    /// Delete them.
    Delete,
}

/// Applies remedies.
pub(super) struct Repairs {
    orphans: Orphans,
    /// Opened on first use.
    store: Option<SqliteStore>,
}

impl Repairs {
    pub(super) fn new(orphans: Orphans) -> Self {
        Self { orphans, store: None }
    }

    /// Applies the remedy; `None`: there is none.
    pub(super) async fn apply(&mut self, state: &State, remedy: &Remedy) -> Option<Done> {
        let what = match remedy {
            Remedy::None => return None,
            Remedy::EndJob(id) => self.end_job(state, id).await,
            Remedy::GiveBack(id, lease) => self.give_back(state, id, lease).await,
            Remedy::RepairLog(id) => blocking(state, id.clone(), |state, id| repair_log(&state, &id)).await,
            Remedy::RepairSmallLog(id) => self.repair_small_log(state, id).await,
            Remedy::SetLogAside(log) => {
                let orphans = self.orphans;
                blocking(state, log.clone(), move |state, log| remove_log(&state, &log, orphans)).await
            }
            Remedy::FinishDeletion(folder) => {
                blocking(state, folder.clone(), |state, folder| {
                    // Under its lock: a server may be about to use it.
                    state.logs().delete(&folder)?;
                    Ok(format!("deleted {}", folder.display()))
                })
                .await
            }
            Remedy::SetRunFolderAside(id) => {
                let orphans = self.orphans;
                blocking(state, id.clone(), move |state, id| remove_run_folder(&state, &id, orphans)).await
            }
        };
        Some(match what {
            Ok(what) => Done { repaired: true, what },
            Err(error) => Done { repaired: false, what: format!("{error:#}") },
        })
    }

    async fn store(&mut self, state: &State) -> anyhow::Result<&SqliteStore> {
        match &mut self.store {
            Some(store) => Ok(store),
            none => {
                let opened = SqliteStore::open(&state.database()).await;
                Ok(none.insert(opened.context("cannot write to state.db")?))
            }
        }
    }

    /// Reading a damaged small log moves it to a folder; servers do the same.
    async fn repair_small_log(&mut self, state: &State, id: &JobId) -> anyhow::Result<String> {
        let store = self.store(state).await?.clone();
        let log = TieredLog::new(Arc::new(store), SegmentLog::open(state.log_options())?, 0);
        log.read(id, 0, 0).await?;
        blocking(state, id.clone(), |state, id| repair_log(&state, &id)).await
    }

    /// Loading a job with a damaged document ends it; servers do the same.
    async fn end_job(&mut self, state: &State, id: &JobId) -> anyhow::Result<String> {
        let Some(record) = self.store(state).await?.load(id).await? else {
            return Ok("the job is gone by now".to_owned());
        };
        Ok(match record.job.state {
            JobState::Failed(failure) => format!("the job is FAILED: {}", failure.message),
            JobState::Succeeded => {
                "the job is SUCCEEDED as before; its steps are not known any more".to_owned()
            }
            JobState::Pending | JobState::Running => "its document can be read by now".to_owned(),
        })
    }

    async fn give_back(&mut self, state: &State, id: &JobId, lease: &Lease) -> anyhow::Result<String> {
        self.store(state).await?.release(id, lease).await?;
        Ok("released; a running server claims it now, otherwise the next one that starts".to_owned())
    }
}

fn repair_log(state: &State, id: &JobId) -> anyhow::Result<String> {
    match state.logs().repair(id)? {
        Health::Good => {
            Ok("what can be read stays, and a gap record stands for what is lost; the damaged files are \
                            kept beside the log as *.damaged"
                .to_owned())
        }
        Health::Missing => Ok("the log is gone by now".to_owned()),
        Health::Damaged(damage) => {
            bail!("{}, byte {}: {} (still)", damage.file.display(), damage.offset, damage.what)
        }
    }
}

fn remove_log(state: &State, log: &Path, orphans: Orphans) -> anyhow::Result<String> {
    if orphans == Orphans::Delete {
        state.logs().delete(log)?;
        return Ok(format!("deleted {}", log.display()));
    }
    let to = state.make_lost_and_found("log").context("cannot make the folder lost+found")?;
    Ok(match state.logs().set_aside(log, &to)? {
        Moved::To(place) => format!("moved to {}", place.display()),
        Moved::Missing => "it is gone by now".to_owned(),
    })
}

fn finish_deletion(folder: &Path) -> anyhow::Result<String> {
    gone_is_fine(fs::remove_dir_all(folder))
        .with_context(|| format!("cannot delete {}", folder.display()))?;
    Ok(format!("deleted {}", folder.display()))
}

fn remove_run_folder(state: &State, id: &JobId, orphans: Orphans) -> anyhow::Result<String> {
    let runs = state.run_folders();
    let folder = runs.path(id);
    if runs.agent(id)? != Agent::Gone {
        bail!("an agent runs in {} by now", folder.display());
    }
    runs.end_processes(id).context("cannot end what its agents left running")?;
    if orphans == Orphans::Delete {
        return finish_deletion(&folder);
    }
    let to: PathBuf = state.make_lost_and_found("run").context("cannot make the folder lost+found")?;
    let place = free_name(&to, &folder);
    match fs::rename(&folder, &place) {
        Ok(()) => Ok(format!("moved to {}", place.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok("it is gone by now".to_owned()),
        Err(error) => Err(error).with_context(|| format!("cannot move {}", folder.display())),
    }
}

fn gone_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Runs the work on a thread that may block.
async fn blocking<A: Send + 'static>(
    state: &State,
    argument: A,
    work: impl FnOnce(State, A) -> anyhow::Result<String> + Send + 'static,
) -> anyhow::Result<String> {
    let state = state.clone();
    tokio::task::spawn_blocking(move || work(state, argument)).await?
}
