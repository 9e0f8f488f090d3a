//! Publishing into real folders.

use std::fs;
use std::io::Read as _;

use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};
use sqlflow_proto::agent::Removal;
use sqlflow_proto::record::EarlierModel;
use tempfile::TempDir;

use super::*;

struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("workspace/outputs/m");
        fs::create_dir_all(output.join("sub")).unwrap();
        fs::write(output.join("model.bin"), "weights").unwrap();
        fs::write(output.join("sub/b.json"), "{}").unwrap();
        fs::write(output.join("a.json"), "[]").unwrap();
        Self { dir }
    }

    fn publication(&self, attempt: u32) -> Publication {
        let output = Output {
            uri: format!("file://{}/models/m", self.dir.path().display()),
            name: "m".into(),
            directory: "outputs/m".into(),
            gob: "gob".into(),
            ..Output::default()
        };
        let attempt = AttemptRef { job_id: "j".into(), step: 1, attempt };
        let workspace = self.dir.path().join("workspace");
        Publication::new(&attempt, &[output], &workspace, Duration::ZERO).unwrap()
    }

    /// A publication that removes the model.
    fn removal(&self, attempt: u32, if_exists: bool) -> Publication {
        let mut publication = self.publication(attempt);
        publication.outputs[0].output.removal = Some(Removal { if_exists });
        publication
    }

    fn model(&self) -> PathBuf {
        self.dir.path().join("models/m")
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.model())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn contents(tarball: &Path) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(tarball).unwrap()));
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        found.push((entry.path().unwrap().display().to_string(), text));
    }
    found
}

#[test]
fn files_become_visible_at_the_commit() {
    let bench = Bench::new();
    let publication = bench.publication(1);
    let staged = publication.stage(&|_| ()).unwrap();
    assert_eq!(bench.files(), [".staging-j-1-1"]);

    let committed = publication.commit(staged).unwrap();
    assert_eq!(bench.files(), ["m.tar.gz", "sqlflow.gob"]);
    assert_eq!(fs::read_to_string(bench.model().join("sqlflow.gob")).unwrap(), "gob");
    let tarball = bench.model().join("m.tar.gz");
    let expected = [
        ("sqlflow.gob", "gob"),
        ("m.gob", "gob"),
        ("a.json", "[]"),
        ("model.bin", "weights"),
        ("sub", ""),
        ("sub/b.json", "{}"),
    ];
    let found = contents(&tarball);
    let found: Vec<_> = found.iter().map(|(n, t)| (n.trim_end_matches('/'), t.as_str())).collect();
    assert_eq!(found, expected);
    let bytes = fs::read(&tarball).unwrap();
    assert_eq!(committed[0].size_bytes, bytes.len() as u64);
    assert_eq!(committed[0].sha256, Sha256::digest(&bytes).to_vec());
}

#[test]
fn replaced_model_is_reported() {
    let bench = Bench::new();
    let publish = |attempt| {
        let publication = bench.publication(attempt);
        publication.commit(publication.stage(&|_| ()).unwrap()).unwrap().remove(0).replaced
    };
    assert_eq!(publish(1), None);
    let published = publish(2).unwrap();
    assert!(published.made_ms > 1_700_000_000_000 && published.trained_by.is_empty(), "{published:?}");
    let meta = bench.dir.path().join("workspace/outputs/m/model_meta.json");
    fs::write(&meta, "{\"trained_ms\": 1732104131000, \"trained_by\": \"an\\na\"}").unwrap();
    publish(3);
    let names: Vec<_> = contents(&bench.model().join("m.tar.gz")).into_iter().map(|it| it.0).collect();
    assert_eq!(names[..4], ["sqlflow.gob", "m.gob", "model_meta.json", "a.json"], "before the weights");
    let trained = EarlierModel { made_ms: 1_732_104_131_000, trained_by: "ana".to_owned() };
    assert_eq!(publish(4), Some(trained));
    // A file that is not a model is replaced too.
    fs::write(bench.model().join("m.tar.gz"), "something").unwrap();
    assert!(publish(5).is_some());
}

