//! Manual pages and completion of shells, made of the options and help of the program.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use sqlflow_cli::manual;

use crate::args::Cli;

/// The commands that teach a shell to complete `sqlflowctl`.
pub(crate) fn completion(shell: Shell) -> Vec<u8> {
    let mut commands = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sqlflowctl", &mut commands);
    commands
}

/// Writes a page for `sqlflowctl` and each of its commands, and says how many.
pub(crate) fn write_pages(folder: &Path) -> anyhow::Result<usize> {
    manual::write_pages(Cli::command(), folder)
        .with_context(|| format!("cannot write the manual pages of sqlflowctl into {}", folder.display()))
}
