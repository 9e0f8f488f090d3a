//! Identity of agents: only the attempt's agent may attach.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sqlflow_tests::ENDLESS;
use sqlflow_tests::cluster::Namespace;
use sqlflow_tests::server::program;

use crate::SQLITE;

/// Runs an agent outside the cluster with this token. Returns its stderr.
fn agent_with(token: &str, pod: &Value, dir: &Path) -> String {
    let args: Vec<String> = pod["spec"]["containers"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_str().unwrap().to_owned())
        .filter(|it| ["--server", "--job", "--step", "--attempt"].iter().any(|flag| it.starts_with(flag)))
        .collect();
    let run_dir = tempfile::tempdir().unwrap();
    let file = run_dir.path().join("token");
    std::fs::write(&file, token).unwrap();
    let output = Command::new(program("sqlflow-agent"))
        .arg("attach")
        .args(args)
        .arg(format!("--ca={}", dir.join("ca.crt").display()))
        .arg(format!("--token={}", file.display()))
        .arg(format!("--dir={}", run_dir.path().display()))
        .args(["--linger", "5"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Tokens of the wrong audience, of no Pod, and of another Pod are rejected. User code that reads the Pod's own token
/// cannot use it, since the agent has attached already.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_agent_of_the_attempts_pod_may_attach() {
    let namespace = Namespace::new("identity");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(ENDLESS).await.unwrap();
    let pod = namespace.running_pod();
    let name = pod["metadata"]["name"].as_str().unwrap();
    namespace.apply(OTHER);
    namespace.wait_for("the other Pod", || {
        namespace.kubectl(&["get", "pod", "other", "-o", "jsonpath={.metadata.uid}"]).len() > 10
    });

    let mint = |flags: &[&str]| namespace.kubectl(&[&["create", "token", "default"], flags].concat());
    let bound = |pod: &str| {
        mint(&["--audience=sqlflow-server", "--bound-object-kind=Pod", &format!("--bound-object-name={pod}")])
    };
    for (who, token, refusal) in [
        ("nobody", "no.token.atall".to_owned(), "not valid for this server"),
        ("for the apiserver", mint(&[]), "not valid for this server"),
        ("of no Pod", mint(&["--audience=sqlflow-server"]), "not valid for this server"),
        ("of another Pod", bound("other"), "this is not the attempt's Pod"),
        ("of the Pod, but not its agent", bound(name), "another agent is attached"),
    ] {
        let refused = agent_with(&token, &pod, namespace.dir());
        assert!(refused.contains(refusal), "{who}: {refused}");
    }
    client.api.cancel(token.clone()).await.unwrap();
    assert!(!client.follow(&token).await.unwrap().status.message.is_empty());
}

const OTHER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: other}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: main
    image: sqlflow.test/agent:dev
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"#;
