//! HDFS that denies writes: permissions and safe mode.

use sqlflow_tests::services::Hdfs;

use crate::locations::Place;

/// flyte PR#5444: the run fails, and the old model is kept.
#[test]
fn publishing_without_permission_fails_and_keeps_the_old_model() {
    for place in [Place::Hdfs("forbidden"), Place::Webhdfs("forbidden")] {
        assert_eq!(place.publish(b"old").code, Some(0));
        let out = tempfile::tempdir().unwrap();
        std::fs::write(out.path().join("weights"), "new").unwrap();
        let ended = place
            .exec(out.path())
            .env("HADOOP_USER_NAME", "somebody")
            .flags(["--publish-retry", "0"])
            .start(&["true"])
            .end();
        assert_eq!(
            (ended.code, &ended.outcome["reason"]),
            (Some(65), &"publish_failed".into()),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains("ermission denied: user=somebody"), "{place:?}: {}", ended.stderr);
        assert_eq!(place.weights(), b"old", "{place:?}");
    }
}

/// A namenode in safe mode rejects writes. If that ends within the retry timeout, the model is published.
#[test]
fn publishing_is_retried_until_safe_mode_ends() {
    let hdfs = Hdfs::start();
    let uri = format!("hdfs://127.0.0.1:{}/m/m.tar.gz", hdfs.port);
    assert_eq!(hdfs.command(&["dfsadmin", "-safemode", "enter"]).0, Some(0));
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("weights"), "1").unwrap();
    let output = format!("{}={uri}", out.path().display());
    let exec =
        || sqlflow_tests::agent::Exec::new().env("HADOOP_USER_NAME", "root").flags(["--output", &output]);
    let refused = exec().flags(["--publish-retry", "0"]).start(&["true"]).end();
    assert_eq!(refused.code, Some(65));
    assert!(refused.stderr.contains("safe mode"), "{}", refused.stderr);

    let waiting = exec().flags(["--publish-retry", "120"]).start(&["true"]);
    assert_eq!(hdfs.command(&["dfsadmin", "-safemode", "leave"]).0, Some(0));
    let ended = waiting.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}
