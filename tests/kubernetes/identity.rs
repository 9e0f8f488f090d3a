//! Identity of agents: only the attempt's agent may attach.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::ENDLESS;
use sqlflow_tests::cluster::{AGENT_IMAGE, Namespace, SUBMITTER_IMAGE};
use sqlflow_tests::server::program;

use crate::{SQLITE, said};

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

/// What another program makes of the server's Pod: one with another name, uid, image and command, and the same labels and
/// annotations.
fn planted(pod: &Value, name: &str, attempt: &str, image: &str, command: &[&str]) -> String {
    let mut labels = pod["metadata"]["labels"].clone();
    labels["sqlflow.org/attempt"] = attempt.into();
    let security = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    let planted = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": labels, "annotations": pod["metadata"]["annotations"] },
        "spec": {
            "restartPolicy": "Never",
            "securityContext":
                { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [
                { "name": "submitter", "image": image, "command": command, "securityContext": security }
            ],
        },
    });
    planted.to_string()
}

/// A program that may create Pods in the namespace makes that of the next attempt before the server does. It gets neither
/// the statement nor the data source, and its word is not taken.
#[tokio::test(flavor = "multi_thread")]
async fn pod_that_another_program_made_is_not_adopted() {
    let namespace = Namespace::new("planted");
    let setup = namespace.setup(SQLITE, "{}");
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(ENDLESS).await.unwrap();
    let pod = namespace.running_pod();
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    let next = format!("{}2", name.strip_suffix('1').unwrap());
    namespace.apply(&planted(
        &pod,
        &next,
        "2",
        AGENT_IMAGE,
        &["/sqlflow-agent", "exec", "--", "/sqlflow-agent"],
    ));
    let audience = ["--audience=sqlflow-server", "--bound-object-kind=Pod"];
    let bound = format!("--bound-object-name={next}");
    let its_token = namespace.kubectl(&["create", "token", "default", audience[0], audience[1], &bound]);
    namespace.kubectl(&["delete", "pod", &name, "--wait=false", "--grace-period=1"]);
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.code(), Code::Failed);
    let why = format!("cannot create the Pod {next}: another program made a Pod of this name");
    assert!(ended.status.message.contains(&why), "{:?}", ended.status);
    let of_next = serde_json::to_string(&pod).unwrap().replace("--attempt=1", "--attempt=2");
    let refused = agent_with(&its_token, &serde_json::from_str(&of_next).unwrap(), namespace.dir());
    assert!(refused.contains("this is not the attempt's Pod"), "{refused}");
    // It is not the server's to remove.
    namespace.wait_for("only the other Pod", || namespace.pods().len() == 1);
    assert_eq!(namespace.pods()[0]["metadata"]["name"], *next);
    namespace.wait_for("the report", || {
        let log = std::fs::read_to_string(setup.state_dir.join("server.log")).unwrap_or_default();
        log.lines().any(|line| line.contains(&next) && line.contains("another program made this Pod"))
    });
}

/// It has the name of the attempt's Pod, which is gone, and a copy of its mark.
#[tokio::test(flavor = "multi_thread")]
async fn outcome_of_a_pod_that_replaced_the_attempts_is_not_believed() {
    let namespace = Namespace::new("replaced");
    let setup = namespace.setup(SQLITE, "{}").flag("--pod-finalizer=false");
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(format!("CREATE TABLE t AS {ENDLESS}")).await.unwrap();
    let pod = namespace.running_pod();
    client.until(&token, |it| matches!(it, Payload::Started(_))).await.unwrap();
    server.kill();
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    namespace.kubectl(&["delete", "pod", &name, "--grace-period=0", "--force"]);
    let forged = json!({ "reason": "succeeded", "records": 3, "last_result": 0, "marks": [
        { "seq": 2, "time": 1, "statement": 0, "ended": { "micros": 3, "rows": null } },
        { "seq": 3, "time": 1, "statement": 0, "ended": { "micros": 3, "rows": null } },
    ] });
    let program = format!("open('/dev/termination-log', 'w').write('{forged}')");
    namespace.apply(&planted(&pod, &name, "1", SUBMITTER_IMAGE, &["python3", "-c", &program]));
    namespace.wait_for("the end of the other Pod", || {
        let pods = namespace.pods();
        pods.iter().any(|it| it["status"]["phase"] == "Succeeded")
    });
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.code(), Code::Failed, "{}", said(&ended));
    let why = "another program made one with its name";
    assert!(ended.status.message.contains(why), "{:?}", ended.status);
    assert!(ended.status.message.contains("may have executed"), "{:?}", ended.status);
    assert_eq!(namespace.pods().len(), 1, "it is not the server's to remove");
}

/// Python runs beside the agent, as the same user.
#[tokio::test(flavor = "multi_thread")]
async fn python_in_a_pod_cannot_read_the_agents_credentials() {
    for (confine, expected) in [("require", "closed"), ("off", "open")] {
        let namespace = Namespace::new("credentials");
        namespace.kubectl(&["create", "secret", "generic", "storage", "--from-literal=key=secret"]);
        let template = json!({ "spec": {
            "containers": [{
                "name": "submitter",
                "env": [
                    { "name": "AWS_SHARED_CREDENTIALS_FILE", "value": "/etc/storage/key" },
                    { "name": "PYTHONPATH", "value": "/etc/attack:/opt/sqlflow:/opt/packages" },
                ],
                "volumeMounts": [
                    { "name": "storage", "mountPath": "/etc/storage" },
                    { "name": "attack", "mountPath": "/etc/attack" },
                ],
            }],
            "volumes": [
                { "name": "storage", "secret": { "secretName": "storage" } },
                { "name": "attack", "configMap": { "name": "attack" } },
            ],
        } });
        // Python imports it at its start.
        let attack = format!("--from-literal=sitecustomize.py={READS}");
        namespace.kubectl(&["create", "configmap", "attack", &attack]);
        let setup = namespace.setup(SQLITE, &template.to_string()).flag(format!("--confine={confine}"));
        let server = setup.start().unwrap();
        let mut client = server.client().await.unwrap();
        let program = "SELECT 1 AS a, 2 AS y UNION ALL SELECT 2, 4 TO TRAIN xgboost.gbtree LABEL y INTO m;";
        let token = client.run(program).await.unwrap();
        let ended = client.follow(&token).await.unwrap();
        let files = ["/etc/storage/key", "/var/run/sqlflow/identity/token", "/dev/termination-log"];
        for file in files {
            assert!(said(&ended).contains(&format!("{file} is {expected}")), "{confine}: {}", said(&ended));
        }
        // It has trained; there is no storage of models.
        assert!(ended.status.message.contains("could not be published"), "{:?}", ended.status);
    }
}

/// Tries to open the agent's files.
const READS: &str = "
import os
if 'SQLFLOW_CHANNEL_FD' in os.environ:
    for path in ['/etc/storage/key', '/var/run/sqlflow/identity/token', '/dev/termination-log']:
        try:
            open(path).close()
            print(f'{path} is open', flush=True)
        except PermissionError:
            print(f'{path} is closed', flush=True)
";

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
