//! The server inside the cluster, deployed from `manifests/` and reached by its Service.

use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::v1::Session;
use sqlflow_tests::client::Client;
use sqlflow_tests::cluster::{Cluster, HOST, Namespace};
use sqlflow_tests::documents::commands;
use sqlflow_tests::python;
use sqlflow_tests::server::program;
use sqlflow_tests::services::{Hdfs, Mariadb, PASSWORD};

use tonic::Code;

use crate::jobs::{LOAD, PREDICT, TRAIN};

/// All rights of the server in the namespace of submitters, as the apiserver lists them, without those of every account.
const RIGHTS: [&str; 3] = [
    "events [list]",
    "pods [create get list watch patch delete]",
    "tokenreviews.authentication.k8s.io [create]",
];
/// The same in its own namespace, and in every other.
const RIGHTS_ELSEWHERE: [&str; 1] = ["tokenreviews.authentication.k8s.io [create]"];

/// The rights of an account of this namespace in another one.
fn rights(of: &Namespace, account: &str, place: &Namespace) -> Vec<String> {
    let account = format!("--as=system:serviceaccount:{}:{account}", of.name);
    let listed = place.kubectl(&["auth", "can-i", "--list", "--no-headers", &account]);
    let everybody = ["selfsubject", "clustertrustbundles", "/"];
    let right = |line: &str| {
        let resource = line.split_whitespace().next().unwrap_or_default();
        format!("{resource} [{}", line.rsplit('[').next().unwrap_or_default())
    };
    let is_own =
        |right: &String| !everybody.iter().any(|start| right.starts_with(start)) && !right.starts_with('[');
    let mut granted: Vec<_> = listed.lines().map(right).filter(is_own).collect();
    granted.sort();
    granted
}

/// Creates the certificates by the documented command. The namespace of submitters exists.
pub(crate) fn make_certificates(namespace: &Namespace) {
    let certificates = Command::new(python::repository().join("manifests/certificates.sh"))
        .arg(&namespace.name)
        .env("KUBECTL", Cluster::shared().kubectl_command())
        .output()
        .unwrap();
    assert!(certificates.status.success(), "{}", String::from_utf8_lossy(&certificates.stderr));
}

/// Deploys the server. Returns the folder of the kustomization.
pub(crate) fn deploy(namespace: &Namespace) -> PathBuf {
    make_certificates(namespace);
    // A base must be a relative path.
    let dir = namespace.dir().join("overlay");
    std::fs::create_dir(&dir).unwrap();
    let up = "../".repeat(dir.components().count() - 1);
    let manifests = python::repository().join("manifests").display().to_string();
    let manifests = format!("{up}{}", manifests.trim_start_matches('/'));
    let kustomization = format!(
        "namespace: {}\nresources: [{manifests}/overlays/dev]\ntransformers: [{manifests}/transformers/names]\n",
        namespace.name,
    );
    std::fs::write(dir.join("kustomization.yaml"), kustomization).unwrap();
    // Without -n, as documented: its objects are in two namespaces.
    Cluster::shared().kubectl(&["apply", "-k", dir.to_str().unwrap()]);
    namespace.kubectl(&["rollout", "status", "deployment/sqlflow-server", "--timeout=90s"]);
    dir
}

