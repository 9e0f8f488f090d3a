//! Models in listings and descriptions.

use jiff::Timestamp;
use serde_json::{Value, json};
use sqlflow_model_storage::models::{Content, Model};
use sqlflow_text::escape::escaped;

use super::description::{full_time, push_field, push_program, short_time};
use super::table::{Write, write_texts};

/// Models as a table.
pub(crate) fn write_listing(models: &[Model], csv: bool, out: &mut Write<'_>) -> std::io::Result<()> {
    let row = |model: &Model| vec![model.name.clone(), model.bytes.to_string(), short_time(published(model))];
    write_texts(&["model", "bytes", "published (UTC)"], models.iter().map(row), csv, out)
}

/// A model as JSON.
pub(crate) fn model_json(model: &Model) -> Value {
    json!({ "name": model.name, "bytes": model.bytes, "published": published(model).map(|time| time.to_string()) })
}

/// A model with its content as JSON.
pub(crate) fn described(model: &Model, content: &Content) -> Value {
    let mut value = model_json(model);
    value["files"] = json!(content.files);
    value["meta"] = json!(content.meta);
    value
}

/// The description of a model as text.
pub(crate) fn description(uri: &str, model: &Model, content: &Content) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| push_field(&mut text, name, &escaped(value));
    let meta = content.meta.clone().unwrap_or_default();
    let of_meta = |name: &str| meta[name].as_str().unwrap_or_default().to_owned();
    field("model", &model.name);
    field("at", uri);
    field("bytes", &model.bytes.to_string());
    field("published", &full_time(published(model)));
    field("estimator", &of_meta("class_name"));
    field("objective", &of_meta("objective"));
    field("because", &of_meta("objective_reason"));
    field("label", &of_meta("label"));
    for column in meta["columns"].as_array().into_iter().flatten() {
        field("column", &column_line(column));
    }
    field("made by", &of_meta("created_by"));
    for (name, value) in meta["evaluation"].as_object().into_iter().flatten() {
        field("measured", &format!("{name} {value}"));
    }
    for (name, bytes) in &content.files {
        field("file", &format!("{name} ({bytes} bytes)"));
    }
    push_program(&mut text, &of_meta("original_sql"));
    text
}

/// `age integer: number, 40 different, 3 missing; looks like an id`.
fn column_line(column: &Value) -> String {
    let text = |name: &str| column[name].as_str().unwrap_or_default();
    let mut line = text("name").to_owned();
    if !text("declared").is_empty() {
        line.push_str(&format!(" {}", text("declared")));
    }
    line.push_str(&format!(": {}", text("taken_as")));
    if let Some(distinct) = column["distinct"].as_u64() {
        let more = if column["more_distinct"].as_bool() == Some(true) { "more than " } else { "" };
        line.push_str(&format!(", {more}{distinct} different"));
    }
    if let Some(missing) = column["missing"].as_u64().filter(|it| *it > 0) {
        line.push_str(&format!(", {missing} missing"));
    }
    for warning in column["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        line.push_str("; ");
        line.push_str(warning);
    }
    line
}

/// The time of its publication, if the storage has it.
fn published(model: &Model) -> Option<Timestamp> {
    Timestamp::try_from(model.modified?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn description_has_training_columns_metrics_and_files() {
        let model = Model {
            name: "team/m".to_owned(),
            bytes: 512,
            modified: Some(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1)),
        };
        let meta = json!({ "class_name": "xgboost.gbtree", "evaluation": { "train-rmse": 0.25 },
            "objective_reason": "label y is boolean",
            "columns": [
                { "name": "age", "declared": "integer", "taken_as": "number", "distinct": 40, "missing": 3,
                    "more_distinct": false, "warnings": ["looks like an id"] },
                { "name": "tag", "declared": "", "taken_as": "CATEGORY_HASH", "distinct": 10000, "missing": 0,
                    "more_distinct": true, "warnings": [] },
            ],
            "original_sql": "SELECT 1\nTO TRAIN x;" });
        let content = Content { meta: Some(meta), files: [("model.ubj".to_owned(), 7)].into(), gob: None };
        let text = description("s3://b/models", &model, &content);
        for line in [
            "published 1970-01-01 00:00:01 UTC",
            "estimator xgboost.gbtree",
            "measured  train-rmse 0.25",
            "because   label y is boolean",
            "column    age integer: number, 40 different, 3 missing; looks like an id",
            "column    tag: CATEGORY_HASH, more than 10000 different",
            "file      model.ubj (7 bytes)",
            "  TO TRAIN x;",
        ] {
            assert!(text.lines().any(|it| it == line), "{line:?}: {text}");
        }
        let bare = description("s3://b/models", &model, &Content::default());
        assert!(!bare.contains("program"), "a tarball without metadata: {bare}");
    }
}
