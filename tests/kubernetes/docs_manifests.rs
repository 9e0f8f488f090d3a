//! The manifests that `docs/kubernetes.md` installs, checked by the apiserver in a dry run.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use sqlflow_tests::cluster::{Cluster, Namespace};
use sqlflow_tests::python::repository;
use tempfile::TempDir;

/// Namespace of `overlays/single`.
const NAMESPACE: &str = "sqlflow";

/// The namespace, which must exist even for a dry run. It is removed with the test, unless it existed before. One test
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
        Self { made, _alone: alone }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.made {
            Cluster::shared().try_kubectl(&["delete", "namespace", NAMESPACE, "--timeout=60s"], "");
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
        let expected = (!has_none).then_some(namespace);
        assert_eq!(object["metadata"]["namespace"].as_str(), expected, "{object}");
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

/// Cluster-wide objects have names of their own, so installations do not replace or remove each other's.
#[test]
fn second_installation_shares_no_objects_with_the_first() {
    let _place = Place::new();
    let second = Namespace::new("second");
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
