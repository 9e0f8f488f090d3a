//! Pods that end early: each kind of end has its own outcome.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::ENDLESS;
use sqlflow_tests::cluster::Namespace;

use crate::{SQLITE, said};

/// A#2881: a deleted Pod is no user error. A repeatable step is retried in a new Pod, and that is reported.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_pod_is_replaced() {
    let namespace = Namespace::new("deleted");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(ENDLESS).await.unwrap();
    let pod = namespace.running_pod();
    let name = pod["metadata"]["name"].as_str().unwrap();
    assert!(name.ends_with("-0-1"), "{name}");
    namespace.kubectl(&["delete", "pod", name, "--wait=false"]);
    let second = format!("{}-2", name.strip_suffix("-1").unwrap());
    namespace.wait_for("a second Pod that runs", || {
        namespace.pods().iter().any(|pod| {
            pod["metadata"]["name"] == second.as_str()
                && !pod["status"]["containerStatuses"][0]["state"]["running"].is_null()
        })
    });
    client.api.cancel(token.clone()).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    for words in ["somebody deleted the Pod", "step 1 is run again (attempt 2)"] {
        assert!(said(&ended).contains(words), "{}", said(&ended));
    }
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
}

/// A#2881: a statement with an effect is not retried.
#[tokio::test(flavor = "multi_thread")]
async fn killed_insert_is_not_retried_and_may_have_executed() {
    let namespace = Namespace::new("once");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = server.client().await.unwrap();
    let insert = format!("CREATE TABLE t AS {ENDLESS}");
    let token = client.run(insert).await.unwrap();
    let pod = namespace.running_pod();
    // Kill it once the statement has started.
    client.until(&token, |it| matches!(it, Payload::Started(_))).await.unwrap();
    for pid in namespace.processes(&pod) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.code(), Code::Failed);
    assert!(ended.status.message.contains("it may have executed"), "{}", ended.status.message);
}

/// K#104454, as on cgroup v2: everything in the Pod is killed at once, so no agent reports it.
#[tokio::test(flavor = "multi_thread")]
async fn pod_whose_processes_are_all_killed_is_retried() {
    let namespace = Namespace::new("killed");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(ENDLESS).await.unwrap();
    let pod = namespace.running_pod();
    namespace.wait_for("agent and submitter", || namespace.processes(&pod).len() >= 2);
    for pid in namespace.processes(&pod) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    namespace.wait_for("another Pod", || {
        namespace.pods().iter().any(|pod| pod["metadata"]["name"] != name.as_str())
    });
    client.api.cancel(token.clone()).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert!(said(&ended).contains("exit code 137"), "{}", said(&ended));
}

/// A#8680, K#104454, K#131530: an OOM kill is reported, whichever process died.
#[tokio::test(flavor = "multi_thread")]
async fn oom_killed_pod_has_cause_out_of_memory() {
    let namespace = Namespace::new("oom");
    let template = "spec: {containers: [{name: submitter, resources: {limits: {memory: 64Mi}}}]}";
    let server = namespace.setup(SQLITE, template).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT length(randomblob(300000000)) AS n;").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.code(), Code::Failed);
    assert!(ended.status.message.contains("memory"), "{}", ended.status.message);
    assert_eq!(ended.status.cause(), sqlflow_proto::v1::Cause::OutOfMemory, "{:?}", ended.status);
}

/// A child of the command is OOM-killed, and the command succeeds. Kubernetes reports OOMKilled with exit code 0; the
/// agent's termination message has the details.
#[tokio::test(flavor = "multi_thread")]
async fn oom_kill_of_a_child_is_in_the_termination_message_of_a_success() {
    let namespace = Namespace::new("helper");
    let script = "python3 -c 'x = bytearray(300 << 20)'; exit 0";
    namespace.apply(
        &serde_json::json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": "alone" },
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": 65532,
                    "seccompProfile": { "type": "RuntimeDefault" }
                },
                "containers": [{
                    "name": "alone",
                    "image": "sqlflow.test/submitter:dev",
                    "args": ["exec", "--outcome", "/dev/termination-log", "--", "sh", "-c", script],
                    "resources": { "limits": { "memory": "64Mi" } },
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": { "drop": ["ALL"] }
                    }
                }]
            }
        })
        .to_string(),
    );
    let mut ended = serde_json::Value::Null;
    namespace.wait_for("its end", || {
        ended = namespace.pods()[0]["status"]["containerStatuses"][0]["state"]["terminated"].clone();
        !ended.is_null()
    });
    assert_eq!(ended["exitCode"], 0, "{ended}");
    let outcome: serde_json::Value = serde_json::from_str(ended["message"].as_str().unwrap()).unwrap();
    assert_eq!(outcome["reason"], "succeeded", "{outcome}");
    assert!(outcome["usage"]["oom_kills"].as_u64() >= Some(1), "{outcome}");
    // The shell reaped the child, so only this is known of it.
    assert!(outcome["usage"]["largest"]["memory_bytes"].as_u64() > Some(60 << 20), "{outcome}");
}

/// A deadline has a cause of its own, and the step is not retried.
#[tokio::test(flavor = "multi_thread")]
async fn pod_over_its_deadline_has_cause_deadline_and_is_not_retried() {
    let namespace = Namespace::new("deadline");
    let server = namespace.setup(SQLITE, "{}").flag("--pod-deadline=3s").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(ENDLESS).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.cause(), sqlflow_proto::v1::Cause::Deadline, "{:?}", ended.status);
    assert!(!said(&ended).contains("run again"), "{}", said(&ended));
}
