//! The agent dies at each step of publishing. A#3761, flyte PR#5444, SF#1317: the model is the whole old or the whole
//! new version, and a job that succeeded has published.

use std::path::Path;
use std::process::Command;

use sqlflow_proto::v1::Cause;
use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;

/// In the order of an attempt.
const STEPS: [&str; 11] = [
    "staged",
    "ask-commit",
    "granted",
    "tarball-before-rename",
    "tarball-after-rename",
    "gob-before-rename",
    "gob-after-rename",
    "clear",
    "committed",
    "before-outcome",
    "after-outcome",
];

fn train(version: usize) -> String {
    format!(
        "SELECT * FROM iris TO TRAIN xgboost.gbtree
        WITH objective = \"multi:softmax\", num_class = 3, train.num_boost_round = {version} LABEL class INTO m;"
    )
}

/// The version of a file of the model, by the statement in it.
fn version_of(gob: &[u8]) -> usize {
    let text = String::from_utf8_lossy(gob);
    let (_, rest) = text.split_once("num_boost_round = ").expect("the gob holds the statement");
    rest.split_once(' ').unwrap().0.parse().unwrap()
}

/// The version of the tarball, which must be complete.
fn version_of_model(folder: &Path) -> usize {
    let tar = |arguments: &[&str]| {
        let output = Command::new("tar").args(arguments).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    assert!(tar(&["xOzf", "m.tar.gz", "model.ubj"]).len() > 100);
    version_of(&tar(&["xOzf", "m.tar.gz", "sqlflow.gob"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn model_is_complete_wherever_its_agent_dies() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let folder = setup.state_dir.join("models/m");
    for (version, step) in (1..).zip(std::iter::once("").chain(STEPS)) {
        let marker = dir.path().join(format!("died-at-{step}"));
        let failpoint = format!("{step}={}", marker.display());
        let server = setup.clone().env("SQLFLOW_TEST_FAILPOINT", failpoint).start().unwrap();
        let mut client = server.client().await.unwrap();
        let token = client.run(train(version)).await.unwrap();
        let ended = client.follow(&token).await.unwrap();
        assert_eq!(marker.exists(), !step.is_empty(), "{step}: the agent did not die");
        assert_eq!(ended.status.code(), Code::Succeeded, "{step}: {:?}\n{}", ended.status, ended.log());
        assert_eq!(version_of_model(&folder), version, "{step}");
        assert_eq!(version_of(&std::fs::read(folder.join("sqlflow.gob")).unwrap()), version, "{step}");
        let left = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(left, 2, "{step}: staging is left");
        server.stop().unwrap();
    }
}

/// `USING m … INTO m` continues the training of its input. Once it may have replaced the model, a retry would train
/// twice.
#[tokio::test(flavor = "multi_thread")]
async fn training_that_replaces_its_input_is_applied_once() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let folder = setup.state_dir.join("models/m");
    for (step, code, cause) in
        [("staged", Code::Succeeded, Cause::Unspecified), ("committed", Code::Failed, Cause::MayHaveExecuted)]
    {
        let server = setup.start().unwrap();
        let mut client = server.client().await.unwrap();
        let token = client.run(train(1)).await.unwrap();
        client.follow(&token).await.unwrap().expect_success();
        server.stop().unwrap();
        let failpoint = format!("{step}={}", dir.path().join(format!("boosted-{step}")).display());
        let server = setup.clone().env("SQLFLOW_TEST_FAILPOINT", failpoint).start().unwrap();
        let mut client = server.client().await.unwrap();
        let token = client.run(train(1).replace("INTO m", "USING m INTO m")).await.unwrap();
        let ended = client.follow(&token).await.unwrap();
        assert_eq!((ended.status.code(), ended.status.cause()), (code, cause), "{step}: {:?}", ended.status);
        let count = "import sys, tarfile, xgboost
model = tarfile.open(sys.argv[1]).extractfile('model.ubj').read()
print(xgboost.Booster(model_file=bytearray(model)).num_boosted_rounds())";
        let rounds = python::run(count, &[folder.join("m.tar.gz").to_str().unwrap()]).unwrap();
        assert_eq!(rounds.trim(), "2", "{step}");
        server.stop().unwrap();
    }
}

/// When the attempts are used up, the job has not succeeded.
#[tokio::test(flavor = "multi_thread")]
async fn job_fails_and_keeps_the_old_model_if_every_attempt_dies() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(train(1)).await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    server.stop().unwrap();
    let server = setup.clone().env("SQLFLOW_TEST_FAILPOINT", "granted=always").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(train(2)).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.code(), Code::Failed, "{:?}", ended.status);
    assert_eq!(version_of_model(&setup.state_dir.join("models/m")), 1);
}

/// Runs long enough to kill the server meanwhile.
const LONG: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000) SELECT count(*) AS n FROM n;";

/// Without a server, the agent dies before or after it has written its spool.
#[tokio::test(flavor = "multi_thread")]
async fn agent_killed_while_writing_its_spool_delivers_each_row_once() {
    for step in ["before-spool", "after-spool"] {
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join("died");
        let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap())
            .flag("--linger=3s")
            .env("SQLFLOW_TEST_FAILPOINT", format!("{step}={}", marker.display()));
        let server = setup.start().unwrap();
        let mut client = server.client().await.unwrap();
        let token = client.run(LONG).await.unwrap();
        client.until(&token, |it| matches!(it, Payload::Started(_))).await.unwrap();
        server.kill();
        while !marker.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let server = setup.start().unwrap();
        let mut client = server.client().await.unwrap();
        let ended = client.follow(&token).await.unwrap();
        assert_eq!(ended.status.code(), Code::Succeeded, "{step}: {:?}", ended.status);
        assert_eq!(ended.row_count(), 1, "{step}: each row once");
    }
}
