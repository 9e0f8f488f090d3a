//! The manifests that `docs/kubernetes.md` installs, checked by the apiserver in a dry run.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use sqlflow_tests::cluster::{Cluster, Namespace};
use sqlflow_tests::documents::blocks;
use sqlflow_tests::python::repository;
use tempfile::TempDir;

/// Namespace of `overlays/single`.
const NAMESPACE: &str = "sqlflow";

/// The namespace of the submitters of a server in this one.
fn jobs_of(namespace: &str) -> String {
    format!("{namespace}-jobs")
}

/// The namespaces, which must exist even for a dry run. It is removed with the test, unless it existed before. One test
/// at a time has it.
struct Place {
    made: bool,
    _alone: MutexGuard<'static, ()>,
}

impl Place {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let file = repository().join("manifests/overlays/single/namespace.yaml");
        let (made, _) =
            Cluster::shared().try_kubectl(&["create", "--save-config", "-f", file.to_str().unwrap()], "");
        Cluster::shared().try_kubectl(&["create", "namespace", &jobs_of(NAMESPACE)], "");
        Self { made, _alone: alone }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.made {
            let both = [NAMESPACE, &jobs_of(NAMESPACE)];
            Cluster::shared()
                .try_kubectl(&[&["delete", "namespace", "--timeout=60s"], both.as_slice()].concat(), "");
        }
    }
}

/// A copy of `manifests/`, to add overlays.
fn copied() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let copied =
        Command::new("cp").arg("-R").arg(repository().join("manifests")).arg(dir.path()).status().unwrap();
    assert!(copied.success());
    std::fs::create_dir_all(dir.path().join("manifests/overlays/mine")).unwrap();
    dir
}

/// The page's commands that write `overlays/mine`, in their order.
fn documented() -> Vec<String> {
    let page = std::fs::read_to_string(repository().join("docs/kubernetes.md")).unwrap();
    let commands: Vec<_> = page
        .split("cat >")
        .skip(1)
        .map(|rest| format!("cat >{}\nEOF\n", rest.split_once("\nEOF\n").unwrap().0))
        .collect();
    assert!(
        commands.iter().all(|it| it.contains("manifests/overlays/mine/kustomization.yaml")),
        "{commands:?}"
    );
    assert_eq!(commands.len(), 2, "the install, and a claim for it: {commands:?}");
    commands
}

fn write_overlay(manifests: &TempDir, command: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-euc", command]).env("registry", "registry.example").current_dir(manifests.path());
    let written = shell.status().unwrap();
    assert!(written.success(), "{command}");
}

/// The objects of an overlay after a dry run. Fails on errors and warnings: the namespace warns about Pods that are not
/// *restricted*.
fn dry_run(manifests: &TempDir, overlay: &str) -> Vec<Value> {
    let dir = manifests.path().join("manifests/overlays").join(overlay);
    let dir = dir.to_str().unwrap();
    let flags = ["apply", "--dry-run=server", "--warnings-as-errors", "-o", "json", "-k", dir];
    let list: Value = serde_json::from_str(&Cluster::shared().kubectl(&flags)).unwrap();
    list["items"].as_array().unwrap().clone()
}

fn names<'a>(objects: &'a [Value], kind: &str) -> BTreeSet<&'a str> {
    objects
        .iter()
        .filter(|it| it["kind"] == kind)
        .map(|it| it["metadata"]["name"].as_str().unwrap())
        .collect()
}

