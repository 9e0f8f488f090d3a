//! A server that is stopped (SIGSTOP) while it holds locks does not block other servers.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Cause, GetJobRequest, Token, get_job_request::By};
use sqlflow_tests::client::Client;
use sqlflow_tests::server::Server;
use sqlflow_tests::sqlite_lock;
use sqlflow_tests::stand_in::{self, STEP};

use super::silent_agent::Stopped;

/// Timeout for operations that must not wait for the stopped server. Far more than they take.
pub(super) const BOUND: Duration = Duration::from_secs(90);

/// Prints numbers until the file `stop` exists: the first job without a pause, the others ten each second.
const COUNTS: &str = "
import os, sys, time
try:
    os.close(os.open(sys.argv[1] + '/first', os.O_CREAT | os.O_EXCL))
    pause = 0
except FileExistsError:
    pause = 0.1
number = 0
while not os.path.exists(sys.argv[1] + '/stop'):
    print(number, flush=True)
    number += 1
    time.sleep(pause)
";

/// Whether this process holds the lock of the job's log.
pub(super) fn holds_log(server: &Server, state_dir: &Path, job: &str) -> bool {
    let folders = std::fs::read_dir(state_dir.join("log")).unwrap().flatten();
    let lock = folders.map(|it| it.path().join(job).join("lock")).find(|it| it.is_file());
    // A small log has no lock.
    let Some(lock) = lock else { return false };
    let (inode, pid) = (lock.metadata().unwrap().ino().to_string(), server.pid().to_string());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        matches!(words[..], [_, "FLOCK", _, _, holder, place, ..]
            if holder == pid && place.ends_with(&format!(":{inode}")))
    })
}

/// Stops the server while it holds the lock of the job's log, and not that of the other job.
async fn stop_in_log(server: &Server, state_dir: &Path, job: &str, other: &str) -> Stopped {
    let search = async {
        loop {
            let stopped = Stopped::new(server.pid());
            if holds_log(server, state_dir, job) && !holds_log(server, state_dir, other) {
                return stopped;
            }
            drop(stopped);
            tokio::time::sleep(Duration::from_millis(rand::random_range(1..5))).await;
        }
    };
    tokio::time::timeout(BOUND, search).await.expect("the server does not hold the log's lock")
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future)
        .await
        .unwrap_or_else(|_| panic!("{what} waits for the stopped server"))
}

async fn until_it_prints(client: &mut Client, token: &Token) -> Token {
    client.until(token, |it| matches!(it, Payload::Log(_))).await.unwrap()
}

async fn until_there(file: &Path) {
    let search = async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, search).await.expect("the step does not run");
}

/// Reads all current results. Returns the cursor after them.
async fn read_on(client: &mut Client, token: &Token) -> Token {
    let mut cursor = token.clone();
    loop {
        let page = client.api.fetch(cursor.clone()).await.unwrap().into_inner();
        cursor = page.next.unwrap();
        // The job prints meanwhile.
        if page.results.len() < 20 {
            return cursor;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_server_with_a_log_lock_does_not_block_other_servers() {
    let dir = tempfile::tempdir().unwrap();
    let setup = stand_in::setup(dir.path(), COUNTS, None).flag("--max-running=4").flag("--small-log=0");
    let first = setup.start().unwrap();
    let mut client = first.client().await.unwrap();
    let busy = client.run(STEP).await.unwrap();
    until_it_prints(&mut client, &busy).await;
    let calm = client.run(STEP).await.unwrap();
    until_it_prints(&mut client, &calm).await;
    let stopped = stop_in_log(&first, &setup.state_dir, &busy.job_id, &calm.job_id).await;

    let second = setup.start().unwrap();
    let mut client = second.client().await.unwrap();
    within("Fetch", client.api.fetch(busy.clone())).await.unwrap();
    within("Cancel", client.api.cancel(busy.clone())).await.unwrap();
    let new = within("Run", client.run(STEP)).await.unwrap();
    within("a new job's output", until_it_prints(&mut client, &new)).await;
    let cursor = within("Fetch", read_on(&mut client, &calm)).await;
    within("a running job's output", until_it_prints(&mut client, &cursor)).await;

    drop(stopped);
    let ended = client.follow(&busy).await.unwrap();
    assert_eq!(ended.status.cause(), Cause::Cancelled, "{:?}", ended.status);
    std::fs::write(dir.path().join("stop"), "").unwrap();
    for token in [calm, new] {
        // From the first record: the plain token would continue.
        let beginning = Token { token: format!("{}.0", token.token), ..token.clone() };
        let ended = client.follow(&beginning).await.unwrap();
        ended.expect_success();
        let numbers: Vec<usize> = ended.log().lines().map(|it| it.parse().unwrap()).collect();
        assert_eq!(
            numbers,
            (0..numbers.len()).collect::<Vec<_>>(),
            "lines are lost, duplicated or out of order"
        );
        assert!(!ended.payloads().any(|it| matches!(it, Payload::Gap(_))));
        let by = GetJobRequest { by: Some(By::Token(token.token)) };
        let job = client.api.get_job(by).await.unwrap().into_inner();
        assert_eq!(job.steps[0].attempts.len(), 1, "the attempt was disturbed: {job:?}");
    }
    // The first server works again too.
    let mut client = first.client().await.unwrap();
    client.follow(&client.clone().run(STEP).await.unwrap()).await.unwrap().expect_success();
    kill(second.pid(), Signal::SIGKILL).unwrap();
    client.follow(&client.clone().run(STEP).await.unwrap()).await.unwrap().expect_success();
}

/// As if a server were stopped during a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn stopped_writer_does_not_block_fetch_and_is_named_in_errors() {
    let dir = tempfile::tempdir().unwrap();
    // Small logs are written with the state, so they would wait for the writer.
    let setup = stand_in::setup(dir.path(), COUNTS, None).flag("--small-log=0");
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(STEP).await.unwrap();
    // Nothing was fetched yet, and neither the launch nor the start of the log needs another write.
    let shard = &token.job_id[token.job_id.len() - 2..];
    let log = setup.state_dir.join("log").join(shard).join(&token.job_id);
    until_there(&log.join(format!("{:020}.log", 1))).await;

    let mut writer = sqlite_lock::hold(&setup.state_dir.join("state.db")).await.unwrap();
    let pid = i32::try_from(writer.id().unwrap()).unwrap();
    let stopped = Stopped::new(nix::unistd::Pid::from_raw(pid));

    // The first Fetch of a job is recorded, and so is each one that confirms the previous page.
    let mut read = 0;
    for _ in 0..4 {
        let mut fetch = tonic::Request::new(token.clone());
        fetch.set_timeout(Duration::from_secs(4));
        let page = client.api.fetch(fetch).await.expect("Fetch does not wait for a writer").into_inner();
        let first = page.results.first().expect("it prints all the time").position;
        assert_eq!(first, read + 1, "a page is repeated or skipped");
        read = page.results.last().unwrap().position;
    }
    let refused = client.run(STEP).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("process {pid}, which is stopped")), "{refused}");
    drop(stopped);
    writer.kill().await.unwrap();
    let second = client.run(STEP).await.expect("the state can be written again");
    std::fs::write(dir.path().join("stop"), "").unwrap();
    client.follow(&token).await.unwrap().expect_success();
    client.follow(&second).await.unwrap().expect_success();
}
