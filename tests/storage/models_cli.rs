//! `sqlflowctl models` on real storages.

use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_tests::agent::Exec;
use sqlflow_tests::server::program;
use sqlflow_tests::until::until;

use crate::locations::Place;

type Environment = [(&'static str, String)];

fn try_models(at: &str, environment: &Environment, arguments: &[&str]) -> Output {
    let environment = environment.iter().map(|(name, value)| (*name, value.as_str()));
    Command::new(program("sqlflowctl"))
        .args(["models", "--at", at])
        .args(arguments)
        .envs(environment)
        .output()
        .unwrap()
}

/// The output of `sqlflowctl models …`; a failure fails the test.
pub(crate) fn models(at: &str, environment: &Environment, arguments: &[&str]) -> String {
    let output = try_models(at, environment, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn models_are_listed_shown_copied_and_deleted() {
    for place in Place::all_and_files("listed") {
        place.make();
        let (root, environment) = (place.root(), place.environment());
        let run = |arguments: &[&str]| models(&root, &environment, arguments);
        assert_eq!(run(&["list", "--output", "json"]), "", "{root}: expected no models");
        for name in ["team/m", "other"] {
            publish(&root, &environment, name);
        }

        let listed: Vec<serde_json::Value> = run(&["list", "--output", "json"])
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let names: Vec<_> = listed.iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["other", "team/m"], "{root}");
        assert!(listed.iter().all(|it| it["bytes"].as_u64() > Some(0)), "{root}: {listed:?}");
        assert!(
            listed.iter().all(|it| it["published"].as_str().unwrap().starts_with("20")),
            "{root}: {listed:?}"
        );
        assert!(run(&["show", "team/m"]).contains("file      weights (6 bytes)"), "{root}");

        let copy = tempfile::tempdir().unwrap();
        run(&["get", "team/m", copy.path().join("new").to_str().unwrap()]);
        let tar =
            Command::new("tar").arg("xOzf").arg(copy.path().join("new/m.tar.gz")).arg("weights").output();
        assert_eq!(tar.unwrap().stdout, b"team/m", "{root}");

        run(&["delete", "team/m"]);
        assert!(!run(&["list"]).contains("team/m"), "{root}");
        for command in ["show", "delete"] {
            let refused = try_models(&root, &environment, &[command, "team/m"]);
            assert_eq!(refused.status.code(), Some(1));
            let said = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(said, format!("model team/m does not exist at {root}\n"));
        }
    }
}

fn publish(root: &str, environment: &Environment, name: &str) {
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("weights"), format!("{name:.6}")).unwrap();
    let last = name.rsplit('/').next().unwrap();
    let output = format!("{}={root}/{name}/{last}.tar.gz", out.path().display());
    let exec = Exec::new().envs(environment.iter().cloned());
    let ended = exec.flags(["--output", &output]).start(&["true"]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn damaged_model_and_invalid_uri_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let root = format!("file://{}", dir.path().display());
    std::fs::create_dir(dir.path().join("m")).unwrap();
    std::fs::write(dir.path().join("m/m.tar.gz"), "no tarball").unwrap();
    let copy = dir.path().join("copy");
    for arguments in [&["show", "m"][..], &["get", "m", copy.to_str().unwrap()]] {
        let refused = try_models(&root, &[], arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8(refused.stderr).unwrap().contains("model m"), "{arguments:?}");
    }
    assert_eq!(std::fs::read_dir(&copy).unwrap().count(), 0, "a failed copy left files");
    for (at, code) in [("ftp://host/m", 2), ("s3://key:secret@bucket/m", 2)] {
        let refused = try_models(at, &[], &["list"]);
        assert_eq!(refused.status.code(), Some(code));
        assert!(!String::from_utf8(refused.stderr).unwrap().contains("secret"));
    }
}

/// The copy is the complete new model.
#[test]
fn model_replaced_during_a_copy_is_copied_again() {
    let place = Place::S3("copied-again");
    place.make();
    let (root, environment) = (place.root(), place.environment());
    let publish = |seed: u8| {
        let out = tempfile::tempdir().unwrap();
        let mut weights = vec![0; 48 << 20];
        rand::fill(&mut weights[..]);
        weights[0] = seed;
        std::fs::write(out.path().join("weights"), weights).unwrap();
        let output = format!("--output={}={root}/m/m.tar.gz", out.path().display());
        let exec = Exec::new().envs(environment.iter().cloned());
        assert_eq!(exec.flags([output]).start(&["true"]).end().code, Some(0));
    };
    publish(1);
    let copy = tempfile::tempdir().unwrap();
    let mut copying = Command::new(program("sqlflowctl"))
        .args(["models", "--at", &root, "get", "m"])
        .arg(copy.path())
        .envs(environment.iter().cloned())
        .spawn()
        .unwrap();
    let copied = || {
        let entries = std::fs::read_dir(copy.path()).unwrap();
        entries.map(|entry| entry.unwrap().metadata().map_or(0, |it| it.len())).sum::<u64>()
    };
    until("a part of the model is copied", || copied() > 0);
    let pid = Pid::from_raw(i32::try_from(copying.id()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    assert!(copied() < 40 << 20, "it was stopped too late");
    publish(2);
    kill(pid, Signal::SIGCONT).unwrap();
    assert!(copying.wait().unwrap().success());
    let tar =
        Command::new("tar").arg("xOzf").arg(copy.path().join("m.tar.gz")).arg("weights").output().unwrap();
    assert!(tar.status.success() && tar.stdout.len() == 48 << 20);
    assert_eq!(tar.stdout[0], 2, "not the new model");
}
