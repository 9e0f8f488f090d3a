//! The data process on this machine: agents start it for plain SQL.

use std::env;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

/// Name of the program that runs plain SQL. It is installed beside the agent.
pub const DATA_PROCESS: &str = "sqlflow-data";

/// Why agents of this program cannot start the data process, with a fix. `None`: no reason is known.
#[must_use]
pub fn missing_data_process(agent: &Path) -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folder = agent.parent()?;
    // A script may start an agent that lies elsewhere.
    let is_missing = !is_script(agent)
        && !env::split_paths(&path).chain([folder.to_owned()]).any(|folder| {
            let program = folder.join(DATA_PROCESS);
            program.is_file() && access(&program, AccessFlags::X_OK).is_ok()
        });
    is_missing.then(|| {
        format!(
            "cannot run plain SQL: {DATA_PROCESS} is neither beside the agent, in {}, nor in any folder of PATH; install \
             both (make install, or cargo build -p {DATA_PROCESS}), or name another agent with --agent",
            folder.display()
        )
    })
}

fn is_script(program: &Path) -> bool {
    let mut first = [0; 2];
    File::open(program).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == *b"#!"
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn program_beside_the_agent_must_be_executable() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("agent");
        fs::write(&agent, "\x7fELF").unwrap();
        let missing = missing_data_process(&agent).unwrap();
        let folder = dir.path().display();
        assert!(
            missing.contains(&format!("sqlflow-data is neither beside the agent, in {folder},")),
            "{missing}"
        );
        let program = dir.path().join(DATA_PROCESS);
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o644)).unwrap();
        assert!(missing_data_process(&agent).is_some());
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(missing_data_process(&agent), None);
        fs::remove_file(&program).unwrap();
        fs::write(&agent, "#!/bin/sh\nexec /elsewhere/agent").unwrap();
        assert_eq!(missing_data_process(&agent), None);
    }
}
