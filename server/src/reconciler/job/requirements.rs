//! What an attempt requires of its launcher.

use sqlflow_job::{Job, Role};
use sqlflow_launcher::{Execution, LaunchError, LaunchRequirements, Supervision};
use tonic::Code;

use super::{JobReconciler, ReconcileError};
use crate::codegen::StepSpec;

impl JobReconciler {
    /// What the attempt requires of its launcher, or why it cannot be launched.
    pub(super) async fn requirements(
        &self,
        job: &Job,
        execution: &Execution,
    ) -> Result<Result<LaunchRequirements, LaunchError>, ReconcileError> {
        let attempt = execution.attempt();
        let spec = self.context.store.step_spec(&attempt.job, attempt.step).await?;
        // An unreadable document is reported when the agent asks for it.
        let spec = spec.and_then(|text| serde_json::from_str::<StepSpec>(&text).ok());
        let cleans_up = job.attempt(attempt).is_some_and(|it| it.role == Role::Cleanup);
        let requirements = spec.map_or_else(LaunchRequirements::default, |spec| LaunchRequirements {
            plain_sql: spec.needs_no_python() || (cleans_up && !spec.python_data),
            publishes: !spec.outputs.is_empty(),
            pod_resources: spec.pod,
            ..LaunchRequirements::default()
        });
        let step = job.steps.get(attempt.step as usize);
        let only_publishes = step.is_some_and(|step| step.kept_output().is_some());
        let requirements = LaunchRequirements { cleans_up, only_publishes, ..requirements };
        match execution.supervision() {
            Supervision::Agent => Ok(Ok(requirements)),
            // No agent will ask for it.
            Supervision::Controller => match self.context.assigner.assignment(job, attempt).await {
                Ok(assignment) => {
                    Ok(Ok(LaunchRequirements { assignment: Some(Box::new(assignment)), ..requirements }))
                }
                Err(status) if status.code() == Code::Unavailable => {
                    Err(ReconcileError::Retry(status.into()))
                }
                Err(status) => {
                    let message = status.message().to_owned();
                    Ok(Err(LaunchError::Refused { message, retryable: false }))
                }
            },
        }
    }
}
