//! Checks that the estimator, objective, metrics and columns of a TRAIN statement are consistent.

use std::collections::HashSet;

use serde_json::Value;

use super::super::ast::{Attribute, Body, Column, Train};
use super::super::classify::StandardKind;
use super::super::clause_parser::EXCEPT;
use super::super::dialect::Dialect;
use super::super::error::SqlError;
use super::super::expr::Expr;
use super::super::json::attribute_json;
use super::super::splitter::parse_program;
use super::rules::{Argument, Rules, Task};
use super::{check_attributes, unknown, value};

/// The only target of COLUMN clauses for XGBoost.
const FEATURES: &str = "feature_columns";
/// Objectives whose predictions are probabilities, for the threshold of `error@0.7`.
const PROBABILITIES: [&str; 2] = ["binary:logistic", "reg:logistic"];
/// Column functions that XGBoost's models do not support, each with the alternative.
const UNSUPPORTED_FUNCTIONS: [(&str, &str); 2] = [
    ("EMBEDDING", "use INDICATOR or CATEGORY_HASH"),
    ("SEQ_CATEGORY_ID", "use INDICATOR(CATEGORY_ID(…)), which forgets the order"),
];

/// Adds the statement's errors. Returns the model's task, if the statement determines it.
pub(super) fn check(
    rules: &Rules,
    train: &Train,
    dialect: Dialect,
    errors: &mut Vec<SqlError>,
) -> Option<Task> {
    let known = errors.len();
    check_estimator(rules, train, errors);
    if errors.len() > known {
        // Attributes and columns depend on the estimator, which is wrong.
        return None;
    }
    check_attributes(rules, &rules.attributes.train, &train.attributes, errors);
    check_columns(train, dialect, errors);
    let mut statement = Statement { rules, train, errors };
    statement.validation(dialect);
    statement.early_stopping();
    statement.workers();
    statement.names_of_one_attribute();
    let task = statement.objective();
    statement.eval_metrics(task);
    task
}

fn check_estimator(rules: &Rules, train: &Train, errors: &mut Vec<SqlError>) {
    let (image, class) = train.image_and_class();
    let estimator = &train.estimator;
    if image.is_some() {
        let message = format!(
            "estimator {} names an image, which is not supported yet; set the image with WITH pod.image",
            estimator.text
        );
        errors.push(SqlError::semantic(estimator.position, message));
        return;
    }
    // Older programs name an estimator by its task: XGBOOSTCLASSIFIER.
    let is_older = !class.contains('.') && class.to_ascii_uppercase().starts_with("XGBOOST");
    if !is_older && !rules.estimators.iter().any(|it| it.eq_ignore_ascii_case(class)) {
        let supported: Vec<_> = rules.estimators.iter().map(String::as_str).collect();
        let hint = super::meant(class, &supported).map(|it| format!("; did you mean {it}?"));
        let message = format!(
            "estimator {class} is not supported yet; supported: {}{}",
            supported.join(", "),
            hint.unwrap_or_default()
        );
        errors.push(SqlError::semantic(estimator.position, message));
    }
    if train.label.is_none() {
        errors.push(SqlError::semantic(
            estimator.position,
            format!("{class} needs a label, as in LABEL class"),
        ));
    }
}

/// Checks that no column is named twice, and that none is the label.
fn check_columns(train: &Train, dialect: Dialect, errors: &mut Vec<SqlError>) {
    // PostgreSQL has columns that differ in case only.
    let folded = |name: &str| match dialect {
        Dialect::Postgresql => name.to_owned(),
        Dialect::Mysql | Dialect::Sqlite => name.to_lowercase(),
    };
    let mut seen: HashSet<String> = HashSet::new();
    let mut has_star = false;
    for clause in &train.columns {
        if clause.target != FEATURES {
            let position = clause.columns.first().map_or(train.estimator.position, |it| it.position);
            let message =
                format!("COLUMN … FOR {}: XGBoost has one set of columns; leave out FOR", clause.target);
            errors.push(SqlError::semantic(position, message));
        }
        for Column { expr, position } in &clause.columns {
            let mut refuse = |message: String| errors.push(SqlError::semantic(*position, message));
            if let Some((name, instead)) = unsupported_function(expr) {
                refuse(format!("feature column {name} is of no use to XGBoost: {instead}"));
            }
            let label = train.label.as_ref().map(|label| label.text.as_str());
            let excludes = matches!(expr, Expr::Call { name, .. } if name == EXCEPT);
            if let Some(name) = columns_of(expr).find(|name| Some(name.as_str()) == label && !excludes) {
                refuse(format!(
                    "column {name} is the label: the model would be told the answer; leave it out of COLUMN"
                ));
            }
            if excludes || *expr == Expr::Ident("*".to_owned()) {
                if std::mem::replace(&mut has_star, true) {
                    refuse("COLUMN has * twice".to_owned());
                }
            } else if let Some(name) = name_of(expr)
                && !seen.insert(folded(&name))
            {
                refuse(format!("column {name} is named twice in COLUMN"));
            }
        }
    }
}

