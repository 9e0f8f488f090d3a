//! Outputs are published as a whole or not at all.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use sqlflow_tests::agent::{Exec, watch_memory};
use sqlflow_tests::until::until;

fn output(dir: &Path) -> [String; 2] {
    let flag = format!("{0}/out=file://{0}/models/m.tar.gz", dir.display());
    ["--output".to_owned(), flag]
}

fn unpacked(dir: &Path, file: &str) -> String {
    let tarball = dir.join("models/m.tar.gz");
    let output = Command::new("tar").arg("xOzf").arg(&tarball).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs in the same folder, one after the other.
fn run(dir: &Path, script: &str) -> sqlflow_tests::agent::Ended {
    let script = format!("mkdir -p out && cd out && {script}");
    Exec::new().flags(output(dir)).start(&["sh", "-c", &format!("cd {} && {script}", dir.display())]).end()
}

/// A#3761: the files of a failed run do not replace the model.
#[test]
fn failed_run_keeps_the_old_model() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(dir.path(), "echo 1 > weights").code, Some(0));
    for script in ["echo 2 > weights; exit 1", "echo 2 > weights; kill -9 $$"] {
        assert_ne!(run(dir.path(), script).code, Some(0));
        assert_eq!(unpacked(dir.path(), "weights"), "1\n");
    }
    assert_eq!(run(dir.path(), "echo 3 > weights").code, Some(0));
    assert_eq!(unpacked(dir.path(), "weights"), "3\n");
    let left = std::fs::read_dir(dir.path().join("models")).unwrap().count();
    assert_eq!(left, 1, "no staging is left");
}

/// flyte PR#5444, SF#1317: the run fails although the command succeeded.
#[test]
fn unpublishable_model_fails_a_successful_command() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(dir.path(), "echo 1 > weights").code, Some(0));
    // A read-only mount, which root cannot write either.
    let models = dir.path().join("models");
    let models = models.display();
    let script =
        format!("mount --bind {models} {models} && mount -o remount,ro,bind {models} && exec \"$0\" \"$@\"");
    let ended = Exec::within(&["unshare", "-m", "sh", "-c", &script])
        .flags(["--publish-retry", "0"])
        .flags(output(dir.path()))
        .start(&["sh", "-c", &format!("echo 2 > {}/out/weights", dir.path().display())])
        .end();
    assert_eq!(
        (ended.code, &ended.outcome["reason"]),
        (Some(65), &"publish_failed".into()),
        "{}",
        ended.outcome
    );
    assert!(ended.stderr.contains("could not be published"), "{}", ended.stderr);
    assert_eq!(unpacked(dir.path(), "weights"), "1\n");
    let empty = run(dir.path(), "rm -f weights");
    assert_eq!(empty.code, Some(65));
    assert!(empty.stderr.contains("left no file"), "{}", empty.stderr);
    assert_eq!(unpacked(dir.path(), "weights"), "1\n");
}

/// A#724, A#10378: the model is much larger than the agent. In `make drill` it is as large as in the report.
#[test]
fn large_model_is_published_with_bounded_memory() {
    let gib: u64 = std::env::var("SQLFLOW_DRILL_MODEL_GIB").map_or(1, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    // A sparse file fills no disk. Its holes are read and packed like any bytes.
    std::fs::File::create(out.join("weights")).unwrap().set_len(gib << 30).unwrap();
    let running = Exec::shipped().flags(output(dir.path())).start(&["true"]);
    let watch = watch_memory(running.pid());
    let (ended, run_dir) = running.end_in_folder();
    drop(run_dir);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let peak = watch.join().unwrap();
    assert!(peak > 0 && peak < 64 << 20, "the agent used {peak} bytes");
    let listed = Command::new("tar").arg("tvzf").arg(dir.path().join("models/m.tar.gz")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(&format!(" {} ", gib << 30)), "{listed}");
}

/// OSMO#764, A#11241: TERM during the upload. Publishing has its share of the grace period.
#[test]
fn staged_model_is_published_within_the_grace_period() {
    let (ended, dir) = terminated_while_staging(&["--termination-grace", "300"]);
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(0), &"succeeded".into()), "{}", ended.outcome);
    assert!(dir.path().join("models/m.tar.gz").exists());
}

