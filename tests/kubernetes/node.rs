//! What happens to a node happens to all that runs there, so these tests run alone: `make test-cluster` does that.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_tests::ENDLESS;
use sqlflow_tests::cluster::{Cluster, NODE, Namespace};

use crate::without_server::give_up_pods;
use crate::{SQLITE, said};

const DRAIN: [&str; 6] =
    ["drain", NODE, "--force", "--delete-emptydir-data", "--ignore-daemonsets", "--timeout=90s"];

/// Makes the node usable again, however the test ends.
struct Mended;

impl Drop for Mended {
    fn drop(&mut self) {
        let cluster = Cluster::shared();
        let _ = kill(Pid::from_raw(cluster.program("kubelet")), Signal::SIGCONT);
        cluster.try_kubectl(&["uncordon", NODE], "");
    }
}

/// AF, A#2881: a drained node. The job goes on elsewhere as soon as there is an elsewhere, and says what it waits for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "must run alone"]
async fn a_drained_node() {
    let _mended = Mended;
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

/// Without a server nobody takes the finalizer off; the documented command does, and the drain goes on. The server that
/// comes back after all knows what became of the Pod.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "must run alone"]
async fn a_node_drained_without_a_server() {
    let _mended = Mended;
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

/// A#2881: a node that does not answer any more. Its agent goes on, and is fenced off when the step runs elsewhere. With
/// a single node Kubernetes itself deletes no Pod of a lost node (all are lost, so it suspects itself): that is done here.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "must run alone"]
async fn a_lost_node() {
    let _mended = Mended;
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
