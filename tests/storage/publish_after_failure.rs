//! Kept output: a model that could not be published is published by a later attempt, without another training.

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;
use sqlflow_tests::services::Hdfs;

use crate::locations::Place;

const TRAIN: &str =
    "SELECT * FROM iris TO TRAIN xgboost.gbtree WITH objective = \"multi:softmax\", num_class = 3,
  train.num_boost_round = 2 LABEL class INTO m;";

/// OSMO#764, A#11241: the storage rejects writes for longer than an agent retries, and the server dies too.
#[tokio::test(flavor = "multi_thread")]
async fn unpublished_model_is_published_by_a_later_attempt() {
    let (place, hdfs) = (Place::Hdfs("kept"), Hdfs::shared());
    let admin = |arguments: &[&str]| {
        let (code, text) = hdfs.command(arguments);
        assert_eq!(code, Some(0), "{text}");
    };
    admin(&["dfs", "-mkdir", "-p", "/native/kept"]);
    admin(&["dfsadmin", "-setSpaceQuota", "1", "/native/kept"]);
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap())
        .flag("--models")
        .flag(place.root())
        .envs(place.environment())
        .env("SQLFLOW_AGENT_PUBLISH_RETRY", "0");
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(TRAIN).await.unwrap();
    let says = |words: &'static str| move |it: &Payload| matches!(it, Payload::Message(message) if message.message.contains(words));
    client.until(&token, says("what attempt 1 made will be published by attempt 3")).await.unwrap();
    server.kill();

    admin(&["dfsadmin", "-clrSpaceQuota", "/native/kept"]);
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    ended.expect_success();
    let said = ended.log();
    assert_eq!(said.matches("train-").count(), 2, "it was trained again: {said}");
    assert!(place.read_text("m/sqlflow.gob").contains("INTO m"));
    let left: Vec<_> = std::fs::read_dir(dir.path().join("state/run"))
        .unwrap()
        .flatten()
        .filter(|it| it.file_name() != "places")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
