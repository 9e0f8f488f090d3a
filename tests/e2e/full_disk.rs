//! A full disk, of the server or of the models. Each test runs itself in a mount namespace with a small disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use sqlflow_proto::v1::column::Values;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Cause, Response};
use sqlflow_tests::client::is_over;
use sqlflow_tests::http::get;
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;
use tonic::Code;

const DISK: &str = "SQLFLOW_TEST_SMALL_DISK";
const MIB: usize = 1 << 20;

/// Runs a test of this file with a disk of this many megabytes.
fn run_with_disk(test: &str, megabytes: u32) {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(r#"mount -t tmpfs -o size={megabytes}m none "$0" && exec "$@""#);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).arg(dir.path()).arg(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("full_disk::{test}"), "--nocapture"]).env(DISK, dir.path());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("used again"),
        "this test needs permission to mount a small disk\n{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The small disk; `None` if the test was not started by [`run_with_disk`].
fn small_disk() -> Option<PathBuf> {
    std::env::var_os(DISK).map(PathBuf::from)
}

/// Takes all free space.
fn fill(ballast: &Path) {
    let filled = std::fs::write(ballast, vec![1; 64 * MIB]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_on_a_small_disk() {
    let Some(disk) = small_disk() else { return };
    let setup = Setup::new(&disk, format!("sqlite://{}/x.db", disk.display()));
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let first = client.run("SELECT 1").await.unwrap();
    client.follow(&first).await.unwrap().expect_success();

    let ballast = disk.join("ballast");
    fill(&ballast);
    let long = format!("SELECT '{}'", "x".repeat(MIB));
    let refused = client.run(long.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("space"), "{refused:?}");
    // The server stays ready for Fetch.
    let ready = get(&server.http, "/readyz");
    assert_eq!(ready.code, 200, "{}", ready.body);
    assert!(ready.body.contains("\nnew jobs: cannot record new jobs: "), "{}", ready.body);
    // Earlier results can still be read.
    client.follow(&first).await.unwrap().expect_success();

    std::fs::remove_file(ballast).unwrap();
    let token = client.run(long).await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    println!("the disk was full, and used again");
}

#[test]
fn run_on_a_full_disk_is_rejected_until_there_is_space() {
    run_with_disk("run_on_a_small_disk", 16);
}

/// The numbers in the first column of all rows.
fn numbers(results: &[Response]) -> Vec<i64> {
    let rows = results.iter().filter_map(|it| match &it.response {
        Some(Payload::Rows(rows)) => rows.decoded().unwrap().columns.remove(0).values,
        _ => None,
    });
    rows.flat_map(|values| if let Values::Int64s(it) = values { it.values } else { panic!("{values:?}") })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_on_a_small_disk() {
    let Some(disk) = small_disk() else { return };
    let setup = Setup::new(&disk, "sqlite:///:memory:");
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    // 12 MB of rows, and space for half of them.
    let (ballast, more) = (disk.join("ballast"), disk.join("more"));
    std::fs::write(&ballast, vec![1; 26 * MIB]).unwrap();
    let rows = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 12000)";
    let token = client.run(format!("{rows} SELECT n, hex(zeroblob(500)) FROM n;")).await.unwrap();

    let (mut cursor, mut results, mut empty) = (token.clone(), Vec::new(), 0);
    while empty < 3 {
        let page = client.api.fetch(cursor).await.unwrap().into_inner();
        let status = page.job_status.unwrap();
        assert!(!is_over(&status), "the job ended without space for its rows: {status:?}");
        empty = if page.results.is_empty() { empty + 1 } else { 0 };
        results.extend(page.results);
        cursor = page.next.unwrap();
    }
    let seen = numbers(&results).len();
    assert!(seen < 12_000, "all rows are there: the disk was not full");

    // A server on the full disk either starts or reports why it cannot.
    fill(&more);
    server.kill();
    match setup.start() {
        Ok(server) => server.kill(),
        Err(error) => assert!(error.to_string().contains("full"), "{error}"),
    }
    std::fs::remove_file(more).unwrap();
    std::fs::remove_file(ballast).unwrap();
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let ended = client.follow(&cursor).await.unwrap();
    ended.expect_success();
    results.extend(ended.results);
    assert_eq!(numbers(&results), (1..=12_000).collect::<Vec<_>>(), "each row once");
    println!("the disk was full, and used again");
}

#[test]
fn rows_on_a_full_disk_wait_for_space() {
    run_with_disk("rows_on_a_small_disk", 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_on_a_small_disk() {
    let Some(disk) = small_disk() else { return };
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap())
        .flag(format!("--models=file://{}", disk.display()));
    let without_retry = setup.clone().env("SQLFLOW_AGENT_PUBLISH_RETRY", "1").start().unwrap();
    let mut client = without_retry.client().await.unwrap();
    let train = |rounds: u32| {
        format!(
            "SELECT * FROM iris TO TRAIN xgboost.gbtree WITH objective = \"multi:softmax\", num_class = 3,
            train.num_boost_round = {rounds} LABEL class INTO m;"
        )
    };
    let files = || {
        let entries = std::fs::read_dir(disk.join("m")).unwrap().map(|it| it.unwrap().path());
        let mut files: Vec<_> = entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
        files.sort();
        files
    };
    let token = client.run(train(1)).await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    let before = files();
    assert_eq!(before.len(), 2);

    let ballast = disk.join("ballast");
    fill(&ballast);
    let token = client.run(train(2)).await.unwrap();
    // Later attempts retry for minutes. The test cancels the job instead.
    let told = |it: &Payload| {
        matches!(it, Payload::Message(told) if told.message.contains("space")
            && told.message.contains("what attempt 1 made will be published by attempt 3"))
    };
    client.until(&token, told).await.unwrap();
    client.api.cancel(token.clone()).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.cause(), Cause::Cancelled, "{:?}", ended.status);
    assert_eq!(files(), before, "the old model is whole, and nothing else is there");
    without_retry.stop().unwrap();

    // By default an agent retries until there is space.
    let with_retry = setup.start().unwrap();
    let mut client = with_retry.client().await.unwrap();
    let token = client.run(train(2)).await.unwrap();
    let staging = disk.join(format!("m/.staging-{}-0-1", token.job_id));
    let begun = std::time::Instant::now();
    while !staging.exists() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "the agent does not publish");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    std::fs::remove_file(ballast).unwrap();
    client.follow(&token).await.unwrap().expect_success();
    let after = files();
    assert!(after.len() == 2 && after[0].1 != before[0].1, "the new model is there");
    println!("the disk was full, and used again");
}

#[test]
fn model_on_a_full_disk_keeps_the_old_one_until_there_is_space() {
    run_with_disk("models_on_a_small_disk", 8);
}
