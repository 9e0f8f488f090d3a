//! Two servers on one state folder: no authority lies in the memory of either.

use sqlflow_tests::python;
use sqlflow_tests::server::Setup;

const PROGRAM: &str = "SELECT * FROM iris; SELECT * FROM iris TO TRAIN xgboost.gbtree
WITH objective = \"multi:softmax\", num_class = 3, train.num_boost_round = 300 LABEL class INTO m; SELECT * FROM iris;";

#[tokio::test(flavor = "multi_thread")]
async fn one_takes_over_from_the_other_in_the_middle_of_a_job() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let (first, second) = (setup.start().unwrap(), setup.start().unwrap());
    let token = first.client().await.unwrap().run(PROGRAM).await.unwrap();

    let mut client = second.client().await.unwrap();
    let page = client.api.fetch(token.clone()).await.unwrap().into_inner();
    let mut results = page.results;
    first.kill();
    let ended = client.follow(&page.next.unwrap()).await.unwrap();
    ended.expect_success();
    results.extend(ended.results);
    let positions: Vec<u64> = results.iter().map(|it| it.position).collect();
    assert_eq!(positions, (1..=positions.len() as u64).collect::<Vec<_>>());
    assert!(setup.state_dir.join("models/m/m.tar.gz").is_file());
    second.stop().unwrap();
}