/// Asserts that every reference resolves, and that all objects are in this namespace. Returns the Deployment.
fn expect_complete<'a>(objects: &'a [Value], namespace: &str) -> &'a Value {
    for object in objects {
        let kind = object["kind"].as_str().unwrap();
        let has_none = ["Namespace", "ClusterRole", "ClusterRoleBinding"].contains(&kind);
        assert!(!object.to_string().contains(":NAMESPACE"), "{object}");
        let is_of_jobs = object["metadata"]["labels"]["sqlflow.org/namespace"] == "jobs";
        let expected = if is_of_jobs { jobs_of(namespace) } else { namespace.to_owned() };
        assert_eq!(object["metadata"]["namespace"].as_str(), (!has_none).then_some(&*expected), "{object}");
        if kind.ends_with("Binding") {
            let role = &object["roleRef"];
            let roles = names(objects, role["kind"].as_str().unwrap());
            assert!(roles.contains(role["name"].as_str().unwrap()), "{object}");
            let subject = &object["subjects"][0];
            assert_eq!(subject["namespace"], namespace, "{object}");
            assert!(names(objects, "ServiceAccount").contains(subject["name"].as_str().unwrap()), "{object}");
        }
    }
    let is = |kind: &'static str| move |it: &&Value| it["kind"] == kind;
    let place = objects.iter().find(is("Namespace")).unwrap();
    assert_eq!(place["metadata"]["name"], namespace);
    assert_eq!(place["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted", "{place}");

    expect_isolated(objects, namespace);
    let server = objects.iter().find(is("Deployment")).unwrap();
    for volume in server["spec"]["template"]["spec"]["volumes"].as_array().unwrap() {
        if let Some(name) = volume["configMap"]["name"].as_str() {
            assert!(names(objects, "ConfigMap").contains(name), "{volume}");
        }
        if let Some(name) = volume["persistentVolumeClaim"]["claimName"].as_str() {
            assert!(names(objects, "PersistentVolumeClaim").contains(name), "{volume}");
        }
    }
    server
}

/// The object of this name.
fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is_it = |it: &&Value| it["kind"] == kind && it["metadata"]["name"] == name;
    objects.iter().find(is_it).unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

fn namespace_selector(name: &str) -> Value {
    json!({ "matchLabels": { "kubernetes.io/metadata.name": name } })
}

fn tcp(port: u16) -> Value {
    json!({ "port": port, "protocol": "TCP" })
}

fn udp(port: u16) -> Value {
    json!({ "port": port, "protocol": "UDP" })
}

/// What Pods of jobs reach, by the policies of the base.
fn expect_policies_of_jobs(objects: &[Value], namespace: &str) {
    let server = json!({ "matchLabels": { "app.kubernetes.io/component": "server" } });
    let server = json!({ "namespaceSelector": namespace_selector(namespace), "podSelector": server });
    let names = json!({ "matchLabels": { "k8s-app": "kube-dns" } });
    let names = json!({ "namespaceSelector": namespace_selector("kube-system"), "podSelector": names });
    let addresses = json!([
        { "namespaceSelector": {} },
        { "ipBlock": { "cidr": "0.0.0.0/0", "except":
            ["169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"] } },
        { "ipBlock": { "cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128"] } },
    ]);
    let ports = [443, 3306, 5432, 8020, 9000, 9866, 9870, 9864, 9871, 9865, 88].map(tcp);
    let ports = [ports.as_slice(), &[udp(88)]].concat();
    let both = json!(["Ingress", "Egress"]);
    let egress = json!(["Egress"]);
    for (name, types, to, ports) in [
        ("sqlflow-submitters", &both, json!([server]), vec![tcp(7443)]),
        ("sqlflow-dns", &egress, json!([names]), vec![udp(53), tcp(53)]),
        ("sqlflow-data", &egress, addresses, ports),
    ] {
        let policy = named(objects, "NetworkPolicy", name);
        assert_eq!(policy["metadata"]["namespace"], *jobs_of(namespace));
        let egress = json!([{ "to": to, "ports": ports }]);
        assert_eq!(
            policy["spec"],
            json!({ "podSelector": {}, "policyTypes": types, "egress": egress }),
            "{name}"
        );
    }
}

