//! The shared cases: results of the last upstream release for 186 programs, and the intended differences.
//!
//! `inputs` and `outputs` are results of the databases' own parsers, which this project does not have, so they are not
//! compared. `ir` is compared where both have it. Error texts are this project's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::super::*;

/// Rejected by upstream, accepted here.
const ACCEPTED: [(&str, &str); 13] = [
    ("eval-03", "EVALUATE shows its measurements, so a table for them is not needed"),
    ("col-54", "a column's name may stand in quotes"),
    ("col-62", "a keyword is a column's name where no other reading is possible"),
    ("std-31", "standard SQL is checked by the database"),
    ("std-33", "standard SQL is checked by the database"),
    ("prog-06", "standard SQL is checked by the database"),
    ("prog-22", "standard SQL is checked by the database"),
    ("show-07", "standard SQL is checked by the database: TRAIN m1 is not an extended clause here"),
    ("prog-15", "the SELECT of an extended statement is checked by the database"),
    ("prog-43", "a byte order mark, which editors write, is not part of the program"),
    ("train-col-no-with", "COLUMN without WITH: nothing is missing"),
    ("train-old-syntax", "the older form without TO"),
    ("pred-10", "the older form without TO"),
];

/// Accepted by upstream, rejected here.
const REFUSED: [(&str, &str); 1] =
    [("prog-36", "an unclosed quote; upstream silently drops it and what follows")];

/// Parsed by upstream and rejected by its analysis, accepted here.
const MEANINGFUL: [(&str, &str); 3] = [
    ("with-01", "a negative number is a number"),
    ("with-04", "a negative number is a number"),
    ("col-17", "NUMERIC is DENSE by its documented name"),
];

/// Analysed in another way.
const TYPED: [(&str, &str); 2] = [
    ("with-25", "a float in a list is a float; upstream makes it a string"),
    ("with-26", "a string in a list has no quotes; upstream keeps them"),
];

fn cases() -> Vec<Value> {
    // At run time: the program may have been compiled in another clone that shares the target folder.
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let path = Path::new(&folder).join("../../tests/data/parser_cases.json");
    let text = std::fs::read_to_string(path).expect("the shared cases are in the tree");
    let cases: Value = serde_json::from_str(&text).expect("the shared cases are JSON");
    cases["cases"].as_array().expect("cases is an array").clone()
}

/// The SQL of every case, for the other tests.
pub(super) fn programs() -> Vec<String> {
    cases().iter().map(|case| case["sql"].as_str().expect("sql is a string").to_owned()).collect()
}

#[test]
fn shared_case_gives_upstreams_result_or_an_intended_difference() {
    let mut differ: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let cases = cases();
    assert_eq!(cases.len(), 186);
    for case in &cases {
        let id = case["id"].as_str().expect("id is a string");
        let sql = case["sql"].as_str().expect("sql is a string");
        let dialect: Dialect =
            case["dialect"].as_str().expect("dialect is a string").parse().expect("it is one");
        let parsed = parse_program(sql, dialect);
        let expected = &case["expected"];
        let mut note = |list| differ.entry(list).or_default().insert(id.to_owned());
        match (parsed, expected["statements"].as_array()) {
            (Err(_), None) => {}
            (Ok(_), None) => {
                note("accepted");
            }
            (Err(_), Some(_)) => {
                note("refused");
            }
            (Ok(program), Some(statements)) => {
                assert_eq!(
                    plain(to_json(&program)["statements"].as_array().expect("an array")),
                    plain(statements),
                    "{id}"
                );
                let refused = !check_semantics(&program).is_empty();
                let should_be = statements.iter().any(|statement| statement.get("ir_error").is_some());
                assert!(!refused || should_be, "{id}: {:?}", check_semantics(&program));
                if should_be && !refused {
                    note("meaningful");
                }
                let same = program
                    .statements
                    .iter()
                    .zip(statements)
                    .all(|(ours, upstream)| upstream.get("ir").is_none_or(|ir| &ir_of(&ours.body) == ir));
                if !same {
                    note("typed");
                }
            }
        }
    }
    let listed = |list: &[(&str, &str)]| list.iter().map(|(id, _)| (*id).to_owned()).collect::<BTreeSet<_>>();
    for (name, list) in
        [("accepted", &ACCEPTED[..]), ("refused", &REFUSED), ("meaningful", &MEANINGFUL), ("typed", &TYPED)]
    {
        assert_eq!(differ.remove(name).unwrap_or_default(), listed(list), "{name}");
    }
}

