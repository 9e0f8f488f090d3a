//! Who may read, make, replace and drop which models. A model belongs to the principal whose job was the first that was
//! granted to publish it, until it is dropped; only its owner and administrators replace or drop it. The operator's
//! rules say who reads models, and who makes new ones. Checked at Run, and ownership again when the job may publish,
//! since another job may be faster.

pub mod rules;

use std::collections::HashSet;
use std::sync::Arc;

use sqlflow_identity::Caller;
use sqlflow_job::JobId;
use sqlflow_job_store::{Store, StoreError};
use sqlflow_os::reloaded::Reloaded;
use sqlflow_proto::agent::ModelVisibility;
use tonic::Status;

use self::rules::{Right, Rules};
use crate::access::{ModelAction, audit_model};
use crate::codegen::{OutputSpec, StepSpec, VisibilityRule};

/// Maximum number of own models that the agent shows in spite of the rules, and of bytes in their names: they are a part of
/// the message with the assignment.
const MAX_OWN: u32 = 10_000;
const MAX_OWN_BYTES: usize = 1 << 20;

/// The rules of a server.
#[derive(Clone, Default)]
pub struct ModelRights {
    rules: Option<Arc<Reloaded<Rules>>>,
}

impl ModelRights {
    /// With the rules of this file; without one everybody reads all models, and makes new ones.
    #[must_use]
    pub fn new(file: Option<Reloaded<Rules>>) -> Self {
        Self { rules: file.map(Arc::new) }
    }

    /// Checks the models that a program reads, makes and drops, before anything is done. The steps note whose models an
    /// administrator may replace, and which models the caller may know of.
    ///
    /// # Errors
    /// PERMISSION_DENIED: the caller has no right to one of them. Otherwise the store's.
    pub async fn check(
        &self,
        store: &dyn Store,
        caller: &Caller,
        steps: &mut [StepSpec],
        of_store: impl Fn(StoreError) -> Status,
    ) -> Result<(), Status> {
        let rules = self.current();
        let visible = rules.visible(caller);
        // A program that makes a model owns it afterwards, or is refused.
        let mut made: HashSet<String> = HashSet::new();
        for step in steps {
            for input in step.inputs.iter().filter(|it| !made.contains(&it.model)) {
                let model = &input.model;
                let Some(rule) = rules.refuses(Right::Read, caller, model) else { continue };
                if store.model_owner(model).await.map_err(&of_store)?.as_deref() != Some(caller.name()) {
                    return Err(denied(&format!(
                        "the server's rules for models {rule} do not let {} read {model}; use another model",
                        caller.name()
                    )));
                }
            }
            for output in &mut step.outputs {
                let owner = store.model_owner(&output.model).await.map_err(&of_store)?;
                may_change(&rules, caller, output, owner)?;
                match output.removal {
                    None => made.insert(output.model.clone()),
                    Some(_) => made.remove(&output.model),
                };
            }
            if step.concerns_models() {
                step.visibility.clone_from(&visible);
            }
        }
        Ok(())
    }

    fn current(&self) -> Arc<Rules> {
        let Some(file) = &self.rules else { return Arc::default() };
        file.current(|error| {
            tracing::error!(%error, "cannot read the rules for models again; using the previous ones");
        })
    }
}

/// Which models the agent of a step may list and suggest: by its rules, and those of the job's principal. `None`: all.
///
/// # Errors
/// The store's.
pub async fn visibility(
    store: &dyn Store,
    job: &JobId,
    rules: Vec<VisibilityRule>,
) -> Result<Option<ModelVisibility>, StoreError> {
    if rules.is_empty() {
        return Ok(None);
    }
    let mut visibility =
        ModelVisibility { rules: rules.into_iter().map(Into::into).collect(), own: Vec::new() };
    if let Some(principal) = store.load(job).await?.and_then(|record| record.principal) {
        let own = store.models_of(&principal, MAX_OWN).await?;
        let mut room = MAX_OWN_BYTES;
        let hidden = own.into_iter().filter(|model| !visibility.shows(model)).take_while(|model| {
            let fits = model.len() <= room;
            room = room.saturating_sub(model.len());
            fits
        });
        visibility.own = hidden.collect();
    }
    Ok(Some(visibility))
}

