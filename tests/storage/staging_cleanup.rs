//! What writers leave behind, and what is taken away from writers that live.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use sqlflow_tests::agent::{Ended, Exec};
use sqlflow_tests::http_relay::{HttpRelay, Mood};
use sqlflow_tests::services::{Hdfs, S3};

use crate::locations::Place;
use crate::models_cli::models;

/// A#724, and the room that it takes: what a killed agent staged goes with whoever publishes or removes that model a day
/// later, and not before.
#[test]
fn what_a_killed_agent_staged_goes_after_a_day() {
    // Named as its tarball: so it is a model for `sqlflowctl` too.
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
        assert!(staged(place).is_some(), "{place:?}: {:?} of a moment ago", place.list());
        age(place);
        assert_eq!(place.publish(b"second").code, Some(0));
        assert_eq!(place.list(), ["m.tar.gz"], "{place:?}");

        die();
        age(place);
        models(place.root().strip_suffix("/m").unwrap(), &place.environment(), &["delete", "m"]);
        if let Place::File(_) = place {
            assert!(!Path::new(place.root().trim_start_matches("file://")).exists(), "its folder goes too");
        } else {
            assert_eq!(place.list(), [""; 0], "{place:?}");
        }
    }
}

fn staged(place: Place) -> Option<String> {
    place.list().into_iter().find(|name| name.starts_with(".staging-") && !name.contains('/'))
}

/// By more than a day.
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

/// A publication that fails takes along what it staged, however slowly the storage answers.
#[test]
fn what_fails_leaves_nothing_behind_in_a_slow_storage() {
    let place = Place::Webhdfs("slow");
    assert_eq!(place.publish(b"old").code, Some(0));
    let relay = HttpRelay::start(Hdfs::shared().http_port);
    relay.set(Mood::Late(Duration::from_millis(200)));
    let out = tempfile::tempdir().unwrap();
    let ended = publish_through(&relay, out.path(), "slow");
    assert!(ended.stderr.contains("left no file"), "{}", ended.stderr);
    assert_eq!(place.list(), ["m.tar.gz"]);
    assert_eq!(place.weights(), b"old");
}

/// The namenode renamed, but its answer was lost: that is success, and no second try goes over what came after.
#[test]
fn a_rename_whose_answer_is_lost_is_no_failure() {
    let place = Place::Webhdfs("unanswered");
    let relay = HttpRelay::start(Hdfs::shared().http_port);
    relay.set(Mood::LoseAnswerTo("op=RENAME"));
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("weights"), "new").unwrap();
    let ended = publish_through(&relay, out.path(), "unanswered");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(relay.done(), 1, "an answer was lost");
    assert_eq!(place.weights(), b"new");
    assert_eq!(place.list(), ["m.tar.gz"]);
}

/// Once, into the namenode behind the relay.
fn publish_through(relay: &HttpRelay, out: &Path, name: &'static str) -> Ended {
    let output = format!("{}=webhdfs://127.0.0.1:{}/web/{name}/m.tar.gz", out.display(), relay.port);
    let exec = Exec::new().envs(Place::Webhdfs(name).environment());
    exec.flags(["--publish-retry", "0", "--output", &output]).start(&["true"]).end()
}

/// HttpFS speaks WebHDFS, but answers a rename over another file with success and `false`.
#[test]
fn a_rename_that_is_refused_with_success_is_a_failure() {
    let place = Place::Webhdfs("httpfs");
    assert_eq!(place.publish(b"old").code, Some(0));
    let relay = HttpRelay::start(Hdfs::shared().http_port);
    relay.set(Mood::AnswerTo("op=RENAME", "{\"boolean\":false}"));
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("weights"), "new").unwrap();
    let ended = publish_through(&relay, out.path(), "httpfs");
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(65), &"publish_failed".into()));
    assert!(ended.stderr.contains("HttpFS"), "{}", ended.stderr);
    assert_eq!(place.weights(), b"old");
}

/// Somebody removes the model, or the upload, while another one is on its way: it is published all the same.
#[test]
fn what_is_taken_away_from_a_writer_is_written_again() {
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
        relay.set(Mood::Slow(4 << 20));
        let writing = place
            .exec(out.path())
            .env("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", relay.port))
            .flags(["--publish-retry", "60"])
            .start(&["true"]);
        while !place.list().iter().any(|line| line.starts_with("upload of")) {}
        writing.signal(Signal::SIGSTOP);
        S3::shared().boto(taking);
        relay.set(Mood::Pass);
        writing.signal(Signal::SIGCONT);
        let ended = writing.end();
        assert_eq!(ended.code, Some(0), "{taking}: {}", ended.stderr);
        assert!(place.weights() == weights, "{taking}");
        assert_eq!(place.list(), ["m.tar.gz"], "{taking}");
    }
}
