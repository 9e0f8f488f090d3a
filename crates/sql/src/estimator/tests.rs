//! Tests of the checks that need no data.

use super::rules::Rules;
use crate::{Dialect, compile};

const GOOD: &str =
    "SELECT a, y FROM t TO TRAIN xgboost.gbtree WITH objective=\"reg:squarederror\" LABEL y INTO m;";

fn refusals(sql: &str) -> Vec<String> {
    let error = compile(sql, Dialect::Mysql).expect_err(sql).to_string();
    error.lines().map(str::to_owned).collect()
}

/// The only error of a TRAIN statement with these attributes, without its position.
fn refusal(with: &str) -> String {
    let found = refusals(&format!("SELECT a, y FROM t TO TRAIN xgboost.gbtree WITH {with} LABEL y INTO m;"));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].split_once(": ").expect("it has a place").1.to_owned()
}

#[test]
fn valid_program_is_accepted() {
    for sql in [
        GOOD.to_owned(),
        GOOD.replace("xgboost.gbtree", "XGBoost.Dart"),
        GOOD.replace("xgboost.gbtree", "XGBOOSTCLASSIFIER"),
        GOOD.replace("TO TRAIN xgboost.gbtree", "TRAIN xgboost"),
        GOOD.replace("WITH", "WITH eta=\"0.1\", max_depth=3, eval_metric=\"rmse, mae\", pod.memory=\"1Gi\","),
        GOOD.replace("WITH", "WITH validation.select=\"SELECT * FROM v\", train.early_stopping_rounds=2,"),
        GOOD.replace("reg:squarederror", "multi:softprob\", num_class=3, eval_metric=\"merror"),
        GOOD.replace("reg:squarederror", "reg:quantileerror\", quantile_alpha=0.5, eval_metric=\"quantile"),
        GOOD.replace("reg:squarederror", "binary:logistic\", eval_metric=\"error@0.7"),
        GOOD.replace("reg:squarederror", "reg:squarederror\", eval_metric=\"error@1.5"),
        GOOD.replace("reg:squarederror", "binary:logitraw\", eval_metric=\"error@-2"),
        GOOD.replace("reg:squarederror", "binary:logistic\", eval_metric=\"error@1"),
        GOOD.replace("WITH", "WITH monotone_constraints=[1, -1], interaction_constraints=[[0, 1], [2]],"),
        GOOD.replace(
            "WITH",
            "WITH monotone_constraints=\"(1, -1)\", interaction_constraints=\"[[0, 1], [2]]\",",
        ),
        GOOD.replace("WITH", "WITH monotone_constraints=\"(1,)\", interaction_constraints=[],"),
        GOOD.replace("WITH", "WITH updater=\"grow_colmaker, prune\", base_score=2,"),
        GOOD.replace("reg:squarederror", "binary:logistic\", base_score=\"0.5"),
        GOOD.replace("LABEL", "COLUMN a, BUCKET(a, [1, 2]), \"x.*\" LABEL"),
        GOOD.replace(
            "LABEL y",
            "COLUMN `sepal length (cm)`, \"petal width (cm)\", BUCKET(`a b`, [1]) LABEL `the y`",
        ),
        GOOD.replace("LABEL", "COLUMN * EXCEPT (id, `a b`, y), BUCKET(a, [1]) LABEL"),
        GOOD.replace("LABEL", "COLUMN * EXCEPT id LABEL"),
        format!(
            "{GOOD} SELECT * FROM t TO EVALUATE m WITH validation.metrics=\"r2_score, RMSE\" LABEL y INTO e;"
        ),
        format!("{GOOD} SELECT * FROM t TO PREDICT p.y WITH result.replace=true USING m;"),
        "SELECT * FROM t TO EXPLAIN m WITH summary.plot_type=bar;".to_owned(),
    ] {
        compile(&sql, Dialect::Mysql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

#[test]
fn invalid_attribute_is_rejected() {
    for (with, message) in [
        ("max_dept=3", "attribute max_dept does not exist; did you mean max_depth?"),
        ("num_boost_round=3", "did you mean train.num_boost_round?"),
        ("num_round=3", "attribute num_round does not exist; did you mean train.num_boost_round? (known: "),
        ("n_estimators=3", "did you mean train.num_boost_round?"),
        ("epochs=3", "did you mean train.epoch?"),
        ("objective=\"multi:softmx\"", "objective multi:softmx does not exist; did you mean multi:softmax?"),
        ("objective=\"reg:linear\"", "objective reg:linear does not exist"),
        ("objective=\"rank:ndcg\"", "objective rank:ndcg is not supported yet: it needs groups of rows"),
        ("objective=3", "attribute objective is 3; it must be a string"),
        ("objective=\"reg:quantileerror\"", "objective reg:quantileerror needs the attribute quantile_alpha"),
        ("objective=\"binary:logistic\", num_class=3", "attribute num_class applies to multi:softmax and"),
        ("eval_metric=\"mlogloss2\"", "did you mean mlogloss?"),
        (
            "objective=\"reg:squarederror\", eval_metric=merror",
            "eval_metric merror does not fit the objective",
        ),
        ("objective=\"multi:softmax\", eval_metric=rmse", "use auc, aucpr, merror, mlogloss"),
        ("eval_metric=quantile", "eval_metric quantile applies to objective reg:quantileerror only"),
        ("eval_metric=\"tweedie-nloglik\"", "needs an argument, as in tweedie-nloglik@1.5"),
        ("eval_metric=\"rmse@2\"", "eval_metric rmse has no argument"),
        ("eta=1.5", "attribute eta is 1.5; it must be a number, at least 0 and at most 1"),
        ("eta=fast", "attribute eta is 'fast'; it must be a number"),
        ("subsample=0", "above 0 and at most 1"),
        ("max_depth=2.5", "it must be a whole number"),
        ("max_depth=true", "it must be a whole number"),
        ("seed_per_iteration=2", "it must be true or false"),
        ("tree_method=gpu_hist", "value of attribute tree_method: gpu_hist does not exist"),
        ("updater=shotgn", "value of attribute updater: shotgn does not exist; did you mean shotgun?"),
        ("updater=\"grow_colmaker,prun\"", "did you mean prune?"),
        (
            "monotone_constraints=\"(7, up)\"",
            "attribute monotone_constraints is '(7, up)'; it must be a list of -1, 0",
        ),
        ("monotone_constraints=[1, 2]", "it must be a list of -1, 0 and 1, as in [1, 0, -1]"),
        ("interaction_constraints=[0, 1]", "it must be a list of lists of feature numbers from 0"),
        ("interaction_constraints=[[0, -1]]", "it must be a list of lists of feature numbers from 0"),
        (
            "objective=\"binary:logistic\", base_score=2",
            "attribute base_score is 2; it must be a number, at least 0 and at most 1 for binary:logistic",
        ),
        ("objective=\"reg:gamma\", base_score=\"0\"", "it must be a number, above 0 for reg:gamma"),
        (
            "eval_metric=\"error@1.5\"",
            "the threshold is 1.5, and predictions are probabilities; write a number from 0",
        ),
        (
            "objective=\"binary:logistic\", eval_metric=\"logloss,error@-1\"",
            "eval_metric error@-1: the threshold is -1",
        ),
        ("eval_metric=\"error@x\"", "eval_metric error@x: x is not a number"),
        ("eta=0.1, learning_rate=0.3", "attributes eta and learning_rate are the same: give one of them"),
        ("num_class=3, eval_metric=rmse", "eval_metric rmse does not fit the objective"),
        ("train.num_workers=2", "not supported yet"),
        ("train.early_stopping_rounds=2", "needs validation.select"),
        ("validation.select=\"DELETE FROM t\"", "must be a SELECT that only reads"),
        ("validation.select=\"SELECT * FROM v; SELECT 1\"", "must be one statement"),
        (
            "validation.select=\"SELECT * FROM v WHERE a = 'x\"",
            "validation.select cannot be read: line 1, column",
        ),
        ("validation.metrics=accurcy", "metric accurcy does not exist; did you mean accuracy?"),
    ] {
        let found = refusal(with);
        assert!(found.contains(message), "{with}: {found}");
    }
}

#[test]
fn num_class_rejects_metrics_of_regression() {
    let program = GOOD.replace("objective=\"reg:squarederror\"", "num_class=3")
        + "SELECT * FROM t TO EVALUATE m WITH validation.metrics=rmse LABEL y;";
    let found = refusals(&program);
    assert!(
        found[0].contains("metric rmse does not apply to this model, which predicts a class"),
        "{found:?}"
    );
}

#[test]
fn invalid_estimator_or_column_is_rejected() {
    for (from, to, message) in [
        (
            "xgboost.gbtree",
            "DNNClassifier",
            "estimator DNNClassifier is not supported yet; supported: xgboost.gbtree",
        ),
        ("xgboost.gbtree", "xgboost.gbtre", "did you mean xgboost.gbtree?"),
        ("xgboost.gbtree", "hub/models/Net", "estimator hub/models/Net names an image"),
        ("LABEL y ", "", "xgboost.gbtree needs a label"),
        ("LABEL", "COLUMN a, b, a LABEL", "column a is named twice in COLUMN"),
        ("LABEL", "COLUMN a, `a` LABEL", "column a is named twice in COLUMN"),
        ("LABEL", "COLUMN a, A LABEL", "column A is named twice in COLUMN"),
        ("LABEL", "COLUMN \"y\" LABEL", "column y is the label"),
        ("LABEL", "COLUMN *, * EXCEPT (a) LABEL", "COLUMN has * twice"),
        ("LABEL", "COLUMN * EXCEPT () LABEL", "found \")\", expected a column"),
        ("LABEL", "COLUMN *, * LABEL", "COLUMN has * twice"),
        ("LABEL", "COLUMN BUCKET(y, [1]) LABEL", "column y is the label: the model would be told the answer"),
        ("LABEL", "COLUMN CROSS([a, y], 9) LABEL", "column y is the label"),
        (
            "LABEL",
            "COLUMN EMBEDDING(CATEGORY_ID(a, 9), 2) LABEL",
            "EMBEDDING is of no use to XGBoost: use INDICATOR",
        ),
        ("LABEL", "COLUMN a FOR deep LABEL", "COLUMN … FOR deep: XGBoost has one set of columns"),
    ] {
        let found = refusals(&GOOD.replacen(from, to, 1));
        assert!(found.iter().any(|it| it.contains(message)), "{to}: {found:?}");
    }
}

#[test]
fn all_errors_of_all_statements_are_reported_with_positions() {
    let program = "SELECT * FROM t TO TRAIN xgboost.gbtree\nWITH objective=\"multi:softmax\", max_dept=3, eta=2\n\
                   LABEL y INTO m;\n\
                   SELECT * FROM t TO EVALUATE m\nWITH validation.metrics=\"rmse\" LABEL y INTO e;\n\
                   SELECT * FROM t TO EXPLAIN m WITH summary.plot_typ=bar;\n\
                   SELECT * FROM t TO EVALUATE n WITH validation.metrics=\"acuracy\" LABEL y INTO f;";
    let found = refusals(program);
    let begin = [
        "line 2, column 33: attribute max_dept does not exist; did you mean max_depth?",
        "line 2, column 49: attribute eta is 2; it must be a number, at least 0 and at most 1",
        "line 5, column 25: metric rmse does not apply to this model, which predicts a class; use accuracy",
        "line 6, column 35: attribute summary.plot_typ does not exist; did you mean summary.plot_type?",
        "line 7, column 55: metric acuracy does not exist; did you mean accuracy?",
    ];
    assert_eq!(found.len(), begin.len(), "{found:#?}");
    for (found, begin) in found.iter().zip(begin) {
        assert!(found.starts_with(begin), "{found}");
    }
}

#[test]
fn use_of_a_dropped_model_is_rejected() {
    for used in [
        "SELECT * FROM t TO PREDICT p.y USING m;",
        "SELECT * FROM t TO EVALUATE m LABEL y;",
        "SELECT * FROM t TO EXPLAIN m;",
        "SELECT * FROM t TO TRAIN xgboost.gbtree LABEL y USING m INTO n;",
        "SHOW TRAIN m;",
        "DESCRIBE MODEL m;",
        "DROP MODEL m;",
    ] {
        let found = refusals(&format!("SELECT 1;\nDROP MODEL IF EXISTS m;\n{used}"));
        assert!(found.len() == 1 && found[0].starts_with("line 3, column "), "{used}: {found:?}");
        assert!(found[0].ends_with("model m does not exist here: it is dropped on line 2"), "{found:?}");
        let trained = "SELECT * FROM t TO TRAIN xgboost.gbtree LABEL y INTO m;";
        let again = compile(&format!("DROP MODEL IF EXISTS m; {trained} {used}"), Dialect::Mysql);
        assert!(again.is_ok(), "{used}: {again:?}");
    }
    compile("DROP MODEL m; DROP MODEL IF EXISTS m;", Dialect::Mysql).unwrap();
}

#[test]
fn probabilities_of_a_regression_model_are_rejected() {
    let train = |objective: &str| {
        format!("SELECT * FROM t TO TRAIN xgboost.gbtree WITH objective=\"{objective}\" LABEL y INTO m;\n")
    };
    let predict =
        |value: &str| format!("SELECT * FROM t TO PREDICT p.y WITH predict.probabilities = {value} USING m;");
    let found = refusals(&(train("reg:squarederror") + &predict("true")));
    assert!(found[0].contains("predict.probabilities: model m predicts a number and has none"), "{found:?}");
    for good in [train("binary:logistic") + &predict("true"), train("reg:gamma") + &predict("false")] {
        compile(&good, Dialect::Mysql).unwrap();
    }
}

#[test]
fn a_list_in_a_message_has_whole_names_only() {
    let rules = Rules::get().unwrap();
    let known: Vec<&str> = rules.attributes.train.keys().map(String::as_str).collect();
    for name in ["colour", "num_round", &"x".repeat(1000)] {
        let message = refusal(&format!("{name}=3"));
        let listed = message.split_once("(known: ").unwrap().1.strip_suffix(" more)").unwrap();
        let (names, count) = listed.rsplit_once(" and ").unwrap();
        let names: Vec<&str> = names.split(", ").collect();
        assert!(names.iter().all(|it| known.contains(it)), "{message}");
        assert_eq!(names.len() + count.parse::<usize>().unwrap(), known.len(), "{message}");
    }
}

/// The step is repeatable: a statement that writes would run twice. Some are a syntax error in another dialect, and are
/// refused there too.
#[test]
fn validation_select_obeys_the_rule_of_the_main_select() {
    for dialect in [Dialect::Mysql, Dialect::Postgresql, Dialect::Sqlite] {
        for writing in [
            "INSERT INTO t VALUES (1) RETURNING *",
            "REPLACE INTO t VALUES (1) RETURNING *",
            "UPDATE t SET a = 1 RETURNING *",
            "DELETE FROM t RETURNING *",
            "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
            "WITH d AS (SELECT 1) INSERT INTO t SELECT * FROM d RETURNING *",
            "/* a */ INSERT INTO t VALUES (1) RETURNING *",
            "EXPLAIN ANALYZE DELETE FROM t",
            "SELECT * INTO u FROM t",
            "SELECT * FROM t FOR UPDATE",
            "SELECT nextval('s')",
            "CALL p()",
            "SET x = 1",
            "CREATE TABLE u AS SELECT 1",
            "SELECT 1; DELETE FROM t",
        ] {
            let held_out = GOOD.replace("WITH", &format!("WITH validation.select=\"{writing}\","));
            let main = GOOD.replace("SELECT a, y FROM t", writing);
            for sql in [held_out, main] {
                let compiled = compile(&sql, dialect);
                // As the main SELECT of TRAIN, a standard statement may come before.
                let is_safe = compiled.as_ref().is_err()
                    || compiled.as_ref().is_ok_and(|it| it.steps.iter().any(|step| !step.repeatable));
                assert!(is_safe, "{dialect:?}: {sql}");
            }
        }
        let reading =
            GOOD.replace("WITH", "WITH validation.select=\"WITH d AS (SELECT 1 AS a) SELECT * FROM d\",");
        compile(&reading, dialect).unwrap();
    }
}
