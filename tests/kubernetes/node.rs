//! What happens to a node happens to all that runs there, so these tests run alone: `make test-cluster` does that.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_tests::cluster::{Cluster, NODE, Namespace};

use crate::{LONG, SQLITE, said};

/// AF, A#2881: a drained node. The job goes on elsewhere as soon as there is an elsewhere, and says what it waits for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "must run alone"]
async fn a_drained_node() {
    let namespace = Namespace::new("drain");
    let cluster = Cluster::shared();
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(LONG).await.unwrap();
    namespace.running_pod();
    cluster.kubectl(&[
        "drain",
        NODE,
        "--force",
        "--delete-emptydir-data",
        "--ignore-daemonsets",
        "--timeout=90s",
    ]);
    waits_for_a_node(&namespace);
    cluster.kubectl(&["uncordon", NODE]);
    namespace.running_pod();
    client.api.cancel(token.clone()).await.unwrap();
    let said = said(&client.follow(&token).await.unwrap());
    for words in ["it was evicted, as when a node is drained", "unschedulable", "(attempt 2)"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

fn waits_for_a_node(namespace: &Namespace) {
    namespace.wait_for("a Pod that waits for a node", || {
        namespace.pods().iter().any(|pod| {
            pod["metadata"]["name"].as_str().is_some_and(|name| name.ends_with("-2"))
                && pod["status"]["phase"] == "Pending"
        })
    });
    // As long as it takes until that is told.
    std::thread::sleep(Duration::from_secs(4));
}

/// A#2881: a Pod of higher priority takes its place.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "must run alone"]
async fn a_pod_of_higher_priority() {
    let namespace = Namespace::new("preempt");
    let template = "spec: {containers: [{name: submitter, resources: {requests: {cpu: 1200m}}}]}";
    let server = namespace.setup(SQLITE, template).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(LONG).await.unwrap();
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

/// K, A#2881: a node that does not answer any more. Its agent goes on, and is fenced off when the step runs elsewhere.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "must run alone"]
async fn a_lost_node() {
    let namespace = Namespace::new("lost");
    let template = "spec: {tolerations: [
        {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1},
        {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}]}";
    let server = namespace.setup(SQLITE, template).flag("--grace=1s").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(LONG).await.unwrap();
    let first = namespace.running_pod();
    let kubelet = Pid::from_raw(Cluster::shared().program("kubelet"));
    kill(kubelet, Signal::SIGSTOP).unwrap();
    namespace.wait_for("a second Pod", || {
        namespace.pods().iter().any(|pod| pod["metadata"]["name"] != first["metadata"]["name"])
    });
    kill(kubelet, Signal::SIGCONT).unwrap();
    let name = first["metadata"]["name"].as_str().unwrap();
    namespace.wait_for("the end of the first Pod, whose agent was refused", || {
        namespace.pods().iter().all(|pod| pod["metadata"]["name"] != name)
    });
    namespace.running_pod();
    client.api.cancel(token.clone()).await.unwrap();
    let said = said(&client.follow(&token).await.unwrap());
    assert!(said.contains("its node became unreachable"), "{said}");
}
