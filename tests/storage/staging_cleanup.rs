//! Staging of killed writers is removed, and live writers survive its removal.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use sqlflow_tests::agent::{Ended, Exec};
use sqlflow_tests::http_relay::{HttpRelay, Mode};
use sqlflow_tests::services::{Hdfs, S3};

use crate::locations::Place;
use crate::models_cli::models;

/// A#724 and disk space: a publication or removal of the model removes staging that is older than a day.
#[test]
fn staging_of_a_killed_agent_is_removed_after_a_day() {
    // The folder has the tarball's name, so `sqlflowctl` sees a model.
    for place in [Place::File("m"), Place::Hdfs("m"), Place::Webhdfs("m")] {
        place.make();
        let die = || {
            let out = tempfile::tempdir().unwrap();
            std::fs::write(out.path().join("weights"), "dead").unwrap();
            let dying = place.exec(out.path()).env("SQLFLOW_TEST_FAILPOINT", "staged=always");
            assert_eq!(dying.start(&["true"]).end().code, None, "{place:?}");
        };
        die();
        assert_eq!(place.publish(b"first").code, Some(0));
        assert!(staged(place).is_some(), "{place:?}: new staging was removed: {:?}", place.list());
        age(place);
        assert_eq!(place.publish(b"second").code, Some(0));
        assert_eq!(place.list(), ["m.tar.gz"], "{place:?}");

        die();
        age(place);
        models(place.root().strip_suffix("/m").unwrap(), &place.environment(), &["delete", "m"]);
        if let Place::File(_) = place {
            assert!(!Path::new(place.root().trim_start_matches("file://")).exists(), "its folder is left");
        } else {
            assert_eq!(place.list(), [""; 0], "{place:?}");
        }
    }
}

fn staged(place: Place) -> Option<String> {
    place.list().into_iter().find(|name| name.starts_with(".staging-") && !name.contains('/'))
}

/// Makes the staging older than a day.
fn age(place: Place) {
    let folder = format!("{}/{}", place.root(), staged(place).unwrap());
    if let Some(path) = folder.strip_prefix("file://") {
        let paths = [format!("{path}/m.tar.gz"), path.to_owned()];
        assert!(Command::new("touch").args(["-d", "2 days ago"]).args(paths).status().unwrap().success());
        return;
    }
    let path = format!("/{}", folder.splitn(4, '/').last().unwrap());
    let touch = ["dfs", "-touch", "-m", "-t", "20200101:000000"];
    let (code, text) = Hdfs::shared().command(&[&touch[..], &[&format!("{path}/m.tar.gz"), &path]].concat());
    assert_eq!(code, Some(0), "{text}");
}

/// A failed publication removes its staging, however slow the storage is.
#[test]
fn failed_publication_leaves_no_staging_in_a_slow_storage() {
    let place = Place::Webhdfs("slow");
    assert_eq!(place.publish(b"old").code, Some(0));
    let relay = HttpRelay::start(Hdfs::shared().http_port);
    relay.set(Mode::Late(Duration::from_millis(200)));
    let out = tempfile::tempdir().unwrap();
    let ended = publish_through(&relay, out.path(), "slow");
    assert!(ended.stderr.contains("left no file"), "{}", ended.stderr);
    assert_eq!(place.list(), ["m.tar.gz"]);
    assert_eq!(place.weights(), b"old");
}

/// The namenode renamed the file, and its response was lost. No second rename may replace a later model.
#[test]
fn rename_with_a_lost_response_is_a_success() {
    let place = Place::Webhdfs("unanswered");
    let relay = HttpRelay::start(Hdfs::shared().http_port);
    relay.set(Mode::LoseAnswerTo("op=RENAME"));
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("weights"), "new").unwrap();
    let ended = publish_through(&relay, out.path(), "unanswered");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(relay.done(), 1, "number of lost responses");
    assert_eq!(place.weights(), b"new");
    assert_eq!(place.list(), ["m.tar.gz"]);
}

/// Publishes once through the relay.
fn publish_through(relay: &HttpRelay, out: &Path, name: &'static str) -> Ended {
    let output = format!("{}=webhdfs://127.0.0.1:{}/web/{name}/m.tar.gz", out.display(), relay.port);
    let exec = Exec::new().envs(Place::Webhdfs(name).environment());
    exec.flags(["--publish-retry", "0", "--output", &output]).start(&["true"]).end()
}

/// HttpFS speaks WebHDFS, but answers a rename over another file with success and `false`.
#[test]
fn rename_answered_with_false_is_a_failure() {
    let place = Place::Webhdfs("httpfs");
    assert_eq!(place.publish(b"old").code, Some(0));
    let relay = HttpRelay::start(Hdfs::shared().http_port);
    relay.set(Mode::AnswerTo("op=RENAME", "{\"boolean\":false}"));
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("weights"), "new").unwrap();
    let ended = publish_through(&relay, out.path(), "httpfs");
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(65), &"publish_failed".into()));
    assert!(ended.stderr.contains("HttpFS"), "{}", ended.stderr);
    assert_eq!(place.weights(), b"old");
}

/// The model or the upload is removed during a publication.
#[test]
fn upload_that_was_removed_is_repeated() {
    let place = Place::S3("taken");
    place.make();
    let abort = "for it in s3.list_multipart_uploads(Bucket='taken').get('Uploads', []):
    s3.abort_multipart_upload(Bucket='taken', Key=it['Key'], UploadId=it['UploadId'])";
    let remove = "s3.delete_object(Bucket='taken', Key='some/folder/m.tar.gz')";
    let relay = HttpRelay::start(S3::shared().port);
    for taking in [remove, abort] {
        assert_eq!(place.publish(b"old").code, Some(0));
        let out = tempfile::tempdir().unwrap();
        let mut weights = vec![0; 24 << 20];
        rand::fill(&mut weights[..]);
        std::fs::write(out.path().join("weights"), &weights).unwrap();
        relay.set(Mode::Slow(4 << 20));
        let writing = place
            .exec(out.path())
            .env("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", relay.port))
            .flags(["--publish-retry", "60"])
            .start(&["true"]);
        while !place.list().iter().any(|line| line.starts_with("upload of")) {}
        writing.signal(Signal::SIGSTOP);
        S3::shared().boto(taking);
        relay.set(Mode::Pass);
        writing.signal(Signal::SIGCONT);
        let ended = writing.end();
        assert_eq!(ended.code, Some(0), "{taking}: {}", ended.stderr);
        assert!(place.weights() == weights, "{taking}");
        assert_eq!(place.list(), ["m.tar.gz"], "{taking}");
    }
}
