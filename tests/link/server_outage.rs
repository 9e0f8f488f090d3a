//! No server is there while the program prints.

use std::path::Path;

use sqlflow_proto::v1::job_status::Code;
use sqlflow_tests::server::Setup;
use sqlflow_tests::stand_in::{self, PIECES, STEP};

use super::streams::Reading;

const MEGABYTES: u64 = 40;

/// Says that it is up, waits until the server is gone, prints, and leaves a file when all is printed.
fn printing(dir: &Path) -> Setup {
    let code = format!(
        "{PIECES}
import os, sys, time
print('up')
while not os.path.exists(sys.argv[1] + '/gone'): time.sleep(0.01)
for piece in pieces(13, {MEGABYTES}): sys.stdout.buffer.write(piece)
sys.stdout.flush()
open(sys.argv[1] + '/printed', 'w').close()
"
    );
    stand_in::setup(dir, &code, None)
}

/// Gives what was read after the server came back; the program has printed everything before that.
async fn printed_while_the_server_was_away(setup: &Setup, dir: &Path) -> Reading {
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(STEP).await.unwrap();
    let mut reading = Reading::of(&token);
    reading.until(&mut client, |it| it.says("up\n")).await;
    server.kill();
    std::fs::write(dir.join("gone"), "").unwrap();
    let begun = std::time::Instant::now();
    while !dir.join("printed").exists() {
        assert!(begun.elapsed().as_secs() < 120, "the program waits for a server");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    reading.until(&mut client, Reading::is_over).await;
    reading
}

/// Memory holds 8 MiB; the rest goes to disk, and all of it arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_goes_on_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let reading = printed_while_the_server_was_away(&printing(dir.path()), dir.path()).await;
    assert_eq!(reading.status.code(), Code::Succeeded, "{:?}", reading.status);
    assert_eq!((reading.length, reading.gaps), ((MEGABYTES << 20) + 3, 0));
}

/// With the policy `drop` and no disk the program goes on too, and the log says how much is missing.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_is_told_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let setup =
        printing(dir.path()).env("SQLFLOW_AGENT_WHEN_FULL", "drop").env("SQLFLOW_AGENT_SPOOL_DISK", "0");
    let reading = printed_while_the_server_was_away(&setup, dir.path()).await;
    assert_eq!(reading.status.code(), Code::Succeeded, "{:?}", reading.status);
    assert!(reading.gaps > 0 && reading.missing > 20 << 20, "{reading:?}");
    assert_eq!(reading.length + reading.missing, (MEGABYTES << 20) + 3);
}
