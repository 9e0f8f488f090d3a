//! Jobs by token, id, prefix and `last`.

use sqlflow_proto::v1::Cause;
use sqlflow_proto::v1::job_status::Code;

use super::stand_in::{JOB, TOKEN};
use super::{World, head, numbers, rows, status, stderr, stdout};

#[test]
fn detached_run_prints_only_the_token_on_stdout() {
    let world = World::new();
    let output = world.run(&["run", "--detach", "-e", "SELECT 1", "--fetch-timeout", "0", "--user", "ann"]);
    assert_eq!(status(&output), 0, "{output:?}");
    assert_eq!(stdout(&output), format!("{TOKEN}\n"));
    assert_eq!(stderr(&output), format!("job {JOB}\n"));
    let script = world.server.script();
    assert!(script.fetches.is_empty());
    let session = script.runs[0].session.clone().unwrap();
    assert_eq!((session.fetch_timeout_seconds, session.user_id.as_str()), (Some(0), "ann"));
}

#[test]
fn user_of_a_job_is_the_login_name_by_default() {
    let world = World::new();
    let users = [(None, "bea"), (Some("team"), "team")].map(|(variable, user)| {
        let mut command = world.command(&["run", "--detach", "-e", "SELECT 1"]);
        command.env("USER", "bea").envs(variable.map(|value| ("SQLFLOW_USER_ID", value)));
        assert!(command.status().unwrap().success());
        user
    });
    let runs = world.server.script().runs;
    let asked: Vec<_> = runs.iter().map(|run| run.session.as_ref().unwrap().user_id.as_str()).collect();
    assert_eq!(asked, users);
}

#[test]
fn stored_job_is_found_by_id_prefix_and_last() {
    let world = World::new();
    world.server.change(|script| {
        script.push(head());
        script.push(rows([1]));
        script.push(rows([2]));
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    let by_id = format!("{JOB}.2");
    let output = world.run(&["fetch", JOB]);
    assert_eq!(status(&output), 2, "the server asks whose job it is: {output:?}");
    let output = world.run(&["fetch", "01jzzzzz"]);
    assert_eq!(status(&output), 2, "not stored yet: {output:?}");
    assert!(stderr(&output).contains("not stored"), "{output:?}");
    world.run(&["run", "--detach", "-e", "SELECT 1"]);
    assert_eq!(numbers(&stdout(&world.run(&["fetch", JOB]))), [1, 2]);
    assert_eq!(numbers(&stdout(&world.run(&["fetch", &by_id]))), [2]);
    assert_eq!(stdout(&world.run(&["fetch", "last"])), "", "the plain token's cursor has moved");
    assert_eq!(numbers(&stdout(&world.run(&["fetch", &JOB[..8], "--from-start"]))), [1, 2]);
    let output = world.run(&["fetch", &JOB[..3]]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("at least 4 characters"), "{output:?}");
    assert_eq!(numbers(&stdout(&world.run(&["fetch", "last", "--from-start"]))), [1, 2]);
}

#[test]
fn ambiguous_prefix_is_an_error_with_the_ids() {
    let world = World::new();
    let folder = world.home.path().join("sqlflow");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("tokens"), format!("01jdaaaa {TOKEN}\n{JOB} {TOKEN}\n")).unwrap();
    for command in ["fetch", "logs", "cancel", "describe"] {
        let output = world.run(&[command, "01jd"]);
        let expected =
            format!("2 jobs have ids that begin with \"01jd\": {JOB}, 01jdaaaa; give more characters\n");
        assert_eq!((status(&output), stderr(&output)), (2, expected), "{command}");
    }
    assert_eq!(world.server.script().cancels, 0);
}

#[test]
fn job_of_another_machine_is_described_by_prefix() {
    let world = World::new();
    assert!(stdout(&world.run(&["describe", &JOB[..6]])).starts_with(&format!("job       {JOB}\n")));
    let none = world.run(&["describe", "zzzzzz"]);
    let expected = "no job has an id that begins with \"zzzzzz\"; see sqlflowctl list\n";
    assert_eq!((status(&none), stderr(&none).as_str()), (2, expected));
}

#[test]
fn no_remember_prints_the_token_instead_of_storing_it() {
    let world = World::new();
    world.server.change(|script| script.end(Code::Succeeded, Cause::Unspecified, ""));
    let output = world.run(&["run", "--no-remember", "-e", "SELECT 1"]);
    assert!(stderr(&output).contains(&format!("token {TOKEN}\n")), "{output:?}");
    assert_eq!(status(&world.run(&["cancel", "last"])), 2);
}

#[test]
fn failed_token_store_is_only_a_warning() {
    let world = World::new();
    world.server.change(|script| script.end(Code::Succeeded, Cause::Unspecified, ""));
    std::fs::write(world.home.path().join("sqlflow"), "in the way").unwrap();
    let output = world.run(&["run", "-e", "SELECT 1"]);
    assert_eq!(status(&output), 0);
    assert!(stderr(&output).contains("warning: cannot store the job's token"), "{output:?}");
}

#[test]
fn fetch_once_prints_the_next_token() {
    let world = World::new();
    world.server.change(|script| {
        script.page = 2;
        (1..=3).for_each(|n| script.push(rows([n])));
    });
    let output = world.run(&["fetch", "--once", &format!("{TOKEN}.0")]);
    assert_eq!((status(&output), numbers(&stdout(&output))), (0, vec![1, 2]));
    assert_eq!(stderr(&output), format!("next: {TOKEN}.2\n"));
}

#[test]
fn jobs_are_listed_described_and_cancelled() {
    let world = World::new();
    assert!(stdout(&world.run(&["list"])).contains(&format!(" {JOB} | RUNNING |")));
    assert!(
        stdout(&world.run(&["describe", JOB])).starts_with(&format!("job       {JOB}\nstate     RUNNING\n"))
    );
    let output = world.run(&["cancel", TOKEN]);
    assert_eq!((status(&output), world.server.script().cancels), (0, 1), "{output:?}");
    let output = world.run(&["fetch", "sqlflow00"]);
    assert_eq!((status(&output), stderr(&output).as_str()), (2, "no job has this token\n"));
}
