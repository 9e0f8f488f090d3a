//! The server's disk is full. A mount namespace of the test's own has a small disk; the test runs itself in it.

use std::path::Path;
use std::process::Command;

use sqlflow_tests::server::Setup;
use tonic::Code;

const DISK: &str = "SQLFLOW_TEST_SMALL_DISK";

/// Runs in the namespace, where the folder is a disk of a few megabytes.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_small_disk() {
    let Some(disk) = std::env::var_os(DISK) else { return };
    let disk = Path::new(&disk);
    let setup = Setup::new(disk, format!("sqlite://{}/x.db", disk.display()));
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let first = client.run("SELECT 1").await.unwrap();
    client.follow(&first).await.unwrap().expect_success();

    let ballast = disk.join("ballast");
    let filled = std::fs::write(&ballast, vec![1; 64 << 20]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let long = format!("SELECT '{}'", "x".repeat(1 << 20));
    let refused = client.run(long.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("space"), "{refused:?}");
    // What was promised is still there.
    client.follow(&first).await.unwrap().expect_success();

    std::fs::remove_file(ballast).unwrap();
    let token = client.run(long).await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    println!("the disk was full, and used again");
}

#[test]
fn a_full_disk_is_told_and_used_again_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=16m none "$0" && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(dir.path()).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "full_disk::on_a_small_disk", "--nocapture"]).env(DISK, dir.path());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("used again"),
        "this test mounts a small disk and needs the right to do so\n{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
