//! The agent dies at each step on the way to a published model. A#3761, flyte PR#5444, SF#1317: the model's name holds all
//! of the old version or all of the new one, and a job that says that it succeeded has published.

use std::path::Path;
use std::process::Command;

use sqlflow_proto::v1::Cause;
use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;

/// In the order in which an attempt comes by.
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

/// Which version a file of the model belongs to, by the statement in it.
fn version_of(gob: &[u8]) -> usize {
    let text = String::from_utf8_lossy(gob);
    let (_, rest) = text.split_once("num_boost_round = ").expect("the gob holds the statement");
    rest.split_once(' ').unwrap().0.parse().unwrap()
}

/// The version of the tarball, which has to be whole.
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
async fn a_model_is_whole_wherever_its_agent_dies() {
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
        assert_eq!(marker.exists(), !step.is_empty(), "{step}: nobody died there");
        assert_eq!(ended.status.code(), Code::Succeeded, "{step}: {:?}\n{}", ended.status, ended.log());
        assert_eq!(version_of_model(&folder), version, "{step}");
        assert_eq!(version_of(&std::fs::read(folder.join("sqlflow.gob")).unwrap()), version, "{step}");
        let left = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(left, 2, "{step}: staging is left");
        server.stop().unwrap();
    }
}

/// `USING m … INTO m` boosts what it reads: once it may have replaced the model, another run would boost twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_training_that_replaces_the_model_it_starts_from_counts_once() {
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

/// And when nothing may be tried again, it is not called a success.
#[tokio::test(flavor = "multi_thread")]
async fn dying_at_every_try_is_no_success_and_leaves_the_old_model() {
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

/// Takes long enough for its server to be killed meanwhile.
const LONG: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000) SELECT count(*) AS n FROM n;";

/// The agent finds no server and dies as it leaves behind what no server took: before it is on disk, or after.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_leaves_behind_counts_whole_or_not_at_all() {
    for step in ["before-spool", "after-spool"] {
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join("died");
        let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap())
            .flag("--linger=1s")
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
