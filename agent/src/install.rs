//! Copies this program, so that any image can be wrapped: an init container installs it into a volume of the main
//! container.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use sqlflow_os::durable;

use crate::supervisor::EXIT_FAULT;

/// Copies this program atomically to `<dir>/sqlflow-agent`. Returns the exit code.
pub fn install(dir: &Path) -> u8 {
    let target = dir.join("sqlflow-agent");
    let copied =
        fs::File::open("/proc/self/exe").context("cannot read this program").and_then(|mut program| {
            let copy = |file: &mut fs::File| {
                io::copy(&mut program, file)?;
                // The user of the main container executes it.
                file.set_permissions(Permissions::from_mode(0o755))
            };
            durable::replace(&target, copy).with_context(|| format!("cannot write {}", target.display()))
        });
    match copied {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error:#}");
            EXIT_FAULT
        }
    }
}
