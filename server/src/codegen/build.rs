//! Documents of steps, from a compiled program.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use sqlflow_launcher::PodResources;
use sqlflow_sql::{
    Attribute, Body, ColumnClause, Compiled, Dialect, PodResource, Precheck, PrecheckEffect, Statement, Step,
    StepKind, Train, attribute_json, expr_json,
};

use super::spec::{InputSpec, OutputSpec, RemovalSpec, ReplaySpec, StepSpec};

/// File with the list of all models, in the workspace. It cannot collide with a model: those are below `inputs`.
const LISTING: &str = "models.json";

/// Maximum number of standard statements that a step prechecks, and of bytes of their texts. Others are not checked.
const MAX_CHECKED: usize = 500;
const MAX_CHECKED_BYTES: usize = 1 << 20;

/// The document of each step, in order.
#[must_use]
pub fn step_specs(compiled: &Compiled, user: &str) -> Vec<StepSpec> {
    let statements = &compiled.program.statements;
    let dialect = compiled.program.dialect;
    let mut specs: Vec<_> =
        compiled.steps.iter().map(|step| step_spec(step, statements, dialect, user)).collect();
    // A misspelt model name must not fail the program after hours of training.
    let first = compiled.steps.iter().position(|step| matches!(step.kind, StepKind::Extended(_)));
    if let Some(first) = first {
        specs[first].required = models_needed_after(&specs, first);
    }
    specs
}

/// Models that the steps after `first` use or drop, and that no earlier step makes or removes. Each appears once.
fn models_needed_after(specs: &[StepSpec], first: usize) -> Vec<String> {
    let mut own: HashSet<&str> = HashSet::new();
    let mut needed = Vec::new();
    for (place, spec) in specs.iter().enumerate() {
        let is_dropped = |it: &&OutputSpec| it.removal.as_ref().is_some_and(|removal| !removal.if_exists);
        let dropped = spec.outputs.iter().filter(is_dropped).map(|output| &output.model);
        for model in spec.inputs.iter().map(|input| &input.model).chain(dropped).filter(|_| place > first) {
            if own.insert(model) {
                needed.push(model.clone());
            }
        }
        own.extend(spec.outputs.iter().map(|output| output.model.as_str()));
    }
    needed
}

/// The steps in the job's initial state.
#[must_use]
pub fn job_steps(compiled: &Compiled) -> Vec<sqlflow_job::Step> {
    let steps = compiled.steps.iter().map(|step| sqlflow_job::Step {
        first_statement: small(step.first_statement),
        statement_count: small(step.kind.statements().len()),
        kind: compiled.program.statements[step.first_statement].body.kind().into(),
        model: model(&compiled.program.statements[step.first_statement].body).unwrap_or_default().to_owned(),
        repeatable: step.repeatable,
        overwrites_input: step.overwrites_input,
        writes_table: step
            .kind
            .statements()
            .iter()
            .any(|&it| compiled.program.statements[it].body.result_table().is_some()),
        attempts: Vec::new(),
    });
    steps.collect()
}

/// The model that the statement makes, uses or names.
fn model(body: &Body) -> Option<&str> {
    match body {
        Body::Train(train) => Some(&train.into.text),
        Body::Predict(predict) => Some(&predict.model.text),
        Body::Evaluate(evaluate) => Some(&evaluate.model.text),
        Body::Explain(explain) => Some(&explain.model.text),
        Body::ShowTrain(show) => Some(&show.model.text),
        Body::DescribeModel(describe) => Some(&describe.model.text),
        Body::DropModel(drop) => Some(&drop.model.text),
        Body::Standard(_) | Body::ShowModels | Body::Run(_) | Body::Optimize(_) => None,
    }
}

fn step_spec(step: &Step, statements: &[Statement], dialect: Dialect, user: &str) -> StepSpec {
    let mut spec = StepSpec {
        user: user.to_owned(),
        title: title(step, statements),
        replay: step
            .replay
            .iter()
            .map(|&index| ReplaySpec { index: small(index), sql: statements[index].text.clone() })
            .collect(),
        statements: Vec::new(),
        prechecks: Vec::new(),
        precheck_models: Vec::new(),
        listing: None,
        required: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        pod: PodResources::default(),
        python_data: false,
        visibility: Vec::new(),
    };
    for &index in step.kind.statements() {
        let body = &statements[index].body;
        if body.select().is_some() {
            for (resource, value) in PodResource::of(body.attributes()) {
                let wanted = match resource {
                    PodResource::Cpu => &mut spec.pod.cpu,
                    PodResource::Memory => &mut spec.pod.memory,
                    PodResource::Gpu => &mut spec.pod.gpu,
                    PodResource::Image => &mut spec.pod.image,
                };
                *wanted = Some(value);
            }
        }
        if matches!(body, Body::ShowModels) {
            spec.listing = Some(LISTING.to_owned());
        }
        let mut document = document(index, &statements[index], &mut spec.inputs, &mut spec.outputs);
        add_hint(&mut document, &statements[index], dialect);
        spec.statements.push(Value::Object(document));
    }
    add_prechecks(&mut spec, &step.prechecks, statements, dialect);
    spec
}

