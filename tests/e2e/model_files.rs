//! The files of a model, read by other tools.

use std::path::Path;
use std::process::Command;

use sqlflow_tests::gob::decode_with_go;
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;

const TRAIN: &str = "SELECT * FROM iris -- 'é' \"and\" `quotes`
TO TRAIN xgboost.gbtree WITH objective = \"multi:softmax\", num_class = 3, train.num_boost_round = 2
LABEL class INTO m;";

fn tar(arguments: &[&str], dir: &Path) -> String {
    let output = Command::new("tar").args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn go_decodes_the_gob_and_tar_lists_the_weights() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(TRAIN).await.unwrap();
    client.follow(&token).await.unwrap().expect_success();

    let folder = setup.state_dir.join("models/m");
    let said = decode_with_go(&folder.join("sqlflow.gob"));
    assert_eq!(said.trim_end_matches(';'), TRAIN.trim_end_matches(';'));
    let files = tar(&["tzf", "m.tar.gz"], &folder);
    assert_eq!(files.lines().collect::<Vec<_>>(), ["sqlflow.gob", "m.gob", "model_meta.json", "model.ubj"]);
    let unpacked = tempfile::tempdir().unwrap();
    tar(&["xzf", folder.join("m.tar.gz").to_str().unwrap()], unpacked.path());
    for copy in ["m.gob", "sqlflow.gob"] {
        let (inside, beside) = (unpacked.path().join(copy), folder.join("sqlflow.gob"));
        assert_eq!(std::fs::read(inside).unwrap(), std::fs::read(beside).unwrap());
    }
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "no staging is left: {left:?}");
}
