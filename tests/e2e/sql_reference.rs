//! The SQL reference: its examples run, and it is complete.

use serde_json::Value;
use sqlflow_tests::documents;
use sqlflow_tests::python::{self, repository};
use sqlflow_tests::server::Setup;

const PAGE: &str = "docs/sql.md";

#[tokio::test(flavor = "multi_thread")]
async fn examples_run_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
    let server = Setup::new(dir.path(), datasource).start().unwrap();
    let mut client = server.client().await.unwrap();
    let examples = documents::blocks(PAGE, "sql");
    assert!(examples.len() >= 7);
    let token = client.run(examples.concat()).await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
}

#[test]
fn reference_has_all_attributes_objectives_and_metrics() {
    let rules = repository().join("images/submitter/sqlflow_submitter/xgb/rules.json");
    let rules: Value = serde_json::from_str(&std::fs::read_to_string(rules).unwrap()).unwrap();
    let page = documents::page(PAGE);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let texts = |value: &Value| {
        value.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut names = texts(&rules["estimators"]);
    for kind in ["train", "predict", "evaluate", "explain"] {
        names.extend(keys(&rules["attributes"][kind]));
    }
    names.extend(keys(&rules["objectives"]));
    names.extend(keys(&rules["eval_metrics"]));
    names.extend(texts(&rules["metrics"]["classes"]));
    names.extend(texts(&rules["metrics"]["numbers"]));
    let in_code = |name: &str| page.contains(&format!("`{name}`")) || page.contains(&format!("{name} = "));
    let missing: Vec<_> = names.iter().filter(|name| !in_code(name)).collect();
    assert!(missing.is_empty(), "docs/sql.md does not name {missing:?}");
}