#[test]
fn removal_happens_at_the_commit_and_requires_the_model_unless_if_exists() {
    let bench = Bench::new();
    let mut removal = bench.removal(1, false);
    removal.outputs[0].source = bench.dir.path().join("workspace/outputs/none");
    removal.prepare(&|_| ()).unwrap();
    assert!(!removal.outputs[0].source.exists(), "a removal has no folder to publish");
    let missing = removal.stage(&|_| ()).unwrap_err();
    assert!(missing.message.starts_with("cannot drop model m at file:///"), "{}", missing.message);
    assert!(
        missing.message.ends_with("it does not exist") && missing.kind == PublishErrorKind::UserError,
        "{}",
        missing.message
    );
    for publication in [bench.removal(1, true), bench.removal(2, false)] {
        let removed = publication.commit(publication.stage(&|_| ()).unwrap()).unwrap();
        assert!(removed[0].removed && removed[0].replaced.is_none());
    }
    let publication = bench.publication(1);
    publication.commit(publication.stage(&|_| ()).unwrap()).unwrap();
    let removal = bench.removal(1, false);
    let staged = removal.stage(&|_| ()).unwrap();
    assert_eq!(bench.files(), ["m.tar.gz", "sqlflow.gob"]);
    let removed = removal.commit(staged).unwrap();
    assert!(removed[0].removed && removed[0].replaced.is_some());
    assert!(!bench.model().exists());
}

