//! On a terminal: pager, records, progress bars and colours.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Command;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::log_chunk::Stream;
use sqlflow_proto::v1::{Cause, EndOfExecution, Progress, response::Response as Kind};

use super::stand_in::JOB;
use super::{World, head, log, log_of, rows};

/// The output of the command on a terminal of this width.
fn on_terminal(mut command: Command, columns: u16) -> String {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None).unwrap();
    let of_child = File::from(terminal.slave);
    command.stdin(of_child.try_clone().unwrap()).stdout(of_child.try_clone().unwrap()).stderr(of_child);
    let mut child = command.env("PATH", std::env::var_os("PATH").unwrap()).spawn().unwrap();
    // Closes its copies of the terminal.
    drop(command);
    let mut bytes = Vec::new();
    // After the child's end a read fails with EIO.
    let _ = File::from(terminal.master).read_to_end(&mut bytes);
    child.wait().unwrap();
    String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
}

fn job(world: &World) {
    world.server.change(|script| {
        script.push(head());
        script.push(rows([123_456]));
        script.push(Kind::Eoe(EndOfExecution::default()));
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
}

#[test]
fn listing_uses_the_pager_only_on_a_terminal() {
    let world = World::new();
    job(&world);
    let paged = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("PAGER", "sed 's/^/paged: /'");
        command
    };
    let shown = on_terminal(paged(&["list"]), 80);
    assert!(shown.starts_with("paged:  job "), "{shown}");
    let shown = on_terminal(paged(&["list", "--no-pager"]), 80);
    assert!(shown.starts_with(" job "), "{shown}");
    let shown = on_terminal(paged(&["run", "-e", "SELECT 1"]), 80);
    assert!(!shown.contains("paged"), "rows of a running job are not paged: {shown}");
    let piped = paged(&["list"]).output().unwrap();
    assert!(piped.stdout.starts_with(b" job "), "{piped:?}");
}

/// As if the user left the pager early.
#[test]
fn pager_that_exits_early_is_no_failure() {
    let world = World::new();
    job(&world);
    let mut command = world.command(&["list"]);
    command.env("PAGER", "exec true");
    let shown = on_terminal(command, 80);
    assert_eq!(shown, "");
}

#[test]
fn table_wider_than_the_terminal_is_printed_as_records() {
    let world = World::new();
    job(&world);
    let run = |arguments: &[&str]| world.command(&[&["run", "-e", "SELECT 1"], arguments].concat());
    assert!(on_terminal(run(&[]), 5).contains("-[ record 1 ]-\nn | 123456\n"));
    assert!(on_terminal(run(&[]), 80).contains("      n\n--------\n 123456\n"));
    assert!(on_terminal(run(&["--expanded=never"]), 5).contains(" 123456\n"));
    let piped = run(&[]).output().unwrap();
    assert_eq!(piped.stdout, b"      n\n--------\n 123456\n");
}

#[test]
fn colours_are_used_on_terminals_unless_disabled() {
    let world = World::new();
    world.server.change(|script| {
        let (phase, unit) = ("load".to_owned(), "rows".to_owned());
        script.push(Kind::Progress(Progress { phase, done: 1, total: 2, unit }));
    });
    job(&world);
    let run = |arguments: &[&str]| world.command(&[&["run", "-e", "SELECT 1"], arguments].concat());
    assert!(on_terminal(run(&[]), 80).contains("\x1b[2m"));
    let mut plain = run(&[]);
    plain.env("NO_COLOR", "1");
    let mut dumb = run(&[]);
    dumb.env("TERM", "dumb");
    for command in [plain, dumb, run(&["--color", "never"])] {
        let shown = on_terminal(command, 80);
        assert!(shown.contains("succeeded") && !shown.contains('\x1b'), "{shown:?}");
    }
}

#[test]
fn bar_shows_the_latest_progress() {
    let world = World::new();
    world.server.change(|script| {
        // More progress in one page than redraws of the terminal.
        script.page = 39;
        for done in 1..=39 {
            let (phase, unit) = ("train".to_owned(), "rounds".to_owned());
            script.push(Kind::Progress(Progress { phase, done, total: 40, unit }));
        }
        script.push(log(b"stopped\n"));
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    let mut command = world.command(&["run", "-e", "SELECT 1"]);
    command.env("TERM", "xterm");
    let shown = on_terminal(command, 80);
    let (before, _) = shown.split_once("stopped\n").unwrap();
    assert!(before.contains(" 39/40 rounds"), "{shown:?}");
}

#[test]
fn bar_is_erased_at_the_end() {
    let world = World::new();
    world.server.change(|script| {
        for done in [127, 150] {
            let (phase, unit) = ("load".to_owned(), "rows".to_owned());
            script.push(Kind::Progress(Progress { phase, done, total: 150, unit }));
        }
        script.push(log(b"loaded 150 row(s)\n"));
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    let mut command = world.command(&["run", "-e", "SELECT 1"]);
    command.env("TERM", "xterm");
    let shown = on_terminal(command, 80);
    // Erased to the left edge before the final sentence.
    let (_, after) = shown.split_once("loaded 150 row(s)\n").unwrap();
    let last = after.rsplit("\x1b[2K").next().unwrap();
    assert!(!last.contains("load "), "{shown:?}");
    assert!(last.contains("succeeded"), "{shown:?}");
}

/// Otherwise a job could change what the terminal shows, or type for the user.
#[test]
fn control_sequences_of_a_job_are_escaped_on_a_terminal_unless_raw() {
    let world = World::new();
    world.server.change(|script| {
        script.push(log(b"\x1b]0;title\x07one\n"));
        script.push(log_of(Stream::Stderr, b"\x1b[2Jtwo\n"));
        script.push(Kind::Eoe(EndOfExecution::default()));
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    for arguments in [&["run", "-e", "SELECT 1"][..], &["fetch", "--from-start", JOB], &["logs", JOB]] {
        let shown = on_terminal(world.command(&[arguments, &["--no-pager"]].concat()), 80);
        assert!(!shown.contains("\x1b]") && !shown.contains("\x1b[2J"), "{arguments:?}: {shown:?}");
        assert!(
            shown.contains("\\x1b]0;title\\x07one") && shown.contains("\\x1b[2Jtwo"),
            "{arguments:?}: {shown:?}"
        );
        let shown = on_terminal(world.command(&[arguments, &["--no-pager", "--raw"]].concat()), 80);
        assert!(
            shown.contains("\x1b]0;title\x07one") && shown.contains("\x1b[2Jtwo"),
            "{arguments:?}: {shown:?}"
        );
    }
    let piped = world.command(&["logs", JOB]).output().unwrap();
    assert!(piped.stdout.starts_with(b"\x1b]0;title\x07one\n"), "{piped:?}");
}

/// The terminal went on without an echo.
#[test]
fn ctrl_c_at_the_prompt_for_a_token_restores_the_terminal() {
    let world = World::new();
    let terminal = openpty(None, None).unwrap();
    let (of_child, mut master) = (File::from(terminal.slave), File::from(terminal.master));
    // Ctrl+C is for the programs that have the terminal.
    let mut command = Command::new("setsid");
    world.with(&mut command);
    command.args(["--ctty", "env", "--default-signal=INT", env!("CARGO_BIN_EXE_sqlflowctl"), "login"]);
    command.env("PATH", std::env::var_os("PATH").unwrap()).env("XDG_CONFIG_HOME", world.home.path());
    command.stdin(of_child.try_clone().unwrap()).stdout(of_child.try_clone().unwrap());
    let mut child = command.stderr(of_child.try_clone().unwrap()).spawn().unwrap();
    drop(command);
    let has_echo = || tcgetattr(&of_child).unwrap().local_flags.contains(LocalFlags::ECHO);
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains("Access token for ") {
        let mut byte = [0];
        master.read_exact(&mut byte).unwrap();
        shown.extend(byte);
    }
    assert!(!has_echo());
    // The token's beginning, and Ctrl+C.
    master.write_all(b"secret\x03").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(has_echo());
    drop(of_child);
    let _ = master.read_to_end(&mut shown);
    assert!(!String::from_utf8_lossy(&shown).contains("secret"), "{}", String::from_utf8_lossy(&shown));
    assert!(!world.home.path().join("sqlflow").exists(), "nothing is stored");
}
