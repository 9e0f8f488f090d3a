//! A program with every kind of statement, and its model files.

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::{python, server::Setup};

const PROGRAM: &str = r#"
SELECT * FROM iris LIMIT 3;
SELECT * FROM iris TO TRAIN xgboost.gbtree
  WITH objective = "multi:softmax", num_class = 3, train.num_boost_round = 10
  LABEL class INTO flowers.iris_model;
SELECT * FROM iris TO EVALUATE flowers.iris_model WITH validation.metrics = "accuracy_score" LABEL class INTO iris_score;
SELECT * FROM iris TO PREDICT iris_predicted.class USING flowers.iris_model;
SELECT count(*) FROM iris_predicted;
SELECT count(*) FROM iris JOIN iris_predicted ON iris.rowid = iris_predicted.rowid WHERE iris.class = iris_predicted.class;
SELECT * FROM iris TO EXPLAIN flowers.iris_model WITH summary.plot_type = bar INTO iris_explained;
SHOW TRAIN flowers.iris_model;
"#;

#[tokio::test(flavor = "multi_thread")]
async fn program_trains_evaluates_predicts_and_explains() {
    let dir = tempfile::tempdir().unwrap();
    let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
    let setup = Setup::new(dir.path(), datasource);
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();

    let token = client.run(PROGRAM).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    ended.expect_success();

    // 3 irises, the metrics, the number of predictions, of correct ones, and the model's description.
    let rows = ended.rows();
    let of = |name: &str| rows.iter().find(|row| row[0] == name).map(|row| row[1].parse::<f64>().unwrap());
    let accuracy = of("accuracy_score").expect("EVALUATE shows its metric");
    assert!(accuracy > 0.95, "{accuracy}");
    let counts: Vec<u32> =
        rows.iter().filter(|row| row.len() == 1).map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(counts[0], 150, "each iris has a prediction");
    assert!((f64::from(counts[1]) / 150.0 - accuracy).abs() < 1e-6, "{counts:?} and {accuracy}");
    assert!(ended.payloads().any(|it| matches!(it, Payload::Metrics(_))));
    assert!(ended.payloads().any(|it| matches!(it, Payload::Display(it) if it.media_type == "image/png")));
    let models: Vec<_> = ended
        .payloads()
        .filter_map(|it| if let Payload::Model(model) = it { Some(model) } else { None })
        .collect();
    assert_eq!(models.len(), 1);
    let positions: Vec<u64> = ended.results.iter().map(|it| it.position).collect();
    assert_eq!(positions, (1..=positions.len() as u64).collect::<Vec<_>>(), "each record once, in order");

    let folder = setup.state_dir.join("models").join("flowers.iris_model");
    assert!(folder.join("sqlflow.gob").is_file(), "{}", folder.display());
    assert_eq!(
        std::fs::metadata(folder.join("flowers.iris_model.tar.gz")).unwrap().len(),
        models[0].size_bytes
    );
}
