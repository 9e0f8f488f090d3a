//! Bad input is rejected with the right code, or the job fails with one clear sentence.

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Cause, GetJobRequest, Session, Token, get_job_request::By, job_status};
use sqlflow_tests::client::{Client, Ended};
use sqlflow_tests::python;
use sqlflow_tests::server::{Server, Setup, copy_program, program};
use tonic::{Code, Status};

struct World {
    server: Server,
    client: Client,
    _dir: tempfile::TempDir,
}

/// A world with a changed server.
async fn world(change: impl FnOnce(Setup) -> Setup) -> World {
    let dir = tempfile::tempdir().unwrap();
    let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
    let server = change(Setup::new(dir.path(), datasource)).start().unwrap();
    let client = server.client().await.unwrap();
    World { server, client, _dir: dir }
}

fn expect_refusal<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, words: &[&str]) {
    let status = answer.expect_err("it is rejected");
    assert_eq!(status.code(), code, "{status:?}");
    for word in words {
        assert!(status.message().contains(word), "{word:?} is not in {:?}", status.message());
    }
}

fn expect_failure(ended: &Ended, cause: Cause, words: &[&str]) {
    assert_eq!(ended.status.code(), job_status::Code::Failed, "{:?}", ended.status);
    let message = &ended.status.message;
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    assert!(!message.contains('\n'), "one sentence: {message:?}");
    assert_eq!(ended.status.cause(), cause, "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn run_rejects_invalid_programs_without_creating_a_job() {
    let World { mut client, server: _server, _dir } = world(|setup| setup).await;
    let invalid = Code::InvalidArgument;
    expect_refusal(client.run("").await, invalid, &["no statement"]);
    expect_refusal(client.run(" -- nothing\n ;").await, invalid, &["no statement"]);
    let train = |model: &str| format!("SELECT * FROM iris TO TRAIN xgboost.gbtree LABEL class INTO {model};");
    let syntax = "SELECT 1;\nSELECT * FROM iris TO TRAIN xgboost.gbtree LABEL class INTO;";
    expect_refusal(client.run(syntax).await, invalid, &["line 2, column 60", "expected"]);
    for model in ["a/../../b", "a/..", "a//b", "a/./b", "a/b/"] {
        expect_refusal(client.run(train(model)).await, invalid, &["line 1, column", "model name"]);
        let predict = format!("SELECT * FROM iris TO PREDICT t.class USING {model};");
        expect_refusal(client.run(predict).await, invalid, &["line 1, column", "model name"]);
    }
    expect_refusal(
        client.run("SELECT * FROM t TO RUN a/b:c CMD 'x';").await,
        invalid,
        &["not supported yet"],
    );
    let maximize =
        "SELECT * FROM t TO MAXIMIZE SUM(x) CONSTRAINT x > 1 WITH variables=\"x\" USING glpk INTO r;";
    expect_refusal(client.run(maximize).await, invalid, &["not supported yet"]);
    let late = format!(
        "{} SELECT * FROM iris TO EVALUATE m WITH validation.metrics=acuracy LABEL class INTO e;",
        train("m")
    );
    expect_refusal(
        client.run(late).await,
        invalid,
        &["metric acuracy does not exist; did you mean accuracy?"],
    );
    let two = "SELECT * FROM iris\nTO TRAIN xgboost.gbtree WITH max_dept=2,\neta=7 LABEL class INTO m;";
    expect_refusal(
        client.run(two).await,
        invalid,
        &["line 2, column 30: attribute max_dept", "\nline 3, column 5: "],
    );
    let across = format!("CREATE TEMPORARY TABLE t AS SELECT * FROM iris; {} SELECT * FROM t;", train("m"));
    expect_refusal(client.run(across).await, invalid, &["temporary"]);
    let open = format!("BEGIN; INSERT INTO iris SELECT * FROM iris; {} COMMIT;", train("m"));
    expect_refusal(client.run(open).await, invalid, &["transaction"]);
    expect_refusal(client.run("x".repeat((16 << 20) + 1)).await, invalid, &["16 MiB"]);
    expect_refusal(client.run("x".repeat(20 << 20)).await, invalid, &["16 MiB"]);
    expect_refusal(client.run("SELECT 1;".repeat(10_001)).await, invalid, &["10000"]);
    for (dsn, word) in
        [("nonsense", "scheme"), ("oracle://u:p@h/d", "oracle"), ("mysql://u:p@tcp(/d", "mysql://")]
    {
        let session = Session { db_conn_str: dsn.to_owned(), ..Session::default() };
        expect_refusal(client.run_in("SELECT 1", session).await, invalid, &[word]);
    }
    let jobs = client.api.list_jobs(sqlflow_proto::v1::ListJobsRequest::default()).await.unwrap();
    assert_eq!(jobs.into_inner().jobs, [], "a rejected program is no job");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_malformed_tokens_are_rejected() {
    let World { mut client, server: _server, _dir } = world(|setup| setup).await;
    let unknown = format!("sqlflow{}", "0".repeat(32));
    let token = |token: &str| Token { token: token.to_owned(), ..Token::default() };
    let by = |by: By| GetJobRequest { by: Some(by) };
    expect_refusal(client.api.fetch(token(&unknown)).await, Code::NotFound, &["no job"]);
    expect_refusal(client.api.cancel(token(&unknown)).await, Code::NotFound, &["no job"]);
    expect_refusal(client.api.get_job(by(By::Token(unknown.clone()))).await, Code::NotFound, &["no job"]);
    expect_refusal(client.api.fetch(token("")).await, Code::InvalidArgument, &["token"]);
    expect_refusal(client.api.fetch(token("sqlflow1; DROP TABLE")).await, Code::InvalidArgument, &["token"]);
    expect_refusal(client.api.cancel(token("")).await, Code::InvalidArgument, &["token"]);
    expect_refusal(client.api.get_job(by(By::Token("x".into()))).await, Code::InvalidArgument, &["token"]);
    expect_refusal(client.api.get_job(by(By::JobId("x".into()))).await, Code::InvalidArgument, &[]);
    expect_refusal(client.api.get_job(GetJobRequest::default()).await, Code::InvalidArgument, &[]);
    let no_job = "0".repeat(26);
    expect_refusal(client.api.fetch(token(&no_job)).await, Code::NotFound, &["no job of yours"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_database_is_reported_without_its_password() {
    let World { mut client, server: _server, _dir } = world(|setup| setup).await;
    // The port of a closed listener.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (dsn, word) in [
        (format!("mysql://root:hunter2@tcp(127.0.0.1:{port})/d"), "MySQL"),
        (format!("postgresql://root:hunter2@127.0.0.1:{port}/d"), "PostgreSQL"),
        ("sqlite:///no/such/folder/x.db".to_owned(), "/no/such/folder/x.db"),
    ] {
        let session = Session { db_conn_str: dsn.clone(), ..Session::default() };
        let token = client.run_in("SELECT 1", session).await.unwrap();
        let ended = client.follow(&token).await.unwrap();
        expect_failure(&ended, Cause::StatementFailed, &[word]);
        assert!(!format!("{ended:?}").contains("hunter2"), "the password is shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_table_error_names_a_missing_sqlite_file() {
    let World { mut client, server: _server, _dir: dir } = world(|setup| setup).await;
    let path = dir.path().join("irsi.db");
    let session =
        Session { db_conn_str: format!("sqlite://{}?mode=rwc", path.display()), ..Session::default() };
    let token = client.run_in("SELECT * FROM iris", session).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    expect_failure(&ended, Cause::StatementFailed, &["iris", "irsi.db", "did not exist"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_without_any_data_source_is_rejected() {
    let World { mut client, server: _server, _dir } = world(|setup| setup.flag("--datasource=")).await;
    expect_refusal(client.run("SELECT 1").await, Code::InvalidArgument, &["db_conn_str"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn misspelt_names_get_suggestions() {
    let World { mut client, server: _server, _dir } = world(|setup| setup).await;
    let train = "SELECT * FROM iris TO TRAIN xgboost.gbtree LABEL clas INTO m;";
    let token = client.run(train).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    expect_failure(&ended, Cause::StatementFailed, &["clas", "class"]);
    for (attributes, words) in [
        ("objectiv = \"multi:softmax\"", ["objectiv", "objective"]),
        ("objective = \"multi:softmx\"", ["multi:softmx", "multi:softmax"]),
    ] {
        let train =
            format!("SELECT * FROM iris TO TRAIN xgboost.gbtree WITH {attributes} LABEL class INTO m;");
        expect_refusal(client.run(train).await, Code::InvalidArgument, &words);
    }
    let predict = "SELECT * FROM iris TO PREDICT p.class USING no_such_model;";
    let token = client.run(predict).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    expect_failure(&ended, Cause::StatementFailed, &["no_such_model"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_python_fails_the_job_with_its_path() {
    let World { mut client, server: _server, _dir } =
        world(|setup| setup.flag("--python=/no/such/python")).await;
    let token = client.run("SHOW MODELS").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    expect_failure(&ended, Cause::LaunchFailed, &["/no/such/python"]);
    // Plain SQL needs no Python.
    let token = client.run("SELECT 1").await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn python_without_the_package_fails_the_job_with_a_fix() {
    let World { mut client, server: _server, _dir } = world(|setup| setup.env("PYTHONPATH", "")).await;
    let token = client.run("SHOW MODELS").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    expect_failure(&ended, Cause::LaunchFailed, &["No module named 'sqlflow_submitter'", "make install"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_agent_fails_the_job_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let agent = dir.path().join("agent");
    copy_program(&program("sqlflow-agent"), &agent);
    let flag = format!("--agent={}", agent.display());
    let World { mut client, server: _server, _dir } = world(|setup| setup.flag(flag)).await;
    std::fs::remove_file(&agent).unwrap();
    let token = client.run("SELECT 1").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    expect_failure(&ended, Cause::LaunchFailed, &[agent.to_str().unwrap()]);
}

/// As after an upgrade of one of the two only.
#[tokio::test(flavor = "multi_thread")]
async fn agent_without_the_data_process_is_reported_before_and_by_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let agent = dir.path().join("agent");
    copy_program(&program("sqlflow-agent"), &agent);
    let flag = format!("--agent={}", agent.display());
    let World { mut client, server, _dir } = world(|setup| setup.flag(flag)).await;
    let missing = format!("sqlflow-data is neither beside the agent, in {}", dir.path().display());
    let ready = sqlflow_tests::http::get(&server.http, "/readyz");
    assert!(ready.body.contains(&missing) && ready.body.contains("make install"), "{}", ready.body);
    let token = client.run("SELECT 1").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    let remedy = "install the agent and sqlflow-data of this server's version together";
    expect_failure(&ended, Cause::LaunchFailed, &["cannot start sqlflow-data", remedy, "--pod-sql-image"]);
}

/// Takes the attempt's lock, as an agent does, and does not attach.
const SILENT: &str = "import fcntl, sys, time
lock = open(sys.argv[sys.argv.index('--dir') + 1] + '/lock', 'w')
fcntl.lockf(lock, fcntl.LOCK_EX)
time.sleep(600)
";

#[tokio::test(flavor = "multi_thread")]
async fn agent_that_does_not_attach_is_reported_and_killed() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let agent = dir.path().join("agent");
    std::fs::write(&agent, format!("#!/usr/bin/env python3\n{SILENT}")).unwrap();
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
    let flags = [format!("--agent={}", agent.display()), "--attach-timeout=10s".to_owned()];
    let change = |setup| flags.into_iter().fold(setup, Setup::flag);
    let World { mut client, server: _server, _dir: state } = world(change).await;
    let token = client.run("SELECT 1").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    let why = "the agent runs, but it has not reached the server at";
    expect_failure(&ended, Cause::LaunchFailed, &[why, "agent.sock"]);
    let is_why = |it: &Payload| matches!(it, Payload::Message(message) if message.message.starts_with(why));
    assert!(ended.payloads().any(is_why), "not reported before the end: {:?}", ended.results);
    // The agent was killed: its folder is removed.
    let run = state.path().join("state/run");
    let is_kept = || std::fs::read_dir(&run).unwrap().flatten().any(|it| it.file_name() != "places");
    for _ in 0..500 {
        if !is_kept() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!is_kept());
}

#[tokio::test(flavor = "multi_thread")]
async fn server_with_an_invalid_option_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let start = |flag: &str| Setup::new(dir.path(), "").flag(flag).start().unwrap_err().to_string();
    assert!(start("--agent=/no/such/agent").contains("/no/such/agent"));
    assert!(start("--models=ftp://host/x").contains("ftp://host/x"));
    assert!(start("--launcher=kubernetes").contains("--models"), "Pods cannot read the state folder");
    assert!(start("--grace=soon").contains("soon"));
    assert!(start("--datasource=oracle://u:hunter2@h/d").contains("oracle"));
    assert!(!start("--datasource=oracle://u:hunter2@h/d").contains("hunter2"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert!(start(&format!("--listen={address}")).contains(&address));
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(start(&format!("--state-dir={}", dir.path().join("file").display())).contains("file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlflowctl_has_documented_exit_codes() {
    let World { server, client: _client, _dir: dir } = world(|setup| setup).await;
    let control = |arguments: &[&str]| {
        let mut command = std::process::Command::new(program("sqlflowctl"));
        let output = command.args(arguments).env("SQLFLOW_SERVER", &server.address).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let run = |arguments: &[&str]| control(&[&["run"], arguments].concat());
    assert_eq!(run(&["-e", "SELECT * FROM iris LIMIT 1"]).0, Some(0));
    let (code, said) = run(&["-e", "SELECT * FROM no_such_table"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no_such_table"), "{said}");
    let (code, said) = run(&["-e", "SELECT 1 TO TRAIN"]);
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("TRAIN"), "{said}");
    assert_eq!(run(&["--no-such-flag"]).0, Some(2));
    // No process listens on port 1.
    let (code, said) = run(&["-e", "SELECT 1", "--datasource", "mysql://root:hunter2@tcp(127.0.0.1:1)/d"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("127.0.0.1:1") && !said.contains("hunter2"), "{said}");
    let unknown = format!("sqlflow{}", "0".repeat(32));
    for command in ["fetch", "logs", "cancel", "describe"] {
        let (code, said) = control(&[command, &unknown]);
        assert_eq!(code, Some(2), "{command}: {said}");
        assert!(said.contains("no job"), "{command}: {said}");
    }
    let big = dir.path().join("big.sql");
    std::fs::write(&big, "x".repeat(20 << 20)).unwrap();
    let (code, said) = run(&["-f", big.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("16 MiB"), "{said}");
    let (code, said) = run(&["-e", "SELECT 1", "--server", "127.0.0.1:1", "--retry-timeout", "1"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("127.0.0.1:1"), "{said}");
}

/// Agents in Pods connect over a network, so the server must know its address there.
#[test]
fn kubernetes_server_without_an_address_for_agents_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), "sqlite:///tmp/x.db")
        .flag("--launcher=kubernetes")
        .flag("--pod-image=submitter")
        .flag("--models=s3://bucket/models")
        .flag("--agent-listen=127.0.0.1:0")
        .env("RUST_BACKTRACE", "1");
    let error = setup.start().unwrap_err().to_string();
    assert!(error.contains("--launcher kubernetes needs --agent-url"), "{error}");
    assert_eq!(error.trim().lines().count(), 1, "{error}");
    let error = setup.flag("--agent-url=http://127.0.0.1:1").start().unwrap_err().to_string();
    assert!(error.contains("must begin with https://"), "agents need TLS: {error}");
}

/// The reader of the server's stderr is gone. The server keeps running, and ends at TERM.
#[test]
fn server_with_a_closed_stderr_ends_at_term() {
    use std::io::BufRead as _;
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(program("sqlflow-server"));
    command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--state-dir"]).arg(dir.path());
    let mut server = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut log = std::io::BufReader::new(server.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("the server is ready") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the server ended before it was ready");
    }
    drop(log);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(server.wait().unwrap().success());
}
