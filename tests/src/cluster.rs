//! A real Kubernetes on this machine, and servers that launch Pods there. See `tests/cluster/`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::python::repository;
use crate::server::Setup;
use crate::services::{free_port_of, tool};

/// Address of the host for Pods and the apiserver.
pub const HOST: &str = "10.250.0.1";
/// The one node.
pub const NODE: &str = "sqlflow-node";
/// Image that `tests/cluster/images.sh` builds.
pub const SUBMITTER_IMAGE: &str = "sqlflow.test/submitter:dev";
/// Image that `tests/cluster/images.sh` builds.
pub const AGENT_IMAGE: &str = "sqlflow.test/agent:dev";
const TIMEOUT: Duration = Duration::from_secs(120);

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    kubernetes: PathBuf,
}

impl Cluster {
    /// The cluster of this machine, started if necessary. It keeps running: `make cluster-down` ends it.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Cluster> = LazyLock::new(|| {
            let kubeconfig = run_script("tests/cluster/cluster.sh", &["up"]);
            run_script("tests/cluster/images.sh", &[]);
            let cluster = Cluster { kubeconfig: kubeconfig.trim().into(), kubernetes: tool("kubernetes") };
            cluster.node_must_take_pods();
            cluster
        });
        &SHARED
    }

    /// Without it, each test of a cluster whose node is tainted (a full disk, a dead kubelet) waits for its timeout.
    fn node_must_take_pods(&self) {
        let taints = self.kubectl(&["get", "node", NODE, "-o", "jsonpath={.spec.taints[*].key}"]);
        assert!(taints.trim().is_empty(), "the node takes no Pods: {taints}; `make cluster-down` removes it");
    }

    /// The node's conditions and the logs' ends of what places and runs Pods, for a test that failed.
    fn state(&self) -> String {
        let conditions =
            "jsonpath={.spec.taints}{range .status.conditions[*]}\n{.type}={.status}: {.message}{end}\n";
        let (_, mut text) = self.try_kubectl(&["get", "node", NODE, "-o", conditions], "");
        for name in ["scheduler", "kubelet"] {
            let log = self.kubeconfig.with_file_name(format!("{name}.log"));
            let log = std::fs::read_to_string(log).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(3).collect();
            text.extend(last.into_iter().rev().map(|line| format!("{name}: {line}\n")));
        }
        text
    }

    /// `kubectl …`; a failure fails the test.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let (success, text) = self.try_kubectl(arguments, "");
        assert!(success, "kubectl {arguments:?}: {text}");
        text
    }

    /// `kubectl apply -f -` and similar, with standard input. Returns whether it succeeded, and its output.
    pub fn try_kubectl(&self, arguments: &[&str], input: &str) -> (bool, String) {
        use std::io::Write as _;
        let mut child = Command::new(&self.kubernetes)
            .args(["kubectl", "--kubeconfig"])
            .arg(&self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("kubectl reads");
        let output = child.wait_with_output().expect("kubectl ends");
        let text = [output.stdout, if output.status.success() { Vec::new() } else { output.stderr }].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// For programs that talk to the apiserver as its administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// For scripts that call kubectl.
    pub fn kubectl_command(&self) -> String {
        format!("{} kubectl --kubeconfig {}", self.kubernetes.display(), self.kubeconfig.display())
    }

    /// The pid of one of the cluster's own programs.
    pub fn program(&self, name: &str) -> i32 {
        let file = self.kubeconfig.with_file_name(format!("{name}.pid"));
        std::fs::read_to_string(file).expect("it runs").trim().parse().expect("it is a pid")
    }
}

fn run_script(script: &str, arguments: &[&str]) -> String {
    let output = Command::new(repository().join(script))
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("the script runs");
    assert!(output.status.success(), "{script} failed");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// A namespace of one test that admits only Pods of the *restricted* standard. It is removed with the test.
#[derive(Debug)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    cluster: &'static Cluster,
    /// Certificates and templates.
    dir: tempfile::TempDir,
}

impl Namespace {
    /// Creates a new one whose name begins like this.
    pub fn new(name: &str) -> Self {
        Self::named(format!("{name}-{:06x}", rand::random::<u32>() & 0xff_ffff))
    }

    /// The namespace of submitters for a server that is deployed in this one.
    pub fn of_submitters(&self) -> Self {
        Self::named(format!("{}-jobs", self.name))
    }

    fn named(name: String) -> Self {
        let cluster = Cluster::shared();
        let manifest = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}\n"
        );
        let (success, text) = cluster.try_kubectl(&["apply", "-f", "-"], &manifest);
        assert!(success, "{text}");
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        certificates(dir.path());
        let namespace = Self { name, cluster, dir };
        let ca = namespace.dir.path().join("ca.crt");
        namespace.kubectl(&[
            "create",
            "configmap",
            "sqlflow-ca",
            &format!("--from-file=ca.crt={}", ca.display()),
        ]);
        namespace.wait_for("the namespace's service account", || {
            cluster.try_kubectl(&["-n", &namespace.name, "get", "serviceaccount", "default"], "").0
        });
        namespace
    }

    /// `kubectl -n … …`
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(&[&["-n", self.name.as_str()], arguments].concat())
    }

    /// `kubectl -n … apply -f -`
    pub fn apply(&self, manifest: &str) {
        let (success, text) = self.cluster.try_kubectl(&["-n", &self.name, "apply", "-f", "-"], manifest);
        assert!(success, "{text}");
    }

    /// The Pods, as the apiserver returns them.
    pub fn pods(&self) -> Vec<Value> {
        let text = self.kubectl(&["get", "pods", "-o", "json"]);
        let list: Value = serde_json::from_str(&text).expect("it is JSON");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// The only Pod, once its container runs.
    pub fn running_pod(&self) -> Value {
        let mut found = None;
        self.wait_for("a running Pod", || {
            let pods = self.pods();
            assert!(pods.len() < 2, "{} Pods", pods.len());
            found = pods
                .into_iter()
                .find(|pod| !pod["status"]["containerStatuses"][0]["state"]["running"].is_null());
            found.is_some()
        });
        found.expect("it was found")
    }

    /// Waits until the condition holds.
    pub fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < TIMEOUT, "timeout: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Host pids of the processes of a Pod's containers.
    pub fn processes(&self, pod: &Value) -> Vec<i32> {
        let uid = pod["metadata"]["uid"].as_str().expect("a Pod has one");
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("it is Linux").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let cgroup = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if cgroup.contains(uid) && name.trim() != "pause" {
                found.push(pid);
            }
        }
        found
    }

    /// A server outside the cluster with its Pods in this namespace, and its state in the namespace's folder.
    pub fn setup(&self, datasource: &str, template: &str) -> Setup {
        let dir = self.dir.path();
        let file = |name: &str| dir.join(name).display().to_string();
        std::fs::write(dir.join("template.yaml"), template).expect("the test owns the folder");
        let port = free_port_of(HOST);
        let flags = [
            "--launcher=kubernetes".to_owned(),
            format!("--pod-namespace={}", self.name),
            format!("--agent-listen={HOST}:{port}"),
            format!("--agent-cert={}", file("tls.crt")),
            format!("--agent-key={}", file("tls.key")),
            format!("--agent-url=https://{HOST}:{port}"),
            format!("--pod-image={SUBMITTER_IMAGE}"),
            format!("--pod-template={}", file("template.yaml")),
            "--python=python3".to_owned(),
            "--models=s3://nowhere/models".to_owned(),
        ];
        let setup =
            Setup::new(dir, datasource).env("KUBECONFIG", self.cluster.kubeconfig.display().to_string());
        flags.into_iter().fold(setup, Setup::flag)
    }

    /// The namespace's own folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (_, text) =
                self.cluster.try_kubectl(&["-n", &self.name, "get", "pods,events", "-o", "wide"], "");
            #[expect(clippy::print_stderr, reason = "what a failed test shows")]
            {
                eprintln!("{text}{}", self.cluster.state());
            }
        }
        // As an operator does when no server is left to remove finalizers.
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        let (_, pods) = self.cluster.try_kubectl(&["-n", &self.name, "get", "pods", "-o", "name"], "");
        self.cluster.try_kubectl(
            &["-n", &self.name, "delete", "pods", "--all", "--wait=false", "--grace-period=1"],
            "",
        );
        for pod in pods.lines() {
            self.cluster.try_kubectl(&["-n", &self.name, "patch", pod, "--type=merge", "-p", patch], "");
        }
        self.cluster.try_kubectl(&["delete", "namespace", &self.name, "--wait=false"], "");
    }
}

/// `ca.crt`, and `tls.crt` with `tls.key` signed by it.
fn certificates(dir: &Path) {
    let script = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -subj /CN=ca -days 30 -out ca.crt &&
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout tls.key -subj /CN=sqlflow-server -out tls.csr &&
echo subjectAltName=IP:{HOST} > names && openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile names -out tls.crt"
    );
    let output =
        Command::new("sh").arg("-c").arg(script).current_dir(dir).output().expect("a shell is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
