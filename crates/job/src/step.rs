//! The state of a step, as the store keeps it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Attempt, Outcome, Role};

/// A part of the program that one submitter executes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Index of the first statement in the program.
    pub first_statement: u32,
    /// Number of statements.
    pub statement_count: u32,
    /// Kind.
    pub kind: StepKind,
    /// Name of the model that it makes or uses. Standard steps, and jobs of earlier versions, have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Whether all its statements are repeatable.
    pub repeatable: bool,
    /// Whether its submitter fills a staging table in the user's database, which replaces the result table after the
    /// grant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub writes_table: bool,
    /// Whether its result replaces something that it reads. Such a step is not retried once its result may have become
    /// visible.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrites_input: bool,
    /// Attempts in order of their numbers, which begin at 1.
    pub attempts: Vec<Attempt>,
}

impl Step {
    /// Whether its last attempt succeeded.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.last_run().and_then(Attempt::outcome).is_some_and(Outcome::succeeded)
    }

    /// The newest attempt that runs the step, which excludes cleanups.
    #[must_use]
    pub fn last_run(&self) -> Option<&Attempt> {
        self.attempts.iter().rev().find(|attempt| attempt.role == Role::Run)
    }

    /// Number of the attempt with kept output. Later attempts only publish it.
    #[must_use]
    pub fn kept_output(&self) -> Option<u32> {
        let is_kept = |it: &Attempt| it.outcome().is_some_and(|outcome| outcome.output_kept);
        let index = self.attempts.iter().position(is_kept)?;
        u32::try_from(index + 1).ok()
    }
}

/// Kind of a step. In documents and protocols it is its [`name`](Self::name).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Consecutive standard statements.
    Standard,
    /// `TO TRAIN`.
    Train,
    /// `TO PREDICT`.
    Predict,
    /// `TO EXPLAIN`.
    Explain,
    /// `TO EVALUATE`.
    Evaluate,
    /// `SHOW TRAIN`.
    ShowTrain,
    /// `SHOW MODELS`.
    ShowModels,
    /// `DESCRIBE MODEL`.
    DescribeModel,
    /// `DROP MODEL`.
    DropModel,
    /// A kind that only newer servers know.
    #[serde(untagged)]
    Other(String),
}

impl StepKind {
    /// Name of the kind, such as `show_train`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Standard => "standard",
            Self::Train => "train",
            Self::Predict => "predict",
            Self::Explain => "explain",
            Self::Evaluate => "evaluate",
            Self::ShowTrain => "show_train",
            Self::ShowModels => "show_models",
            Self::DescribeModel => "describe_model",
            Self::DropModel => "drop_model",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for StepKind {
    fn from(name: &str) -> Self {
        match name {
            "standard" => Self::Standard,
            "train" => Self::Train,
            "predict" => Self::Predict,
            "explain" => Self::Explain,
            "evaluate" => Self::Evaluate,
            "show_train" => Self::ShowTrain,
            "show_models" => Self::ShowModels,
            "describe_model" => Self::DescribeModel,
            "drop_model" => Self::DropModel,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_is_stored_as_its_name_and_unknown_names_are_kept() {
        let names = [
            "standard",
            "train",
            "predict",
            "explain",
            "evaluate",
            "show_train",
            "show_models",
            "describe_model",
            "drop_model",
            "of_the_future",
        ];
        for name in names {
            let kind = StepKind::from(name);
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("{name:?}"));
            assert_eq!(serde_json::from_str::<StepKind>(&json).unwrap(), kind);
            assert_eq!(matches!(kind, StepKind::Other(_)), name == "of_the_future");
        }
    }
}
