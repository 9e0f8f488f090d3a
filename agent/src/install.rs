//! Copies this program and the data process beside it, so that any image can be wrapped: an init container installs them
//! into a volume of the main container.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use sqlflow_os::durable;

use crate::process::spawn::siblings_folder;
use crate::supervisor::EXIT_FAULT;

const AGENT: &str = "sqlflow-agent";
/// The program that servers assign for SQL. It has the agent's version, so that both are installed together.
const DATA_PROCESS: &str = "sqlflow-data";

/// Copies this program atomically to `<dir>/sqlflow-agent`, and before it the data process if it lies beside this
/// program. Returns the exit code.
pub fn install(dir: &Path) -> u8 {
    match try_install(dir) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error:#}");
            EXIT_FAULT
        }
    }
}

fn try_install(dir: &Path) -> anyhow::Result<()> {
    let folder = siblings_folder().context("cannot find the folder of this program")?;
    let source = folder.join(DATA_PROCESS);
    match File::open(&source) {
        Ok(data_process) => copy(data_process, &dir.join(DATA_PROCESS))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!("installing the agent alone: there is no {DATA_PROCESS} in {}", folder.display());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", source.display())),
    }
    // Not by its name, which may be a later version's by now.
    let this = File::open("/proc/self/exe").context("cannot read this program")?;
    copy(this, &dir.join(AGENT))
}

fn copy(mut program: File, target: &Path) -> anyhow::Result<()> {
    let copy = |file: &mut File| {
        io::copy(&mut program, file)?;
        // The user of the main container executes it.
        file.set_permissions(Permissions::from_mode(0o755))
    };
    durable::replace(target, copy).with_context(|| format!("cannot write {}", target.display()))
}
