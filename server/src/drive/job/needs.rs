//! What a launcher is told of an attempt.

use sqlflow_job::{Job, Role};
use sqlflow_launcher::{Execution, LaunchError, Needs, Supervision};
use tonic::Code;

use super::{JobDriver, Stop};
use crate::codegen::StepSpec;

impl JobDriver {
    /// What the attempt needs of its platform, or why it cannot be started.
    pub(super) async fn needs(
        &self,
        job: &Job,
        execution: &Execution,
    ) -> Result<Result<Needs, LaunchError>, Stop> {
        let attempt = execution.attempt();
        let spec = self.context.store.step_spec(&attempt.job, attempt.step).await?;
        // A document that cannot be read is told when the agent asks for it.
        let spec = spec.and_then(|text| serde_json::from_str::<StepSpec>(&text).ok());
        let needs = spec.map_or_else(Needs::default, |spec| Needs {
            publishes: !spec.outputs.is_empty(),
            wishes: spec.pod,
            ..Needs::default()
        });
        let cleans_up = job.attempt(attempt).is_some_and(|it| it.role == Role::CleanUp);
        let step = job.steps.get(attempt.step as usize);
        let only_publishes = step.is_some_and(|step| step.kept_output().is_some());
        let needs = Needs { cleans_up, only_publishes, ..needs };
        match execution.supervision() {
            Supervision::Agent => Ok(Ok(needs)),
            // No agent will ask.
            Supervision::Controller => match self.context.assigner.assignment(job, attempt).await {
                Ok(assignment) => Ok(Ok(Needs { assignment: Some(Box::new(assignment)), ..needs })),
                Err(status) if status.code() == Code::Unavailable => Err(Stop::Fault(status.into())),
                Err(status) => {
                    let message = status.message().to_owned();
                    Ok(Err(LaunchError::Refused { message, retryable: false }))
                }
            },
        }
    }
}
