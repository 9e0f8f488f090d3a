//! Manual pages and completion of shells, made from what the programs say of themselves.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use sqlflow_server::config::Options;

use crate::args::Cli;

/// The commands that teach a shell to complete `sqlflowctl`.
pub(crate) fn completion(shell: Shell) -> Vec<u8> {
    let mut commands = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sqlflowctl", &mut commands);
    commands
}

/// Writes a page for each program and each of its subcommands, and says how many.
pub(crate) fn write_pages(folder: &Path) -> anyhow::Result<usize> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let programs = [Cli::command(), Options::command(), sqlflow_agent::cli::Cli::command()];
    let mut count = 0;
    for mut program in programs {
        program.build();
        count += write_program(&program, folder).with_context(|| {
            format!("cannot write the manual page of {} into {}", program.get_name(), folder.display())
        })?;
    }
    Ok(count)
}

fn write_program(program: &clap::Command, folder: &Path) -> io::Result<usize> {
    if program.get_name() == "help" || program.is_hide_set() {
        return Ok(0);
    }
    clap_mangen::Man::new(program.clone()).generate_to(folder)?;
    let mut count = 1;
    for part in program.get_subcommands() {
        count += write_program(part, folder)?;
    }
    Ok(count)
}
