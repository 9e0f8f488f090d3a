//! Programs that are installed beside the agent.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sqlflow_proto::agent::{Assignment, outcome::Reason};
use sqlflow_tests::attach::{Attach, AttachEnded, OnCommit};
use sqlflow_tests::server::{copy_program, program};

fn script(folder: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(folder.join(name), Permissions::from_mode(0o755)).unwrap();
}

/// Runs an assigned command by an agent in `<dir>/lib`, with `<dir>/path` as first folder of PATH.
fn run(dir: tempfile::TempDir, command: &str) -> AttachEnded {
    let lib = dir.path().join("lib");
    std::fs::create_dir_all(&lib).unwrap();
    copy_program(&program("sqlflow-agent"), &lib.join("agent"));
    let path = format!("{}:/usr/bin:/bin", dir.path().join("path").display());
    let outer = dir.path().join("agent");
    script(dir.path(), "agent", &format!("PATH={path} exec {} \"$@\"", lib.join("agent").display()));
    let assignment = Assignment { command: vec![command.to_owned()], ..Assignment::default() };
    Attach::within(dir, &outer, assignment, OnCommit::Hold).end()
}

#[test]
fn program_beside_the_agent_precedes_those_in_path() {
    for (name, expected) in [("sqlflow-data", "beside\n"), ("python3", "in path\n")] {
        let dir = tempfile::tempdir().unwrap();
        script(&dir.path().join("lib"), name, "echo beside");
        script(&dir.path().join("path"), name, "echo in path");
        let ended = run(dir, name);
        assert_eq!(ended.received.stdout(), expected, "{}", ended.outcome.message);
    }
}

#[test]
fn missing_program_names_all_places_of_the_search() {
    let ended = run(tempfile::tempdir().unwrap(), "sqlflow-data");
    let lib = ended.dir.path().join("lib");
    let expected = format!(
        "cannot start sqlflow-data: found neither beside the agent, in {}, nor in any folder of PATH",
        lib.display()
    );
    assert_eq!((ended.outcome.reason(), &*ended.outcome.message), (Reason::StartFailed, &*expected));
}
