//! Clean-up without a server, by the commands of `docs/kubernetes.md`.

use std::process::Command;

use sqlflow_tests::cluster::{Cluster, Namespace};
use sqlflow_tests::{ENDLESS, documents};

use crate::SQLITE;

/// The lines about Pods of the page's uninstall commands, for this namespace.
fn documented(namespace: &Namespace) -> String {
    let commands = documents::commands("docs/kubernetes.md", r#""finalizers":null"#);
    let (pods, rest) = commands.split_once("kubectl delete -k").unwrap();
    assert_eq!(rest.trim().lines().count(), 1, "{rest}");
    pods.replace(
        "kubectl -n sqlflow-jobs",
        &format!("{} -n {}", Cluster::shared().kubectl_command(), namespace.name),
    )
}

/// Runs them.
pub(crate) fn give_up_pods(namespace: &Namespace) {
    let output = Command::new("sh").args(["-ec", &documented(namespace)]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_commands_remove_pods_without_a_server() {
    let namespace = Namespace::new("uninstall");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = server.client().await.unwrap();
    client.run(ENDLESS).await.unwrap();
    let pod = namespace.running_pod();
    assert!(!pod["metadata"]["finalizers"].as_array().unwrap().is_empty());
    server.kill();
    give_up_pods(&namespace);
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
    assert_eq!(namespace.processes(&pod), [0; 0], "a process of the Pod still runs");
}

/// The store is lost. Its Pods are reported and kept, since they may belong to another server.
#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_lost_store_are_reported() {
    let namespace = Namespace::new("orphans");
    let setup = namespace.setup(SQLITE, "{}");
    let server = setup.start().unwrap();
    server.client().await.unwrap().run(ENDLESS).await.unwrap();
    let pod = namespace.running_pod();
    server.kill();
    std::fs::remove_dir_all(&setup.state_dir).unwrap();
    let _server = setup.start().unwrap();
    let name = pod["metadata"]["name"].as_str().unwrap();
    namespace.wait_for("the report", || {
        let log = std::fs::read_to_string(setup.state_dir.join("server.log")).unwrap_or_default();
        log.lines()
            .any(|line| line.contains(name) && line.contains("the store knows nothing of this Pod's job"))
    });
    assert_eq!(namespace.pods().len(), 1, "the Pod may belong to another server");
}
