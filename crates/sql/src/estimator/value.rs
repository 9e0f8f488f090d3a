//! Checks an attribute's value against its rule.

use serde_json::Value;

use super::rules::{Rule, RuleType, Rules};
use super::unknown;

/// Checks a value.
///
/// # Errors
/// A message with the value and the allowed values.
pub(super) fn check(rules: &Rules, name: &str, rule: &Rule, value: &Value) -> Result<(), String> {
    match rule.kind {
        RuleType::Number | RuleType::WholeNumber => check_number(name, rule, value),
        RuleType::Boolean => match value {
            Value::Bool(_) => Ok(()),
            Value::Number(number) if matches!(number.as_f64(), Some(0.0 | 1.0)) => Ok(()),
            _ => Err(format!("attribute {name} is {}; it must be true or false", shown(value))),
        },
        RuleType::Text | RuleType::Objective => match value {
            Value::String(text) if rule.choices.is_empty() || rule.choices.contains(text) => Ok(()),
            Value::String(text) => {
                let choices: Vec<_> = rule.choices.iter().map(String::as_str).collect();
                Err(unknown(&format!("value of attribute {name}:"), text, &choices, "possible"))
            }
            _ => Err(format!("attribute {name} is {}; it must be a string", shown(value))),
        },
        RuleType::EvalMetrics => {
            let known: Vec<_> = rules.eval_metrics.keys().map(String::as_str).collect();
            names(value)
                .iter()
                .map(|it| it.split('@').next().unwrap_or(it))
                .find(|it| !known.contains(it))
                .map_or(Ok(()), |it| Err(unknown("eval_metric", it, &known, "known")))
        }
        RuleType::Metrics => {
            let metrics = &rules.metrics;
            let known: Vec<_> = metrics.classes.iter().chain(&metrics.numbers).map(String::as_str).collect();
            names(value)
                .iter()
                .find(|it| !known.contains(&metric(rules, it).as_str()))
                .map_or(Ok(()), |it| Err(unknown("metric", it, &known, "known")))
        }
        RuleType::Names => {
            let choices: Vec<_> = rule.choices.iter().map(String::as_str).collect();
            let what = format!("value of attribute {name}:");
            names(value)
                .iter()
                .find(|it| !choices.contains(&it.as_str()))
                .map_or(Ok(()), |it| Err(unknown(&what, it, &choices, "possible")))
        }
        RuleType::Directions => {
            let listed = listed(value);
            let items = listed.as_ref().and_then(Value::as_array);
            let is_direction = |it: &Value| matches!(it.as_i64(), Some(-1..=1));
            if items.is_some_and(|items| items.iter().all(is_direction)) {
                return Ok(());
            }
            Err(format!(
                "attribute {name} is {}; it must be a list of -1, 0 and 1, as in [1, 0, -1]",
                shown(value)
            ))
        }
        RuleType::Groups => {
            let listed = listed(value);
            let groups = listed.as_ref().and_then(Value::as_array);
            let is_group = |it: &Value| it.as_array().is_some_and(|group| group.iter().all(Value::is_u64));
            if groups.is_some_and(|groups| groups.iter().all(is_group)) {
                return Ok(());
            }
            Err(format!(
                "attribute {name} is {}; it must be a list of lists of feature numbers from 0, as in [[0, 1], [2]]",
                shown(value)
            ))
        }
    }
}

/// A list, also one in quotes: XGBoost writes `(1, -1)` and `[[0, 1]]`.
fn listed(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => {
            let text = text.trim();
            let inner = text.strip_prefix('(').and_then(|it| it.strip_suffix(')'));
            let list = inner.map(|it| format!("[{}]", it.trim().trim_end_matches(',')));
            serde_json::from_str(list.as_deref().unwrap_or(text)).ok()
        }
        other => Some(other.clone()),
    }
}

/// Canonical name of a metric of EVALUATE, from any of its aliases.
pub(super) fn metric(rules: &Rules, name: &str) -> String {
    let folded = name.to_lowercase();
    rules.metrics.aliases.get(&folded).cloned().unwrap_or(folded)
}

/// Items of a list, or of a comma-separated string.
pub(super) fn names(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::String(text) => {
            text.split(',').map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect()
        }
        other => vec![plain(other)],
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn check_number(name: &str, rule: &Rule, value: &Value) -> Result<(), String> {
    let whole = rule.kind == RuleType::WholeNumber;
    let kind = if whole { "a whole number" } else { "a number" };
    let number = match value {
        Value::Number(number) => number.as_f64(),
        // Older programs quote numbers.
        Value::String(text) => text.trim().parse().ok().filter(|it: &f64| it.is_finite()),
        _ => None,
    };
    let Some(number) = number.filter(|it| !whole || it.fract() == 0.0) else {
        return Err(format!("attribute {name} is {}; it must be {kind}", shown(value)));
    };
    let too_low = rule.min.is_some_and(|min| number < min) || rule.above.is_some_and(|above| number <= above);
    if !too_low && rule.max.is_none_or(|max| number <= max) {
        return Ok(());
    }
    let bounds = [
        rule.above.map(|above| format!("above {above}")),
        rule.min.map(|min| format!("at least {min}")),
        rule.max.map(|max| format!("at most {max}")),
    ];
    let bounds: Vec<_> = bounds.into_iter().flatten().collect();
    Err(format!("attribute {name} is {}; it must be {kind}, {}", shown(value), bounds.join(" and ")))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{text}'"),
        other => other.to_string(),
    }
}