fn unsupported_function(expr: &Expr) -> Option<(&'static str, &'static str)> {
    match expr {
        Expr::Call { name, args } => UNSUPPORTED_FUNCTIONS
            .into_iter()
            .find(|(it, _)| it.eq_ignore_ascii_case(name))
            .or_else(|| args.iter().find_map(unsupported_function)),
        Expr::List(items) => items.iter().find_map(unsupported_function),
        _ => None,
    }
}

/// The column that a name or string denotes. A string may also be a pattern, which denotes no single column.
fn name_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::String(literal) => Some(literal.value()),
        _ => None,
    }
}

/// The columns that a feature reads: the first arguments of its functions.
fn columns_of(expr: &Expr) -> Box<dyn Iterator<Item = String> + '_> {
    match expr {
        Expr::Ident(_) | Expr::String(_) => Box::new(name_of(expr).into_iter()),
        Expr::List(items) => Box::new(items.iter().flat_map(columns_of)),
        Expr::Call { args, .. } => Box::new(args.first().into_iter().flat_map(columns_of)),
        _ => Box::new(std::iter::empty()),
    }
}

/// A TRAIN statement whose attributes have been checked one by one.
struct Statement<'a> {
    rules: &'a Rules,
    train: &'a Train,
    errors: &'a mut Vec<SqlError>,
}

