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
fn ctrl_c_cancels_the_job_and_prints_its_end() {
    let world = World::new();
    let child = world.spawn(&["run", "-e", "SELECT 1"]);
    world.server.wait(|script| !script.fetches.is_empty());
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 130, "{output:?}");
    assert_eq!(world.server.script().cancels, 1);
    let said = stderr(&output);
    assert!(said.contains("cancelling the job"), "{said}");
    assert!(said.ends_with(&format!("last output\njob {} was cancelled\n", super::stand_in::JOB)), "{said}");
}

#[test]
fn ctrl_c_does_not_cancel_a_background_run() {
    let world = World::new();
    world.server.change(|script| script.push(head()));
    let child = world.background(&["run", "-e", "SELECT 1"]);
    world.server.wait(|script| script.fetches.len() > 1);
    interrupt(&child);
    world.server.wait(|script| script.fetches.len() > 3);
    assert_eq!(world.server.script().cancels, 0);
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    child.wait_with_output().unwrap();
}

#[test]
fn second_ctrl_c_exits_with_a_hint_to_resume() {
    let world = World::new();
    world.server.change(|script| {
        script.cancel_ends = false;
        script.push(head());
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
fn ctrl_c_during_fetch_does_not_cancel_the_job() {
    let world = World::new();
    let child = world.spawn(&["fetch", super::stand_in::TOKEN]);
    // The second Fetch has begun, so the command handles signals by now.
    world.server.wait(|script| script.fetches.len() > 1);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 130, "{output:?}");
    assert!(stderr(&output).contains("the job continues"), "{output:?}");
    assert_eq!(world.server.script().cancels, 0);
}

/// More rows than a pipe holds, of a running job.
fn many_rows(world: &World) {
    world.server.change(|script| {
        script.push(head());
        for _ in 0..50 {
            script.push(rows(100_000..110_000));
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
fn run_with_closed_stdout_cancels_the_job() {
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
fn fetch_with_closed_stdout_does_not_cancel_the_job() {
    let world = World::new();
    many_rows(&world);
    let mut child = world.spawn(&["fetch", super::stand_in::TOKEN]);
    read_one_line(&mut child);
    let output = child.wait_with_output().unwrap();
    assert_eq!((status(&output), stderr(&output).as_str()), (141, ""));
    assert_eq!(world.server.script().cancels, 0);
}
