//! Storages that fail during a publication, and agents that die there.

use std::io::Write as _;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_tests::agent::{Exec, Running};
use sqlflow_tests::http_relay::{HttpRelay, Mode};
use sqlflow_tests::services::{Hdfs, S3};
use sqlflow_tests::until::until;
use tempfile::TempDir;

use crate::locations::Place;
use crate::models_cli::models;

/// Several parts of a multipart upload, and many packets of an HDFS block.
const LARGE: usize = 24 << 20;

/// A folder with incompressible weights.
fn large() -> (TempDir, Vec<u8>) {
    weights_of(LARGE)
}

fn weights_of(bytes: usize) -> (TempDir, Vec<u8>) {
    let mut weights = vec![0; bytes];
    rand::fill(&mut weights[..]);
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("weights"), &weights).unwrap();
    (out, weights)
}

/// A datanode is killed while a model is written, and restarted.
#[test]
fn model_is_published_despite_a_killed_datanode() {
    let mut hdfs = Hdfs::start();
    let (out, _) = large();
    let uri = format!("hdfs://127.0.0.1:{}/m/m.tar.gz", hdfs.port);
    let output = format!("{}={uri}", out.path().display());
    let exec = || Exec::new().env("HADOOP_USER_NAME", "root");
    let writing = exec().flags(["--output", &output, "--publish-retry", "120"]).start(&["true"]);
    let data = hdfs.dir.path().join("data");
    until("a part of the model is on the disk", || bytes_below(&data) >= 1 << 20);
    kill(Pid::from_raw(hdfs.datanode.pid), Signal::SIGKILL).unwrap();
    hdfs.restart_datanode();
    let ended = writing.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("retrying"), "the datanode was killed too late: {}", ended.stderr);

    let into = tempfile::tempdir().unwrap();
    let read = exec().flags(["--input", &format!("{uri}={}", into.path().display())]).start(&["true"]).end();
    assert_eq!(read.code, Some(0), "{}", read.stderr);
    let same = |name: &str| {
        std::fs::read(out.path().join(name)).unwrap() == std::fs::read(into.path().join(name)).unwrap()
    };
    assert!(same("weights"));
}

/// Bytes of all blocks that are being written.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// The error is reported and the old model kept. If there is space within the retry timeout, the new one is published.
#[test]
fn publishing_over_the_quota_is_retried_until_there_is_space() {
    let place = Place::Hdfs("full");
    let hdfs = Hdfs::shared();
    assert_eq!(place.publish(b"old").code, Some(0));
    let quota = |arguments: &[&str]| {
        let (code, text) = hdfs.command(&[&["dfsadmin"], arguments, &["/native/full"]].concat());
        assert_eq!(code, Some(0), "{text}");
    };
    quota(&["-setSpaceQuota", "1m"]);
    let (out, weights) = large();
    let refused = place.exec(out.path()).flags(["--publish-retry", "0"]).start(&["true"]).end();
    assert_eq!((refused.code, &refused.outcome["reason"]), (Some(65), &"publish_failed".into()));
    assert!(refused.stderr.contains("quota"), "{}", refused.stderr);
    assert_eq!(place.weights(), b"old");

    let waiting = place.exec(out.path()).flags(["--publish-retry", "120"]).start(&["true"]);
    quota(&["-clrSpaceQuota"]);
    let ended = waiting.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(place.weights(), weights);
}

/// Starts to publish into S3 through the relay.
fn through(relay: &HttpRelay, place: Place, out: &Path, flags: &[&str]) -> Running {
    place
        .exec(out)
        .env("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", relay.port))
        .flags(flags)
        .start(&["true"])
}

fn bucket_with_old(name: &'static str) -> (Place, HttpRelay) {
    let place = Place::S3(name);
    place.make();
    assert_eq!(place.publish(b"old").code, Some(0));
    (place, HttpRelay::start(S3::shared().port))
}

const SLOW_DOWN: &str = r#"<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"#;

/// OSMO#764: responses 503 and 500 are retried.
#[test]
fn throttled_upload_is_retried() {
    let (place, relay) = bucket_with_old("busy");
    let (out, weights) = large();
    for (code, reason) in [(503, "Slow Down"), (500, "Internal Server Error")] {
        relay.set(Mode::Answer(code, reason, SLOW_DOWN.to_owned()));
        let refused = through(&relay, place, out.path(), &["--publish-retry", "0"]).end();
        assert_eq!(refused.code, Some(65));
        assert!(refused.stderr.contains("reduce your request rate"), "{}", refused.stderr);
        assert_eq!(place.weights(), b"old");
    }
    let waiting = through(&relay, place, out.path(), &["--publish-retry", "60"]);
    let before = relay.done();
    until("five more requests were answered", || relay.done() >= before + 5);
    relay.set(Mode::Pass);
    let ended = waiting.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(place.weights(), weights);
    assert_eq!(place.list(), ["m.tar.gz"], "no upload is left");
}

