//! Output of a job, and exit statuses.

use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::log_chunk::Stream;
use sqlflow_proto::v1::{
    Cause, Display, EndOfExecution, Message, Progress, message::Kind as About, response::Response as Kind,
};

use super::{World, head, log, log_of, rows, status, stderr, stdout};

#[test]
fn rows_are_on_stdout_and_the_rest_on_stderr() {
    let world = World::new();
    world.server.change(|script| {
        script.push(head());
        script.push(log(b"warming up\n"));
        script.push(rows([1, 22]));
        script.push(Kind::Eoe(EndOfExecution::default()));
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
fn failed_job_has_one_sentence_and_exit_status_1() {
    let world = World::new();
    world.server.change(|script| {
        script.push(log(b"Traceback"));
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
    assert_eq!(status(&world.run(&["fetch", "last"])), 1, "also for a later fetch");
    assert_eq!(status(&world.run(&["logs", "-f", "last"])), 0, "the logs were read anyway");
}

#[test]
fn rejected_program_shows_the_position() {
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
        script.push(head());
        script.push(rows([i64::MAX]));
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
fn displays_are_saved_in_the_given_folder() {
    let world = World::new();
    world.server.change(|script| {
        script.push(Kind::Display(Display { media_type: "image/png".into(), data: "PNG".into() }));
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
fn logs_are_byte_exact_and_do_not_move_the_plain_cursor() {
    let world = World::new();
    world.server.change(|script| {
        script.page = 1;
        script.push(log(b"\xff\x00half"));
        script.push(rows([1]));
        script.push(log(b" a line\r\n"));
    });
    // The job continues, so without -f the command ends at the present end of the log.
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
    // These can be parsed, and servers reject them.
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
    assert_eq!((status(&output), stdout(&output).as_str()), (2, ""), "the exit status of run");
    assert!(stderr(&output).starts_with("line 1, column "), "{output:?}");
}

#[test]
fn error_is_printed_once() {
    let world = World::new();
    world.server.change(|script| {
        script.push(log_of(Stream::Stderr, b"no such table: nope\n"));
        script
            .push(Kind::Message(Message { message: "no such table: nope".into(), kind: About::End.into() }));
        script.end(Code::Failed, Cause::StatementFailed, "no such table: nope");
    });
    let output = world.run(&["run", "-e", "SELECT * FROM nope"]);
    let job = super::stand_in::JOB;
    let expected = format!("job {job}\njob {job} failed: no such table: nope\n");
    assert_eq!((status(&output), stderr(&output)), (1, expected));
    assert_eq!(stdout(&world.run(&["logs", "last"])), "no such table: nope\n", "the log has it too");
}

#[test]
fn cancelled_job_has_exit_status_4_and_state_cancelled() {
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
fn csv_rows_are_alone_on_stdout() {
    let world = World::new();
    world.server.change(|script| {
        for _ in 0..2 {
            script.push(head());
            script.push(rows([1, 22]));
            script.push(Kind::Eoe(EndOfExecution::default()));
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

/// As with `2>&1`.
#[test]
fn results_and_log_in_one_file_keep_their_order() {
    let world = World::new();
    world.server.change(|script| {
        script.push(head());
        script.push(rows([1]));
        script.push(log(b"between\n"));
        script.push(rows([2]));
        script.push(log(b"half a line"));
        script.push(rows([3]));
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
fn progress_is_not_printed_without_a_terminal() {
    let world = World::new();
    world.server.change(|script| {
        for done in [127, 150] {
            let (phase, unit) = ("load".to_owned(), "rows".to_owned());
            script.push(Kind::Progress(Progress { phase, done, total: 150, unit }));
        }
        script.push(log(b"loaded 150 row(s)\n"));
        script.end(Code::Succeeded, Cause::Unspecified, "");
    });
    let output = world.run(&["run", "-e", "SELECT 1"]);
    let job = super::stand_in::JOB;
    assert_eq!(stderr(&output), format!("job {job}\nloaded 150 row(s)\njob {job} succeeded\n"));
    assert!(!output.stderr.contains(&0x1b), "no escapes: {output:?}");
}