/// Adds the statements to precheck. For models that none of them makes, the metadata is fetched before the step starts.
fn add_prechecks(spec: &mut StepSpec, prechecks: &[Precheck], statements: &[Statement], dialect: Dialect) {
    let mut own: HashSet<String> = spec.outputs.iter().map(|output| output.model.clone()).collect();
    let (mut standard, mut bytes) = (0_usize, 0_usize);
    let mut changes_unseen_rows = false;
    for Precheck { statement, syntax_only, effect } in prechecks {
        let statement = *statement;
        let body = &statements[statement].body;
        let mut has_text = false;
        if matches!(body, Body::Standard(_)) {
            let length = statements[statement].text.len();
            has_text = standard < MAX_CHECKED && bytes + length <= MAX_CHECKED_BYTES;
            if has_text {
                standard += 1;
                bytes += length;
            } else if *effect == PrecheckEffect::None
                || (*effect == PrecheckEffect::Rows && changes_unseen_rows)
            {
                // One statement without its text stands for all that follow.
                continue;
            }
            changes_unseen_rows |= !has_text && *effect == PrecheckEffect::Rows;
        }
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        let mut document = document(statement, &statements[statement], &mut inputs, &mut outputs);
        document.retain(|name, _| match name.as_str() {
            "output" | "model_dir" | "pretrained" => false,
            "sql" => has_text,
            _ => true,
        });
        if has_text {
            add_hint(&mut document, &statements[statement], dialect);
        }
        if *syntax_only {
            document.insert("hangs_on_row".to_owned(), json!(true));
        }
        add_effect(&mut document, effect);
        if let Body::Train(Train { using: Some(using), .. }) = body {
            document.insert("using".to_owned(), json!(using.text));
        }
        for input in inputs.into_iter().filter(|it| body.select().is_some() && !own.contains(&it.model)) {
            let folder = if matches!(body, Body::Train(_)) { "pretrained" } else { "model_dir" };
            document.insert(folder.to_owned(), json!(precheck_folder(&input.model)));
            if !spec.precheck_models.contains(&input.model) {
                spec.precheck_models.push(input.model);
            }
        }
        own.extend(outputs.into_iter().map(|output| output.model));
        spec.prechecks.push(Value::Object(document));
    }
}

/// Adds what to write instead of a statement of another database.
fn add_hint(document: &mut Map<String, Value>, statement: &Statement, dialect: Dialect) {
    if matches!(statement.body, Body::Standard(_))
        && let Some(hint) = sqlflow_sql::hint(&statement.text, dialect)
    {
        document.insert("hint".to_owned(), json!(hint));
    }
}

fn add_effect(document: &mut Map<String, Value>, effect: &PrecheckEffect) {
    let (name, objects) = match effect {
        PrecheckEffect::None => return,
        PrecheckEffect::Rows => ("rows", None),
        PrecheckEffect::Session => ("session", None),
        PrecheckEffect::Objects { names, drops } => ("objects", Some((names, drops))),
        PrecheckEffect::Unknown => ("unknown", None),
    };
    document.insert("effect".to_owned(), json!(name));
    if let Some((names, drops)) = objects {
        document.insert("names".to_owned(), json!(names));
        document.insert("drops".to_owned(), json!(drops));
    }
}

/// Folder in the workspace for the metadata of a model that a later statement uses.
pub(super) fn precheck_folder(model: &str) -> String {
    format!("ahead/{model}")
}

/// Kinds and numbers only: programs of older servers have the title in their source code.
fn title(step: &Step, statements: &[Statement]) -> String {
    match step.kind.statements() {
        [index] => format!("{} (statement {})", statements[*index].body.title(), index + 1),
        indices => {
            let (first, count) = (step.first_statement + 1, indices.len());
            format!("standard SQL (statements {first} to {})", first + count - 1)
        }
    }
}