impl<'a> Statement<'a> {
    fn attribute(&self, name: &str) -> Option<&'a Attribute> {
        self.train.attributes.iter().find(|it| it.name.text == name)
    }

    fn value(&self, name: &str) -> Option<Value> {
        self.attribute(name).map(|it| attribute_json(&it.value))
    }

    /// The value as a number, which may be in quotes.
    fn number(&self, name: &str) -> Option<f64> {
        match self.value(name)? {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        }
    }

    fn refuse(&mut self, name: &str, message: impl Into<String>) {
        let position = self.attribute(name).map_or(self.train.estimator.position, |it| it.position);
        self.errors.push(SqlError::semantic(position, message));
    }

    fn validation(&mut self, dialect: Dialect) {
        let Some(Value::String(select)) = self.value("validation.select") else { return };
        let program = parse_program(&select, dialect);
        let fault = match program.as_ref().map(|it| it.statements.as_slice()) {
            Ok([_, _, ..]) => "must be one statement".to_owned(),
            Ok([one]) if matches!(&one.body, Body::Standard(it) if it.repeatable && it.kind == StandardKind::Query) =>
            {
                return;
            }
            Ok(_) => "must be a SELECT that only reads".to_owned(),
            Err(error) => format!("cannot be read: {error}"),
        };
        self.refuse("validation.select", format!("attribute validation.select {fault}"));
    }

    fn early_stopping(&mut self) {
        const NAME: &str = "train.early_stopping_rounds";
        if self.attribute(NAME).is_none() {
            return;
        }
        if self.attribute("validation.select").is_none() {
            self.refuse(NAME, format!("attribute {NAME} needs validation.select"));
        }
        if self.train.estimator.text.to_ascii_lowercase().contains("gblinear") {
            let message = format!(
                "attribute {NAME} does not apply to gblinear: a linear model cannot return to an earlier round"
            );
            self.refuse(NAME, message);
        }
        let trains_often = self.number("train.epoch").is_some_and(|it| it > 1.0)
            || self.number("train.batch_size").is_some_and(|it| it > 0.0);
        if trains_often {
            let message = format!(
                "attribute {NAME} cannot be combined with train.epoch or train.batch_size: they train several times"
            );
            self.refuse(NAME, message);
        }
    }

    fn workers(&mut self) {
        const NAME: &str = "train.num_workers";
        if self.number(NAME).is_some_and(|it| it > 1.0) {
            let message =
                format!("attribute {NAME} above 1 is not supported yet: training runs in one process");
            self.refuse(NAME, message);
        }
    }

    /// XGBoost would take one of them, and not say which.
    fn names_of_one_attribute(&mut self) {
        let rules = self.rules;
        for [name, other] in &rules.same {
            if self.attribute(name).is_some() && self.attribute(other).is_some() {
                let message = format!("attributes {name} and {other} are the same: give one of them");
                self.refuse(other, message);
            }
        }
    }

    /// Task of the objective; `None` if there is no objective, or an unknown one.
    fn objective(&mut self) -> Option<Task> {
        let task = match self.value("objective") {
            Some(Value::String(name)) => self.task_of(&name),
            Some(_) => None,
            None => self.attribute("num_class").map(|_| Task::Multi),
        };
        if task.is_some_and(|task| task != Task::Multi) && self.attribute("num_class").is_some() {
            self.refuse("num_class", "attribute num_class applies to multi:softmax and multi:softprob only");
        }
        task
    }

    fn task_of(&mut self, name: &str) -> Option<Task> {
        let rules = self.rules;
        if let Some(reason) = rules.unsupported_objectives.get(name) {
            self.refuse("objective", format!("objective {name} is not supported yet: {reason}"));
            return None;
        }
        let Some(objective) = rules.objectives.get(name) else {
            let known: Vec<_> = rules.objectives.keys().map(String::as_str).collect();
            self.refuse("objective", unknown("objective", name, &known, "known"));
            return None;
        };
        for needed in &objective.needs {
            if self.attribute(needed).is_none() {
                self.refuse("objective", format!("objective {name} needs the attribute {needed}"));
            }
        }
        if let Some(rule) = &objective.base_score
            && let Some(base_score) = self.value("base_score")
            // Otherwise it is refused already.
            && self.number("base_score").is_some()
            && let Err(message) = value::check_number("base_score", rule, &base_score)
        {
            self.refuse("base_score", format!("{message} for {name}"));
        }
        Some(objective.task)
    }

    fn eval_metrics(&mut self, task: Option<Task>) {
        let Some(value) = self.value("eval_metric") else { return };
        let objective = self.value("objective");
        // Without an objective, this metric selects classes.
        let is_of_probabilities =
            objective.as_ref().is_none_or(|it| it.as_str().is_some_and(|it| PROBABILITIES.contains(&it)));
        for full in value::names(&value) {
            let (name, argument) =
                full.split_once('@').map_or((full.as_str(), None), |it| (it.0, Some(it.1)));
            let Some(metric) = self.rules.eval_metrics.get(name) else { continue };
            match (metric.argument, argument) {
                (Argument::Required, None) => {
                    self.refuse(
                        "eval_metric",
                        format!("eval_metric {name} needs an argument, as in {name}@1.5"),
                    );
                }
                (Argument::None, Some(_)) => {
                    self.refuse("eval_metric", format!("eval_metric {name} has no argument, found {full}"));
                }
                (_, Some(argument)) if !argument.parse::<f64>().is_ok_and(f64::is_finite) => {
                    self.refuse("eval_metric", format!("eval_metric {full}: {argument} is not a number"));
                }
                (Argument::Optional, Some(argument))
                    if is_of_probabilities
                        && !argument.parse().is_ok_and(|it: f64| (0.0..=1.0).contains(&it)) =>
                {
                    let message = format!(
                        "eval_metric {full}: the threshold is {argument}, and predictions are probabilities; write a \
                         number from 0 to 1, as in {name}@0.7"
                    );
                    self.refuse("eval_metric", message);
                }
                _ => {}
            }
            if let Some(task) = task.filter(|task| !metric.tasks.contains(task)) {
                let fitting = self.rules.eval_metrics.iter().filter(|(_, it)| it.tasks.contains(&task));
                let fitting: Vec<_> = fitting.map(|(name, _)| name.as_str()).collect();
                let message =
                    format!("eval_metric {name} does not fit the objective; use {}", fitting.join(", "));
                self.refuse("eval_metric", message);
            } else if let Some(only) = metric.objective.as_deref().filter(|it| {
                // Without an objective, the label decides, which never selects this one.
                objective.as_ref().and_then(Value::as_str) != Some(*it)
            }) {
                self.refuse("eval_metric", format!("eval_metric {name} applies to objective {only} only"));
            }
        }
    }
}
