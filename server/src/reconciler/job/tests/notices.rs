//! Notices that the job's log cannot take at first, for example on a full disk.

use sqlflow_launcher::PendingReason;

use super::*;
use crate::agent_liveness::AgentLiveness;

/// Long enough ago for a notice.
fn long_ago() -> Instant {
    Instant::now().checked_sub(Duration::from_secs(10)).unwrap()
}

impl World {
    fn log_dir(&self) -> std::path::PathBuf {
        self.servers.with_file_name("log")
    }

    /// Every write to the log fails until it is repaired.
    fn break_log(&self) {
        std::fs::rename(self.log_dir(), self.servers.with_file_name("moved")).unwrap();
        std::fs::write(self.log_dir(), "").unwrap();
    }

    fn repair_log(&self) {
        std::fs::remove_file(self.log_dir()).unwrap();
        std::fs::rename(self.servers.with_file_name("moved"), self.log_dir()).unwrap();
    }

    /// The notice is in the log once, though the first write of it fails.
    async fn reports_once(&self, mut say: impl AsyncFnMut() -> Result<(), ReconcileError>) {
        self.break_log();
        assert!(matches!(say().await, Err(ReconcileError::Retry(_))));
        self.repair_log();
        for _ in 0..2 {
            assert!(say().await.is_ok());
        }
        assert_eq!(self.count(is_notice).await, 1);
    }
}

#[tokio::test]
async fn pending_reason_is_reported_again_after_a_log_failure() {
    let world = world(None).await;
    let (attempt, mut reconciler) = (&world.attempt, world.job_reconciler());
    let pending = PendingStatus {
        reason: PendingReason::Start,
        message: "no node has room".to_owned(),
        timeout: Duration::MAX,
    };
    reconciler.observations(attempt).pending.begin(pending.reason, long_ago());
    world.reports_once(async || reconciler.note_pending(attempt, &pending).await.map(drop)).await;
}

#[tokio::test]
async fn unknown_state_is_reported_again_after_a_log_failure() {
    let world = world(None).await;
    let (attempt, mut reconciler) = (&world.attempt, world.job_reconciler());
    let unknown = Observation::Unknown("no answer".to_owned());
    reconciler.observations(attempt).unknown.begin(PendingReason::UnknownState, long_ago());
    world.reports_once(async || reconciler.note_unknown(attempt, &unknown).await).await;
}

#[tokio::test]
async fn return_of_an_agent_is_reported_again_after_a_log_failure() {
    let world = world(None).await;
    world.update(World::created()).await;
    world.attach_to(world.reconciler.server()).await;
    let (job, mut reconciler) = (world.job().await, world.job_reconciler());
    let mut silence = AgentLiveness::begin(Duration::ZERO, long_ago());
    silence.check(Instant::now());
    reconciler.observations(&world.attempt).liveness = Some(silence);
    world.reports_once(async || reconciler.check_liveness(&job, &world.attempt).await.map(drop)).await;
}
