//! A container without free processes or threads.

use sqlflow_tests::cgroup::Group;
use sqlflow_tests::gate::Gate;
use sqlflow_tests::server::program;
use sqlflow_tests::services::{Hdfs, S3};

use crate::locations::Place;

/// One thread resolves the host name while another one stages. Neither may wait for a third.
#[test]
fn model_is_published_without_free_threads() {
    let hdfs = format!("hdfs://localhost:{}/native/threads/m.tar.gz", Hdfs::shared().port);
    let s3 = format!("http://localhost:{}", S3::shared().port);
    for (place, uri) in [(Place::Hdfs("threads"), hdfs), (Place::S3("threads"), Place::S3("threads").uri())] {
        place.make();
        let group = Group::new("pids", "publish");
        let run =
            group.exec(&program("sqlflow-agent")).envs(place.environment()).env("AWS_ENDPOINT_URL", &s3);
        let (gate, out) = (Gate::new(&run.dir().join("gate")), run.dir().join("out"));
        std::fs::create_dir(&out).unwrap();
        let output = format!("{}={uri}", out.display());
        let flags = ["--publish-retry", "0", "--output", &output];
        let mut running = run.flags(flags).shell("echo up; read go < $DIR/gate; echo 1 > $DIR/out/weights");
        running.line();
        // From here on no process or thread can start in the group.
        group.set("pids.max", 1);
        gate.open();
        let ended = running.end();
        assert_eq!(ended.code, Some(0), "{uri}: {}", ended.stderr);
        assert_eq!(place.weights(), b"1\n");
    }
}
