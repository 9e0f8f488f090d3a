//! Manual pages, generated from a program's options and help.

use std::fs;
use std::io;
use std::path::Path;

/// Writes a page for the program and each of its subcommands to the folder, which is created; returns their number.
///
/// # Errors
/// The folder or a page cannot be written.
pub fn write_pages(mut program: clap::Command, folder: &Path) -> io::Result<usize> {
    fs::create_dir_all(folder)?;
    program.build();
    write_page(&program, folder)
}

fn write_page(program: &clap::Command, folder: &Path) -> io::Result<usize> {
    if program.get_name() == "help" || program.is_hide_set() {
        return Ok(0);
    }
    clap_mangen::Man::new(program.clone()).generate_to(folder)?;
    let mut count = 1;
    for part in program.get_subcommands() {
        count += write_page(part, folder)?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_and_each_command_have_a_page() {
        let hidden = clap::Command::new("secret").hide(true);
        let program = clap::Command::new("tool").subcommand(clap::Command::new("run")).subcommand(hidden);
        let folder = std::env::temp_dir().join(format!("sqlflow-manual-{}", std::process::id()));
        assert_eq!(write_pages(program, &folder.join("man1")).unwrap(), 2);
        let page = fs::read_to_string(folder.join("man1/tool-run.1")).unwrap();
        assert!(page.contains(".TH ") && page.contains("SYNOPSIS"));
        fs::remove_dir_all(folder).unwrap();
    }
}