/// A statement as the submitter reads it. Adds its models to the inputs and outputs.
fn document(
    index: usize,
    statement: &Statement,
    inputs: &mut Vec<InputSpec>,
    outputs: &mut Vec<OutputSpec>,
) -> Map<String, Value> {
    let body = &statement.body;
    let mut document = Map::from_iter([
        ("index".to_owned(), json!(index)),
        ("kind".to_owned(), json!(body.kind())),
        ("sql".to_owned(), json!(statement.text)),
    ]);
    let mut put = |name: &str, value: Value| document.insert(name.to_owned(), value);
    if let Some(select) = body.select() {
        put("select", json!(select));
        put("attributes", attributes(body.attributes()));
    }
    match body {
        Body::Standard(standard) => {
            put("repeatable", json!(standard.repeatable));
        }
        Body::Train(train) => {
            let output = format!("outputs/{}", train.into.text);
            let pretrained = train.using.as_ref().map(|model| add_input(inputs, &model.text));
            put("repeatable", json!(true));
            put("estimator", json!(train.estimator.text));
            put("columns", columns(&train.columns));
            put("label", json!(train.label.as_ref().map(|label| &label.text)));
            put("model", json!(train.into.text));
            put("output", json!(output));
            put("pretrained", json!(pretrained));
            outputs.push(OutputSpec {
                owner: None,
                model: train.into.text.clone(),
                directory: output,
                train_select: statement.text.trim().to_owned(),
                removal: None,
                statement: Some(small(index)),
            });
        }
        Body::Predict(predict) => {
            let (table, column) = predict.table_and_column().unwrap_or_default();
            put("result_table", json!(table));
            put("result_column", json!(column));
            put("model", json!(predict.model.text));
            put("model_dir", json!(add_input(inputs, &predict.model.text)));
        }
        Body::Evaluate(evaluate) => {
            put("label", json!(evaluate.label.text));
            put("result_table", json!(evaluate.into.as_ref().map(|table| &table.text)));
            put("model", json!(evaluate.model.text));
            put("model_dir", json!(add_input(inputs, &evaluate.model.text)));
        }
        Body::Explain(explain) => {
            put("explainer", json!(explain.using.as_ref().map(|explainer| &explainer.text)));
            put("result_table", json!(explain.into.as_ref().map(|table| &table.text)));
            put("model", json!(explain.model.text));
            put("model_dir", json!(add_input(inputs, &explain.model.text)));
        }
        Body::ShowTrain(show) => {
            put("model", json!(show.model.text));
            put("model_dir", json!(add_input(inputs, &show.model.text)));
        }
        Body::ShowModels => {
            put("listing", json!(LISTING));
        }
        Body::DescribeModel(describe) => {
            put("model", json!(describe.model.text));
            put("model_dir", json!(add_input(inputs, &describe.model.text)));
        }
        Body::DropModel(drop) => {
            put("model", json!(drop.model.text));
            outputs.push(OutputSpec {
                owner: None,
                model: drop.model.text.clone(),
                // The folder does not exist: an agent without support for removals fails, and publishes nothing.
                directory: format!("outputs/{}", drop.model.text),
                train_select: String::new(),
                removal: Some(RemovalSpec { if_exists: drop.if_exists }),
                statement: Some(small(index)),
            });
        }
        // Refused by the compiler.
        Body::Run(_) | Body::Optimize(_) => {}
    }
    document
}

/// Adds a model to fetch. Returns its folder in the workspace.
fn add_input(inputs: &mut Vec<InputSpec>, model: &str) -> String {
    let directory = format!("inputs/{model}");
    inputs.push(InputSpec { model: model.to_owned(), directory: directory.clone() });
    directory
}

/// Attributes for the submitter.
fn attributes(attributes: &[Attribute]) -> Value {
    let its = attributes.iter().filter(|it| !it.name.text.starts_with(PodResource::PREFIX));
    its.map(|it| (it.name.text.clone(), attribute_json(&it.value))).collect()
}

fn columns(clauses: &[ColumnClause]) -> Value {
    let clause = |clause: &ColumnClause| {
        let columns: Vec<_> = clause.columns.iter().map(|column| expr_json(&column.expr)).collect();
        (clause.target.clone(), Value::Array(columns))
    };
    clauses.iter().map(clause).collect()
}