/// The error is reported and the old model kept. If there is space within the retry timeout, the new one is published.
#[test]
fn upload_to_a_full_store_is_retried_until_there_is_space() {
    let s3 = S3::start_on_small_disk(96);
    let uri = format!("s3://{}/m.tar.gz", s3.bucket("full"));
    let publish = |out: &Path, retry_seconds: u32| {
        let flags = [format!("--output={}={uri}", out.display()), format!("--publish-retry={retry_seconds}")];
        Exec::new().envs(s3.environment()).flags(flags.each_ref().map(String::as_str)).start(&["true"])
    };
    let (old, old_weights) = weights_of(1 << 20);
    assert_eq!(publish(old.path(), 0).end().code, Some(0));

    let ballast = s3.data().join("ballast");
    fill(&ballast);
    let (new, weights) = large();
    let refused = publish(new.path(), 0).end();
    assert_eq!((refused.code, &refused.outcome["reason"]), (Some(65), &"publish_failed".into()));
    // The store reports no more than this.
    assert!(refused.stderr.contains("InternalError"), "{}", refused.stderr);
    let stored = || {
        let into = tempfile::tempdir().unwrap();
        let input = format!("--input={uri}={}", into.path().display());
        let read = Exec::new().envs(s3.environment()).flags([&*input]).start(&["true"]).end();
        assert_eq!(read.code, Some(0), "{}", read.stderr);
        std::fs::read(into.path().join("weights")).unwrap()
    };
    assert!(stored() == old_weights);

    let mut waiting = publish(new.path(), 120);
    waiting.wait_for_error("retrying");
    std::fs::remove_file(ballast).unwrap();
    let ended = waiting.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(stored() == weights);
}

/// Fills the disk of this file.
fn fill(ballast: &Path) {
    let mut file = std::fs::File::create(ballast).unwrap();
    let full = std::iter::repeat_with(|| file.write_all(&[1; 64 << 10])).find_map(Result::err);
    assert_eq!(full.unwrap().kind(), std::io::ErrorKind::StorageFull);
}

/// By a publication or removal of the model. Newer uploads, which may still be completed, are kept.
#[test]
fn upload_of_a_killed_agent_is_removed_after_a_day() {
    let s3 = S3::shared();
    let relay = HttpRelay::start(s3.port);
    s3.bucket("abandoned");
    let (out, _) = large();
    let mut environment = s3.environment();
    environment[0].1 = format!("http://127.0.0.1:{}", relay.port);
    let output = format!("--output={}=s3://abandoned/m/m.tar.gz", out.path().display());
    let publish = |failpoint: &str| {
        let exec = Exec::new().envs(environment.iter().map(|(name, value)| (*name, value)));
        exec.env("SQLFLOW_TEST_FAILPOINT", failpoint).flags([&output]).start(&["true"]).end()
    };
    let uploads = || {
        s3.boto(
            "for it in s3.list_multipart_uploads(Bucket='abandoned').get('Uploads', []): print(it['Key'])",
        )
    };
    s3.boto("s3.create_multipart_upload(Bucket='abandoned', Key='m/m.tar.gz2')");
    assert_eq!(publish("staged=always").code, None);
    assert_eq!(uploads(), "m/m.tar.gz\nm/m.tar.gz2\n");
    assert_eq!(publish("").code, Some(0));
    assert_eq!(uploads(), "m/m.tar.gz\nm/m.tar.gz2\n", "a new upload is kept");

    relay.set(Mode::Dated2100);
    let published = publish("");
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    assert_eq!(uploads(), "m/m.tar.gz2\n");

    assert_eq!(publish("staged=always").code, None);
    assert_eq!(uploads(), "m/m.tar.gz\nm/m.tar.gz2\n");
    models("s3://abandoned", &environment, &["delete", "m"]);
    assert_eq!(uploads(), "m/m.tar.gz2\n");
}

/// The connection is cut during a part, which is sent again.
#[test]
fn cut_connection_repeats_the_part() {
    let (place, relay) = bucket_with_old("cut");
    let (out, weights) = large();
    relay.set(Mode::CutAfter(3 << 20));
    let waiting = through(&relay, place, out.path(), &["--publish-retry", "60"]);
    until("three requests were answered", || relay.done() >= 3);
    assert_eq!(place.weights(), b"old");
    relay.set(Mode::Pass);
    let ended = waiting.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(place.weights(), weights);
}

/// OSMO#764, A#11241: TERM during an upload that takes longer than the grace period. The old model is kept, nothing
/// partial is left, and the outcome names the lost model.
#[test]
fn upload_beyond_the_grace_period_is_given_up() {
    let (place, relay) = bucket_with_old("grace");
    // More than the parts that may be in flight when everything is packed.
    let (out, _) = weights_of(3 * LARGE);
    relay.set(Mode::Slow(128 << 10));
    let writing = through(&relay, place, out.path(), &["--termination-grace", "2"]);
    while !place.list().iter().any(|line| line.starts_with("upload of")) {}
    writing.signal(Signal::SIGTERM);
    let ended = writing.end();
    ended.expect_given_up();
    assert_eq!(place.weights(), b"old");
    assert_eq!(place.list(), ["m.tar.gz"], "no upload is left");
}

