//! Checks of estimators, attributes, objectives and metrics, so that hours of training do not end with a misspelt attribute
//! of a later statement.
//!
//! All statements are checked, as far as no data is needed. The submitter checks what depends on the database's columns,
//! before it trains. Both read the same rules: see `rules`.

mod rules;
mod train;
mod value;

use std::collections::{BTreeMap, HashMap};

use rules::{Rule, Rules, Task};

use super::ast::{Attribute, Body, Name, Predict, Program};
use super::error::{MAX_MESSAGE, SqlError};
use super::json::attribute_json;
use super::pod_resources::PodResource;
use super::suggest::{listing, meant, shortened};

/// Maximum number of names that a message lists, without and with a suggestion.
const LISTED: usize = 40;
const LISTED_WITH_SUGGESTION: usize = 12;

/// All errors of extended statements that can be found without data, in the program's order.
pub(super) fn check_estimators(program: &Program) -> Vec<SqlError> {
    let Some(rules) = Rules::get() else { return Vec::new() };
    let mut errors = Vec::new();
    // Tasks of the models that the program trains, if the program determines them.
    let mut tasks: HashMap<&str, Option<Task>> = HashMap::new();
    // Models that the program drops, each with the line.
    let mut dropped: HashMap<&str, usize> = HashMap::new();
    for statement in &program.statements {
        if let Some(model) = used_model(&statement.body)
            && let Some(line) = dropped.get(model.text.as_str())
        {
            let message = format!("model {} does not exist here: it is dropped on line {line}", model.text);
            errors.push(SqlError::semantic(model.position, message));
        }
        match &statement.body {
            Body::Train(train) => {
                let task = train::check(rules, train, program.dialect, &mut errors);
                tasks.insert(&train.into.text, task);
                dropped.remove(train.into.text.as_str());
            }
            Body::Predict(predict) => {
                check_attributes(rules, &rules.attributes.predict, &predict.attributes, &mut errors);
                if let Some(Some(Task::Number)) = tasks.get(predict.model.text.as_str()) {
                    check_probabilities(predict, &mut errors);
                }
            }
            Body::Explain(explain) => {
                check_attributes(rules, &rules.attributes.explain, &explain.attributes, &mut errors);
            }
            Body::Evaluate(evaluate) => {
                check_attributes(rules, &rules.attributes.evaluate, &evaluate.attributes, &mut errors);
                if let Some(Some(task)) = tasks.get(evaluate.model.text.as_str()) {
                    check_metrics(rules, &evaluate.attributes, *task, &mut errors);
                }
            }
            Body::DropModel(drop) => {
                tasks.remove(drop.model.text.as_str());
                dropped.insert(&drop.model.text, statement.position.line);
            }
            Body::Standard(_)
            | Body::ShowTrain(_)
            | Body::ShowModels
            | Body::DescribeModel(_)
            | Body::Run(_)
            | Body::Optimize(_) => {}
        }
    }
    errors
}

/// The model that must exist for the statement.
fn used_model(body: &Body) -> Option<&Name> {
    match body {
        Body::Train(train) => train.using.as_ref(),
        Body::Predict(predict) => Some(&predict.model),
        Body::Evaluate(evaluate) => Some(&evaluate.model),
        Body::Explain(explain) => Some(&explain.model),
        Body::ShowTrain(show) => Some(&show.model),
        Body::DescribeModel(describe) => Some(&describe.model),
        Body::DropModel(drop) => (!drop.if_exists).then_some(&drop.model),
        Body::Standard(_) | Body::ShowModels | Body::Run(_) | Body::Optimize(_) => None,
    }
}

/// Only a classification model has probabilities.
fn check_probabilities(predict: &Predict, errors: &mut Vec<SqlError>) {
    let asked =
        |it: &&Attribute| it.name.text == "predict.probabilities" && it.value.as_bool() != Some(false);
    if let Some(attribute) = predict.attributes.iter().find(asked) {
        let message = format!(
            "cannot use predict.probabilities: model {} predicts a number and has none",
            predict.model.text
        );
        errors.push(SqlError::semantic(attribute.position, message));
    }
}

/// Checks that each attribute exists and has an allowed value.
fn check_attributes(
    rules: &Rules,
    known: &BTreeMap<String, Rule>,
    attributes: &[Attribute],
    errors: &mut Vec<SqlError>,
) {
    for Attribute { name, value, position } in attributes {
        if name.text.starts_with(PodResource::PREFIX) {
            continue;
        }
        let Some(rule) = known.get(&name.text) else {
            let names: Vec<_> = known.keys().map(String::as_str).collect();
            errors.push(SqlError::semantic(name.position, unknown("attribute", &name.text, &names, "known")));
            continue;
        };
        if let Err(message) = value::check(rules, &name.text, rule, &attribute_json(value)) {
            errors.push(SqlError::semantic(*position, message));
        }
    }
}

/// Checks that the metrics of EVALUATE apply to the model's task.
fn check_metrics(rules: &Rules, attributes: &[Attribute], task: Task, errors: &mut Vec<SqlError>) {
    let (of_task, what) = match task {
        Task::Number => (&rules.metrics.numbers, "a number"),
        Task::Binary | Task::Multi => (&rules.metrics.classes, "a class"),
    };
    for attribute in attributes.iter().filter(|it| it.name.text == "validation.metrics") {
        for name in value::names(&attribute_json(&attribute.value)) {
            let metric = value::metric(rules, &name);
            let is_known = rules.metrics.classes.contains(&metric) || rules.metrics.numbers.contains(&metric);
            if is_known && !of_task.contains(&metric) {
                let message = format!(
                    "metric {name} does not apply to this model, which predicts {what}; use {}",
                    of_task.join(", ")
                );
                errors.push(SqlError::semantic(attribute.position, message));
            }
        }
    }
}

/// `attribute max_dept does not exist; did you mean max_depth? (known: …)`
fn unknown(what: &str, name: &str, known: &[&str], listed: &str) -> String {
    let near = meant(name, known);
    let limit = if near.is_some() { LISTED_WITH_SUGGESTION } else { LISTED };
    let hint = near.map(|it| format!("; did you mean {it}?")).unwrap_or_default();
    let refusal = format!("{what} {} does not exist{hint}", shortened(name));
    let room = MAX_MESSAGE.saturating_sub(refusal.len() + listed.len() + " (: )".len());
    format!("{refusal} ({listed}: {})", listing(known, limit, room))
}

#[cfg(test)]
mod tests;
