//! Model files that somebody changed in the storage. XGBoost's own loader uses changed weights, or crashes.

use std::path::Path;

use sqlflow_proto::v1::{Cause, job_status::Code};
use sqlflow_tests::client::{Client, Ended};
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;

const TRAIN: &str = "SELECT * FROM iris TO TRAIN xgboost.gbtree
WITH objective = \"multi:softmax\", train.num_boost_round = 2 LABEL class INTO flowers;";
const COUNTS: &str = "SELECT class, count(*) FROM predicted GROUP BY class ORDER BY class";

/// Packs a model again, with changed weights: valid tarballs have the right checksum of gzip.
const REPACK: &str = "
import io, json, sys, tarfile
good, changed, change = sys.argv[1:]
with tarfile.open(good) as tar:
    files = {it.name: tar.extractfile(it).read() for it in tar}
weights = bytearray(files['model.ubj'])
half = len(weights) // 2
if 'flip' in change: weights[half] ^= 0xff
if 'cut' in change: del weights[half:]
files['model.ubj'] = bytes(weights)
if 'older' in change:
    meta = json.loads(files['model_meta.json'])
    del meta['weights_sha256']
    files['model_meta.json'] = json.dumps(meta).encode()
with tarfile.open(changed, 'w:gz') as tar:
    for name, content in files.items():
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
";

/// A change of a model's tarball, and what its job says.
struct Change {
    what: &'static str,
    tarball: Vec<u8>,
    cause: Cause,
    message: &'static str,
}

/// Changes of the tarball's own bytes, which have a checksum.
fn damages(good: &[u8]) -> Vec<Change> {
    let flipped = |place: usize| {
        let mut bytes = good.to_vec();
        bytes[place] ^= 0xff;
        bytes
    };
    let cut = |length: usize| good[..length].to_vec();
    let length = good.len();
    [
        ("a byte in the middle is flipped", flipped(length / 2)),
        ("a byte of the checksum is flipped", flipped(length - 6)),
        ("the second half is missing", cut(length / 2)),
        ("the last bytes are missing", cut(length - 4)),
    ]
    .map(|(what, tarball)| Change {
        what,
        tarball,
        cause: Cause::Storage,
        message: "cannot fetch model flowers from ",
    })
    .into()
}

/// Valid tarballs with other weights.
fn repacked(good: &Path) -> Vec<Change> {
    let changed = "model.ubj was changed after the training";
    [
        ("flip", changed),
        ("cut", changed),
        // A model of a release that made no digest of the weights: XGBoost reads them.
        ("cut, older", "xgboost: "),
    ]
    .map(|(what, message)| {
        let to = good.with_file_name("repacked.tar.gz");
        let [from, path] = [good, to.as_path()].map(|file| file.to_str().unwrap());
        python::run(REPACK, &[from, path, what]).unwrap();
        Change { what, tarball: std::fs::read(&to).unwrap(), cause: Cause::StatementFailed, message }
    })
    .into()
}

async fn run(client: &mut Client, sql: &str) -> Ended {
    let token = client.run(sql).await.unwrap();
    client.follow(&token).await.unwrap()
}

fn predict(table: &str) -> String {
    format!("SELECT * FROM iris TO PREDICT {table}.class USING flowers;")
}

/// Of 213 small changes of a model file 16 made XGBoost crash. Others made it predict something else.
#[tokio::test(flavor = "multi_thread")]
async fn changed_model_file_fails_its_job_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    for sql in [TRAIN.to_owned(), predict("predicted")] {
        run(&mut client, &sql).await.expect_success();
    }
    let counts = run(&mut client, COUNTS).await.rows();

    let tarball = setup.state_dir.join("models/flowers/flowers.tar.gz");
    let good = dir.path().join("good.tar.gz");
    std::fs::copy(&tarball, &good).unwrap();
    let bytes = std::fs::read(&good).unwrap();
    for Change { what, tarball: changed, cause, message } in
        damages(&bytes).into_iter().chain(repacked(&good))
    {
        std::fs::write(&tarball, changed).unwrap();
        let status = run(&mut client, &predict("wrong")).await.status;
        assert_eq!((status.code(), status.cause()), (Code::Failed, cause), "{what}: {status:?}");
        assert!(status.message.contains(message), "{what}: {status:?}");
        let tables = run(&mut client, "SELECT count(*) FROM sqlite_master WHERE name = 'wrong'").await;
        assert_eq!(tables.rows(), [["0"]], "{what}: nothing was predicted");
    }

    std::fs::write(&tarball, bytes).unwrap();
    run(&mut client, &predict("predicted")).await.expect_success();
    assert_eq!(run(&mut client, COUNTS).await.rows(), counts, "the model of before");
}
