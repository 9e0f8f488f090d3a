//! A result log restored from a backup: it is older than what its server has acknowledged.

use std::path::{Path, PathBuf};
use std::process::Command;

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Response, Token};
use sqlflow_tests::client::{Client, is_over};
use sqlflow_tests::server::Setup;
use sqlflow_tests::stand_in::{self, STEP};

use super::reading::Reading;

/// Prints a line, then one more for each file `go-<n>` that the test creates.
const CODE: &str = "
import os, sys, time
print('line 0')
for n in range(1, 4):
    while not os.path.exists(sys.argv[1] + f'/go-{n}'): time.sleep(0.01)
    print('line', n)
";

/// More code: many lines after the last file, each a record of its own.
const MANY_LINES: &str = "
for n in range(4, 20):
    time.sleep(0.05)
    print('line', n)
";

/// What is restored.
#[derive(Clone, Copy, PartialEq)]
enum What {
    /// The folder of logs, with all logs in it. The state stays.
    Logs,
    /// The state, with the small logs in it.
    State,
}

/// A backup of a state folder, without a server.
struct Backup {
    state_dir: PathBuf,
    dir: PathBuf,
    what: What,
}

impl Backup {
    fn of(setup: &Setup, dir: PathBuf, what: What) -> Self {
        std::fs::create_dir(&dir).unwrap();
        Self { state_dir: setup.state_dir.clone(), dir, what }
    }

    fn take(&self) {
        self.copy(&self.state_dir, &self.dir);
    }

    fn restore(&self) {
        for name in self.names() {
            let path = self.state_dir.join(name);
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
        self.copy(&self.dir, &self.state_dir);
    }

    fn copy(&self, from: &Path, to: &Path) {
        for from in self.names().iter().map(|name| from.join(name)).filter(|path| path.exists()) {
            let status = Command::new("cp").arg("-a").args([&from, to]).status().unwrap();
            assert!(status.success(), "{status}");
        }
    }

    fn names(&self) -> &[&str] {
        match self.what {
            What::Logs => &["log"],
            What::State => &["state.db", "state.db-wal", "state.db-shm"],
        }
    }
}

fn setup(dir: &Path, code: &str, what: What) -> Setup {
    let setup = stand_in::setup(dir, code, None);
    if what == What::Logs { setup.flag("--small-log=0") } else { setup }
}

/// The agent has dropped the acknowledged records. A gap record stands for them, and later records are there.
#[tokio::test(flavor = "multi_thread")]
async fn gap_record_stands_for_records_missing_in_a_restored_log() {
    expect_gap_record(What::Logs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gap_record_stands_for_records_missing_in_a_restored_small_log() {
    expect_gap_record(What::State).await;
}

async fn expect_gap_record(what: What) {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(dir.path(), CODE, what);
    let backup = Backup::of(&setup, dir.path().join("backup"), what);
    let go = |n: u32| std::fs::write(dir.path().join(format!("go-{n}")), "").unwrap();
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(STEP).await.unwrap();
    let mut reading = Reading::of(&token);
    reading.until(&mut client, |it| it.says("line 0\n")).await;
    server.kill();
    backup.take();

    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    for n in [1, 2] {
        go(n);
        reading.until(&mut client, |it| it.says(&format!("line {n}\n"))).await;
    }
    server.kill();
    backup.restore();

    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    go(3);
    let ended = client.follow(&token).await.unwrap();
    ended.expect_success();
    // The acknowledgement of line 2 may have been lost with the server. That of line 1 came before line 2 was printed.
    assert_eq!(ended.log().replace("line 2\n", ""), "line 0\nline 3\n");
    let gaps: Vec<_> = ended
        .payloads()
        .filter_map(|it| if let Payload::Gap(gap) = it { Some(gap.reason.as_str()) } else { None })
        .collect();
    assert_eq!(gaps, ["the server's log was restored from an older copy"]);
}

/// Reads a job with cursors or with the plain token.
struct Reader {
    token: Token,
    has_cursor: bool,
    seen: Vec<Response>,
}

impl Reader {
    /// Fetches a page. Returns whether it ends the log.
    async fn fetch(&mut self, client: &mut Client) -> bool {
        let page = client.api.fetch(self.token.clone()).await.unwrap().into_inner();
        let is_new =
            |it: &Response| self.has_cursor || self.seen.iter().all(|seen| seen.position != it.position);
        let new: Vec<_> = page.results.into_iter().filter(is_new).collect();
        self.seen.extend(new);
        if self.has_cursor {
            self.token = page.next.unwrap();
        }
        is_over(&page.job_status.unwrap())
    }

    fn printed(&self) -> String {
        let data = |it: &Response| match &it.response {
            Some(Payload::Log(log)) => String::from_utf8_lossy(&log.data).into_owned(),
            _ => String::new(),
        };
        self.seen.iter().map(data).collect()
    }

    async fn until(&mut self, client: &mut Client, line: &str) {
        while !self.printed().contains(line) {
            assert!(!self.fetch(client).await, "the job ended before {line:?}");
        }
        // With a plain token the next fetch confirms the page.
        self.fetch(client).await;
    }
}

/// The server must not assign positions again that the readers have read already.
#[tokio::test(flavor = "multi_thread")]
async fn reader_ahead_of_a_restored_log_gets_all_later_records() {
    expect_later_records(What::Logs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_ahead_of_a_restored_small_log_gets_all_later_records() {
    expect_later_records(What::State).await;
}

async fn expect_later_records(what: What) {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(dir.path(), &format!("{CODE}{MANY_LINES}"), what);
    let backup = Backup::of(&setup, dir.path().join("backup"), what);
    let go = |n: u32| std::fs::write(dir.path().join(format!("go-{n}")), "").unwrap();
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let plain = client.run(STEP).await.unwrap();
    let begin = Token { token: format!("{}.0", plain.token), ..plain.clone() };
    let mut readers = [(&begin, true), (&plain, false)].map(|(token, has_cursor)| Reader {
        token: token.clone(),
        has_cursor,
        seen: Vec::new(),
    });
    for reader in &mut readers {
        reader.until(&mut client, "line 0\n").await;
    }
    server.kill();
    backup.take();

    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    for n in [1, 2] {
        go(n);
        for reader in &mut readers {
            reader.until(&mut client, &format!("line {n}\n")).await;
        }
    }
    server.kill();
    backup.restore();

    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    go(3);
    let whole = client.follow(&begin).await.unwrap();
    whole.expect_success();
    let kept = whole.results.iter().zip(&readers[0].seen).take_while(|(one, other)| one == other).count();
    let new = &whole.results[kept..];
    assert!(new.len() > 16 && kept < readers[0].seen.len(), "the log is longer than before, and different");
    for reader in &mut readers {
        let seen = reader.seen.len();
        while !reader.fetch(&mut client).await {}
        assert_eq!(&reader.seen[seen..], new, "with a cursor: {}", reader.has_cursor);
    }
}
