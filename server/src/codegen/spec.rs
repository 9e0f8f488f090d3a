//! Document of a step for its submitter. It is made once, when the program is accepted, and stored. Values of one
//! attempt are added when its agent attaches.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlflow_launcher::PodResources;
use sqlflow_proto::agent::ModelVisibilityRule;

/// Version of `step.json`; the submitter refuses others.
pub const STEP_VERSION: u32 = 1;

/// A step, without the values of one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepSpec {
    /// What the step does, in one line, for readers of the document. Never contains SQL text: older servers, which may share
    /// the state, write it into the program and need it.
    pub title: String,
    /// User of the session, which is stored with a model. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Session statements (`USE`, `SET`) of earlier steps, to be executed first.
    pub replay: Vec<ReplaySpec>,
    /// The statements as the submitter reads them.
    pub statements: Vec<Value>,
    /// Statements of later steps that are checked before this step starts its work.
    #[serde(rename = "ahead", default, skip_serializing_if = "Vec::is_empty")]
    pub prechecks: Vec<Value>,
    /// Models that the prechecks use and that exist before this step. The agent gives their metadata to the submitter.
    #[serde(rename = "ahead_models", default, skip_serializing_if = "Vec::is_empty")]
    pub precheck_models: Vec<String>,
    /// Models that the agent fetches before the submitter starts.
    pub inputs: Vec<InputSpec>,
    /// Models that the agent publishes after it.
    pub outputs: Vec<OutputSpec>,
    /// Models that later steps use and that no earlier step makes: they must exist before this step starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
    /// Where the agent writes the list of all models before the submitter starts, relative to the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<String>,
    /// Resources that the step requests for its Pod.
    #[serde(default)]
    pub pod: PodResources,
    /// Whether its data process is the one in Python, as for DuckDB.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub python_data: bool,
    /// Which models its user may know of, besides their own: rules for names as in `ModelVisibility` of the agent's
    /// protocol. Empty: all, or the step has nothing to do with models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub visibility: Vec<VisibilityRule>,
}

impl StepSpec {
    /// Whether all statements are standard ones: such a step needs the data process alone.
    #[must_use]
    pub fn is_plain_sql(&self) -> bool {
        self.statements.iter().all(|it| it["kind"] == "standard")
    }

    /// Whether it runs on an image without Python.
    #[must_use]
    pub fn needs_no_python(&self) -> bool {
        self.is_plain_sql() && !self.python_data
    }

    /// Whether it reads, makes, drops or lists models, now or for later steps.
    #[must_use]
    pub fn concerns_models(&self) -> bool {
        let names = [!self.inputs.is_empty(), !self.outputs.is_empty(), !self.required.is_empty()];
        names.contains(&true) || !self.precheck_models.is_empty() || self.listing.is_some()
    }

    /// Whether Python has work for the database, which the data process does: its select, its result table, or checks of
    /// later statements.
    #[must_use]
    pub fn needs_data_process(&self) -> bool {
        let kinds = ["train", "predict", "evaluate", "explain"];
        let has_select = self.statements.iter().any(|it| kinds.iter().any(|kind| it["kind"] == *kind));
        has_select || !self.prechecks.is_empty()
    }
}

/// A rule of [`StepSpec::visibility`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VisibilityRule {
    /// Name of a model, or the beginning of names.
    pub name: String,
    /// Whether it is a beginning.
    pub is_prefix: bool,
    /// Whether these models are visible.
    pub is_visible: bool,
}

impl From<VisibilityRule> for ModelVisibilityRule {
    fn from(VisibilityRule { name, is_prefix, is_visible }: VisibilityRule) -> Self {
        Self { name, is_prefix, is_visible }
    }
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
    /// Target folder, relative to the workspace.
    pub directory: String,
}

/// A model to publish.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputSpec {
    /// Its name.
    pub model: String,
    /// Source folder, relative to the workspace.
    pub directory: String,
    /// The complete text of the statement that trains it, for `sqlflow.gob`.
    pub train_select: String,
    /// If set, the model is removed and not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<RemovalSpec>,
    /// Principal whose model an administrator's job may replace or remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Index of its statement. `None` in documents of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<u32>,
}

/// Removal of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemovalSpec {
    /// A missing model is not an error.
    pub if_exists: bool,
}
