//! Output while no server runs.

use std::path::Path;

use sqlflow_proto::v1::job_status::Code;
use sqlflow_tests::server::Setup;
use sqlflow_tests::stand_in::{self, PIECES, STEP};

use super::reading::Reading;

const MEGABYTES: u64 = 40;

/// Prints `up`, waits until the server is gone, prints the rest, and creates a file at the end.
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

/// The job's output, read by a server that starts once the program has printed everything.
async fn read_after_the_outage(setup: &Setup, dir: &Path) -> Reading {
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

/// Memory holds 8 MiB; the rest goes to the overflow file.
#[tokio::test(flavor = "multi_thread")]
async fn output_during_a_server_outage_is_delivered_later() {
    let dir = tempfile::tempdir().unwrap();
    let reading = read_after_the_outage(&printing(dir.path()), dir.path()).await;
    assert_eq!(reading.status.code(), Code::Succeeded, "{:?}", reading.status);
    assert_eq!((reading.length, reading.gaps), ((MEGABYTES << 20) + 3, 0));
}

/// With the policy `drop` and no overflow file the program continues, and a gap record has the number of missing bytes.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_output_reports_exact_byte_count() {
    let dir = tempfile::tempdir().unwrap();
    let setup =
        printing(dir.path()).env("SQLFLOW_AGENT_WHEN_FULL", "drop").env("SQLFLOW_AGENT_SPOOL_DISK", "0");
    let reading = read_after_the_outage(&setup, dir.path()).await;
    assert_eq!(reading.status.code(), Code::Succeeded, "{:?}", reading.status);
    assert!(reading.gaps > 0 && reading.missing > 20 << 20, "{reading:?}");
    assert_eq!(reading.length + reading.missing, (MEGABYTES << 20) + 3);
}
