//! A result log that is older than what its server has acknowledged: somebody restored a copy.

use std::path::Path;
use std::process::Command;

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::stand_in::{self, STEP};

use super::streams::Reading;

/// Prints a line, then one more for each file `go-<n>` that the test makes.
const CODE: &str = "
import os, sys, time
print('line 0')
for n in range(1, 4):
    while not os.path.exists(sys.argv[1] + f'/go-{n}'): time.sleep(0.01)
    print('line', n)
";

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success(), "{status}");
}

/// The agent has dropped what was acknowledged; a gap stands for it, and what comes later is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_stands_for_what_a_restored_log_does_not_have() {
    let dir = tempfile::tempdir().unwrap();
    let setup = stand_in::setup(dir.path(), CODE, None);
    let (log, backup) = (setup.state_dir.join("log"), dir.path().join("backup"));
    let go = |n: u32| std::fs::write(dir.path().join(format!("go-{n}")), "").unwrap();
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(STEP).await.unwrap();
    let mut reading = Reading::of(&token);
    reading.until(&mut client, |it| it.says("line 0\n")).await;
    server.kill();
    copy(&log, &backup);

    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    for n in [1, 2] {
        go(n);
        reading.until(&mut client, |it| it.says(&format!("line {n}\n"))).await;
    }
    server.kill();
    std::fs::remove_dir_all(&log).unwrap();
    copy(&backup, &log);

    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    go(3);
    let ended = client.follow(&token).await.unwrap();
    ended.expect_success();
    // The acknowledgement of line 2 may have been lost with its server; that of line 1 came before line 2 was printed.
    assert_eq!(ended.log().replace("line 2\n", ""), "line 0\nline 3\n");
    let gaps: Vec<_> = ended
        .payloads()
        .filter_map(|it| if let Payload::Gap(gap) = it { Some(gap.reason.as_str()) } else { None })
        .collect();
    assert_eq!(gaps, ["the server's log was restored from an older copy"]);
}