pub(crate) async fn client(namespace: &Namespace) -> Client {
    let ip = namespace.kubectl(&["get", "service", "sqlflow-server", "-o", "jsonpath={.spec.clusterIP}"]);
    let ca = namespace.kubectl(&["get", "configmap", "sqlflow-ca", "-o", r"jsonpath={.data.ca\.crt}"]);
    // kube-proxy may need a moment, and on a busy machine a long one.
    for _ in 0..600 {
        if let Ok(client) = Client::connect_with_tls(&format!("{ip}:50051"), "sqlflow-server", &ca).await {
            return client;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the Service does not respond");
}

/// The page's commands for one's own machine, in this namespace. The forwarded port needs a moment.
fn log_in_as_documented(namespace: &Namespace) {
    let kubectl = Cluster::shared().kubectl_command();
    let block = commands("docs/kubernetes.md", "port-forward");
    let block = block.replace("kubectl -n sqlflow", &format!("{kubectl} -n {}", namespace.name));
    let listens = "until (exec 3<>/dev/tcp/localhost/50051) 2> /dev/null; do sleep 0.1; done";
    let lines = block.lines().map(|line| {
        if line.contains("port-forward") { format!("{line}\n{listens}") } else { line.to_owned() }
    });
    let script = format!("set -e\ntrap 'kill %1' EXIT\n{}", lines.collect::<Vec<_>>().join("\n"));
    let home = tempfile::tempdir().unwrap();
    let programs = program("sqlflowctl").parent().unwrap().display().to_string();
    let output = Command::new("timeout")
        .args(["60", "bash", "-c", &script])
        .env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()))
        .env("HOME", home.path())
        .current_dir(home.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn deployed_server_trains_restarts_and_predicts() {
    let namespace = Namespace::new("manifests");
    let jobs = namespace.of_submitters();
    let hdfs = Hdfs::start_on(HOST);
    let database = Mariadb::start_on(HOST);
    let port = database.dsn.split(':').next_back().unwrap().split(')').next().unwrap().to_owned();
    python::run(LOAD, &[HOST, &port, PASSWORD]).unwrap();
    let models = format!("--from-literal=SQLFLOW_MODELS=hdfs://{HOST}:{}/models", hdfs.port);
    let datasource = format!("--from-literal=SQLFLOW_SERVER_DATASOURCE={}", database.dsn);
    namespace.kubectl(&["create", "secret", "generic", "sqlflow-server", &models, &datasource]);
    jobs.kubectl(&["create", "secret", "generic", "sqlflow-storage", "--from-literal=HADOOP_USER_NAME=root"]);
    let overlay = deploy(&namespace);
    // As documented, with the programs of the image.
    let first = ["sqlflowctl", "run", "--no-remember", "-e", "SELECT 1;"];
    namespace.kubectl(&[&["exec", "deployment/sqlflow-server", "--"], first.as_slice()].concat());
    jobs.wait_for("no Pod of the job", || jobs.pods().is_empty());
    assert_eq!(namespace.pods().len(), 1, "jobs have a namespace of their own");

    log_in_as_documented(&namespace);
    // What it keeps of data sources is encrypted with a key that is not in the state folder.
    let arguments =
        namespace.kubectl(&["get", "deployment/sqlflow-server", "-o", "jsonpath={..containers[*].args}"]);
    assert!(arguments.contains("--secrets-key=/etc/sqlflow/secrets/key"), "{arguments}");

    // The server has exactly these rights, and submitters have none.
    assert_eq!(rights(&namespace, "sqlflow-server", &jobs), RIGHTS);
    assert_eq!(rights(&namespace, "sqlflow-server", &namespace), RIGHTS_ELSEWHERE);
    assert_eq!(rights(&jobs, "sqlflow-submitter", &jobs), [""; 0]);
    assert_eq!(rights(&jobs, "sqlflow-submitter", &namespace), [""; 0]);

    let mut client_before = client(&namespace).await;
    let session_of = |place: &Namespace, account: &str, audience: &str| {
        let token = place.kubectl(&["create", "token", account, "--audience", audience]);
        Session { token: token.trim().to_owned(), ..Session::default() }
    };
    let session = |account: &str, audience: &str| session_of(&namespace, account, audience);
    // Without an identity, with the token of an agent, and as an account of another namespace.
    let refused =
        async |client: &mut Client, session| client.run_in(TRAIN, session).await.unwrap_err().code();
    assert_eq!(refused(&mut client_before, Session::default()).await, Code::Unauthenticated);
    let of_agent = session_of(&jobs, "sqlflow-submitter", "sqlflow-server");
    assert_eq!(refused(&mut client_before, of_agent).await, Code::Unauthenticated);
    let of_submitter = session_of(&jobs, "sqlflow-submitter", "sqlflow-clients");
    assert_eq!(refused(&mut client_before, of_submitter).await, Code::PermissionDenied);
    let foreign =
        namespace.kubectl(&["-n", "default", "create", "token", "default", "--audience", "sqlflow-clients"]);
    let foreign = Session { token: foreign.trim().to_owned(), ..Session::default() };
    assert_eq!(refused(&mut client_before, foreign).await, Code::PermissionDenied);
    // The database takes ten seconds, so that its Pod is seen also on a busy machine.
    let slow = TRAIN.replacen("FROM iris", "FROM iris WHERE SLEEP(0.07) = 0", 1);
    assert_ne!(slow, TRAIN);
    let token = client_before.run_in(&slow, session("default", "sqlflow-clients")).await.unwrap();
    // The server dies while the submitter runs, and the kubelet restarts it.
    jobs.wait_for("the submitter's Pod", || jobs.pods().len() == 1);
    let pods = namespace.pods();
    let server =
        pods.iter().find(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "server").unwrap();
    for pid in namespace.processes(server) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    // One object says both. The Deployment counts its ready Pods later, and still counts the one that died.
    let restarted = "{.items[0].status.containerStatuses[0].restartCount} \
                     {.items[0].status.containerStatuses[0].ready}";
    let restarted = format!("jsonpath={restarted}");
    namespace.wait_for("the server's return", || {
        let component = "app.kubernetes.io/component=server";
        namespace.kubectl(&["get", "pods", "-l", component, "-o", &restarted]) == "1 true"
    });
    let mut client = client(&namespace).await;
    client.follow(&token).await.unwrap().expect_success();
    let token = client.run_in(PREDICT, session("default", "sqlflow-clients")).await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    let (_, listed) = hdfs.command(&["dfs", "-ls", "-R", "-C", "/models"]);
    assert!(listed.contains("flowers.m/sqlflow.gob"), "{listed}");

    // A job's Pod keeps its finalizer until the server has removed it: without a server it would stay.
    jobs.wait_for("no Pod of a job", || jobs.pods().is_empty());
    Cluster::shared().kubectl(&["delete", "-k", overlay.to_str().unwrap()]);
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
}
