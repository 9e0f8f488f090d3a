//! Processes or threads are exhausted when an attempt begins, and become free later: the job waits.

use std::time::{Duration, Instant};

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Cause, GetJobRequest, Token, get_job_request::By};
use sqlflow_tests::cgroup::Group;
use sqlflow_tests::client::Client;
use sqlflow_tests::server::{Server, Setup, program};

/// The agent's own threads, without a process for its command. With fewer it cannot attach.
const NO_COMMAND: u64 = 5;
const ENOUGH: u64 = 1000;

struct World {
    group: Group,
    client: Client,
    token: Token,
    _server: Server,
    _dir: tempfile::TempDir,
}

/// A job whose agent is in a group with this limit of processes and threads.
async fn world(name: &str, limit: u64) -> World {
    let group = Group::new("pids", name);
    group.set("pids.max", limit);
    let dir = tempfile::tempdir().unwrap();
    let agent = group.script(dir.path(), &program("sqlflow-agent"));
    let server = Setup::new(dir.path(), format!("sqlite://{}", dir.path().join("x.db").display()))
        .flag(format!("--agent={}", agent.display()))
        .start()
        .unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1").await.unwrap();
    World { group, client, token, _server: server, _dir: dir }
}

async fn until_it_says(client: &mut Client, token: &Token, words: [&str; 2]) -> Token {
    let says = |it: &Payload| match it {
        Payload::Message(said) => words.iter().all(|word| said.message.contains(word)),
        _ => false,
    };
    client.until(token, says).await.unwrap()
}

async fn attempts(client: &mut Client, token: &Token) -> usize {
    let by = GetJobRequest { by: Some(By::Token(token.token.clone())) };
    client.api.get_job(by).await.unwrap().into_inner().steps[0].attempts.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_fork_is_retried_until_processes_are_free() {
    let World { group, mut client, token, _server, _dir } = world("no-command", NO_COMMAND).await;
    let said = ["Resource temporarily unavailable", "retrying"];
    let cursor = until_it_says(&mut client, &token, said).await;
    group.set("pids.max", ENOUGH);
    let ended = client.follow(&cursor).await.unwrap();
    ended.expect_success();
    assert_eq!(ended.row_count(), 1);
    assert_eq!(attempts(&mut client, &token).await, 1);
}

/// The retries may take up to a minute.
#[tokio::test(flavor = "multi_thread")]
async fn cancel_ends_the_retries_of_a_failed_fork() {
    let World { group: _group, mut client, token, _server, _dir } = world("cancelled", NO_COMMAND).await;
    let cursor = until_it_says(&mut client, &token, ["cannot start", "retrying"]).await;
    let begun = Instant::now();
    client.api.cancel(token).await.unwrap();
    let ended = client.follow(&cursor).await.unwrap();
    assert_eq!(ended.status.cause(), Cause::Cancelled, "{:?}", ended.status);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_without_threads_attaches_once_threads_are_free() {
    for limit in 1..NO_COMMAND {
        let World { group, mut client, token, _server, _dir } =
            world(&format!("threads-{limit}"), limit).await;
        group.until_refused().await;
        group.set("pids.max", ENOUGH);
        client.follow(&token).await.unwrap().expect_success();
        assert_eq!(attempts(&mut client, &token).await, 1, "{limit}");
    }
}
