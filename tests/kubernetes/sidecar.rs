//! A server in the Pod of its user, added by `manifests/overlays/sidecar` as `docs/sidecar.md` says.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sqlflow_tests::cluster::{Cluster, HOST, Namespace};
use sqlflow_tests::documents::{blocks, commands};
use sqlflow_tests::services::{Hdfs, Mariadb, PASSWORD};
use sqlflow_tests::{ENDLESS, python};

use crate::SQLITE;
use crate::jobs::LOAD;

/// The page with the commands.
const PAGE: &str = "docs/sidecar.md";
/// Shown by a program that has a row.
const SELECT: [&str; 6] = ["run", "--no-remember", "--output", "csv", "-e", "SELECT 42 AS answer;"];
/// Model storage for programs that need none.
const NO_MODELS: &str = "s3://nowhere/models";

/// A namespace with what the page's commands make.
struct World {
    namespace: Namespace,
    /// What the Secrets have in place of the page's values.
    models: String,
    datasource: String,
}

impl World {
    fn new(name: &str, models: &str, datasource: &str) -> Self {
        let namespace = Namespace::new(name);
        // A copy, to add overlays.
        let manifests = python::repository().join("manifests");
        let copied = Command::new("cp").arg("-R").arg(manifests).arg(namespace.dir()).status().unwrap();
        assert!(copied.success());
        Self { namespace, models: models.to_owned(), datasource: datasource.to_owned() }
    }

    /// A namespace for programs that need neither models nor tables, with the administrator's part.
    fn simple(name: &str) -> Self {
        let world = Self::new(name, NO_MODELS, SQLITE);
        world.administer();
        world
    }

    /// The page's commands for this namespace and the images of this machine.
    fn localized(&self, text: &str) -> String {
        let name = &self.namespace.name;
        text.replace("kubectl ", &format!("{} ", Cluster::shared().kubectl_command()))
            .replace("-n ana", &format!("-n {name}"))
            .replace("namespace: ana", &format!("namespace: {name}"))
            .replace("sqlflow-sidecar:ana", &format!("sqlflow-sidecar:{name}"))
            .replace("=ana:", &format!("={name}:"))
            .replace("$registry/notebook, newTag: \"1\"", "sqlflow.test/server, newTag: dev")
            .replace("$registry/sqlflow-server, newTag: \"1\"", "sqlflow.test/server, newTag: dev")
            .replace("$registry/sqlflow-submitter, newTag: \"1\"", "sqlflow.test/submitter, newTag: dev")
            .replace("hdfs://namenode:9000/models", &self.models)
            .replace("mysql://user:password@tcp(db:3306)/name", &self.datasource)
            .replace("HADOOP_USER_NAME=sqlflow", "HADOOP_USER_NAME=root")
    }

