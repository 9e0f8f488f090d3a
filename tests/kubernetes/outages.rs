//! Outages of the server and of Kubernetes' control plane.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::api_relay::ApiRelay;
use sqlflow_tests::client::Ended;
use sqlflow_tests::cluster::{Cluster, Namespace};
use sqlflow_tests::http::get;
use sqlflow_tests::server::Setup;

use crate::SQLITE;

/// Runs for seconds, so that the test can act meanwhile.
const SECONDS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 30000000) SELECT count(*) FROM n;";
/// The same with an effect, and without rows.
const SECONDS_OF_EFFECT: &str =
    "CREATE TABLE t AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 30000000)
    SELECT count(*) FROM n;";

/// kuberay#4824, AF#12111: the server dies between creating the Pod and recording it.
#[tokio::test(flavor = "multi_thread")]
async fn server_killed_after_creating_a_pod_creates_no_second_one() {
    let namespace = Namespace::new("recorded");
    let died = namespace.dir().join("died");
    let setup = namespace
        .setup(SQLITE, "{}")
        .env("SQLFLOW_TEST_SERVER_FAILPOINT", format!("after-launch={}", died.display()));
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(SECONDS).await.unwrap();
    namespace.wait_for("the server's death", || died.exists());
    drop(server);
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let pods = namespace.pods();
    assert_eq!(pods.len(), 1);
    client.follow(&token).await.unwrap().expect_success();
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
    let made = namespace.kubectl(&["get", "events", "-o", "name", "--field-selector=reason=Created"]);
    assert_eq!(made.lines().count(), 1, "{made}");
}

/// A#8409, A#7994: the job ends while no server runs, and its Pod is deleted. The termination message proves the
/// success, so nothing is executed again.
#[tokio::test(flavor = "multi_thread")]
async fn job_that_ended_during_a_server_outage_has_its_true_outcome() {
    let ended = ended_unseen("away", SECONDS_OF_EFFECT).await;
    ended.expect_success();
    assert!(!crate::said(&ended).contains("run again"), "{}", crate::said(&ended));
    assert!(ended.payloads().any(|it| matches!(it, Payload::Eoe(_))), "{:?}", ended.results);
}

/// The rows were lost with the Pod, so the attempt has not succeeded, and the query is repeated.
#[tokio::test(flavor = "multi_thread")]
async fn query_whose_rows_were_lost_with_its_pod_is_retried() {
    let ended = ended_unseen("rows", SECONDS).await;
    ended.expect_success();
    assert!(crate::said(&ended).contains("results lost"), "{}", crate::said(&ended));
}

/// Runs this program. Its server dies once it has started. Its Pod ends and is deleted before the next server starts.
async fn ended_unseen(name: &str, program: &str) -> Ended {
    let namespace = Namespace::new(name);
    // The Pod ends without a server after this time. An agent that is not attached within it ends too, and on a busy
    // machine a second was too short for that.
    let setup = namespace.setup(SQLITE, "{}").flag("--linger=5s");
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(program).await.unwrap();
    let pod = namespace.running_pod();
    let name = pod["metadata"]["name"].as_str().unwrap();
    client.until(&token, |it| matches!(it, Payload::Started(_))).await.unwrap();
    server.kill();
    namespace.wait_for("the Pod's end", || {
        let pods = namespace.pods();
        !pods[0]["status"]["containerStatuses"][0]["state"]["terminated"].is_null()
    });
    namespace.kubectl(&["delete", "pod", name, "--wait=false"]);
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    client.follow(&token).await.unwrap()
}

/// prefect#8573, AF#21087. The outage takes a minute in `make drill`.
#[tokio::test(flavor = "multi_thread")]
async fn apiserver_outage_fails_no_job() {
    let seconds = std::env::var("SQLFLOW_DRILL_APISERVER_SECONDS").map_or(8, |text| text.parse().unwrap());
    let namespace = Namespace::new("apiserver");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = server.client().await.unwrap();
    let running = client.run(SECONDS).await.unwrap();
    namespace.running_pod();
    let apiserver = Pid::from_raw(Cluster::shared().program("apiserver"));
    kill(apiserver, Signal::SIGSTOP).unwrap();
    let launched_meanwhile = client.run("SELECT 1;").await.unwrap();
    // The server stays ready, so that its Service still routes Fetch to it.
    let ready = get(&server.http, "/readyz");
    // The duration of the outage.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    kill(apiserver, Signal::SIGCONT).unwrap();
    assert_eq!(ready.code, 200, "{}", ready.body);
    assert!(ready.body.contains("launcher: it does not answer"), "{}", ready.body);
    for token in [running, launched_meanwhile] {
        client.follow(&token).await.unwrap().expect_success();
    }
}

/// It accepts connections and never responds, like a load balancer without backends. That is reported, and the server
/// stays ready.
#[tokio::test(flavor = "multi_thread")]
async fn unresponsive_apiserver_is_reported_and_does_not_block_the_server() {
    let namespace = Namespace::new("mute");
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = with_api(&namespace, mute.local_addr().unwrap().port()).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    let ready = get(&server.http, "/readyz");
    assert_eq!(ready.code, 200, "{}", ready.body);
    let is_reported = |it: &Payload| matches!(it, Payload::Message(message) if message.message.contains("no response within"));
    client.until(&token, is_reported).await.unwrap();
}

/// A server whose apiserver is at this port of this machine.
fn with_api(namespace: &Namespace, port: u16) -> Setup {
    let kubeconfig = namespace.dir().join("plain.kubeconfig");
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": format!("http://127.0.0.1:{port}") } }],
        "users": [{ "name": "u", "user": {} }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    namespace.setup(SQLITE, "{}").env("KUBECONFIG", kubeconfig.display().to_string())
}

/// prefect#8573, AF#21087: every request is answered with 410, 429 or 500. Running Pods are not considered dead, and
/// new jobs run afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn api_errors_fail_no_job() {
    let namespace = Namespace::new("errors");
    let relay = ApiRelay::start(namespace.dir());
    let setup = with_api(&namespace, relay.port);
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let mut tokens = vec![client.run(SECONDS).await.unwrap()];
    namespace.running_pod();
    for (code, reason) in [(410, "Expired"), (429, "TooManyRequests"), (500, "InternalError")] {
        relay.answer(code, reason);
        tokens.push(client.run("SELECT 1;").await.unwrap());
        // No event marks the end of the retries.
        tokio::time::sleep(Duration::from_secs(2)).await;
        relay.pass();
    }
    for token in tokens {
        client.follow(&token).await.unwrap().expect_success();
    }
}
