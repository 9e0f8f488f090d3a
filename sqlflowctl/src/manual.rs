//! Manual pages and shell completion, generated from the options and their help.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use sqlflow_cli::manual;

use crate::args::Cli;

/// The completion script for a shell.
pub(crate) fn completion(shell: Shell) -> Vec<u8> {
    let mut commands = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sqlflowctl", &mut commands);
    commands
}

/// Writes a page for `sqlflowctl` and each of its commands. Returns their number.
pub(crate) fn write_pages(folder: &Path) -> anyhow::Result<usize> {
    manual::write_pages(Cli::command(), folder)
        .with_context(|| format!("cannot write the manual pages of sqlflowctl into {}", folder.display()))
}
