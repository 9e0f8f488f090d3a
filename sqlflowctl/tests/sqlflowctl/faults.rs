//! Servers that stop or do not answer.

use std::net::TcpListener;

use sqlflow_proto::v1::Cause;
use sqlflow_proto::v1::job_status::Code;

use super::{World, head, numbers, rows, status, stderr, stdout};

#[test]
fn rows_are_printed_once_across_a_server_restart() {
    let mut world = World::new();
    world.server.change(|script| {
        script.page = 1;
        script.push(head());
        script.push(rows([1]));
        script.push(rows([2]));
        script.silent_from = Some(2);
    });
    let child = world.spawn(&["run", "-e", "SELECT n FROM t"]);
    // Two pages were printed, and the third was requested. Its response is lost with the server.
    world.server.wait(|script| script.fetches.len() == 3);
    world.server.stop();
    world.server.change(|script| {
        script.silent_from = None;
        script.push(rows([3]));
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    world.server.restart();
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 0, "{output:?}");
    assert_eq!(numbers(&stdout(&output)), [1, 2, 3]);
    let script = world.server.script();
    assert_eq!(script.runs.len(), 1, "the program ran once");
    assert_eq!(script.plain, 0, "the plain token is not used: a lost response may move its cursor");
    assert_eq!(stderr(&output).matches("does not answer").count(), 1, "{output:?}");
}

#[test]
fn run_with_a_lost_response_is_retried_with_the_same_request_id() {
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
fn error_of_a_run_that_may_have_been_accepted_says_so() {
    let world = World::new();
    world.server.change(|script| (script.lost_runs, script.refused_runs) = (1, 1));
    let output = world.run(&["run", "--retry-timeout", "0", "-e", "SELECT 1"]);
    assert_eq!(status(&output), 3, "{output:?}");
    assert!(stderr(&output).contains("the job may have been accepted"), "{output:?}");
}

#[test]
fn repeated_pages_are_printed_once() {
    let world = World::new();
    world.server.change(|script| {
        script.page = 2;
        script.plain_repeats = 2;
        script.push(head());
        for n in 1..=5 {
            script.push(rows([n]));
        }
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    let output = world.run(&["fetch", super::stand_in::TOKEN]);
    assert_eq!(numbers(&stdout(&output)), [1, 2, 3, 4, 5], "{output:?}");
}

#[test]
fn unreachable_server_is_named_in_the_error() {
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
        script.push(head());
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
