//! A flipped bit in the result log of a live job.

use std::path::PathBuf;

use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;

const LONG: &str = "SELECT * FROM iris TO TRAIN xgboost.gbtree
WITH objective = \"multi:softmax\", num_class = 3, train.num_boost_round = 1000000 LABEL class INTO m;";

#[tokio::test(flavor = "multi_thread")]
async fn job_with_a_damaged_log_shows_a_gap_and_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap())
        .flag("--grace=2s")
        .flag("--small-log=0");
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(LONG).await.unwrap();
    client.until(&token, |it| matches!(it, Payload::Metrics(_))).await.unwrap();
    server.kill();

    let shard = &token.job_id[token.job_id.len() - 2..];
    let folder = setup.state_dir.join("log").join(shard).join(&token.job_id);
    let files = |extension: &str| -> Vec<PathBuf> {
        let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|it| it == extension)).collect()
    };
    let segment = files("log").remove(0);
    let mut bytes = std::fs::read(&segment).unwrap();
    let place = bytes.len() / 3;
    bytes[place] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();

    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    client.api.cancel(token.clone()).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.code(), Code::Failed, "{:?}", ended.status);
    let gaps =
        ended.payloads().filter(|it| matches!(it, Payload::Gap(gap) if gap.reason.contains("damaged")));
    assert_eq!(gaps.count(), 1);
    assert!(ended.results.is_sorted_by_key(|it| it.position));
    let aside = files("damaged");
    assert_eq!(aside.len(), 1);
    assert!(std::fs::read(&aside[0]).unwrap() == bytes, "the damaged file is kept unchanged");
    server.stop().unwrap();
}
