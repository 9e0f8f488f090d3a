//! What a job said, and how the command ends.

use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::log_chunk::Stream;
use sqlflow_proto::v1::{
    Cause, Display, EndOfExecution, Message, Progress, message::Kind as About, response::Response as Kind,
};

use super::{World, head, log, log_of, rows, status, stderr, stdout};

#[test]
fn rows_are_on_standard_output_and_all_else_is_not() {
    let world = World::new();
    world.server.change(|script| {
        script.say(head());
        script.say(log(b"warming up\n"));
        script.say(rows([1, 22]));
        script.say(Kind::Eoe(EndOfExecution::default()));
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    let output = world.run(&["run", "-e", "-- a comment\nSELECT n FROM t", "--datasource", "sqlite:///x"]);
    assert_eq!(status(&output), 0, "{output:?}");
    assert_eq!(stdout(&output), "  n\n----\n  1\n 22\n");
    let job = super::stand_in::JOB;
    assert_eq!(stderr(&output), format!("job {job}\nwarming up\n2 rows (0.0 s)\njob {job} succeeded\n"));
    let asked = world.server.script().runs;
    assert_eq!(asked[0].sql, "-- a comment\nSELECT n FROM t");
    assert_eq!(asked[0].session.as_ref().unwrap().db_conn_str, "sqlite:///x");
    assert_eq!(asked[0].session.as_ref().unwrap().fetch_timeout_seconds, None);
}

#[test]
fn a_failed_job_is_one_sentence_and_status_1() {
    let world = World::new();
    world.server.change(|script| {
        script.say(log(b"Traceback"));
        script.end(
            Code::Failed,
            Cause::StatementFailed,
            "no column sepal_lenght; did you mean sepal_length?",
        );
    });
    let output = world.run(&["run", "-e", "SELECT 1"]);
    assert_eq!(status(&output), 1);
    let job = super::stand_in::JOB;
    let sentence = format!("job {job} failed: no column sepal_lenght; did you mean sepal_length?");
    assert_eq!(stderr(&output).lines().last(), Some(sentence.as_str()));
    assert_eq!(status(&world.run(&["fetch", "last"])), 1, "also for who reads it later");
    assert_eq!(status(&world.run(&["logs", "-f", "last"])), 0, "the logs were read anyway");
}

#[test]
fn a_refused_program_shows_the_place() {
    let world = World::new();
    world
        .server
        .change(|script| script.refuses = Some("line 2, column 3: found FRM, expected FROM".to_owned()));
    std::fs::write(world.home.path().join("x.sql"), "SELECT *\n  FRM t").unwrap();
    let output = world.run(&["run", "-f", "x.sql"]);
    assert_eq!(status(&output), 2);
    assert_eq!(stderr(&output), "line 2, column 3: found FRM, expected FROM\n  |\n2 |   FRM t\n  |   ^\n");
}

#[test]
fn json_is_one_object_per_line() {
    let world = World::new();
    world.server.change(|script| {
        script.say(head());
        script.say(rows([i64::MAX]));
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    let output = world.run(&["run", "-e", "SELECT 1", "--output", "json"]);
    let text = stdout(&output);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["job", "head", "rows", "status"]);
    assert_eq!(lines[0]["token"], super::stand_in::TOKEN);
    assert_eq!(lines[2]["rows"], serde_json::json!([["9223372036854775807"]]));
    assert_eq!((&lines[3]["code"], &lines[3]["cause"]), (&"SUCCEEDED".into(), &serde_json::Value::Null));
}

#[test]
fn displays_are_saved_where_asked() {
    let world = World::new();
    world.server.change(|script| {
        script.say(Kind::Display(Display { media_type: "image/png".into(), data: "PNG".into() }));
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    let output = world.run(&["run", "-e", "SELECT 1"]);
    assert!(stderr(&output).contains("image/png, 3 B: to keep it, use --save-displays DIR"), "{output:?}");
    let output = world.run(&["fetch", "last", "--from-start", "--save-displays", "plots"]);
    assert_eq!(status(&output), 0, "{output:?}");
    let file = world.home.path().join(format!("plots/sqlflow-{}-1.png", super::stand_in::JOB));
    assert_eq!(std::fs::read(file).unwrap(), b"PNG");
}

#[test]
fn logs_are_byte_exact_and_leave_other_readers_alone() {
    let world = World::new();
    world.server.change(|script| {
        script.page = 1;
        script.say(log(b"\xff\x00half"));
        script.say(rows([1]));
        script.say(log(b" a line\r\n"));
    });
    // The job goes on, so without -f the command ends at what is there now.
    let output = world.run(&["logs", super::stand_in::TOKEN]);
    assert_eq!(output.stdout, b"\xff\x00half a line\r\n");
    let script = world.server.script();
    assert!(script.fetches.iter().all(|token| token.contains('.')), "{:?}", script.fetches);
    assert_eq!(script.plain, 0);
}

#[test]
fn parse_needs_no_server() {
    let world = World::new();
    std::fs::write(world.home.path().join("good.sql"), "SELECT 1;").unwrap();
    std::fs::write(world.home.path().join("bad.sql"), "SELECT * FROM t TO TRAIN;").unwrap();
    // These can be read, and no server runs them.
    std::fs::write(world.home.path().join("run.sql"), "SELECT * FROM t TO RUN img INTO u;").unwrap();
    std::fs::write(world.home.path().join("empty.sql"), "-- nothing\n").unwrap();
    for refused in ["run.sql", "empty.sql"] {
        let output = world.run(&["parse", refused]);
        assert_eq!((status(&output), stdout(&output).as_str()), (2, ""), "{refused}: {output:?}");
    }
    let output = world.run(&["parse", "good.sql"]);
    assert_eq!(status(&output), 0, "{output:?}");
    serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
    let output = world.run(&["parse", "bad.sql"]);
    assert_eq!((status(&output), stdout(&output).as_str()), (2, ""), "as run ends");
    assert!(stderr(&output).starts_with("line 1, column "), "{output:?}");
}

#[test]
fn an_error_is_printed_once() {
    let world = World::new();
    world.server.change(|script| {
        script.say(log_of(Stream::Stderr, b"no such table: nope\n"));
        script.say(Kind::Message(Message { message: "no such table: nope".into(), kind: About::End.into() }));
        script.end(Code::Failed, Cause::StatementFailed, "no such table: nope");
    });
    let output = world.run(&["run", "-e", "SELECT * FROM nope"]);
    let job = super::stand_in::JOB;
    let expected = format!("job {job}\njob {job} failed: no such table: nope\n");
    assert_eq!((status(&output), stderr(&output)), (1, expected));
    assert_eq!(stdout(&world.run(&["logs", "last"])), "no such table: nope\n", "the log has it too");
}

#[test]
fn a_job_that_was_cancelled_did_not_fail() {
    let world = World::new();
    world.server.change(|script| script.end(Code::Failed, Cause::Cancelled, ""));
    let output = world.run(&["run", "-e", "SELECT 1"]);
    let job = super::stand_in::JOB;
    assert_eq!((status(&output), stderr(&output)), (4, format!("job {job}\njob {job} was cancelled\n")));
    assert_eq!(status(&world.run(&["fetch", "last", "--from-start"])), 4);
    assert!(stdout(&world.run(&["list"])).contains("| CANCELLED |"));
    assert!(stdout(&world.run(&["list", "--state", "cancelled"])).contains(job));
    assert!(!stdout(&world.run(&["list", "--state", "failed"])).contains(job));
    assert!(stdout(&world.run(&["describe", "last"])).contains("\nstate     CANCELLED\n"));
    let json = stdout(&world.run(&["fetch", "last", "--from-start", "--output", "json"]));
    assert!(json.contains(r#""code":"FAILED""#) && json.contains(r#""state":"CANCELLED""#), "{json}");
}

#[test]
fn rows_as_csv_are_alone_on_standard_output() {
    let world = World::new();
    world.server.change(|script| {
        for _ in 0..2 {
            script.say(head());
            script.say(rows([1, 22]));
            script.say(Kind::Eoe(EndOfExecution::default()));
        }
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    let output = world.run(&["run", "-e", "SELECT n FROM t", "--output", "csv"]);
    assert_eq!(stdout(&output), "n\n1\n22\n\nn\n1\n22\n");
    assert!(
        stdout(&world.run(&["list", "--output", "csv"]))
            .starts_with("job,state,user,created (UTC),took,program,message\n")
    );
    let output = world.run(&["describe", "last", "--output", "csv"]);
    assert_eq!((status(&output), stdout(&output).as_str()), (2, ""));
}

/// In one pipe, as with `2>&1`, lines have the order of the job.
#[test]
fn results_and_log_in_one_pipe_keep_their_order() {
    let world = World::new();
    world.server.change(|script| {
        script.say(head());
        script.say(rows([1]));
        script.say(log(b"between\n"));
        script.say(rows([2]));
        script.say(log(b"half a line"));
        script.say(rows([3]));
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    let file = world.home.path().join("both");
    let out = std::fs::File::create(&file).unwrap();
    let err = out.try_clone().unwrap();
    let status = world.command(&["run", "-e", "SELECT 1"]).stdout(out).stderr(err).status().unwrap();
    assert!(status.success());
    let job = super::stand_in::JOB;
    let expected = format!("job {job}\n n\n---\n 1\nbetween\n 2\nhalf a line\n 3\njob {job} succeeded\n");
    assert_eq!(std::fs::read_to_string(file).unwrap(), expected);
}

#[test]
fn progress_is_for_people_who_look_on() {
    let world = World::new();
    world.server.change(|script| {
        for done in [127, 150] {
            let (phase, unit) = ("load".to_owned(), "rows".to_owned());
            script.say(Kind::Progress(Progress { phase, done, total: 150, unit }));
        }
        script.say(log(b"loaded 150 row(s)\n"));
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    let output = world.run(&["run", "-e", "SELECT 1"]);
    let job = super::stand_in::JOB;
    assert_eq!(stderr(&output), format!("job {job}\nloaded 150 row(s)\njob {job} succeeded\n"));
    assert!(!output.stderr.contains(&0x1b), "no escapes: {output:?}");
}
