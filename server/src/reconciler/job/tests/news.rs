//! News of an attempt that the job's log cannot take at first, as on a full disk.

use sqlflow_launcher::PendingReason;

use super::*;
use crate::agent_liveness::AgentLiveness;

/// So long ago that what began then is news.
fn long_ago() -> Instant {
    Instant::now().checked_sub(Duration::from_secs(10)).unwrap()
}

impl World {
    fn log_dir(&self) -> std::path::PathBuf {
        self.servers.with_file_name("log")
    }

    /// Nothing can be logged until the log is repaired.
    fn break_log(&self) {
        std::fs::rename(self.log_dir(), self.servers.with_file_name("moved")).unwrap();
        std::fs::write(self.log_dir(), "").unwrap();
    }

    fn repair_log(&self) {
        std::fs::remove_file(self.log_dir()).unwrap();
        std::fs::rename(self.servers.with_file_name("moved"), self.log_dir()).unwrap();
    }

    /// The news is in the log once, though the log does not take it at first.
    async fn says_once(&self, mut say: impl AsyncFnMut() -> Result<(), Stop>) {
        self.break_log();
        assert!(matches!(say().await, Err(Stop::Fault(_))));
        self.repair_log();
        for _ in 0..2 {
            assert!(say().await.is_ok());
        }
        assert_eq!(self.count(is_notice).await, 1);
    }
}

#[tokio::test]
async fn why_an_attempt_waits_is_said_again_when_the_log_did_not_take_it() {
    let world = world(None).await;
    let (attempt, mut reconciler) = (&world.attempt, world.job_reconciler());
    let pending = PendingStatus {
        reason: PendingReason::Start,
        message: "no node has room".to_owned(),
        timeout: Duration::MAX,
    };
    reconciler.attempt_view(attempt).pending.begin(pending.reason, long_ago());
    world.says_once(async || reconciler.note_pending(attempt, &pending).await.map(drop)).await;
}

#[tokio::test]
async fn that_nothing_is_known_of_an_attempt_is_said_again_when_the_log_did_not_take_it() {
    let world = world(None).await;
    let (attempt, mut reconciler) = (&world.attempt, world.job_reconciler());
    let unknown = Observation::Unknown("nobody answers".to_owned());
    reconciler.attempt_view(attempt).unknown.begin(PendingReason::UnknownState, long_ago());
    world.says_once(async || reconciler.note_unknown(attempt, &unknown).await).await;
}

#[tokio::test]
async fn that_an_agent_is_heard_again_is_said_again_when_the_log_did_not_take_it() {
    let world = world(None).await;
    world.update(World::created()).await;
    world.attach_to(world.reconciler.server()).await;
    let (job, mut reconciler) = (world.job().await, world.job_reconciler());
    let mut silence = AgentLiveness::begin(Duration::ZERO, long_ago());
    silence.look(Instant::now());
    reconciler.attempt_view(&world.attempt).silence = Some(silence);
    world.says_once(async || reconciler.note_absence(&job, &world.attempt).await.map(drop)).await;
}