/// Asserts who reaches whom, and what the server and submitters may do. `network` tests the policies in force.
fn expect_isolated(objects: &[Value], namespace: &str) {
    let jobs = jobs_of(namespace);
    let found = |kind: &str, name: &str| named(objects, kind, name);
    expect_policies_of_jobs(objects, namespace);

    let others = json!([{ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [jobs] }]);
    let expected = json!({
        "podSelector": { "matchLabels": { "app.kubernetes.io/component": "server" } },
        "policyTypes": ["Ingress"],
        "ingress": [
            { "from": [{ "namespaceSelector": namespace_selector(&jobs) }], "ports": [tcp(7443)] },
            { "from": [{ "namespaceSelector": { "matchExpressions": others } }], "ports": [tcp(50080), tcp(9090)] },
            { "from": [{ "podSelector": {} }], "ports": [tcp(50051)] },
        ],
    });
    assert_eq!(found("NetworkPolicy", "sqlflow-server")["spec"], expected);

    assert_eq!(found("ServiceAccount", "sqlflow-submitter")["automountServiceAccountToken"], false);
    for role in objects.iter().filter(|it| it["kind"] == "Role") {
        assert_eq!(
            role["metadata"]["namespace"], *jobs,
            "the server has no right in its own namespace: {role}"
        );
        assert!(!role["rules"].to_string().contains("secrets"), "{role}");
    }
    for binding in objects.iter().filter(|it| it["kind"].as_str().unwrap().ends_with("Binding")) {
        assert_eq!(binding["subjects"][0]["name"], "sqlflow-server", "submitters have no rights: {binding}");
    }
    let arguments =
        &found("Deployment", "sqlflow-server")["spec"]["template"]["spec"]["containers"][0]["args"];
    assert!(
        arguments.as_array().unwrap().contains(&json!("--pod-namespace=$(NAMESPACE)-jobs")),
        "{arguments}"
    );
}

/// The value of one of the server's variables.
fn variable<'a>(server: &'a Value, name: &str) -> Option<&'a str> {
    let variables = server["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    variables.iter().find(|it| it["name"] == name)?["value"].as_str()
}

#[test]
fn apiserver_accepts_the_documented_manifests() {
    let _place = Place::new();
    let manifests = copied();
    expect_complete(&dry_run(&manifests, "single"), NAMESPACE);

    for command in documented() {
        write_overlay(&manifests, &command);
        let objects = dry_run(&manifests, "mine");
        let server = expect_complete(&objects, NAMESPACE);
        let claimed = command.contains("workspace-claim");
        assert_eq!(variable(server, "SQLFLOW_WORKSPACE_CLAIM").is_some(), claimed, "{server}");
        let image = &server["spec"]["template"]["spec"]["containers"][0]["image"];
        assert_eq!(image, "registry.example/sqlflow-server:1");
        let image = variable(server, "SQLFLOW_POD_IMAGE");
        assert_eq!(image, Some("registry.example/sqlflow-submitter:1"));
    }
}

/// The page's patches replace what Pods of jobs reach: only these databases, and a name server on the node.
#[test]
fn documented_patches_replace_what_jobs_reach() {
    let _place = Place::new();
    let manifests = copied();
    write_overlay(&manifests, &documented()[0]);
    let file = manifests.path().join("manifests/overlays/mine/kustomization.yaml");
    let patches = blocks("docs/kubernetes.md", "yaml");
    assert_eq!(patches.len(), 1, "{patches:?}");
    let overlay = std::fs::read_to_string(&file).unwrap() + &patches[0];
    std::fs::write(&file, overlay).unwrap();
    let objects = dry_run(&manifests, "mine");
    let egress = |name: &str| &named(&objects, "NetworkPolicy", name)["spec"]["egress"];
    let to =
        |cidr: &str, ports: Vec<Value>| json!({ "to": [{ "ipBlock": { "cidr": cidr } }], "ports": ports });
    assert_eq!(*egress("sqlflow-dns"), json!([to("169.254.20.10/32", vec![udp(53), tcp(53)])]));
    let data = [to("10.20.0.0/16", vec![tcp(3307)]), to("10.30.0.0/24", vec![tcp(443)])];
    assert_eq!(*egress("sqlflow-data"), json!(data));
}

/// Cluster-wide objects have names of their own, so installations do not replace or remove each other's.
#[test]
fn second_installation_shares_no_objects_with_the_first() {
    let _place = Place::new();
    let second = Namespace::new("second");
    let _jobs = second.of_submitters();
    let manifests = copied();
    let first = dry_run(&manifests, "single");
    for command in documented() {
        let of_second = command.replace("namespace: sqlflow", &format!("namespace: {}", second.name));
        assert!(command != of_second || command.contains("cat >>"), "{command}");
        write_overlay(&manifests, &of_second);
    }
    let other = dry_run(&manifests, "mine");
    expect_complete(&other, &second.name);
    for kind in ["Namespace", "ClusterRole", "ClusterRoleBinding"] {
        let (one, two) = (names(&first, kind), names(&other, kind));
        assert!(one.len() == 1 && one.is_disjoint(&two), "{one:?} {two:?}");
    }
}
