//! Pods that do not start: why is said within seconds, and there is an end. K#122300, A#11025, SF#1573, SF#2425.

use std::time::{Duration, Instant};

use sqlflow_proto::v1::Cause;
use sqlflow_proto::v1::job_status::Code;
use sqlflow_tests::client::Client;
use sqlflow_tests::cluster::{Cluster, HOST, Namespace};
use sqlflow_tests::server::Setup;

use crate::SQLITE;

/// The job says this while it waits; then it is cancelled and leaves nothing behind.
async fn says_why_it_waits(namespace: &Namespace, setup: Setup, why: &str) {
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    waits_for(&mut client, &token, why).await;
    client.api.cancel(token.clone()).await.unwrap();
    assert_eq!(client.follow(&token).await.unwrap().status.code(), Code::Failed);
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
}

async fn waits_for(client: &mut Client, token: &sqlflow_proto::v1::Token, why: &str) {
    let begun = Instant::now();
    let mut said = Vec::new();
    loop {
        let page = client.api.fetch(token.clone()).await.unwrap().into_inner();
        for result in page.results {
            if let Some(sqlflow_proto::v1::response::Response::Message(message)) = result.response {
                said.push(message.message);
            }
        }
        if said.iter().any(|it| it.contains(why)) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{said:?}");
        assert_ne!(page.job_status.unwrap().code(), Code::Failed, "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_request() {
    let namespace = Namespace::new("impossible");
    let template = "spec: {containers: [{name: submitter, resources: {requests: {cpu: 1000}}}]}";
    says_why_it_waits(&namespace, namespace.setup(SQLITE, template), "Insufficient cpu").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there() {
    let namespace = Namespace::new("image");
    let template = "spec: {containers: [{name: submitter, image: 'sqlflow.test/misspelt:dev'}]}";
    says_why_it_waits(&namespace, namespace.setup(SQLITE, template), "misspelt:dev").await;
}

/// Waiting has an end: of a name that no registry can have it is soon.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_can_never_be_is_given_up() {
    let namespace = Namespace::new("never");
    let template = "spec: {containers: [{name: submitter, image: 'Not/Valid'}]}";
    let server = namespace.setup(SQLITE, template).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.code(), Code::Failed);
    assert!(ended.status.message.contains("Not/Valid"), "{}", ended.status.message);
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_that_is_missing() {
    let namespace = Namespace::new("mount");
    let setup = namespace.setup(SQLITE, "{}").flag("--agent-ca=missing");
    says_why_it_waits(&namespace, setup, "configmap \"missing\" not found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_quota_is_waited_for() {
    let namespace = Namespace::new("quota");
    namespace
        .apply("{apiVersion: v1, kind: ResourceQuota, metadata: {name: none}, spec: {hard: {pods: '0'}}}");
    namespace.wait_for("the quota", || {
        namespace.kubectl(&["get", "resourcequota", "none", "-o", "jsonpath={.status.hard.pods}"]) == "0"
    });
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    waits_for(&mut client, &token, "exceeded quota").await;
    namespace.kubectl(&["delete", "resourcequota", "none"]);
    client.follow(&token).await.unwrap().expect_success();
}

/// What the Pod Security Standard forbids ends at once: no time mends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_pod_is_refused_with_the_reason() {
    let namespace = Namespace::new("forbidden");
    let template = "spec: {hostNetwork: true}";
    let server = namespace.setup(SQLITE, template).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert!(ended.status.message.contains("violates PodSecurity"), "{}", ended.status.message);
}

/// And so does a server that may not make Pods.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_right_says_so() {
    let namespace = Namespace::new("rbac");
    let server = as_default_account(&namespace).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert!(ended.status.message.contains("cannot create resource \"pods\""), "{}", ended.status.message);
}

/// A Pod that runs is not enough: its agent does not come.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cannot_reach_the_server_is_told_and_ended() {
    let namespace = Namespace::new("silent");
    // Nobody listens there.
    let url = format!("https://{HOST}:9");
    let setup = namespace.setup(SQLITE, "{}").flag(format!("--agent-url={url}"));
    let server = setup.flag("--attach-timeout=6s").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    let why = format!("the Pod runs, but its agent has not reached the server at {url}");
    waits_for(&mut client, &token, &why).await;
    let ended = client.follow(&token).await.unwrap();
    assert_eq!((ended.status.cause(), &ended.status.message), (Cause::LaunchFailed, &why));
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
}

/// Its agent comes, and the server may not ask whose token it shows.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_may_not_review_tokens_says_so() {
    let namespace = Namespace::new("reviews");
    namespace.kubectl(&["create", "role", "server", "--verb=*", "--resource=pods,events"]);
    namespace.kubectl(&[
        "create",
        "rolebinding",
        "server",
        "--role=server",
        &format!("--serviceaccount={}:default", namespace.name),
    ]);
    let setup = as_default_account(&namespace);
    says_why_it_waits(&namespace, setup, "cannot create resource \"tokenreviews\"").await;
}

/// A server with the rights of the namespace's default account.
fn as_default_account(namespace: &Namespace) -> Setup {
    let token = namespace.kubectl(&["create", "token", "default"]);
    let kubeconfig = namespace.dir().join("default.kubeconfig");
    let flags = ["config", "view", "--raw", "--flatten", "-o", "json"];
    let mut config: serde_json::Value = serde_json::from_str(&Cluster::shared().kubectl(&flags)).unwrap();
    config["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    namespace.setup(SQLITE, "{}").env("KUBECONFIG", kubeconfig.display().to_string())
}
