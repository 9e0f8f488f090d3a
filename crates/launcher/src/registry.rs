//! The launchers of a server, by launcher id. An attempt is observed only at the launcher that started it: another
//! launcher would find no lock and no Pod, and take a running attempt for dead.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlflow_job::{AttemptId, Job, LauncherId, LauncherKind, Milestones};

use super::{
    Cleanup, LaunchError, LaunchRequirements, Launched, Launcher, Observation, PendingReason, PendingStatus,
    Supervision, Target, Ticket,
};

/// One launcher, or several with different ids.
#[derive(Clone)]
pub struct Launchers {
    first: Arc<dyn Launcher>,
    others: Vec<Arc<dyn Launcher>>,
}

impl Launchers {
    /// The first one starts new attempts; the others serve attempts that were started before.
    #[must_use]
    pub fn new(first: Arc<dyn Launcher>, others: Vec<Arc<dyn Launcher>>) -> Self {
        Self { first, others }
    }

    /// One launcher.
    #[must_use]
    pub fn only(launcher: Arc<dyn Launcher>) -> Self {
        Self::new(launcher, Vec::new())
    }

    /// The launcher that starts new attempts.
    #[must_use]
    pub fn first(&self) -> &Arc<dyn Launcher> {
        &self.first
    }

    /// All launchers.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Launcher>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The attempt at its launcher. If this server does not have that launcher, the returned one does nothing, and
    /// reports an unknown state.
    #[must_use]
    pub fn of(&self, job: &Job, attempt: &AttemptId) -> Execution {
        Execution { launcher: self.launcher_of(job, attempt), target: Target::of(job, attempt) }
    }

    fn launcher_of(&self, job: &Job, attempt: &AttemptId) -> Arc<dyn Launcher> {
        // An attempt that was not recorded was not started.
        let Some(id) = job.attempt(attempt).map(|it| &it.launcher_id) else { return Arc::clone(&self.first) };
        let own = self.all().find(|launcher| launcher.id().covers(id));
        own.map_or_else(|| Arc::new(ForeignLauncher { id: id.clone() }) as Arc<dyn Launcher>, Arc::clone)
    }

    /// Attempts at all launchers; see [`Launcher::attempts`].
    pub async fn attempts(&self) -> Vec<Execution> {
        let mut left = Vec::new();
        for launcher in self.all() {
            let found = launcher.attempts().await.into_iter();
            left.extend(found.map(|target| Execution { launcher: Arc::clone(launcher), target }));
        }
        left
    }

    /// The pending status of an attempt whose launcher this server does not have; `None`: it has it.
    #[must_use]
    pub fn foreign(&self, job: &Job, attempt: &AttemptId) -> Option<PendingStatus> {
        let id = &job.attempt(attempt)?.launcher_id;
        let is_own = self.all().any(|launcher| launcher.id().covers(id));
        (!is_own).then(|| PendingStatus {
            reason: PendingReason::ForeignLauncher,
            message: foreign(id),
            // It may run for days without an error.
            timeout: Duration::MAX,
        })
    }
}

/// An attempt with its launcher; see [`Launcher`] for the methods.
#[derive(Clone)]
pub struct Execution {
    launcher: Arc<dyn Launcher>,
    target: Target,
}

#[expect(missing_docs, clippy::missing_errors_doc, reason = "they are the launcher's")]
impl Execution {
    #[must_use]
    pub fn attempt(&self) -> &AttemptId {
        &self.target.attempt
    }

    /// The same, with what the job has recorded about the executor. Its launcher found it by its name only.
    #[must_use]
    pub fn recorded_in(self, job: &Job) -> Self {
        let Target { attempt, executor, .. } = self.target;
        let target = Target { executor, ..Target::of(job, &attempt) };
        Self { target, ..self }
    }

    #[must_use]
    pub fn supervision(&self) -> Supervision {
        self.launcher.supervision()
    }

    #[must_use]
    pub fn queue(&self) -> Option<Ticket> {
        self.launcher.queue(&self.target.attempt)
    }

    pub async fn launch(&self, requirements: &LaunchRequirements) -> Result<Launched, LaunchError> {
        self.launcher.launch(&self.target, requirements).await
    }

    pub async fn observe(&self) -> Observation {
        self.launcher.observe(&self.target).await
    }

    #[must_use]
    pub fn attach_pending(&self) -> PendingStatus {
        self.launcher.attach_pending()
    }

    pub async fn milestones(&self) -> Milestones {
        self.launcher.milestones(&self.target).await
    }

    pub async fn stop(&self, forced: bool) {
        self.launcher.stop(&self.target, forced).await;
    }

    pub async fn cleanup(&self, step_goes_on: bool) -> anyhow::Result<Cleanup> {
        self.launcher.cleanup(&self.target, step_goes_on).await
    }

    pub async fn collect_garbage(&self) -> anyhow::Result<()> {
        self.launcher.collect_garbage(&self.target).await
    }

    #[must_use]
    pub fn poll_interval(&self) -> Duration {
        self.launcher.poll_interval()
    }

    pub async fn changed(&self) {
        self.launcher.changed(&self.target).await;
    }
}

fn foreign(id: &LauncherId) -> String {
    let launcher = id.kind.name();
    format!(
        "the attempt runs at {id}, which this server cannot ask; start a server with --launcher {launcher} there"
    )
}

/// Stand-in for a launcher that this server does not have.
struct ForeignLauncher {
    id: LauncherId,
}

#[async_trait]
impl Launcher for ForeignLauncher {
    fn kind(&self) -> LauncherKind {
        self.id.kind.clone()
    }

    async fn launch(&self, _: &Target, _: &LaunchRequirements) -> Result<Launched, LaunchError> {
        Err(LaunchError::Later(foreign(&self.id)))
    }