    fn bash(&self, script: &str) -> String {
        let script = self.localized(script);
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &script]).current_dir(self.namespace.dir());
        let output = bash.output().unwrap();
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The administrator's commands.
    fn administer(&self) {
        self.bash(&commands(PAGE, "clusterrolebinding"));
    }

    /// The user's commands up to the one that applies the overlay.
    fn write_overlay(&self) {
        let block = commands(PAGE, "manifests/overlays/notebook");
        let (before, _) = block.split_once("kubectl apply").unwrap();
        self.bash(before);
    }

    fn overlay(&self) -> PathBuf {
        self.namespace.dir().join("manifests/overlays/notebook")
    }

    /// Replaces the first occurrence in a file of the overlay.
    fn edit(&self, file: &str, old: &str, new: &str) {
        let path = self.overlay().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{text}");
        fs::write(path, text.replacen(old, new, 1)).unwrap();
    }

    /// Adds a patch to the overlay.
    fn patch(&self, patch: &Value) {
        let path = self.overlay().join("kustomization.yaml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{text}patches: {}\n", json!([patch]))).unwrap();
    }

    fn apply(&self) {
        Cluster::shared().kubectl(&["apply", "-k", self.overlay().to_str().unwrap()]);
    }

    fn wait_for_notebook(&self) {
        self.namespace.kubectl(&["wait", "pod/notebook", "--for=condition=Ready", "--timeout=120s"]);
    }

    /// `sqlflowctl …` in the notebook. Returns whether it succeeded, and its output.
    fn try_sqlflowctl(&self, arguments: &[&str]) -> (bool, String) {
        let exec = ["-n", &self.namespace.name, "exec", "notebook", "-c", "main", "--", "sqlflowctl"];
        Cluster::shared().try_kubectl(&[exec.as_slice(), arguments].concat(), "")
    }

    fn sqlflowctl(&self, arguments: &[&str]) -> String {
        let (success, said) = self.try_sqlflowctl(arguments);
        assert!(success, "sqlflowctl {arguments:?}: {said}");
        said
    }

    /// Starts a program in the notebook, and waits until its Pod runs. Returns its token.
    fn start(&self, sql: &str) -> String {
        let token = self.sqlflowctl(&["run", "--no-remember", "--detach", "-e", sql]);
        self.namespace.wait_for("a Pod of the job that runs", || {
            self.job_pods()
                .iter()
                .any(|pod| !pod["status"]["containerStatuses"][0]["state"]["running"].is_null())
        });
        token.trim().to_owned()
    }

    fn job_pods(&self) -> Vec<Value> {
        let mut pods = self.namespace.pods();
        pods.retain(|pod| pod["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "sqlflow-server");
        pods
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let binding = format!("sqlflow-sidecar:{}", self.namespace.name);
        Cluster::shared().try_kubectl(&["delete", "--ignore-not-found", "clusterrolebinding", &binding], "");
    }
}

/// Its Pod may create no Pods; its server may.
#[test]
fn documented_commands_add_a_server_to_a_pod() {
    let world = World::simple("sidecar");
    world.bash(&commands(PAGE, "manifests/overlays/notebook"));
    assert_eq!(world.sqlflowctl(&SELECT), "answer\n42\n");
    let code = "import os; print(os.path.exists('/var/run/secrets/kubernetes.io'))";
    let exec = ["exec", "notebook", "-c", "main", "--", "python3", "-c", code];
    assert_eq!(
        world.namespace.kubectl(&exec),
        "False\n",
        "code of the main container has the server's token"
    );
    let secrets = world.namespace.kubectl(&["get", "secrets", "-o", "name"]);
    let expected = ["secret/sqlflow-sidecar", "secret/sqlflow-storage"];
    assert_eq!(secrets.lines().collect::<Vec<_>>(), expected, "the certificate is no Secret");
}

/// As a Pod that is gone without a SIGTERM: the cluster removes what it owned.
#[test]
fn pods_of_jobs_go_with_the_pod_that_has_the_state() {
    let world = World::simple("sidecar-owner");
    world.write_overlay();
    world.apply();
    world.wait_for_notebook();
    world.start(ENDLESS);
    let notebook = world.namespace.kubectl(&["get", "pod", "notebook", "-o", "jsonpath={.metadata.uid}"]);
    let pods = world.job_pods();
    let pod = &pods[0]["metadata"];
    assert_eq!(pod["ownerReferences"][0]["uid"], *notebook, "{pod}");
    assert!(pod["finalizers"].is_null(), "no server would remove it: {pod}");
    world.namespace.kubectl(&["delete", "pod", "notebook", "--grace-period=0", "--force"]);
    world.namespace.wait_for("an empty namespace", || world.namespace.pods().is_empty());
}

/// The sidecar dies alone: the kubelet restarts it, and its state is still there.
#[test]
fn job_outlives_the_sidecar_while_the_pod_exists() {
    let world = World::simple("sidecar-killed");
    world.write_overlay();
    world.apply();
    world.wait_for_notebook();
    let token = world.start(ENDLESS);
    let restarts = || {
        let path = "jsonpath={.status.initContainerStatuses[0].restartCount}";
        world.namespace.kubectl(&["get", "pod", "notebook", "-o", path])
    };
    assert_eq!(restarts(), "0");
    let pods = world.namespace.pods();
    let notebook = pods.iter().find(|pod| pod["metadata"]["name"] == "notebook").unwrap();
    for pid in world.namespace.processes(notebook) {
        let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if program.trim() == "sqlflow-server" {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
    }
    world.namespace.wait_for("the server's return", || {
        restarts() == "1" && world.try_sqlflowctl(&["describe", &token]).0
    });
    let running = world.job_pods();
    assert_eq!(running.len(), 1);
    assert!(running[0]["metadata"]["name"].as_str().unwrap().ends_with("-0-1"), "it is not run again");
    world.sqlflowctl(&["cancel", &token]);
    world.namespace.wait_for("no Pod of a job", || world.job_pods().is_empty());
}

/// The page's Kubernetes Job. It also leaves a job that would run for ever.
#[test]
fn kubernetes_job_with_a_sidecar_completes_and_leaves_nothing() {
    let world = World::simple("sidecar-job");
    world.write_overlay();
    let job = blocks(PAGE, "yaml").into_iter().find(|it| it.contains("kind: Job")).unwrap();
    fs::write(world.overlay().join("pod.yaml"), job).unwrap();
    let documented = r#"[sqlflowctl, run, --no-remember, -e, "SELECT 1 AS one;"]"#;
    let script = format!(
        "sqlflowctl run --no-remember --output csv -e 'SELECT 1 AS one;'
         token=$(sqlflowctl run --no-remember --detach -e '{ENDLESS}')
         until sqlflowctl describe $token | grep -q RUNNING; do sleep 0.1; done"
    );
    world.edit("pod.yaml", documented, &json!(["sh", "-ec", script]).to_string());
    world.apply();
    let namespace = &world.namespace;
    namespace.kubectl(&["wait", "job/nightly", "--for=condition=Complete", "--timeout=120s"]);
    let said = namespace.kubectl(&["logs", "job/nightly", "-c", "main"]);
    assert!(said.lines().any(|line| line == "1"), "{said}");
    namespace.wait_for("no Pod of a job", || world.job_pods().is_empty());
    let log = namespace.kubectl(&["logs", "job/nightly", "-c", "sqlflow"]);
    for words in ["cancelled, because the server ends", "nothing is left of them"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    namespace.kubectl(&["delete", "job", "nightly"]);
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
}

/// A volume for the claim of the overlay, since the cluster has no provisioner. It is removed with this.
struct Volume(String);

impl Volume {
    fn new(namespace: &Namespace) -> Self {
        let name = format!("{}-state", namespace.name);
        let path = namespace.dir().join("volume");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let volume = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": { "name": name },
            "spec": {
                "storageClassName": namespace.name,
                "capacity": { "storage": "2Gi" },
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": { "path": path },
            },
        });
        namespace.apply(&volume.to_string());
        Self(name)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        Cluster::shared().try_kubectl(&["delete", "persistentvolume", &self.0, "--wait=false"], "");
    }
}

/// The notebook's Pod is deleted while a job of it reads its data, and comes back under its name.
#[test]
fn training_goes_on_without_the_pod_and_its_token_fetches_the_result() {
    let hdfs = Hdfs::start_on(HOST);
    let database = Mariadb::start_on(HOST);
    python::run(LOAD, &[HOST, &database.port.to_string(), PASSWORD]).unwrap();
    let models = format!("hdfs://{HOST}:{}/models", hdfs.port);
    let world = World::new("sidecar-claim", &models, &database.dsn);
    world.administer();
    let namespace = &world.namespace;
    let _volume = Volume::new(namespace);
    world.write_overlay();
    world.edit("kustomization.yaml", "[../sidecar]", "[../sidecar, ../sidecar/claim]");
    let class = json!([{ "op": "add", "path": "/spec/storageClassName", "value": namespace.name }]);
    let claim = json!({ "kind": "PersistentVolumeClaim", "name": "sqlflow-sidecar" });
    world.patch(&json!({ "target": claim, "patch": class.to_string() }));
    // As a notebook, it ends at SIGTERM.
    let ends = json!(["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"]).to_string();
    world.edit("pod.yaml", "[sleep, infinity]", &ends);
    world.apply();
    world.wait_for_notebook();

    // The database takes 45 seconds for its 150 rows.
    let train = "SELECT * FROM iris WHERE SLEEP(0.3) = 0
        TO TRAIN xgboost.gbtree WITH objective = \"multi:softmax\", num_class = 3, train.num_boost_round = 2
        LABEL class INTO flowers.m;";
    let token = world.start(train);
    namespace.kubectl(&["delete", "pod", "notebook"]);
    let running = world.job_pods();
    assert_eq!(running.len(), 1, "the job's Pod lives without the notebook's");
    assert!(running[0]["metadata"]["deletionTimestamp"].is_null(), "{}", running[0]);
    assert!(!running[0]["status"]["containerStatuses"][0]["state"]["running"].is_null(), "{}", running[0]);
    let name = running[0]["metadata"]["name"].as_str().unwrap();
    assert!(name.ends_with("-0-1"), "{name}");

    world.apply();
    world.wait_for_notebook();
    let is_first = world.job_pods().iter().all(|pod| pod["metadata"]["name"] == name);
    assert!(is_first, "the same Pod works for the server that came back");
    world.sqlflowctl(&["fetch", "--from-start", &token]);
    let (_, listed) = hdfs.command(&["dfs", "-ls", "-R", "-C", "/models"]);
    assert!(listed.contains("flowers.m/sqlflow.gob"), "{listed}");
    namespace.wait_for("no Pod of a job", || world.job_pods().is_empty());
}

/// The rights of the component are the least: without any of them no job begins, and its failure names the verb.
#[test]
fn each_missing_right_is_named_before_anything_runs() {
    let world = World::new("sidecar-rights", NO_MODELS, SQLITE);
    let namespace = &world.namespace;
    let expect_named = |right: &str| {
        let (success, said) = world.try_sqlflowctl(&SELECT);
        assert!(!success, "it runs although the server {right}: {said}");
        let sentence = said.lines().find(|it| it.contains("cannot run jobs in namespace")).unwrap_or(&said);
        assert!(sentence.contains(right), "{right}: {said}");
        assert_eq!(sentence.matches(" resource \"").count(), 1, "only what is missing is named: {sentence}");
        assert_eq!(world.job_pods().len(), 0, "a Pod was made without the right: {right}");
    };
    world.write_overlay();
    world.apply();
    world.wait_for_notebook();
    expect_named("cannot create resource \"tokenreviews\" in the whole cluster");

    let role = namespace.kubectl(&["get", "role", "sqlflow-sidecar", "-o", "json"]);
    let role: Value = serde_json::from_str(&role).unwrap();
    let rules = role["rules"].as_array().unwrap();
    let account = format!("--as=system:serviceaccount:{}:sqlflow-sidecar", namespace.name);
    let set_rules = |rules: &[Value]| {
        let patch = json!({ "rules": rules }).to_string();
        namespace.kubectl(&["patch", "role", "sqlflow-sidecar", "--type=merge", "-p", &patch]);
    };
    let may = |verb: &str, resource: &str| {
        let asked = ["-n", &namespace.name, "auth", "can-i", verb, resource, &account];
        Cluster::shared().try_kubectl(&asked, "").0
    };
    let mut tried = 0;
    let mut before: Option<(String, String)> = None;
    for (index, rule) in rules.iter().enumerate() {
        for verb in rule["verbs"].as_array().unwrap() {
            let (verb, resource) = (verb.as_str().unwrap(), rule["resources"][0].as_str().unwrap());
            let mut fewer = rules.clone();
            fewer[index]["verbs"].as_array_mut().unwrap().retain(|it| it != verb);
            // A rule must have a verb.
            fewer.retain(|rule| !rule["verbs"].as_array().unwrap().is_empty());
            set_rules(&fewer);
            if before.is_none() {
                // Not earlier: the server would see all rights at once.
                namespace.wait_for("the smaller role", || !may(verb, resource));
                world.administer();
                let name = "tokenreviews.authentication.k8s.io";
                namespace.wait_for("the right to review tokens", || may("create", name));
            }
            namespace.wait_for("the role without the verb", || {
                !may(verb, resource) && before.as_ref().is_none_or(|(verb, resource)| may(verb, resource))
            });
            expect_named(&format!("cannot {verb} resource \"{resource}\""));
            before = Some((verb.to_owned(), resource.to_owned()));
            tried += 1;
        }
    }
    assert_eq!(tried, 6, "{role}");
    set_rules(rules);
    let (last, resource) = before.unwrap();
    namespace.wait_for("the whole role", || may(&last, &resource));
    // No restart is needed.
    assert_eq!(world.sqlflowctl(&SELECT), "answer\n42\n");
}