/// Two writers of one model. The second commit does not use a grant that is older than the first commit: it stages
/// again and asks for a new grant. The last commit wins as a whole.
#[test]
fn write_conflict_stages_and_asks_for_a_grant_again() {
    let (place, relay) = bucket_with_old("overtaken");
    let (out, weights) = large();
    relay.set(Mode::Slow(2 << 20));
    let mut writing = through(&relay, place, out.path(), &["--publish-retry", "0"]);
    while !place.list().iter().any(|line| line.starts_with("upload of")) {}
    writing.signal(Signal::SIGSTOP);
    assert_eq!(place.publish(b"the other's").code, Some(0));
    writing.signal(Signal::SIGCONT);
    writing.wait_for_error("another model came in between");
    let ended = writing.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(place.weights(), weights);
    assert_eq!(place.list(), ["m.tar.gz"], "no upload is left");
}

/// A store without conditional writes gets unconditional ones.
#[test]
fn store_without_conditional_writes_accepts_models() {
    let (place, relay) = bucket_with_old("unconditional");
    relay.set(Mode::RefuseConditions);
    let (out, weights) = large();
    let ended = through(&relay, place, out.path(), &["--publish-retry", "0"]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(relay.done() > 0, "no conditional write was sent");
    assert_eq!(place.weights(), weights);
    assert_eq!(place.list(), ["m.tar.gz"], "no upload is left");
}

/// The reader gets only bytes of the new model, although it reads in parts.
#[test]
fn model_replaced_during_a_read_is_read_again() {
    let place = Place::S3("swapped");
    place.make();
    let [old, new]: [Vec<u8>; 2] =
        std::array::from_fn(|_| std::fs::read(weights_of(2 * LARGE).0.path().join("weights")).unwrap());
    assert_eq!(place.publish(&old).code, Some(0));
    let into = tempfile::tempdir().unwrap();
    let input = format!("{}={}", place.uri(), into.path().display());
    let exec = Exec::new().envs(place.environment());
    let reading = exec.flags(["--publish-retry", "0", "--input", &input]).start(&["true"]);
    let weights = into.path().join("weights");
    until("a part of the model is read", || std::fs::metadata(&weights).is_ok_and(|it| it.len() > 0));
    reading.signal(Signal::SIGSTOP);
    assert!(std::fs::metadata(&weights).unwrap().len() < old.len() as u64, "the reader was stopped too late");
    assert_eq!(place.publish(&new).code, Some(0));
    reading.signal(Signal::SIGCONT);
    let ended = reading.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(std::fs::read(weights).unwrap() == new, "not the new model");
}

/// A#3761: the model is the old or the new one at every step, and the next run can publish.
#[test]
fn agent_killed_at_any_step_leaves_a_complete_model() {
    for place in Place::all_and_files("steps") {
        place.make();
        let out = tempfile::tempdir().unwrap();
        for (step, is_new) in [
            ("staged", false),
            ("ask-commit", false),
            ("granted", false),
            ("tarball-before-rename", false),
            ("tarball-after-rename", true),
            ("clear", true),
            ("committed", true),
            ("before-outcome", true),
        ] {
            assert_eq!(place.publish(b"old").code, Some(0), "{place:?} before {step}");
            std::fs::write(out.path().join("weights"), step).unwrap();
            let failpoint = format!("{step}=always");
            let ended =
                place.exec(out.path()).env("SQLFLOW_TEST_FAILPOINT", &failpoint).start(&["true"]).end();
            assert_eq!(ended.code, None, "{place:?}: the agent did not die at {step}: {}", ended.stderr);
            let expected = if is_new { step.as_bytes() } else { b"old" };
            assert_eq!(place.weights(), expected, "{place:?} at {step}");
        }
        assert_eq!(place.publish(b"last").code, Some(0));
        assert_eq!(place.weights(), b"last");
    }
}

/// A clock that is 20 minutes wrong: HDFS accepts it; S3, whose signatures have a time, reports it.
#[test]
fn wrong_clock_is_reported_by_s3_only() {
    for place in Place::all("skewed") {
        place.make();
        assert_eq!(place.publish(b"old").code, Some(0));
        let out = tempfile::tempdir().unwrap();
        std::fs::write(out.path().join("weights"), "new").unwrap();
        let exec = Exec::within(&["faketime", "-f", "+20m", "env", "--default-signal"]);
        let exec = exec.envs(place.environment());
        let output = format!("--output={}={}", out.path().display(), place.uri());
        let ended = exec.flags(["--publish-retry=0", &output]).start(&["true"]).end();
        if matches!(place, Place::S3(_)) {
            assert_eq!((ended.code, &ended.outcome["reason"]), (Some(65), &"publish_failed".into()));
            let message = ended.outcome["message"].as_str().unwrap();
            assert!(
                message.contains("RequestTimeTooSkewed: The difference between the request time"),
                "{message}"
            );
            assert_eq!(place.weights(), b"old");
        } else {
            assert_eq!(ended.code, Some(0), "{place:?}: {}", ended.stderr);
            assert_eq!(place.weights(), b"new", "{place:?}");
        }
    }
}
