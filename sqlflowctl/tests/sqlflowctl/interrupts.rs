//! Ctrl+C, and readers that close the pipe.

use std::io::{BufRead as _, BufReader};
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{World, head, rows, status, stderr};

fn interrupt(child: &Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
}

#[test]
fn ctrl_c_cancels_and_still_shows_the_end() {
    let world = World::new();
    let child = world.spawn(&["run", "-e", "SELECT 1"]);
    world.server.wait(|script| !script.fetches.is_empty());
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 130, "{output:?}");
    assert_eq!(world.server.script().cancels, 1);
    let said = stderr(&output);
    assert!(said.contains("cancelling the job"), "{said}");
    assert!(said.ends_with(&format!("last words\njob {} was cancelled\n", super::stand_in::JOB)), "{said}");
}

#[test]
fn ctrl_c_is_not_for_what_a_script_left_in_the_background() {
    let world = World::new();
    world.server.change(|script| script.say(head()));
    let child = world.background(&["run", "-e", "SELECT 1"]);
    world.server.wait(|script| script.fetches.len() > 1);
    interrupt(&child);
    world.server.wait(|script| script.fetches.len() > 3);
    assert_eq!(world.server.script().cancels, 0);
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    child.wait_with_output().unwrap();
}

#[test]
fn a_second_ctrl_c_leaves_at_once_and_says_how_to_go_on() {
    let world = World::new();
    world.server.change(|script| {
        script.cancel_ends = false;
        script.say(head());
    });
    let child = world.spawn(&["run", "-e", "SELECT 1"]);
    world.server.wait(|script| script.fetches.len() > 1);
    interrupt(&child);
    world.server.wait(|script| script.cancels == 1);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 130, "{output:?}");
    let hint = format!("sqlflowctl fetch {}.1", super::stand_in::TOKEN);
    assert!(stderr(&output).contains(&hint), "{output:?}");
}

#[test]
fn ctrl_c_while_reading_leaves_the_job_alone() {
    let world = World::new();
    let child = world.spawn(&["fetch", super::stand_in::TOKEN]);
    // The second Fetch is under way, so the command listens for signals by now.
    world.server.wait(|script| script.fetches.len() > 1);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 130, "{output:?}");
    assert!(stderr(&output).contains("the job goes on"), "{output:?}");
    assert_eq!(world.server.script().cancels, 0);
}

/// More rows than a pipe holds, of a job that goes on.
fn many_rows(world: &World) {
    world.server.change(|script| {
        script.say(head());
        for _ in 0..50 {
            script.say(rows(100_000..110_000));
        }
    });
}

/// Reads one line, as `head -1` does, and closes the pipe.
fn read_one_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line
}

#[test]
fn a_run_whose_rows_nobody_reads_is_cancelled() {
    let world = World::new();
    many_rows(&world);
    let mut child = world.spawn(&["run", "-e", "SELECT n FROM t"]);
    assert_eq!(read_one_line(&mut child).trim(), "n");
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 141, "{output:?}");
    assert_eq!(world.server.script().cancels, 1);
    let said = stderr(&output);
    assert!(said.ends_with("cancelled: standard output was closed\n"), "{said}");
}

#[test]
fn a_fetch_whose_rows_nobody_reads_only_ends() {
    let world = World::new();
    many_rows(&world);
    let mut child = world.spawn(&["fetch", super::stand_in::TOKEN]);
    read_one_line(&mut child);
    let output = child.wait_with_output().unwrap();
    assert_eq!((status(&output), stderr(&output).as_str()), (141, ""));
    assert_eq!(world.server.script().cancels, 0);
}
