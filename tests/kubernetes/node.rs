//! Faults of a node affect everything that runs there, so these tests run alone, as in `make test-cluster`.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_tests::ENDLESS;
use sqlflow_tests::cluster::{Cluster, NODE, Namespace};

use crate::without_server::give_up_pods;
use crate::{SQLITE, said};

const DRAIN: [&str; 6] =
    ["drain", NODE, "--force", "--delete-emptydir-data", "--ignore-daemonsets", "--timeout=90s"];

/// Makes the node usable again at the end of the test.
struct RestoreNode;

impl Drop for RestoreNode {
    fn drop(&mut self) {
        let cluster = Cluster::shared();
        let _ = kill(Pid::from_raw(cluster.program("kubelet")), Signal::SIGCONT);
        cluster.try_kubectl(&["uncordon", NODE], "");
    }
}

/// A#2881. The job reports its pending reason until there is a node again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "must run alone"]
async fn drained_pod_is_retried_once_a_node_is_available() {
    let _restore = RestoreNode;
    let namespace = Namespace::new("drain");
    let cluster = Cluster::shared();
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(ENDLESS).await.unwrap();
    namespace.running_pod();
    cluster.kubectl(&DRAIN);
    waits_for_a_node(&namespace);
    cluster.kubectl(&["uncordon", NODE]);
    namespace.running_pod();
    client.api.cancel(token.clone()).await.unwrap();
    let said = said(&client.follow(&token).await.unwrap());
    for words in ["it was evicted, as when a node is drained", "unschedulable", "(attempt 2)"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// Without a server the documented command removes the finalizer, so that the drain can finish. A server that returns
/// later finds out that the Pod is gone.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "must run alone"]
async fn node_is_drained_without_a_server_by_the_documented_command() {
    let _restore = RestoreNode;
    let namespace = Namespace::new("undrained");
    let cluster = Cluster::shared();
    let setup = namespace.setup(SQLITE, "{}");
    let server = setup.start().unwrap();
    let token = server.client().await.unwrap().run(ENDLESS).await.unwrap();
    namespace.running_pod();
    server.kill();
    let drain = std::thread::spawn(move || cluster.try_kubectl(&DRAIN, ""));
    namespace.wait_for("the eviction", || {
        namespace.pods().iter().any(|pod| !pod["metadata"]["deletionTimestamp"].is_null())
    });
    give_up_pods(&namespace);
    let (drained, text) = drain.join().unwrap();
    assert!(drained, "{text}");
    cluster.kubectl(&["uncordon", NODE]);
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    namespace.running_pod();
    client.api.cancel(token.clone()).await.unwrap();
    let said = said(&client.follow(&token).await.unwrap());
    assert!(said.contains("(attempt 2)"), "{said}");
}

fn waits_for_a_node(namespace: &Namespace) {
    namespace.wait_for("a Pod that waits for a node", || {
        namespace.pods().iter().any(|pod| {
            pod["metadata"]["name"].as_str().is_some_and(|name| name.ends_with("-2"))
                && pod["status"]["phase"] == "Pending"
        })
    });
    // Until the server has reported it.
    std::thread::sleep(Duration::from_secs(4));
}

/// A#2881.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "must run alone"]
async fn preempted_pod_is_retried_and_reported() {
    let namespace = Namespace::new("preempt");
    let template = "spec: {containers: [{name: submitter, resources: {requests: {cpu: 1200m}}}]}";
    let server = namespace.setup(SQLITE, template).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(ENDLESS).await.unwrap();
    namespace.running_pod();
    let (_, text) = Cluster::shared().try_kubectl(
        &["apply", "-f", "-"],
        "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: sqlflow-test-high}, value: 1000}",
    );
    assert!(text.contains("sqlflow-test-high"), "{text}");
    namespace.apply(HIGH);
    waits_for_a_node(&namespace);
    namespace.kubectl(&["delete", "pod", "high", "--grace-period=0", "--force"]);
    namespace.running_pod();
    client.api.cancel(token.clone()).await.unwrap();
    let said = said(&client.follow(&token).await.unwrap());
    assert!(said.contains("a Pod of higher priority took its place"), "{said}");
}

const HIGH: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: high}
spec:
  priorityClassName: sqlflow-test-high
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: main
    image: sqlflow.test/agent:dev
    args: [exec, --, /sqlflow-agent, attach, --server, "https://10.250.0.1:1", --dir, /, --job, j, --step, "0", --attempt, "1"]
    resources: {requests: {cpu: 1200m}}
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"#;

/// A#2881: a node that does not respond. Its agent continues, and is fenced off when the step runs again. Kubernetes
/// does not delete Pods if all of its nodes are lost, so with a single node the test deletes the Pod.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "must run alone"]
async fn pod_on_a_lost_node_is_fenced_and_retried() {
    let _restore = RestoreNode;
    let namespace = Namespace::new("lost");
    let server = namespace.setup(SQLITE, "{}").flag("--grace=1s").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(ENDLESS).await.unwrap();
    let first = namespace.running_pod();
    let name = first["metadata"]["name"].as_str().unwrap();
    kill(Pid::from_raw(Cluster::shared().program("kubelet")), Signal::SIGSTOP).unwrap();
    namespace.kubectl(&["delete", "pod", name, "--wait=false"]);
    namespace.wait_for("a second Pod", || namespace.pods().iter().any(|pod| pod["metadata"]["name"] != name));
    kill(Pid::from_raw(Cluster::shared().program("kubelet")), Signal::SIGCONT).unwrap();
    namespace.wait_for("the second Pod alone", || {
        let pods = namespace.pods();
        pods.len() == 1 && !pods[0]["status"]["containerStatuses"][0]["state"]["running"].is_null()
    });
    client.api.cancel(token.clone()).await.unwrap();
    let said = said(&client.follow(&token).await.unwrap());
    assert!(said.contains("its node does not say that it ended"), "{said}");
}
