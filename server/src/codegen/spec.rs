//! What a step's submitter is to do, as a document. It is made once, when the program is taken, and kept in the
//! store; the attempt's own particulars are added when an agent attaches.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlflow_launcher::PodResources;

/// Version of `step.json`; the submitter refuses others.
pub const STEP_VERSION: u32 = 1;

/// A step: everything but which attempt it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepSpec {
    /// One line for the head of the generated program: what the step does. It never holds SQL text.
    pub title: String,
    /// Who runs the program, as the session says; a model keeps it. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Session statements (`USE`, `SET`) of earlier steps, to be executed first.
    pub replay: Vec<ReplaySpec>,
    /// The statements as the submitter reads them.
    pub statements: Vec<Value>,
    /// Statements of later steps that are checked before this step does its work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ahead: Vec<Value>,
    /// Models that those use, and that exist before this step: the agent gives the submitter what is known of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ahead_models: Vec<String>,
    /// Models that the agent fetches before the submitter starts.
    pub inputs: Vec<InputSpec>,
    /// Models that the agent publishes after it.
    pub outputs: Vec<OutputSpec>,
    /// Models that later steps use and that no step before them makes: they must exist before this step begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
    /// Where the agent writes the list of all models before the submitter starts, relative to the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<String>,
    /// Resources that the step asks for its Pod.
    #[serde(default)]
    pub pod: PodResources,
}

/// An earlier statement to execute first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplaySpec {
    /// Its index in the program.
    pub index: u32,
    /// Its text.
    pub sql: String,
}

/// A model to fetch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Its name.
    pub model: String,
    /// Where to, relative to the workspace.
    pub directory: String,
}

/// A model to publish.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputSpec {
    /// Its name.
    pub model: String,
    /// Where from, relative to the workspace.
    pub directory: String,
    /// The whole text of the statement that trains it, for `sqlflow.gob`.
    pub train_select: String,
    /// Not published, but removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<RemovalSpec>,
}

/// How a model is removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemovalSpec {
    /// It is no error when there is none.
    pub if_exists: bool,
}
