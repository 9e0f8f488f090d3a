//! An agent that lives and says nothing, as one whose machine is stopped or cut off.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::v1::Token;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::client::Client;
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::stand_in::{self, STEP};

use super::agent_killed::find_agent;

/// Stopped until it is dropped, also by a test that fails.
pub(super) struct Stopped(Pid);

impl Stopped {
    /// Waits until every thread has stopped: `kill` returns before, and the kernel continues an
    /// orphaned group only where a process has stopped already.
    pub(super) fn new(pid: Pid) -> Self {
        kill(pid, Signal::SIGSTOP).unwrap();
        let stopped = Self(pid);
        while !has_stopped(pid) {
            std::thread::yield_now();
        }
        stopped
    }
}

fn has_stopped(pid: Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    tasks.map(|task| task.unwrap().path().join("status")).all(|status| {
        // A thread that has ended meanwhile holds up nothing.
        std::fs::read_to_string(status).map_or(true, |text| text.contains("State:\tT"))
    })
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // An error means that it is gone.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

fn says(text: &str) -> impl Fn(&Payload) -> bool {
    move |it| matches!(it, Payload::Message(said) if said.message.contains(text))
}

/// Prints a line at once, and another one when the file `go` is there.
const UNTIL_GO: &str = "
import os, sys, time
os.write(1, b'up\\n')
while not os.path.exists(sys.argv[1] + '/go'): time.sleep(0.01)
print('done')
";

/// A server with a job that has printed its first line.
struct World {
    dir: tempfile::TempDir,
    setup: Setup,
    server: Server,
    client: Client,
    token: Token,
    cursor: Token,
}

impl World {
    async fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let setup = stand_in::setup(dir.path(), UNTIL_GO, None);
        let server = setup.start().unwrap();
        let mut client = server.client().await.unwrap();
        let token = client.run(STEP).await.unwrap();
        let cursor = client.until(&token, |it| matches!(it, Payload::Log(_))).await.unwrap();
        Self { dir, setup, server, client, token, cursor }
    }
}

fn stop_agent(token: &Token) -> Stopped {
    Stopped::new(find_agent(&token.job_id, 0, 1).expect("the agent runs"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_stopped_is_noticed_and_so_is_that_it_goes_on() {
    let World { dir, server: _server, mut client, token, cursor, .. } = World::begin().await;
    let stopped = stop_agent(&token);
    let cursor = client.until(&cursor, says("no word from the agent for 15 s")).await.unwrap();
    drop(stopped);
    let cursor = client.until(&cursor, says("the agent is heard again")).await.unwrap();
    std::fs::write(dir.path().join("go"), "").unwrap();
    let ended = client.follow(&cursor).await.unwrap();
    ended.expect_success();
    assert_eq!(ended.log(), "done\n");
}

/// The server that heard of it last cannot say that it is silent, so the next one does.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_stopped_while_its_server_is_started_again_is_noticed() {
    let World { dir, setup, server, token, cursor, .. } = World::begin().await;
    server.kill();
    // Not before: the kernel continues a stopped agent whose server ends.
    let stopped = stop_agent(&token);
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let cursor = client.until(&cursor, says("no word from the agent for 15 s")).await.unwrap();
    drop(stopped);
    let cursor = client.until(&cursor, says("the agent is heard again")).await.unwrap();
    std::fs::write(dir.path().join("go"), "").unwrap();
    let ended = client.follow(&cursor).await.unwrap();
    ended.expect_success();
    assert!(!ended.payloads().any(says("no word from the agent")), "it is said once");
    assert_eq!(ended.log(), "done\n");
}

/// The kernel sends HUP and CONT to a stopped process group that the end of the server orphans.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_stopped_when_its_server_ends_goes_on_with_its_job() {
    let World { dir, setup, server, token, cursor, .. } = World::begin().await;
    let _stopped = stop_agent(&token);
    server.kill();
    std::fs::write(dir.path().join("go"), "").unwrap();
    let server = setup.start().unwrap();
    let ended = server.client().await.unwrap().follow(&cursor).await.unwrap();
    ended.expect_success();
    assert_eq!(ended.log(), "done\n");
}
