//! Whose models are whose. A model belongs to the principal whose job was the first that was granted to publish it,
//! until it is dropped. Others read it; only its owner and administrators replace or drop it. Checked at Run, and again when
//! the job may publish, since another job may be faster.

use sqlflow_identity::Caller;
use sqlflow_job::JobId;
use sqlflow_job_store::{Store, StoreError};
use tonic::Status;

use crate::access::{ModelAction, audit_model};
use crate::codegen::{OutputSpec, StepSpec};

/// Checks the models that a program makes and drops, before anything is done. An administrator's steps note whose models
/// they may replace.
///
/// # Errors
/// PERMISSION_DENIED: one of them is somebody else's. Otherwise the store's.
pub async fn check(
    store: &dyn Store,
    caller: &Caller,
    steps: &mut [StepSpec],
    of_store: impl Fn(StoreError) -> Status,
) -> Result<(), Status> {
    for output in steps.iter_mut().flat_map(|step| &mut step.outputs) {
        let owner = store.model_owner(&output.model).await.map_err(&of_store)?;
        let Some(owner) = owner.filter(|owner| owner != caller.name()) else { continue };
        if !caller.is_admin() {
            return Err(Status::permission_denied(format!(
                "cannot run the program: {}",
                refusal(output, &owner)
            )));
        }
        output.owner = Some(owner);
    }
    Ok(())
}

/// Whether a job may publish and remove its models now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publication {
    /// It may, as a job of this principal. `None`: it has no models, or is of a server that did not know principals.
    Granted(Option<String>),
    /// It may not, for this reason.
    Refused(String),
}

/// Checks the models of a job that is about to publish or remove them. A model without an owner becomes the job's.
///
/// # Errors
/// The store's.
pub async fn publication(store: &dyn Store, job: &JobId, step: &StepSpec) -> Result<Publication, StoreError> {
    if step.outputs.is_empty() {
        return Ok(Publication::Granted(None));
    }
    let Some(principal) = store.load(job).await?.and_then(|record| record.principal) else {
        return Ok(Publication::Granted(None));
    };
    for output in &step.outputs {
        let owner = match output.removal {
            Some(_) => store.model_owner(&output.model).await?,
            None => store.own_model(job, &output.model).await?,
        };
        let foreign = owner.filter(|owner| *owner != principal && output.owner.as_ref() != Some(owner));
        if let Some(owner) = foreign {
            return Ok(Publication::Refused(refusal(output, &owner)));
        }
    }
    Ok(Publication::Granted(Some(principal)))
}

/// Writes to the audit log which models a job of this principal publishes and removes.
pub fn audit(principal: Option<&str>, job: &JobId, step: &StepSpec) {
    for output in &step.outputs {
        let action = if output.removal.is_some() { ModelAction::Drop } else { ModelAction::Publish };
        audit_model(principal, action, &output.model, job, output.owner.as_deref());
    }
}

/// Forgets the owners of models that a successful step has dropped.
///
/// # Errors
/// The store's.
pub async fn dropped(store: &dyn Store, step: &StepSpec) -> Result<(), StoreError> {
    for output in step.outputs.iter().filter(|it| it.removal.is_some()) {
        store.disown_model(&output.model).await?;
    }
    Ok(())
}

fn refusal(output: &OutputSpec, owner: &str) -> String {
    let model = &output.model;
    match output.removal {
        None => format!("the model {model} belongs to {owner}; write another name after INTO"),
        Some(_) => format!("the model {model} belongs to {owner}, who may drop it"),
    }
}
