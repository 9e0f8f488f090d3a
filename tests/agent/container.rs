//! The agent as a container runs it: PID 1, any uid, a read-only root, an image with nothing else.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_tests::agent::{Exec, shipped};
use sqlflow_tests::server::{copy_program, program};

/// A pid namespace in which the agent is PID 1.
const AS_PID_1: [&str; 5] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];

#[test]
fn pid_1_reaps_a_thousand_orphans() {
    let script = "test $PPID = 1 || exit 9
i=0; while [ $i -lt 1000 ]; do (: &) ; i=$((i+1)); done
while grep -lqE '^State:.Z' /proc/[0-9]*/status 2> /dev/null; do :; done; echo clean";
    let ended = Exec::within(&AS_PID_1).shell(script).end();
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), b"clean\n".as_slice()), "{}", ended.stderr);
}

#[test]
fn subreaper_reaps_a_thousand_orphans() {
    let script = "agent=$PPID
i=0; while [ $i -lt 1000 ]; do (: &) ; i=$((i+1)); done
children() { cat /proc/$agent/task/*/children; }
while [ \"$(children)\" != \"$$ \" ]; do :; done; echo clean";
    let ended = Exec::new().shell(script).end();
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), b"clean\n".as_slice()), "{}", ended.stderr);
}

/// The kernel drops signals that PID 1 has no handler for. TERM from outside must arrive.
#[test]
fn pid_1_handles_term_from_outside_the_container() {
    let mut running = Exec::within(&AS_PID_1).shell("echo up; exec sleep 600");
    running.line();
    // `unshare` is the parent; its child is PID 1 of the namespace.
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let agent: i32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(agent), Signal::SIGTERM).unwrap();
    let ended = running.end();
    assert_eq!(ended.code, Some(143), "{}", ended.stderr);
    let by = ended.outcome["ended_by"].as_str().unwrap();
    assert!(by.contains("outside of the container"), "{by}");
}

/// A root folder with the agent, an empty `/proc` and an empty `/tmp`.
fn image(dir: &Path) {
    for folder in ["proc", "tmp"] {
        std::fs::create_dir(dir.join(folder)).unwrap();
    }
    copy_program(&shipped(), &dir.join("agent"));
}

/// A#6238, A#9139. The image has no other program, so the agent is the command too.
#[test]
fn any_uid_on_a_read_only_empty_root_runs_the_command() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path());
    let script =
        "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && mount -t proc proc \"$0/proc\" &&
exec chroot --userspec=12345:54321 --groups= \"$0\" /agent exec -- /agent exec -- /agent --version";
    let output = Command::new("unshare").args(["-m", "sh", "-c", script]).arg(dir.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "this test needs permission to create namespaces\n{stderr}");
    assert!(output.stdout.starts_with(b"sqlflow-agent "), "{output:?}");
    assert_eq!(stderr, "");
}

/// A#6238: a missing permission is reported at once, with an exit code of its own. The program that ships has no unwind
/// tables. It must not unwind even if the environment asks for backtraces.
#[test]
fn unwritable_log_folder_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path());
    let script =
        "exec chroot --userspec=12345:54321 --groups= \"$0\" /agent exec --log-to /log -- /agent --version";
    let mut chroot = Command::new("sh");
    let output = chroot.args(["-c", script]).arg(dir.path()).env("RUST_BACKTRACE", "1").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    assert!(stderr.contains("/log") && stderr.contains("Permission denied"), "{stderr}");
}

/// The static agent cannot load the system's Kerberos library: an attempt to do so would abort it.
#[test]
fn hdfs_with_kerberos_is_rejected_before_the_command_runs() {
    let conf = tempfile::tempdir().unwrap();
    let setting = "<configuration><property><name>hadoop.security.authentication</name><value>kerberos</value></property></configuration>";
    std::fs::write(conf.path().join("core-site.xml"), setting).unwrap();
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("weights"), "w").unwrap();
    let ended = Exec::with_agent(&[], &shipped())
        .env("HADOOP_CONF_DIR", conf.path().to_str().unwrap())
        .flags(["--output", &format!("{}=hdfs://127.0.0.1:9/m.tar.gz", out.path().display())])
        .shell("echo ran")
        .end();
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(65), &b""[..]), "{}", ended.stderr);
    assert!(ended.stderr.contains("it requires Kerberos"), "{}", ended.stderr);
}

#[test]
fn install_copies_an_executable_agent() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        // The second call replaces the file of the first.
        assert!(Command::new(shipped()).arg("install").arg(dir.path()).status().unwrap().success());
    }
    let installed = dir.path().join("sqlflow-agent");
    let mode = std::os::unix::fs::PermissionsExt::mode(&installed.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o755);
    let left = std::fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name());
    let left: Vec<_> = left.filter(|it| it != "sqlflow-agent" && it != "sqlflow-data").collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(Exec::with_agent(&[], &installed).shell("exit 7").end().code, Some(7));
    let refused = Command::new(shipped()).args(["install", "/no/such/folder"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(64));
}

/// Both have one version, so they are installed together.
#[test]
fn install_copies_the_data_process_beside_the_agent() {
    let image = tempfile::tempdir().unwrap();
    let volume = tempfile::tempdir().unwrap();
    let agent = image.path().join("agent");
    copy_program(&program("sqlflow-agent"), &agent);
    let install = || {
        let ended = Command::new(&agent).arg("install").arg(volume.path()).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let (code, said) = install();
    assert_eq!((code, said.lines().count()), (Some(0), 1), "{said}");
    assert!(said.contains("there is no sqlflow-data in"), "{said}");
    assert!(!volume.path().join("sqlflow-data").exists());

    std::fs::write(image.path().join("sqlflow-data"), "#!/bin/sh\necho data\n").unwrap();
    assert_eq!(install(), (Some(0), String::new()));
    let installed = volume.path().join("sqlflow-data");
    let mode = std::os::unix::fs::PermissionsExt::mode(&installed.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(Command::new(installed).output().unwrap().stdout, b"data\n");
    assert!(volume.path().join("sqlflow-agent").exists());

    // Neither is installed if one cannot be.
    std::fs::remove_file(image.path().join("sqlflow-data")).unwrap();
    std::fs::create_dir(image.path().join("sqlflow-data")).unwrap();
    std::fs::remove_file(volume.path().join("sqlflow-agent")).unwrap();
    let (code, said) = install();
    assert_eq!(code, Some(65), "{said}");
    assert!(!volume.path().join("sqlflow-agent").exists());
}
