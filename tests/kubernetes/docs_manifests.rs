//! What `docs/kubernetes.md` has people install, as the apiserver would take it. Nothing is installed.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use sqlflow_tests::cluster::{Cluster, Namespace};
use sqlflow_tests::python::repository;
use tempfile::TempDir;

/// Where `overlays/single` puts it.
const NAMESPACE: &str = "sqlflow";

/// The apiserver takes nothing into a namespace that is not there, not even to try. It goes with the test, unless it was
/// there before; so one test at a time has it.
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

/// A copy of `manifests/`, beside whose overlays one's own can be made.
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

/// What the apiserver would make of an overlay. It refuses nothing and warns of nothing: the namespace warns of what is not
/// *restricted*.
fn taken(manifests: &TempDir, overlay: &str) -> Vec<Value> {
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

/// Whatever is named is there, and all of it is in this namespace. Gives the Deployment.
fn expect_whole<'a>(objects: &'a [Value], namespace: &str) -> &'a Value {
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
fn the_apiserver_takes_what_is_documented() {
    let _place = Place::new();
    let manifests = copied();
    expect_whole(&taken(&manifests, "single"), NAMESPACE);

    for command in documented() {
        write_overlay(&manifests, &command);
        let objects = taken(&manifests, "mine");
        let server = expect_whole(&objects, NAMESPACE);
        let claimed = command.contains("workspace-claim");
        assert_eq!(variable(server, "SQLFLOW_WORKSPACE_CLAIM").is_some(), claimed, "{server}");
        let image = &server["spec"]["template"]["spec"]["containers"][0]["image"];
        assert_eq!(image, "registry.example/sqlflow-server:1");
        let image = variable(server, "SQLFLOW_POD_IMAGE");
        assert_eq!(image, Some("registry.example/sqlflow-submitter:1"));
    }
}

/// What belongs to no namespace is each install's own: another one neither takes it over nor takes it away.
#[test]
fn a_second_install_shares_nothing_with_the_first() {
    let _place = Place::new();
    let second = Namespace::new("second");
    let manifests = copied();
    let first = taken(&manifests, "single");
    for command in documented() {
        let of_second = command.replace("namespace: sqlflow", &format!("namespace: {}", second.name));
        assert!(command != of_second || command.contains("cat >>"), "{command}");
        write_overlay(&manifests, &of_second);
    }
    let other = taken(&manifests, "mine");
    expect_whole(&other, &second.name);
    for kind in ["Namespace", "ClusterRole", "ClusterRoleBinding"] {
        let (ours, theirs) = (names(&first, kind), names(&other, kind));
        assert!(ours.len() == 1 && ours.is_disjoint(&theirs), "{ours:?} {theirs:?}");
    }
}
