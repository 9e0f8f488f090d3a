//! Jobs with models in a remote storage.

use std::process::Command;

use sqlflow_tests::gob::decode_with_go;
use sqlflow_tests::services::{Hdfs, S3};
use sqlflow_tests::{python, server::Setup};

use crate::locations::Place;
use crate::models_cli;

const TRAIN: &str = r#"SELECT * FROM iris TO TRAIN xgboost.gbtree
  WITH objective = "multi:softmax", num_class = 3, train.num_boost_round = 2
  LABEL class INTO flowers.m;"#;
const PREDICT: &str = "SELECT * FROM iris TO PREDICT iris_predicted.class USING flowers.m;
SELECT class, count(*) FROM iris_predicted GROUP BY class;";

async fn train_and_predict(models: &str, environment: &[(&'static str, String)]) {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap())
        .flag("--models")
        .flag(models)
        .envs(environment.iter().cloned());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    for program in [TRAIN, PREDICT] {
        let token = client.run(program).await.unwrap();
        client.follow(&token).await.unwrap().expect_success();
    }
}

/// The example of the design document: the model's two files are in HDFS, and other tools can read them.
#[tokio::test(flavor = "multi_thread")]
async fn model_in_hdfs_is_trained_and_used() {
    let hdfs = Hdfs::shared();
    let models = format!("hdfs://127.0.0.1:{}/sqlflow/models", hdfs.port);
    train_and_predict(&models, &[("HADOOP_USER_NAME", "root".to_owned())]).await;

    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().to_str().unwrap();
    let (code, text) = hdfs.command(&["dfs", "-get", "/sqlflow/models/flowers.m/*", to]);
    assert_eq!(code, Some(0), "{text}");
    let said = decode_with_go(&dir.path().join("sqlflow.gob"));
    assert_eq!(said.trim_end_matches(';'), TRAIN.trim_end_matches(';'));
    let listed = Command::new("tar").arg("tzf").arg(dir.path().join("flowers.m.tar.gz")).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().contains("model.ubj"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no staging is left");

    let shown =
        models_cli::models(&models, &[("HADOOP_USER_NAME", "root".to_owned())], &["show", "flowers.m"]);
    for words in ["estimator xgboost.gbtree", "train-", "LABEL class INTO flowers.m", "model.ubj ("] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

/// User code has no credentials of the storage.
#[tokio::test(flavor = "multi_thread")]
async fn model_in_s3_is_trained_and_used() {
    let s3 = S3::shared();
    let bucket = s3.bucket("jobs");
    train_and_predict(&format!("s3://{bucket}/models"), &s3.environment()).await;
    let listed = s3.boto("for it in s3.list_objects_v2(Bucket='jobs')['Contents']: print(it['Key'])");
    assert_eq!(
        listed.lines().collect::<Vec<_>>(),
        ["models/flowers.m/flowers.m.tar.gz", "models/flowers.m/sqlflow.gob"]
    );
}

/// A#3761, flyte PR#5444: a job that succeeded has published a complete model, wherever its first agent died.
#[tokio::test(flavor = "multi_thread")]
async fn job_publishes_complete_model_wherever_its_agent_dies() {
    for place in [Place::Hdfs("dying"), Place::S3("dying")] {
        place.make();
        let dir = tempfile::tempdir().unwrap();
        let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
        let setup = Setup::new(dir.path(), datasource).flag("--models").flag(place.root());
        let setup = setup.envs(place.environment());
        for (rounds, step) in
            (2..).zip(["granted", "tarball-after-rename", "gob-before-rename", "gob-after-rename"])
        {
            let marker = dir.path().join(step);
            let failpoint = format!("{step}={}", marker.display());
            let server = setup.clone().env("SQLFLOW_TEST_FAILPOINT", failpoint).start().unwrap();
            let mut client = server.client().await.unwrap();
            let program = format!(
                "SELECT * FROM iris TO TRAIN xgboost.gbtree WITH train.num_boost_round = {rounds} LABEL class INTO m;"
            );
            let token = client.run(program).await.unwrap();
            client.follow(&token).await.unwrap().expect_success();
            assert!(marker.exists(), "{place:?}: the agent did not die at {step}");
            let shown = models_cli::models(&place.root(), &place.environment(), &["show", "m"]);
            assert!(shown.contains(&format!("num_boost_round = {rounds} ")), "{place:?} at {step}: {shown}");
            let gob = place.read_text("m/sqlflow.gob");
            assert!(gob.contains(&format!("num_boost_round = {rounds} ")), "{place:?} at {step}: {gob}");
            server.stop().unwrap();
        }
    }
}