/// Whether the caller may publish or remove this model, which has this owner.
fn may_change(
    rules: &Rules,
    caller: &Caller,
    output: &mut OutputSpec,
    owner: Option<String>,
) -> Result<(), Status> {
    match owner {
        Some(owner) if owner == caller.name() => {}
        Some(owner) if caller.is_admin() => output.owner = Some(owner),
        Some(owner) => return Err(denied(&refusal(output, &owner))),
        None => {
            let model = &output.model;
            if let Some(rule) = rules.refuses(Right::Create, caller, model) {
                let advice = rules.own_beginning(caller).map_or_else(
                    || "use another name".to_owned(),
                    |beginning| format!("use a name that begins with {beginning}"),
                );
                return Err(denied(&format!(
                    "the server's rules for models {rule} do not let {} make or drop {model}; {advice}",
                    caller.name()
                )));
            }
        }
    }
    Ok(())
}

fn denied(why: &str) -> Status {
    Status::permission_denied(format!("cannot run the program: {why}"))
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

#[cfg(test)]
mod tests {
    use sqlflow_job_store::{ServerId, SqliteStore};
    use sqlflow_sql::{Dialect, compile};

    use super::rules::tests::{FILE, caller};
    use super::*;
    use crate::codegen::step_specs;
    use crate::fixture;

    /// With the rules, and a model of bob's that they hide from him.
    async fn world() -> (tempfile::TempDir, ModelRights, SqliteStore, JobId) {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("state.db")).await.unwrap();
        let mut new = fixture::new_job(fixture::job(true), &ServerId::generate());
        new.principal = "token:bob".to_owned();
        let job = new.job.id.clone();
        store.create(new).await.unwrap();
        store.own_model(&job, "risk/of_bob").await.unwrap();
        let file = dir.path().join("rights.toml");
        std::fs::write(&file, FILE).unwrap();
        (dir, ModelRights::new(Some(rules::read(&file).unwrap())), store, job)
    }

    #[tokio::test]
    async fn program_reads_and_makes_what_its_caller_may() {
        let (_dir, rights, store, job) = world().await;
        let check = async |name: &str, sql: &str| {
            let mut steps = step_specs(&compile(sql, Dialect::Sqlite).unwrap(), "");
            let of_store = |error: StoreError| Status::internal(error.to_string());
            let checked = rights.check(&store, &caller(name), &mut steps, of_store).await;
            checked.map(|()| steps).map_err(|status| status.message().to_owned())
        };
        let predict = |model: &str| format!("SELECT * FROM t TO PREDICT r.c USING {model};");
        let train = |model: &str| format!("SELECT * FROM t TO TRAIN xgboost.gbtree LABEL y INTO {model};");
        for (name, sql, refusal) in [
            ("bob", predict("risk/a"), "risk/* do not let token:bob read risk/a"),
            ("bob", "SHOW TRAIN risk/a;".to_owned(), "do not let token:bob read risk/a"),
            ("bob", "DESCRIBE MODEL risk/a;".to_owned(), "do not let token:bob read risk/a"),
            ("bob", train("risk/a"), "risk/* do not let token:bob make or drop risk/a"),
            ("bob", "DROP MODEL risk/a;".to_owned(), "do not let token:bob make or drop risk/a"),
            ("bob", format!("{}{}", train("m"), predict("risk/a")), "read risk/a"),
            ("eve", train("risk/of_bob"), "belongs to token:bob"),
        ] {
            let error = check(name, &sql).await.unwrap_err();
            assert!(error.contains(refusal), "{sql}: {error}");
        }
        for (name, sql) in [
            ("bob", predict("risk/of_bob")),
            ("bob", train("risk/of_bob")),
            ("bob", predict("risk/public")),
            ("eve", predict("risk/a")),
            ("ana", format!("{}{}", train("risk/a"), predict("risk/a"))),
            ("op", train("risk/of_bob")),
        ] {
            check(name, &sql).await.unwrap();
        }
        let mut listing = check("bob", "SHOW MODELS;SELECT 1;").await.unwrap();
        assert!(listing.remove(1).visibility.is_empty(), "it has nothing to do with models");
        let rules = listing.remove(0).visibility;
        let visibility = visibility(&store, &job, rules).await.unwrap().unwrap();
        assert_eq!(visibility.own, ["risk/of_bob"]);
        assert!(visibility.shows("risk/of_bob") && !visibility.shows("risk/a"));
        assert!(check("ana", "SHOW MODELS;").await.unwrap()[0].visibility.is_empty());
    }
}