/// Statements without what only upstream's analysis knows.
fn plain(statements: &[Value]) -> Vec<Value> {
    let mut statements = statements.to_vec();
    for statement in &mut statements {
        let object = statement.as_object_mut().expect("a statement is an object");
        for key in ["inputs", "outputs", "ir", "ir_error"] {
            object.remove(key);
        }
    }
    statements
}

/// Upstream's `ir`, made from our types.
fn ir_of(body: &Body) -> Value {
    match body {
        Body::Train(train) => {
            let (image, class) = train.image_and_class();
            let validation =
                train.attributes.iter().find(|attribute| attribute.name.text == "validation.select");
            json!({
                "estimator": class,
                "model_image": image.unwrap_or_default(),
                "attributes": train.attributes.iter()
                    .map(|attribute| (attribute.name.text.clone(), typed(&attribute.value)))
                    .collect::<Value>(),
                "features": train.columns.iter().map(|clause| {
                    let columns = clause.columns.iter();
                    (clause.target.clone(), columns.map(|column| feature(&column_of(&column.expr))).collect::<Value>())
                }).collect::<Value>(),
                "validation_select": match validation.map(|attribute| &attribute.value) {
                    Some(Expr::String(select)) => select.raw(),
                    _ => "",
                },
            })
        }
        Body::Predict(predict) => {
            let (table, column) = predict.table_and_column().expect("check_semantics has seen it");
            json!({ "result_table": table, "result_column": column })
        }
        other => panic!("upstream has no analysis of {}", other.kind()),
    }
}

fn column_of(expr: &Expr) -> FeatureColumn {
    FeatureColumn::from_expr(expr).expect("check_semantics has seen it")
}

fn typed(value: &Expr) -> Value {
    let (kind, value) = match value {
        Expr::List(items) => ("list", items.iter().map(typed).collect()),
        Expr::Call { .. } => ("feature_column", feature(&column_of(value))),
        Expr::String(literal) => ("string", json!(literal.raw())),
        Expr::Ident(name) => match value.as_bool() {
            Some(bool) => ("bool", json!(bool)),
            None => ("string", json!(name)),
        },
        _ => match value.as_integer() {
            Some(integer) => ("int", json!(integer)),
            None => ("float", json!(value.as_float().expect("check_semantics has seen it"))),
        },
    };
    json!({ "type": kind, "value": value })
}

fn feature(column: &FeatureColumn) -> Value {
    let field = |field: &Field| {
        json!({
            "name": field.name, "dtype": field.dtype, "delimiter": field.delimiter,
            "delimiter_kv": field.key_value_delimiter, "shape": field.shape, "sparse": field.sparse,
        })
    };
    match column {
        FeatureColumn::Numeric(numeric) => json!({ "t": "numeric", "field": field(numeric) }),
        FeatureColumn::Bucket { key, boundaries } => {
            json!({ "t": "bucket", "key": feature(key), "boundaries": boundaries })
        }
        FeatureColumn::Category { kind, field: of, bucket_size } => json!({
            "t": match kind {
                CategoryKind::Id => "category_id",
                CategoryKind::Sequence => "seq_category_id",
                CategoryKind::Hash => "category_hash",
            },
            "field": field(of),
            "bucket_size": bucket_size,
        }),
        FeatureColumn::Cross { keys, hash_bucket_size } => json!({
            "t": "cross",
            "hash_bucket_size": hash_bucket_size,
            "keys": keys.iter().map(|key| match key {
                CrossKey::Name(name) => json!(name),
                CrossKey::Column(column) => feature(column),
            }).collect::<Vec<_>>(),
        }),
        FeatureColumn::Embedding { of, dimension, combiner, initializer } => source(
            of,
            json!({
                "t": "embedding", "dimension": dimension, "combiner": combiner, "initializer": initializer,
            }),
        ),
        FeatureColumn::Indicator(of) => source(of, json!({ "t": "indicator" })),
        FeatureColumn::Weighted(of) => json!({ "t": "weighted_category", "category": feature(of) }),
    }
}

fn source(of: &CategorySource, mut column: Value) -> Value {
    column["name"] = "".into();
    match of {
        CategorySource::Name(name) => column["name"] = name.as_str().into(),
        CategorySource::Column(category) => column["category"] = feature(category),
    }
    column
}
