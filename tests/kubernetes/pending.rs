//! Pods that do not start: the pending reason is reported within seconds, and has a timeout. K#122300, A#11025,
//! SF#1573, SF#2425.

use std::time::{Duration, Instant};

use sqlflow_proto::v1::Cause;
use sqlflow_proto::v1::job_status::Code;
use sqlflow_tests::client::Client;
use sqlflow_tests::cluster::{Cluster, HOST, Namespace};
use sqlflow_tests::server::Setup;

use crate::SQLITE;

/// Asserts that a job reports this pending reason, and leaves nothing after a cancel.
async fn expect_pending_reason(namespace: &Namespace, setup: Setup, why: &str) {
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SHOW MODELS;").await.unwrap();
    until_pending_reason(&mut client, &token, why).await;
    client.api.cancel(token.clone()).await.unwrap();
    assert_eq!(client.follow(&token).await.unwrap().status.code(), Code::Failed);
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
}

async fn until_pending_reason(client: &mut Client, token: &sqlflow_proto::v1::Token, why: &str) {
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
async fn unschedulable_pod_reports_reason() {
    let namespace = Namespace::new("impossible");
    let template = "spec: {containers: [{name: submitter, resources: {requests: {cpu: 1000}}}]}";
    expect_pending_reason(&namespace, namespace.setup(SQLITE, template), "Insufficient cpu").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_image_reports_reason() {
    let namespace = Namespace::new("image");
    let template = "spec: {containers: [{name: submitter, image: 'sqlflow.test/misspelt:dev'}]}";
    expect_pending_reason(&namespace, namespace.setup(SQLITE, template), "misspelt:dev").await;
}

/// Retries cannot help, so the timeout is short.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_image_name_fails_the_job() {
    let namespace = Namespace::new("never");
    let template = "spec: {containers: [{name: submitter, image: 'Not/Valid'}]}";
    let server = namespace.setup(SQLITE, template).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SHOW MODELS;").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.code(), Code::Failed);
    assert!(ended.status.message.contains("Not/Valid"), "{}", ended.status.message);
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_config_map_reports_reason() {
    let namespace = Namespace::new("mount");
    let setup = namespace.setup(SQLITE, "{}").flag("--agent-ca=missing");
    expect_pending_reason(&namespace, setup, "configmap \"missing\" not found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exhausted_quota_reports_reason_until_there_is_room() {
    let namespace = Namespace::new("quota");
    namespace
        .apply("{apiVersion: v1, kind: ResourceQuota, metadata: {name: none}, spec: {hard: {pods: '0'}}}");
    namespace.wait_for("the quota", || {
        namespace.kubectl(&["get", "resourcequota", "none", "-o", "jsonpath={.status.hard.pods}"]) == "0"
    });
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    until_pending_reason(&mut client, &token, "exceeded quota").await;
    namespace.kubectl(&["delete", "resourcequota", "none"]);
    client.follow(&token).await.unwrap().expect_success();
}

/// Retries cannot help, so the job fails at once.
#[tokio::test(flavor = "multi_thread")]
async fn pod_that_violates_pod_security_fails_the_job() {
    let namespace = Namespace::new("forbidden");
    let template = "spec: {hostNetwork: true}";
    let server = namespace.setup(SQLITE, template).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert!(ended.status.message.contains("violates PodSecurity"), "{}", ended.status.message);
}

/// Retries cannot help, so the job fails at once.
#[tokio::test(flavor = "multi_thread")]
async fn server_without_permission_to_create_pods_fails_the_job() {
    let namespace = Namespace::new("rbac");
    let server = as_default_account(&namespace).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert!(ended.status.message.contains("cannot create resource \"pods\""), "{}", ended.status.message);
}

/// The Pod runs, but its agent does not attach.
#[tokio::test(flavor = "multi_thread")]
async fn agent_that_cannot_reach_the_server_reports_reason_and_times_out() {
    let namespace = Namespace::new("silent");
    // No process listens there.
    let url = format!("https://{HOST}:9");
    let setup = namespace.setup(SQLITE, "{}").flag(format!("--agent-url={url}"));
    let server = setup.flag("--attach-timeout=6s").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    let why = format!("the Pod runs, but its agent has not reached the server at {url}");
    until_pending_reason(&mut client, &token, &why).await;
    let ended = client.follow(&token).await.unwrap();
    assert_eq!((ended.status.cause(), &ended.status.message), (Cause::LaunchFailed, &why));
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
}

/// The server could not verify the agent's token. Retries cannot help, so no Pod is made.
#[tokio::test(flavor = "multi_thread")]
async fn server_without_permission_to_review_tokens_fails_the_job() {
    let namespace = Namespace::new("reviews");
    namespace.kubectl(&["create", "role", "server", "--verb=*", "--resource=pods,events"]);
    namespace.kubectl(&[
        "create",
        "rolebinding",
        "server",
        "--role=server",
        &format!("--serviceaccount={}:default", namespace.name),
    ]);
    let server = as_default_account(&namespace).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    let expected = "the server's account cannot create resource \"tokenreviews\" in the whole cluster";
    assert!(ended.status.message.contains(expected), "{}", ended.status.message);
    assert_eq!(namespace.pods().len(), 0);
}

/// A server with the rights of the namespace's default service account.
fn as_default_account(namespace: &Namespace) -> Setup {
    let token = namespace.kubectl(&["create", "token", "default"]);
    let kubeconfig = namespace.dir().join("default.kubeconfig");
    let flags = ["config", "view", "--raw", "--flatten", "-o", "json"];
    let mut config: serde_json::Value = serde_json::from_str(&Cluster::shared().kubectl(&flags)).unwrap();
    config["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    namespace.setup(SQLITE, "{}").env("KUBECONFIG", kubeconfig.display().to_string())
}
