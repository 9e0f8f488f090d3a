//! Credentials that change or are wrong.

use sqlflow_tests::agent::Exec;
use sqlflow_tests::services::{S3, S3_KEY};

use crate::locations::Place;

/// handoff#162: the credentials of the start have expired when the model is published, and were replaced meanwhile.
#[test]
fn credentials_are_read_again_for_publishing() {
    let place = Place::S3("renewed");
    place.make();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    let text = |key: &str, secret: &str| {
        format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    };
    std::fs::write(&file, text("expired", "expired")).unwrap();
    std::fs::write(dir.path().join("renewed"), text(S3_KEY.0, S3_KEY.1)).unwrap();
    let out = dir.path().join("out");
    let script = format!(
        "mkdir {0}; echo 1 > {0}/weights; cp {1}/renewed {1}/credentials",
        out.display(),
        dir.path().display()
    );
    let ended = Exec::new()
        .env("AWS_ENDPOINT_URL", &S3::shared().environment()[0].1)
        .env("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .flags(["--publish-retry", "0", "--output", &format!("{}={}", out.display(), place.uri())])
        .shell(&script)
        .end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(place.weights(), b"1\n");
}

/// The run fails, and its messages contain no secret.
#[test]
fn wrong_credentials_fail_and_are_not_shown() {
    let place = Place::S3("refused");
    place.make();
    assert_eq!(place.publish(b"old").code, Some(0));
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("weights"), "new").unwrap();
    let ended = place
        .exec(out.path())
        .env("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
        .flags(["--publish-retry", "0"])
        .start(&["true"])
        .end();
    assert_eq!(
        (ended.code, &ended.outcome["reason"]),
        (Some(65), &"publish_failed".into()),
        "{}",
        ended.stderr
    );
    for text in [&ended.stderr, &ended.outcome.to_string()] {
        assert!(!text.contains("hunter2") && !text.contains("AWS4-HMAC"), "{text}");
    }
    assert_eq!(place.weights(), b"old");
}
