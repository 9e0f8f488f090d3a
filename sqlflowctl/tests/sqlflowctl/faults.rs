//! Servers that go away.

use std::net::TcpListener;

use sqlflow_proto::v1::Cause;
use sqlflow_proto::v1::job_status::Code;

use super::{World, head, numbers, rows, status, stderr, stdout};

#[test]
fn rows_come_once_over_a_restart_of_the_server() {
    let mut world = World::new();
    world.server.change(|script| {
        script.page = 1;
        script.say(head());
        script.say(rows([1]));
        script.say(rows([2]));
        script.silent_from = Some(2);
    });
    let child = world.spawn(&["run", "-e", "SELECT n FROM t"]);
    // Two pages were shown, and the third is asked for: its answer gets lost with the server.
    world.server.wait(|script| script.fetches.len() == 3);
    world.server.stop();
    world.server.change(|script| {
        script.silent_from = None;
        script.say(rows([3]));
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    world.server.start_again();
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 0, "{output:?}");
    assert_eq!(numbers(&stdout(&output)), [1, 2, 3]);
    let script = world.server.script();
    assert_eq!(script.runs.len(), 1, "the program ran once");
    assert_eq!(script.plain, 0, "a place that a lost answer may move is not relied on");
    assert_eq!(stderr(&output).matches("does not answer").count(), 1, "{output:?}");
}

#[test]
fn a_run_whose_answer_is_lost_is_repeated_with_the_same_request_id() {
    let world = World::new();
    world.server.change(|script| {
        script.page = 9;
        script.lost_runs = 1;
        script.refused_runs = 1;
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    let output = world.run(&["run", "-e", "SELECT 1"]);
    assert_eq!(status(&output), 0, "{output:?}");
    let runs = world.server.script().runs;
    let [first, second, third] = &runs[..] else { panic!("{runs:?}") };
    assert_eq!((first, first), (second, third));
    assert_eq!(first.request_id.len(), 32, "{first:?}");
}

#[test]
fn a_run_that_may_have_been_accepted_is_said_to_be_so() {
    let world = World::new();
    world.server.change(|script| (script.lost_runs, script.refused_runs) = (1, 1));
    let output = world.run(&["run", "--retry-timeout", "0", "-e", "SELECT 1"]);
    assert_eq!(status(&output), 3, "{output:?}");
    assert!(stderr(&output).contains("the job may have been accepted"), "{output:?}");
}

#[test]
fn pages_that_repeat_are_shown_once() {
    let world = World::new();
    world.server.change(|script| {
        script.page = 2;
        script.plain_repeats = 2;
        script.say(head());
        for n in 1..=5 {
            script.say(rows([n]));
        }
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    let output = world.run(&["fetch", super::stand_in::TOKEN]);
    assert_eq!(numbers(&stdout(&output)), [1, 2, 3, 4, 5], "{output:?}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let world = World::new();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = unused.local_addr().unwrap().to_string();
    drop(unused);
    for command in [
        &["run", "-e", "SELECT 1"][..],
        &["fetch", super::stand_in::TOKEN],
        &["logs", super::stand_in::TOKEN],
        &["cancel", super::stand_in::TOKEN],
        &["list"],
        &["describe", super::stand_in::JOB],
    ] {
        let output = world.command(command).args(["--server", &address]).output().unwrap();
        assert_eq!(status(&output), 3, "{output:?}");
        let said = stderr(&output);
        assert!(said.starts_with(&format!("cannot reach the server at http://{address}: ")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn retry_timeout_ends_the_command_with_a_hint_to_resume() {
    let mut world = World::new();
    world.server.change(|script| {
        script.page = 1;
        script.say(head());
        script.silent_from = Some(1);
    });
    let child = world.spawn(&["run", "-e", "SELECT 1", "--retry-timeout", "0"]);
    world.server.wait(|script| script.fetches.len() == 2);
    world.server.stop();
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 3, "{output:?}");
    let hint = format!("sqlflowctl fetch {}.1", super::stand_in::TOKEN);
    assert!(stderr(&output).contains(&hint), "{output:?}");
}