#[test]
fn tarball_is_reproducible() {
    let (one, two) = (Bench::new(), Bench::new());
    fs::File::open(two.dir.path().join("workspace/outputs/m/model.bin"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let sums = [&one, &two].map(|bench| bench.publication(1).stage(&|_| ()).unwrap()[0].sha256.clone());
    assert_eq!(sums[0], sums[1]);
}

#[test]
fn empty_output_is_an_error_and_keeps_the_old_model() {
    for emptied in ["workspace/outputs/m", "workspace/outputs"] {
        let bench = Bench::new();
        fs::create_dir_all(bench.model()).unwrap();
        fs::write(bench.model().join("m.tar.gz"), "old").unwrap();
        fs::remove_dir_all(bench.dir.path().join(emptied)).unwrap();
        fs::create_dir_all(bench.dir.path().join("workspace/outputs/m/folder")).unwrap();
        let error = bench.publication(1).stage(&|_| ()).unwrap_err();
        assert!(error.message.contains("left no file in"), "{}", error.message);
        assert_eq!(fs::read_to_string(bench.model().join("m.tar.gz")).unwrap(), "old");
    }
}

/// The agent can open files that are closed to the command.
#[test]
fn folder_that_became_a_link_out_of_the_workspace_is_refused() {
    let bench = Bench::new();
    let (outputs, outside) = (bench.dir.path().join("workspace/outputs"), bench.dir.path().join("outside"));
    fs::rename(&outputs, &outside).unwrap();
    std::os::unix::fs::symlink(&outside, &outputs).unwrap();
    let error = bench.publication(1).stage(&|_| ()).unwrap_err();
    assert!(error.message.contains("it is a link out of the workspace"), "{}", error.message);
    assert_eq!(error.kind, PublishErrorKind::UserError);
}

/// As by a hard link that the command made, or a link that it exchanged for a file.
#[test]
fn folder_of_another_user_is_read_with_its_rights() {
    use std::os::unix::fs::PermissionsExt as _;
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let bench = Bench::new();
    fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let secret = bench.dir.path().join("workspace/outputs/m/secret");
    fs::write(&secret, "of root").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let user = RunAs { uid: 65534, gid: 65534 };
    let error = bench.publication(1).reading_as(Some(user)).stage(&|_| ()).unwrap_err();
    let cannot = format!("cannot read {}: Permission denied", secret.display());
    assert!(error.message.contains(&cannot), "{}", error.message);
    assert_eq!(error.kind, PublishErrorKind::UserError);
    bench.publication(2).stage(&|_| ()).expect("the agent itself may");
}

#[test]
fn inner_links_are_kept_and_outer_links_are_reported() {
    use std::os::unix::fs::symlink;
    let bench = Bench::new();
    let output = bench.dir.path().join("workspace/outputs/m");
    for (target, link) in [
        ("model.bin", "latest"),
        ("sub", "folder"),
        ("../a.json", "sub/up"),
        ("nowhere", "dangling"),
        // They lead out, together or alone.
        ("/etc/passwd", "x"),
        ("../../main.py", "y"),
        ("x", "by-x"),
    ] {
        symlink(target, output.join(link)).unwrap();
    }
    symlink(output.join("sub/b.json"), output.join("sub/absolute")).unwrap();
    fs::write(bench.dir.path().join("workspace/main.py"), "").unwrap();
    nix::unistd::mkfifo(&output.join("sub/pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let warnings = Mutex::new(Vec::new());
    let warn = |text| warnings.lock().unwrap().push(text);
    let publication = bench.publication(1);
    publication.prepare(&warn).unwrap();
    publication.commit(publication.stage(&warn).unwrap()).unwrap();
    let warnings = warnings.into_inner().unwrap();
    assert_eq!(warnings.len(), 1, "warned once: {warnings:?}");
    for left_out in [
        "by-x (a link to x)",
        "x (a link to /etc/passwd)",
        "y (a link to ../../main.py)",
        "sub/pipe (a named pipe)",
    ] {
        assert!(warnings[0].contains(left_out), "{warnings:?}");
    }
    let unpacked = bench.dir.path().join("unpacked");
    let tarball = fs::File::open(bench.model().join("m.tar.gz")).unwrap();
    sqlflow_model_storage::unpack::unpack(tarball, &unpacked, &mut Default::default()).unwrap();
    for (link, target) in [
        ("latest", "model.bin"),
        ("folder", "sub"),
        ("sub/up", "../a.json"),
        ("dangling", "nowhere"),
        ("sub/absolute", "../sub/b.json"),
    ] {
        assert_eq!(fs::read_link(unpacked.join(link)).unwrap(), Path::new(target));
    }
    assert_eq!(fs::read_to_string(unpacked.join("folder/absolute")).unwrap(), "{}");
    for left_out in ["x", "y", "by-x", "sub/pipe"] {
        assert!(fs::symlink_metadata(unpacked.join(left_out)).is_err(), "{left_out}");
    }
}

#[test]
fn conflicting_outputs_are_rejected() {
    let attempt = AttemptRef::default();
    let output = |uri: &str, directory: &str| Output {
        uri: uri.into(),
        name: "m".into(),
        directory: directory.into(),
        ..Output::default()
    };
    let refused = |outputs: &[Output]| {
        Publication::new(&attempt, outputs, Path::new("/"), Duration::ZERO).err().unwrap_or_default()
    };
    let twice = refused(&[output("file:///models", "a"), output("file:///models", "b")]);
    assert!(twice.contains("two outputs"), "{twice}");
    let itself = refused(&[output("file:///a/models", "a")]);
    assert!(itself.contains("into itself"), "{itself}");
    assert_eq!(refused(&[output("file:///models", "a"), output("file:///others", "a")]), "");
}

#[test]
fn staging_of_earlier_attempts_is_removed() {
    let bench = Bench::new();
    for stale in [".staging-j-1-1", ".staging-j-1-3", ".staging-j-2-1", ".staging-other-1-1"] {
        fs::create_dir_all(bench.model().join(stale)).unwrap();
    }
    let publication = bench.publication(2);
    publication.commit(publication.stage(&|_| ()).unwrap()).unwrap();
    let left = bench.files();
    assert_eq!(left, [".staging-j-1-3", ".staging-j-2-1", ".staging-other-1-1", "m.tar.gz", "sqlflow.gob"]);
}

#[test]
fn abandoned_publication_removes_its_staging() {
    let bench = Bench::new();
    let publication = bench.publication(1);
    publication.stage(&|_| ()).unwrap();
    publication.abandon();
    publication.clear();
    assert!(bench.files().is_empty());
    assert!(bench.publication(1).stage(&|_| ()).is_ok());
}

#[test]
fn storage_failure_within_the_timeout_is_retried() {
    let bench = Bench::new();
    // A file in place of the model's folder: every try fails until it is removed.
    fs::create_dir_all(bench.dir.path().join("models")).unwrap();
    fs::write(bench.model(), "a file").unwrap();
    let mut publication = bench.publication(1);
    publication.retry = Arc::new(RetryPolicy::new(Duration::from_secs(60)));
    std::thread::scope(|scope| {
        let staged = scope.spawn(|| publication.stage(&|_| ()));
        fs::remove_file(bench.model()).unwrap();
        assert!(staged.join().unwrap().is_ok());
    });
}

/// The error of a network file system after an outage of its server.
#[test]
fn stale_handle_is_retryable() {
    let error = PackError::Io(io::ErrorKind::StaleNetworkFileHandle.into());
    assert_eq!(PublishErrorKind::from(&error), PublishErrorKind::Storage);
}

/// As on a failing disk: the model's folder is in procfs, which cannot be synced.
#[test]
fn unsynced_commit_is_reported_as_unknown() {
    use std::os::fd::AsRawFd as _;
    let bench = Bench::new();
    fs::create_dir_all(bench.model()).unwrap();
    let folder = fs::File::open(bench.model()).unwrap();
    let output = Output {
        uri: format!("file:///proc/self/fd/{}", folder.as_raw_fd()),
        name: "m".into(),
        directory: "outputs/m".into(),
        gob: "gob".into(),
        ..Output::default()
    };
    let workspace = bench.dir.path().join("workspace");
    let publication =
        Publication::new(&AttemptRef::default(), &[output], &workspace, Duration::ZERO).unwrap();
    let error = publication.commit(publication.stage(&|_| ()).unwrap()).unwrap_err();
    assert!(
        error.message.starts_with("model m may be in place at file:///proc/self/fd/"),
        "{}",
        error.message
    );
    assert!(error.message.contains("cannot sync its folder"), "{}", error.message);
    assert!(bench.files().iter().any(|name| name.ends_with(".tar.gz")), "{:?}", bench.files());
}

/// Also if the writer of an older tarball writes its gob later.
#[test]
fn gob_matches_the_tarball_after_concurrent_commits() {
    let bench = Bench::new();
    let publish = |step, gob: &'static str| {
        let mut publication = bench.publication(1);
        let attempt = AttemptRef { job_id: "j".into(), step, attempt: 1 };
        publication.outputs[0].output.gob = gob.into();
        let location = ModelLocation::new(&publication.outputs[0].output.uri, "m").unwrap();
        publication.outputs[0].store = store::open(&location, &attempt, &publication.retry).unwrap();
        publication
    };
    let (late, other) = (publish(1, "late"), publish(2, "other"));
    late.stage(&|_| ()).unwrap();
    let tarball = &late.outputs[0].tarball;
    late.outputs[0].store.commit(tarball).unwrap();
    other.commit(other.stage(&|_| ()).unwrap()).unwrap();
    late.outputs[0].publish_gob(&late.retry).unwrap();
    assert_eq!(fs::read_to_string(bench.model().join("sqlflow.gob")).unwrap(), "other");

    // A tarball without a gob, written by hand.
    fs::write(bench.model().join(tarball), "corrupted").unwrap();
    late.outputs[0].publish_gob(&late.retry).unwrap();
    assert_eq!(fs::read_to_string(bench.model().join("sqlflow.gob")).unwrap(), "late");
    fs::remove_file(bench.model().join(tarball)).unwrap();
    late.outputs[0].publish_gob(&late.retry).unwrap();
}

/// The staging folder was removed, for example as that of a dead writer.
#[test]
fn missing_staged_file_is_a_write_conflict() {
    let bench = Bench::new();
    let publication = bench.publication(1);
    let staged = publication.stage(&|_| ()).unwrap();
    fs::remove_dir_all(bench.model()).unwrap();
    let error = publication.commit(staged).unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::WriteConflict, "{error:?}");
    publication.commit(publication.stage(&|_| ()).unwrap()).unwrap();
    assert_eq!(bench.files(), ["m.tar.gz", "sqlflow.gob"]);
}