    async fn ready(&self) -> Result<(), String> {
        Err(foreign(&self.id))
    }

    async fn observe(&self, _: &Target) -> Observation {
        Observation::Unknown(foreign(&self.id))
    }

    fn attach_pending(&self) -> PendingStatus {
        PendingStatus {
            reason: PendingReason::ForeignLauncher,
            message: foreign(&self.id),
            timeout: Duration::MAX,
        }
    }

    async fn stop(&self, _: &Target, _: bool) {}

    async fn cleanup(&self, _: &Target, _: bool) -> anyhow::Result<Cleanup> {
        Ok(Cleanup::StillRuns)
    }

    async fn collect_garbage(&self, _: &Target) -> anyhow::Result<()> {
        Ok(())
    }

    async fn attempts(&self) -> Vec<Target> {
        Vec::new()
    }

    async fn changed(&self, _: &Target) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_job::Event;
    use sqlflow_job::fixture;

    use super::*;

    /// A launcher of which only the place matters.
    struct At(&'static str, &'static str);

    #[async_trait]
    impl Launcher for At {
        fn kind(&self) -> LauncherKind {
            self.0.to_owned().into()
        }

        fn scope(&self) -> Option<String> {
            Some(self.1.to_owned())
        }

        async fn launch(&self, _: &Target, _: &LaunchRequirements) -> Result<Launched, LaunchError> {
            Ok(Launched::default())
        }

        async fn ready(&self) -> Result<(), String> {
            Ok(())
        }

        async fn observe(&self, _: &Target) -> Observation {
            Observation::Gone(Box::default())
        }

        fn attach_pending(&self) -> PendingStatus {
            PendingStatus { reason: PendingReason::Attach, message: String::new(), timeout: Duration::ZERO }
        }

        async fn stop(&self, _: &Target, _: bool) {}

        async fn cleanup(&self, _: &Target, _: bool) -> anyhow::Result<Cleanup> {
            Ok(Cleanup::Done)
        }

        async fn collect_garbage(&self, _: &Target) -> anyhow::Result<()> {
            Ok(())
        }

        async fn attempts(&self) -> Vec<Target> {
            Vec::new()
        }

        async fn changed(&self, _: &Target) {}
    }

    /// A job whose attempt was created there.
    fn job_at(launcher_id: LauncherId) -> (Job, AttemptId) {
        let mut job = fixture::job(true);
        job.apply(Event::AttemptCreated { step: 0, role: sqlflow_job::Role::Run, launcher_id }, 0).unwrap();
        let attempt = AttemptId { job: job.id.clone(), step: 0, number: 1 };
        (job, attempt)
    }

    async fn is_gone(launchers: &Launchers, launcher_id: LauncherId) -> bool {
        let (job, attempt) = job_at(launcher_id);
        let observed = launchers.of(&job, &attempt).observe().await;
        let is_gone = matches!(observed, Observation::Gone(_));
        assert_eq!(is_gone, launchers.foreign(&job, &attempt).is_none());
        is_gone
    }

    #[tokio::test]
    async fn attempt_is_gone_only_at_its_own_launcher() {
        let at = |launcher: &str, scope: &str| LauncherId {
            kind: launcher.to_owned().into(),
            scope: Some(scope.into()),
        };
        let launchers = Launchers::new(Arc::new(At("kubernetes", "a")), vec![Arc::new(At("local", "/s"))]);
        assert!(is_gone(&launchers, at("kubernetes", "a")).await);
        assert!(is_gone(&launchers, at("local", "/s")).await);
        assert!(!is_gone(&launchers, at("kubernetes", "b")).await);
        assert!(!is_gone(&launchers, at("local", "/t")).await);
        assert!(!is_gone(&launchers, at("yarn", "a")).await);
        assert!(
            is_gone(&launchers, LauncherId::of(LauncherKind::Local)).await,
            "it was recorded before scopes were"
        );
        let other_cluster = Launchers::only(Arc::new(At("kubernetes", "a, authority 12")));
        assert!(is_gone(&other_cluster, at("kubernetes", "a, authority 12")).await);
        assert!(!is_gone(&other_cluster, at("kubernetes", "a, authority 34")).await);
        assert!(is_gone(&other_cluster, at("kubernetes", "a")).await, "it was recorded without");
        assert!(!is_gone(&other_cluster, at("kubernetes", "b, authority 12")).await);
        let rotating = Launchers::only(Arc::new(At("kubernetes", "a, authority 56+12")));
        assert!(
            is_gone(&rotating, at("kubernetes", "a, authority 12")).await,
            "its authority is being replaced"
        );
        assert!(is_gone(&launchers, at("kubernetes", "a, authority 12")).await, "this server knows of none");
    }

    #[test]
    fn foreign_launcher_is_named_with_a_fix() {
        let launchers = Launchers::only(Arc::new(At("kubernetes", "a")));
        let (job, attempt) = job_at(LauncherId { kind: LauncherKind::Local, scope: Some("/s".into()) });
        let why = launchers.foreign(&job, &attempt).unwrap().message;
        assert!(why.contains("local (/s)") && why.contains("--launcher local"), "{why}");
    }

    #[test]
    fn attempt_keeps_its_launcher_id() {
        let (job, _) = job_at(LauncherId { kind: LauncherKind::Local, scope: Some("/s".into()) });
        let text = serde_json::to_string(&job).unwrap();
        assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
        let old = text.replace(r#","scope":"/s""#, "");
        assert!(old.contains(r#""launcher":"local""#) && old != text, "{old}");
        let old: Job = serde_json::from_str(&old).unwrap();
        assert_eq!(old.steps[0].attempts[0].launcher_id, LauncherId::of(LauncherKind::Local));
    }
}