/// Programs have far fewer statements than that.
fn small(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use sqlflow_sql::compile;

    use super::*;

    #[test]
    fn first_extended_step_requires_models_made_outside_of_the_program() {
        let required = |sql: &str| -> Vec<Vec<String>> {
            let compiled = compile(sql, Dialect::Mysql).expect("a good program");
            step_specs(&compiled, "").into_iter().map(|spec| spec.required).collect()
        };
        let train = "SELECT * FROM t TO TRAIN xgboost.gbtree LABEL y INTO m;";
        let use_of = |model: &str| format!("SELECT * FROM t TO PREDICT p.y USING {model};");
        let program = format!("SELECT 1; {train} {} {} SELECT 2; {}", use_of("m"), use_of("n"), use_of("n"));
        assert_eq!(required(&program), [vec![], vec!["n".to_owned()], vec![], vec![], vec![], vec![]]);
        // The models that the first one uses are its inputs.
        assert_eq!(required(&[use_of("n"), train.to_owned()].concat()), [Vec::<String>::new(), vec![]]);
        assert_eq!(required("SELECT 1; SHOW TABLES;"), [Vec::<String>::new()]);
        let drop = format!("{train} DROP MODEL m; DROP MODEL n; DROP MODEL IF EXISTS o;");
        assert_eq!(required(&drop)[0], ["n"]);
    }

    #[test]
    fn statement_of_another_database_has_a_hint_in_its_document() {
        let compiled = compile("SELECT 1; SHOW TABLES;", Dialect::Sqlite).expect("a good program");
        let statements = &step_specs(&compiled, "")[0].statements;
        assert_eq!(statements[0].get("hint"), None);
        assert!(statements[1]["hint"].as_str().is_some_and(|hint| hint.contains("sqlite_master")));
        let later = "SELECT * FROM t TO TRAIN xgboost.gbtree LABEL y INTO m; SHOW TABLES;";
        let compiled = compile(later, Dialect::Sqlite).expect("a good program");
        let precheck = &step_specs(&compiled, "")[0].prechecks[0];
        assert!(precheck["hint"].as_str().is_some_and(|hint| hint.contains("sqlite_master")));
    }

    #[test]
    fn model_metadata_goes_to_the_step_that_checks_its_use() {
        let train = |using: &str, into: &str| {
            format!("SELECT * FROM t TO TRAIN xgboost.gbtree LABEL y {using} INTO {into};")
        };
        let predict = |model: &str| format!("SELECT * FROM t TO PREDICT p.y USING {model};");
        let program = [
            train("", "m"),
            predict("m"),
            "SELECT 1;".to_owned(),
            predict("old"),
            train("USING old", "old"),
            predict("old"),
            "SHOW TRAIN other;".to_owned(),
            "CALL p();".to_owned(),
            predict("m"),
            train("USING old", "n"),
            predict("n"),
        ]
        .concat();
        let specs = step_specs(&compile(&program, Dialect::Mysql).expect("a good program"), "");
        let first = &specs[0];
        assert_eq!(
            (&first.precheck_models[..], &first.required[..]),
            (&["old".to_owned()][..], &["old".to_owned(), "other".to_owned()][..])
        );
        let folders = |spec: &StepSpec| -> Vec<Value> {
            spec.prechecks
                .iter()
                .map(|it| it.get("model_dir").or(it.get("pretrained")).cloned().unwrap_or_default())
                .collect()
        };
        let old = json!("ahead/old");
        assert_eq!(
            folders(first),
            [Value::Null, Value::Null, old.clone(), old.clone(), Value::Null, Value::Null, Value::Null]
        );
        assert_eq!((&first.prechecks[1]["sql"], first.prechecks[0].get("sql")), (&json!("SELECT 1;"), None));
        assert_eq!(first.prechecks[3]["using"], "old");
        // The next row begins with models that exist by then.
        let second = &specs[8];
        assert_eq!(
            (folders(second), &second.precheck_models[..]),
            (vec![old, Value::Null], &["old".to_owned()][..])
        );
    }

    #[test]
    fn effects_go_to_the_step_that_checks_and_texts_are_bounded() {
        let train = "SELECT * FROM t TO TRAIN xgboost.gbtree LABEL y INTO m;";
        let prechecks = |between: &str| -> Vec<Value> {
            let compiled = compile(&format!("{train}{between}"), Dialect::Mysql).expect("a good program");
            step_specs(&compiled, "").remove(0).prechecks
        };
        let found = prechecks("DELETE FROM t;USE d;DROP TABLE x;SELECT 1;ALTER TABLE z ADD a INT;SELECT 2;");
        let effects: Vec<_> = found.iter().map(|it| it.get("effect").cloned().unwrap_or_default()).collect();
        let unknown = json!("unknown");
        assert_eq!(
            effects,
            [json!("rows"), json!("session"), json!("objects"), Value::Null, unknown, Value::Null]
        );
        assert_eq!(found[5]["sql"], "SELECT 2;");
        assert_eq!((found[4].get("hangs_on_row"), &found[5]["hangs_on_row"]), (None, &json!(true)));
        assert_eq!(found[0]["sql"], "DELETE FROM t;");
        assert_eq!((&found[2]["names"], &found[2]["drops"]), (&json!(["x"]), &json!(true)));
        let many = prechecks(&"DELETE FROM t;SELECT 1;".repeat(MAX_CHECKED));
        assert_eq!(many.iter().filter(|it| it.get("sql").is_some()).count(), MAX_CHECKED);
        assert_eq!((many.len(), many[MAX_CHECKED].get("effect")), (MAX_CHECKED + 1, Some(&json!("rows"))));
        let long =
            prechecks(&format!("INSERT INTO t VALUES ('{}');SELECT 1;", "x".repeat(MAX_CHECKED_BYTES)));
        assert_eq!((long[0].get("sql"), &long[1]["sql"]), (None, &json!("SELECT 1;")));
    }
}
