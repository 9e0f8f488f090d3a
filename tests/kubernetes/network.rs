//! The network policies of the manifests in force: the controller of kube-router enforces them on the node, whose bridge
//! plugin ignores them.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlflow_proto::v1::Session;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::ENDLESS;
use sqlflow_tests::cluster::{Cluster, NODE, Namespace, SUBMITTER_IMAGE};
use sqlflow_tests::python;
use sqlflow_tests::services::{Service, tool};

use crate::SQLITE;
use crate::manifests::{client, deploy};

/// Answers at addresses, and probes which ones answer.
const SCRIPT: &str = include_str!("network.py");
/// An address of the machine for a database, a storage and others.
const MACHINE: &str = "10.250.0.2";
/// The address where most clouds give away credentials.
const METADATA: &str = "169.254.169.254";
/// The Pod of the name server.
const NAMES: &str = "sqlflow-test-names";
/// Timeout for the policies to be in force.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The program that enforces network policies, until it is dropped.
struct Enforcer {
    service: Service,
    log: PathBuf,
}

impl Enforcer {
    fn start(namespace: &Namespace) -> Self {
        let log = namespace.dir().join("network-policies.log");
        let mut command = Command::new(tool("network-policies"));
        command.arg("-kubeconfig").arg(Cluster::shared().kubeconfig());
        command.args(["-node", NODE, "-services", "10.96.0.0/16"]);
        Self { service: Service::start(&mut command, &log), log }
    }

    /// Awaits that exactly the first ones of these answer a Pod.
    fn expect_reached(&self, namespace: &Namespace, pod: &str, open: &[String], closed: &[String]) {
        let mut probe = vec!["exec", pod, "--", "python3", "-c", SCRIPT, "probe"];
        probe.extend(open.iter().chain(closed).map(String::as_str));
        let begun = Instant::now();
        loop {
            let reached: Vec<String> = serde_json::from_str(&namespace.kubectl(&probe)).unwrap();
            if reached == open || begun.elapsed() > TIMEOUT {
                let log = std::fs::read_to_string(&self.log).unwrap();
                assert_eq!(reached, open, "what {pod} reaches: {log}");
                return;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        // It removes its rules.
        self.service.end(Signal::SIGTERM);
    }
}

/// An address of this machine, until it is dropped.
struct Address(&'static str);

impl Address {
    fn add(address: &'static str) -> Self {
        assert!(ip("replace", address), "{address} cannot be added");
        Self(address)
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        ip("del", self.0);
    }
}

fn ip(verb: &str, address: &str) -> bool {
    let address = format!("{address}/32");
    Command::new("ip").args(["addr", verb, &address, "dev", "lo"]).status().unwrap().success()
}

/// A Pod that answers at a port, with the security contexts of Pod and container.
fn listening(name: &str, labels: &Value, port: u16, [pod, container]: [&Value; 2]) -> String {
    let place = format!("0.0.0.0:{port}");
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "securityContext": pod,
            "containers": [{
                "name": "main",
                "image": SUBMITTER_IMAGE,
                "command": ["python3", "-c", SCRIPT, "serve", place],
                "securityContext": container,
            }],
        },
    });
    pod.to_string()
}

/// A name server as clusters have them, until it is dropped.
struct NameServer;

impl NameServer {
    fn start() -> Self {
        let labels = json!({ "k8s-app": "kube-dns" });
        // Its port is for root.
        let (root, nothing) = (json!({ "runAsUser": 0 }), json!({}));
        let pod = listening(NAMES, &labels, 53, [&root, &nothing]);
        let (applied, text) = Cluster::shared().try_kubectl(&["-n", "kube-system", "apply", "-f", "-"], &pod);
        assert!(applied, "{text}");
        Self
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let delete = ["-n", "kube-system", "delete", "pod", NAMES, "--wait=false"];
        Cluster::shared().try_kubectl(&delete, "");
    }
}

/// A Pod of another program in the namespace of the server.
fn start_visitor(namespace: &Namespace) {
    let pod = json!({
        "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" },
    });
    let container = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    namespace.apply(&listening("visitor", &json!({}), 8000, [&pod, &container]));
}

/// Address of the only Pod with this label, or of this name, once it is ready.
fn address(namespace: &Namespace, place: &str, which: &[&str]) -> String {
    let path = "{.status.containerStatuses[0].ready} {.status.podIP}";
    let path = if which[0] == "-l" { format!("{{range .items[*]}}{path}{{end}}") } else { path.to_owned() };
    let output = format!("jsonpath={path}");
    let get = [&["-n", place, "get", "pod"], which, &["-o", &output]].concat();
    let mut address = None;
    namespace.wait_for("the address of a Pod", || {
        let (_, text) = Cluster::shared().try_kubectl(&get, "");
        address = text.strip_prefix("true ").map(str::to_owned);
        address.is_some()
    });
    address.unwrap()
}

