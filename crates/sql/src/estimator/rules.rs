//! Rules for estimators, attributes, objectives and metrics: which exist, and their allowed values. Server and submitter read
//! the same document, so `Run` rejects what the submitter would reject later.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// The document, which is part of the submitter's package.
const DOCUMENT: &str = include_str!("../../../../images/submitter/sqlflow_submitter/xgb/rules.json");

static RULES: LazyLock<Option<Rules>> = LazyLock::new(|| serde_json::from_str(DOCUMENT).ok());

/// Content of the document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    pub(super) estimators: Vec<String>,
    pub(super) attributes: Attributes,
    /// Pairs of names for one attribute of TRAIN.
    pub(super) same: Vec<[String; 2]>,
    pub(super) objectives: BTreeMap<String, Objective>,
    /// XGBoost's objectives that are not supported, each with the reason.
    pub(super) unsupported_objectives: BTreeMap<String, String>,
    pub(super) eval_metrics: BTreeMap<String, EvalMetric>,
    pub(super) metrics: Metrics,
}

/// Attributes by name, for each kind of statement.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attributes {
    pub(super) train: BTreeMap<String, Rule>,
    pub(super) predict: BTreeMap<String, Rule>,
    pub(super) evaluate: BTreeMap<String, Rule>,
    pub(super) explain: BTreeMap<String, Rule>,
}

/// Allowed values of an attribute.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(rename = "type", default)]
    pub(super) kind: RuleType,
    pub(super) min: Option<f64>,
    /// Exclusive minimum.
    pub(super) above: Option<f64>,
    pub(super) max: Option<f64>,
    #[serde(default)]
    pub(super) choices: Vec<String>,
}

/// Type of an attribute's values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RuleType {
    #[default]
    Number,
    #[serde(rename = "whole number")]
    WholeNumber,
    Boolean,
    Text,
    Objective,
    #[serde(rename = "eval metrics")]
    EvalMetrics,
    Metrics,
    /// Names of `choices`, separated by commas.
    Names,
    /// -1, 0 or 1 for each feature.
    Directions,
    /// Lists of numbers of features.
    Groups,
}

/// What a model predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Task {
    Binary,
    Multi,
    Number,
}

/// A supported objective.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Objective {
    pub(super) task: Task,
    /// Required attributes.
    #[serde(default)]
    pub(super) needs: Vec<String>,
    /// The values of `base_score`, if not all numbers are allowed.
    pub(super) base_score: Option<Rule>,
}

/// A metric that XGBoost computes after each round.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EvalMetric {
    pub(super) tasks: Vec<Task>,
    /// The only objective to which it applies; `None`: any.
    pub(super) objective: Option<String>,
    /// Whether it has an argument, as in `error@0.7`.
    #[serde(default)]
    pub(super) argument: Argument,
}

/// Whether a metric has an argument after `@`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Argument {
    #[default]
    None,
    Optional,
    Required,
}

/// Metrics of EVALUATE.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) classes: Vec<String>,
    pub(super) numbers: Vec<String>,
    /// Aliases, each with the metric's name.
    pub(super) aliases: BTreeMap<String, String>,
}

impl Rules {
    /// The rules; `None` if the document of this build is malformed, which a test excludes.
    pub(super) fn get() -> Option<&'static Self> {
        RULES.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_document_is_valid_and_consistent() {
        let rules: Rules = serde_json::from_str(DOCUMENT).expect("the document has this shape");
        for objective in rules.objectives.values() {
            assert!(objective.needs.iter().all(|it| rules.attributes.train.contains_key(it)));
        }
        assert!(rules.same.iter().flatten().all(|it| rules.attributes.train.contains_key(it)));
        for metric in rules.eval_metrics.values() {
            assert!(metric.objective.iter().all(|it| rules.objectives.contains_key(it)));
        }
        let metrics = &rules.metrics;
        let known = |name: &String| metrics.classes.contains(name) || metrics.numbers.contains(name);
        assert!(metrics.aliases.values().all(known));
    }
}