/// OSMO#764, A#11241: if the time is too short, no partial model is left, and that is reported.
#[test]
fn publishing_beyond_the_grace_period_leaves_no_partial_model() {
    let (ended, dir) = terminated_while_staging(&["--termination-grace", "0.2"]);
    ended.expect_given_up();
    let left: Vec<_> = std::fs::read_dir(dir.path().join("models")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn terminated_while_staging(flags: &[&str]) -> (sqlflow_tests::agent::Ended, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::File::create(out.join("weights")).unwrap().set_len(1 << 30).unwrap();
    let running = Exec::new().flags(output(dir.path())).flags(flags).start(&["true"]);
    let models = dir.path().join("models");
    until("the model is staged", || std::fs::read_dir(&models).map_or(0, Iterator::count) > 0);
    running.signal(Signal::SIGTERM);
    (running.end(), dir)
}

#[test]
fn published_model_is_input_of_another_run() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(dir.path(), "mkdir sub && echo 7 > sub/weights").code, Some(0));
    let input = format!("file://{0}/models/m.tar.gz={0}/in", dir.path().display());
    let get = |input: &str| {
        let cat = format!("{}/in/sub/weights", dir.path().display());
        Exec::new().flags(["--input", input]).start(&["cat", &cat]).end()
    };
    assert_eq!(get(&input).stdout, b"7\n");
    let missing = get(&input.replace("m.tar.gz", "n.tar.gz"));
    assert_eq!((missing.code, &missing.outcome["reason"]), (Some(65), &"input_failed".into()));
    assert!(missing.stderr.contains("does not exist"), "{}", missing.stderr);
}

/// A folder is restored with its links and folders, their modes and times. What cannot be restored is reported.
#[test]
fn output_keeps_modes_times_and_links() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mkdir sub && echo tool > sub/tool && chmod 750 sub/tool && touch -d @1000000000 sub/tool
ln -s sub latest && ln -s /etc/passwd outside && mkfifo pipe && chmod 700 sub";
    let ended = run(dir.path(), script);
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(0), &"succeeded".into()), "{}", ended.stderr);
    assert!(ended.stderr.contains("outside (a link to /etc/passwd)"), "{}", ended.stderr);
    assert!(ended.stderr.contains("pipe (a named pipe)"), "{}", ended.stderr);
    let input = format!("file://{0}/models/m.tar.gz={0}/in", dir.path().display());
    let script = format!(
        "cd {}/in && stat -c '%n %a %Y' sub/tool && stat -c '%n %a' sub && cat latest/tool && ls",
        dir.path().display()
    );
    for _ in 0..2 {
        // The second time the files are there, as when a container is started again.
        let ended = Exec::new().flags(["--input", &input]).shell(&script).end();
        let shown = "sub/tool 750 1000000000\nsub 700\ntool\nlatest\nsub\n";
        assert_eq!(String::from_utf8_lossy(&ended.stdout), shown, "{}", ended.stderr);
    }
}

/// Errors that can be known before the command runs are reported before. The folder exists when the command starts.
#[test]
fn output_folder_is_created_and_checked_before_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display();
    let flag = format!("{place}/deep/out=file://{place}/models/m.tar.gz");
    let command = format!("echo 1 > {place}/deep/out/weights");
    let ended = Exec::new().flags(["--output", &flag]).shell(&command).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(unpacked(dir.path(), "weights"), "1\n");

    std::os::unix::fs::symlink("/etc", dir.path().join("deep/out/etc")).unwrap();
    let mut running =
        Exec::new().flags(["--output", &flag]).shell("until [ -e $DIR/gate ]; do sleep 0.01; done");
    running.wait_for_error("etc (a link to /etc)");
    std::fs::write(running.dir().join("gate"), "").unwrap();
    assert_eq!(running.end().code, Some(0));

    let file = format!("{place}/deep/out/weights=file://{place}/models/n.tar.gz");
    let ended = Exec::new().flags(["--output", &file]).shell("echo ran").end();
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(65), &b""[..]));
    assert!(ended.stderr.contains("cannot create the folder"), "{}", ended.stderr);
}

/// The first commit must not remove the staging of the other outputs, which would have to be packed again.
#[test]
fn outputs_of_one_folder_have_separate_staging() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display();
    let flags = ["a", "b", "c"].map(|it| format!("--output={place}/{it}=file://{place}/models/{it}.tar.gz"));
    let script = format!("cd {place}; for it in a b c; do echo $it > $it/weights; done");
    let ended = Exec::new().flags(flags).env("SQLFLOW_AGENT_LOG", "info").shell(&script).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("staging it again"), "{}", ended.stderr);
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path().join("models")).unwrap().map(|it| it.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a.tar.gz", "b.tar.gz", "c.tar.gz"]);
}