/// Answers at a port of a Pod that exists, for as long as it runs.
fn serve_in(namespace: &Namespace, pod: &str, port: u16) -> Service {
    let exec = format!("exec {} \"$@\"", Cluster::shared().kubectl_command());
    let place = format!("0.0.0.0:{port}");
    let mut command = Command::new("sh");
    command.args(["-c", &exec, "sh", "-n", &namespace.name, "exec", pod, "--"]);
    command.args(["python3", "-c", SCRIPT, "serve", &place]);
    Service::start(&mut command, &namespace.dir().join("serve.log"))
}

/// Answers at ports of this machine.
fn serve_here(namespace: &Namespace, places: &[String]) -> Service {
    let mut command = Command::new(python::program());
    command.args(["-c", SCRIPT, "serve"]).args(places);
    Service::start(&mut command, &namespace.dir().join("serve.log"))
}

/// What answers, and to whom: each target that is closed to one Pod is open to the other.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "must run alone"]
async fn policies_confine_pods_of_jobs() {
    let namespace = Namespace::new("network");
    let jobs = namespace.of_submitters();
    let enforcer = Enforcer::start(&namespace);
    let _addresses = [MACHINE, METADATA].map(Address::add);
    let at = |address: &str, ports: &[u16]| -> Vec<String> {
        ports.iter().map(|port| format!("{address}:{port}")).collect()
    };
    let here = [at(MACHINE, &[53, 3306, 6379, 9000]), at(METADATA, &[53, 80, 443])].concat();
    let _here = serve_here(&namespace, &here);
    let datasource = format!("--from-literal=SQLFLOW_SERVER_DATASOURCE={SQLITE}");
    let models = "--from-literal=SQLFLOW_MODELS=s3://nowhere/models";
    namespace.kubectl(&["create", "secret", "generic", "sqlflow-server", models, &datasource]);
    let _names = NameServer::start();
    start_visitor(&namespace);
    let overlay = deploy(&namespace);

    let token = namespace.kubectl(&["create", "token", "default", "--audience", "sqlflow-clients"]);
    let session = Session { token: token.trim().to_owned(), ..Session::default() };
    let mut client = client(&namespace).await;
    let job = client.run_in(ENDLESS, session).await.unwrap();
    client.until(&job, |it| matches!(it, Payload::Started(_))).await.unwrap();
    let pod = jobs.running_pod();
    let (pod, own) = (pod["metadata"]["name"].as_str().unwrap(), pod["status"]["podIP"].as_str().unwrap());
    let _in_pod = serve_in(&jobs, pod, 8000);

    let names = address(&namespace, "kube-system", &[NAMES]);
    let visitor = address(&namespace, &namespace.name, &["visitor"]);
    let component = "app.kubernetes.io/component=server";
    let server_ip = address(&namespace, &namespace.name, &["-l", component]);
    let server = format!("sqlflow-server.{}.svc", namespace.name);
    let all = |targets: &[&str]| -> Vec<String> { targets.iter().map(|it| (*it).to_owned()).collect() };

    // Every port of the server but that for agents, and whatever is neither a database nor a storage.
    let of_others = all(&[
        &format!("tls:{server}:50051"),
        &format!("tls:{server}:443"),
        &format!("tcp:{server_ip}:9090"),
        &format!("tcp:{METADATA}:53"),
        &format!("udp:{METADATA}:53"),
        &format!("tcp:{METADATA}:80"),
        &format!("tcp:{METADATA}:443"),
        &format!("tcp:{MACHINE}:53"),
        &format!("udp:{MACHINE}:53"),
        &format!("tcp:{MACHINE}:6379"),
        &format!("tcp:{visitor}:8000"),
    ]);
    let of_jobs = all(&[
        "name:kubernetes.default.svc.cluster.local",
        &format!("udp:{names}:53"),
        &format!("tcp:{names}:53"),
        &format!("tls:{server}:7443"),
        &format!("tcp:{MACHINE}:3306"),
        &format!("tcp:{MACHINE}:9000"),
        &format!("tcp:{own}:8000"),
    ]);
    enforcer.expect_reached(&jobs, pod, &of_jobs, &of_others);
    let closed = all(&[&format!("tls:{server}:7443"), &format!("tcp:{own}:8000")]);
    enforcer.expect_reached(&namespace, "visitor", &of_others, &closed);

    client.api.cancel(job.clone()).await.unwrap();
    client.follow(&job).await.unwrap();
    // Without a server a Pod would keep its finalizer.
    jobs.wait_for("no Pod of a job", || jobs.pods().is_empty());
    Cluster::shared().kubectl(&["delete", "--wait=false", "-k", overlay.to_str().unwrap()]);
}
