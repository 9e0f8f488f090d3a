//! An agent that is alive and silent, as if its machine were suspended or cut off.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::v1::Token;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::client::Client;
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::stand_in::{self, STEP};
use sqlflow_tests::until::until;

use super::agent_killed::find_agent;
use super::stopped_server::{BOUND, holds_log};

/// A stopped process. Dropping it continues the process.
pub(super) struct Stopped(Pid);

impl Stopped {
    /// Waits until every thread has stopped: `kill` returns earlier, and the kernel continues an orphaned group only if
    /// a process has stopped already.
    pub(super) fn new(pid: Pid) -> Self {
        kill(pid, Signal::SIGSTOP).unwrap();
        let stopped = Self(pid);
        until("every thread has stopped", || has_stopped(pid));
        stopped
    }
}

fn has_stopped(pid: Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    tasks.map(|task| task.unwrap().path().join("status")).all(|status| {
        // A thread that has ended counts as stopped.
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

/// Prints a line at once, and another one when the file `go` exists.
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
        Self::with(&[]).await
    }

    async fn with(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let setup = stand_in::setup(dir.path(), UNTIL_GO, None);
        let setup = flags.iter().fold(setup, |setup, &flag| setup.flag(flag));
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
async fn stopped_agent_is_reported_silent_and_then_heard_again() {
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

/// The server that heard from it last is gone, so the next one reports the silence.
#[tokio::test(flavor = "multi_thread")]
async fn agent_stopped_during_a_server_restart_is_reported_silent() {
    let World { dir, setup, server, token, cursor, .. } = World::begin().await;
    server.kill();
    // Not earlier: the kernel continues a stopped agent when its server ends.
    let stopped = stop_agent(&token);
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let cursor = client.until(&cursor, says("no word from the agent for 15 s")).await.unwrap();
    drop(stopped);
    let cursor = client.until(&cursor, says("the agent is heard again")).await.unwrap();
    std::fs::write(dir.path().join("go"), "").unwrap();
    let ended = client.follow(&cursor).await.unwrap();
    ended.expect_success();
    assert!(!ended.payloads().any(says("no word from the agent")), "it is reported once");
    assert_eq!(ended.log(), "done\n");
}

/// The end of the server orphans the agent's process group. The kernel sends HUP and CONT to a stopped orphaned group.
#[tokio::test(flavor = "multi_thread")]
async fn agent_stopped_at_the_end_of_its_server_continues_its_job() {
    let World { dir, setup, server, token, cursor, .. } = World::begin().await;
    let _stopped = stop_agent(&token);
    server.kill();
    std::fs::write(dir.path().join("go"), "").unwrap();
    let server = setup.start().unwrap();
    let ended = server.client().await.unwrap().follow(&cursor).await.unwrap();
    ended.expect_success();
    assert_eq!(ended.log(), "done\n");
}

/// Stops the server while it writes neither the state nor the job's log.
async fn stop_between_writes(server: &Server, state_dir: &Path, job: &str) -> Stopped {
    loop {
        let stopped = Stopped::new(server.pid());
        if !writes_state(server.pid()) && !holds_log(server, state_dir, job) {
            return stopped;
        }
        drop(stopped);
        tokio::task::yield_now().await;
    }
}

/// Whether the process holds a write lock of SQLite.
fn writes_state(pid: Pid) -> bool {
    let (locks, pid) = (std::fs::read_to_string("/proc/locks").unwrap(), pid.to_string());
    locks.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        matches!(words[..], [_, "POSIX", _, "WRITE", holder, ..] if holder == pid)
    })
}

/// As if a host were cut off: an agent and its server are stopped. Another server has reported the agent as silent.
struct CutOff {
    agent: Stopped,
    server: Stopped,
    other: Server,
    world: World,
    cursor: Token,
}

impl CutOff {
    async fn begin() -> Self {
        let world = World::with(&["--lease=5s", "--max-running=4"]).await;
        let other = world.setup.start().unwrap();
        let agent = stop_agent(&world.token);
        let server = stop_between_writes(&world.server, &world.setup.state_dir, &world.token.job_id).await;
        let mut client = other.client().await.unwrap();
        let silence =
            says("no word from the agent for 15 s: the server that it is attached to is silent too");
        let said = tokio::time::timeout(BOUND, client.until(&world.cursor, silence)).await;
        let cursor = said.expect("the silence is not reported").unwrap();
        Self { agent, server, other, world, cursor }
    }
}

/// Lets the job end, and checks all of its messages.
async fn expect_one_report(world: &World, client: &mut Client) {
    std::fs::write(world.dir.path().join("go"), "").unwrap();
    let beginning = Token { token: format!("{}.0", world.token.token), ..world.token.clone() };
    let ended = client.follow(&beginning).await.unwrap();
    ended.expect_success();
    assert_eq!(ended.log(), "up\ndone\n");
    for text in ["no word from the agent", "the agent is heard again"] {
        assert_eq!(ended.payloads().filter(|it| says(text)(it)).count(), 1, "{text:?} is reported once");
    }
}

/// The agent is still stopped.
#[tokio::test(flavor = "multi_thread")]
async fn return_of_the_server_is_not_a_return_of_its_agent() {
    let CutOff { agent, server, other, world, cursor } = CutOff::begin().await;
    drop(server);
    let mut first = world.server.client().await.unwrap();
    let second_job = first.run(STEP).await.unwrap();
    first.until(&second_job, |it| matches!(it, Payload::Log(_))).await.unwrap();
    let mut client = other.client().await.unwrap();
    let page = client.api.fetch(cursor.clone()).await.unwrap().into_inner();
    assert_eq!(page.results, [], "only the server has returned");
    drop(agent);
    client.until(&cursor, says("the agent is heard again")).await.unwrap();
    expect_one_report(&world, &mut client).await;
    first.follow(&second_job).await.unwrap().expect_success();
}

/// The agent attaches to the other server.
#[tokio::test(flavor = "multi_thread")]
async fn agent_that_returns_before_its_server_is_reported_once() {
    let CutOff { agent, server, other, world, cursor } = CutOff::begin().await;
    drop(agent);
    let mut client = other.client().await.unwrap();
    client.until(&cursor, says("the agent is heard again")).await.unwrap();
    drop(server);
    world.server.client().await.unwrap().api.fetch(cursor).await.expect("the server has returned");
    expect_one_report(&world, &mut client).await;
}
