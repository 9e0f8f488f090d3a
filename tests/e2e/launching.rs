//! Attempts as local processes: run slots, servers that restart or have another launcher, and exhausted descriptors.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Cause, GetJobRequest, Job, Token, get_job_request::By, job_status::Code};
use sqlflow_tests::ENDLESS;
use sqlflow_tests::client::{Client, is_over};
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::stand_in::{self, STEP};

use super::agent_killed::kill_agent;

/// Runs for seconds.
const LONG: &str =
    "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 30000000) SELECT count(*) FROM n;";

fn setup(dir: &Path) -> Setup {
    Setup::new(dir, format!("sqlite://{}", dir.join("x.db").display()))
}

/// Fetches until the job's statement runs.
async fn until_it_runs(server: &Server, token: &Token) -> Token {
    let mut client = server.client().await.unwrap();
    client.until(token, |it| matches!(it, Payload::Started(_))).await.unwrap()
}

async fn until_it_says(client: &mut Client, token: &Token, text: &str) {
    let says = |it: &Payload| matches!(it, Payload::Message(said) if said.message.contains(text));
    client.until(token, says).await.unwrap();
}

async fn job(client: &mut Client, token: &Token) -> Job {
    let by = GetJobRequest { by: Some(By::Token(token.token.clone())) };
    client.api.get_job(by).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn server_stops_during_a_job_and_the_next_one_continues_it() {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(dir.path());
    let server = setup.start().unwrap();
    let token = server.client().await.unwrap().run(ENDLESS).await.unwrap();
    let cursor = until_it_runs(&server, &token).await;
    let begun = Instant::now();
    let stopped = tokio::task::spawn_blocking(move || server.stop());
    let stopped = tokio::time::timeout(Duration::from_secs(20), stopped).await;
    stopped.expect("the server waits for the job").unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    let next = setup.start().unwrap();
    let mut client = next.client().await.unwrap();
    client.api.cancel(token.clone()).await.unwrap();
    let ended = client.follow(&cursor).await.unwrap();
    assert_eq!(ended.status.cause(), Cause::Cancelled, "{:?}", ended.status);
    assert_eq!(job(&mut client, &token).await.steps[0].attempts.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_an_earlier_server_occupy_run_slots() {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(dir.path()).flag("--max-running=1").flag("--grace=1s");
    let server = setup.start().unwrap();
    let running = server.client().await.unwrap().run(ENDLESS).await.unwrap();
    until_it_runs(&server, &running).await;
    server.kill();

    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let first = client.run("SELECT 1;").await.unwrap();
    let second = client.run("SELECT 2;").await.unwrap();
    until_it_says(&mut client, &first, "waiting for a run slot, 0 before it").await;
    until_it_says(&mut client, &second, "waiting for a run slot, 1 before it").await;
    // A waiting job can be cancelled at once.
    client.api.cancel(first.clone()).await.unwrap();
    let ended = client.follow(&first).await.unwrap();
    assert_eq!(ended.status.cause(), Cause::Cancelled, "{:?}", ended.status);
    assert!(!is_over(&job(&mut client, &second).await.status.unwrap()));
    client.api.cancel(running).await.unwrap();
    client.follow(&second).await.unwrap().expect_success();
}

/// A server with the launcher `kubernetes`, for an apiserver that does not exist.
fn with_kubernetes(setup: &Setup, dir: &Path) -> Setup {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "30", "-subj", "/CN=test", "-keyout", "tls.key", "-out", "tls.crt"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": "http://127.0.0.1:1" } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u", "namespace": "n" } }],
        "users": [{ "name": "u", "user": {} }]
    });
    let file = dir.join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    setup
        .clone()
        .flag("--launcher=kubernetes")
        .flag("--pod-image=submitter")
        .flag("--models=s3://bucket/models")
        .flag("--agent-listen=127.0.0.1:0")
        .flag("--agent-url=https://127.0.0.1:1")
        .flag(format!("--agent-cert={}", path("tls.crt")))
        .flag(format!("--agent-key={}", path("tls.key")))
        .env("KUBECONFIG", file.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn server_with_another_launcher_does_not_end_a_running_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(dir.path());
    let server = setup.start().unwrap();
    let token = server.client().await.unwrap().run(LONG).await.unwrap();
    let cursor = until_it_runs(&server, &token).await;
    server.kill();

    let other = with_kubernetes(&setup, dir.path()).start().unwrap();
    let mut client = other.client().await.unwrap();
    until_it_says(&mut client, &cursor, "which this server cannot ask").await;
    let seen = job(&mut client, &token).await;
    assert!(!is_over(&seen.status.unwrap()) && seen.steps[0].attempts.len() == 1);
    other.kill();

    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    client.follow(&cursor).await.unwrap().expect_success();
    assert_eq!(job(&mut client, &token).await.steps[0].attempts.len(), 1);
}

/// A server with the attempt's launcher is started, as the message advises, and takes over.
#[tokio::test(flavor = "multi_thread")]
async fn server_with_another_launcher_leaves_the_job_to_one_with_its_launcher() {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(dir.path());
    let server = setup.start().unwrap();
    let token = server.client().await.unwrap().run(ENDLESS).await.unwrap();
    let cursor = until_it_runs(&server, &token).await;
    server.kill();

    let other = with_kubernetes(&setup, dir.path()).start().unwrap();
    until_it_says(&mut other.client().await.unwrap(), &cursor, "which this server cannot ask").await;
    // Only a server with the attempt's launcher can observe that.
    kill_agent(&token.job_id, 0, 1);
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    client.api.cancel(token.clone()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), client.follow(&cursor)).await;
    let ended = ended.expect("the job does not end").unwrap();
    assert_eq!(ended.status.cause(), Cause::Cancelled, "{:?}", ended.status);
}

/// A connection of the server's own user that sent one request, and sends nothing more. The answer is not awaited, because
/// a server without descriptors accepts no connection.
fn idle_browser(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /jobs HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    stream
}

/// Idle connections take all descriptors. The server closes them, and then launches the job.
#[tokio::test(flavor = "multi_thread")]
async fn job_waits_for_free_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).descriptors(64).start().unwrap();
    let mut client = server.client().await.unwrap();
    client.follow(&client.clone().run("SELECT 1;").await.unwrap()).await.unwrap().expect_success();
    // Each sends one request: of connections that have shown no right, only some get in.
    let idle: Vec<_> = (0..100).map(|_| idle_browser(&server.http)).collect();
    let taken = Instant::now();
    while server.open_descriptors().unwrap() < 64 {
        assert!(taken.elapsed() < Duration::from_secs(60), "the descriptors are not used up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let token = client.run("SELECT 2;").await.unwrap();
    // GetJob needs a descriptor for the job's log, so it may return UNAVAILABLE.
    let ended = loop {
        let by = GetJobRequest { by: Some(By::Token(token.token.clone())) };
        let seen = client.api.get_job(by).await.map(tonic::Response::into_inner);
        match seen {
            Ok(seen) if is_over(&seen.status.clone().unwrap()) => break seen,
            _ => assert!(taken.elapsed() < Duration::from_secs(90), "the job does not end: {seen:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(ended.status.unwrap().code(), Code::Succeeded);
    assert_eq!(ended.steps[0].attempts.len(), 1);
    drop(idle);
    let log = std::fs::read_to_string(dir.path().join("state/server.log")).unwrap();
    assert!(log.contains("cannot accept connections; will try again"), "{log}");
}

/// The server raises its own limit. Programs with select(2) cannot use a higher one.
#[tokio::test(flavor = "multi_thread")]
async fn submitter_has_the_servers_original_limit_of_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let code = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])";
    let server = stand_in::setup(dir.path(), code, None).soft_descriptors(300).start().unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let raised = limits.lines().find(|it| it.starts_with("Max open files")).unwrap();
    assert_ne!(raised.split_whitespace().nth(3), Some("300"), "{raised}");
    let mut client = server.client().await.unwrap();
    let ended = client.follow(&client.clone().run(STEP).await.unwrap()).await.unwrap();
    ended.expect_success();
    assert_eq!(ended.log(), "300\n");
}
