//! What `sqlflowctl` prints of a failure, for every kind of failure and in every output mode: the error once, in the last
//! line, and no success before it.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use sqlflow_proto::v1::ListJobsRequest;
use sqlflow_tests::client::{Client, is_over};
use sqlflow_tests::server::{Server, Setup, program};
use sqlflow_tests::{ENDLESS, python};

use super::agent_killed::kill_agent;

const POLL: Duration = Duration::from_millis(20);
const MODES: [&str; 3] = ["text", "csv", "json"];

struct World {
    server: Server,
    client: Client,
    dir: tempfile::TempDir,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
    let setup = Setup::new(dir.path(), datasource).flag("--linger=1h");
    let server = setup.start().unwrap();
    let client = server.client().await.unwrap();
    World { server, client, dir }
}

impl World {
    fn control(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("sqlflowctl"));
        command.args(arguments).env("SQLFLOW_SERVER", &self.server.address);
        command.env("XDG_STATE_HOME", self.dir.path().join("home")).stdin(Stdio::null());
        command
    }

    /// A job that has not ended.
    async fn live_job(&mut self) -> Option<String> {
        let jobs = self.client.api.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner().jobs;
        jobs.into_iter().find(|job| !job.status.as_ref().is_some_and(is_over)).map(|job| job.job_id)
    }

    fn run(&self, sql: &str, mode: &str) -> Output {
        self.control(&["run", "-e", sql, "--output", mode]).output().unwrap()
    }
}

/// The error is in the last line of standard error, once, and in JSON in one final status.
fn expect_once(output: &Output, mode: &str, error: &str, code: i32) {
    let out = String::from_utf8(output.stdout.clone()).unwrap();
    let err = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{mode}: {err}{out}");
    assert_eq!(err.matches(error).count(), 1, "{mode}, {error:?} once: {err}");
    assert!(err.lines().last().unwrap().contains(error), "{mode}, {error:?} at the end: {err}");
    if mode == "json" {
        let lines = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let ends = lines.filter(|it| it["type"] == "status" && it["code"] == "FAILED");
        let ends: Vec<_> = ends.map(|it| it["message"].as_str().unwrap().to_owned()).collect();
        assert!(matches!(&ends[..], [end] if end.contains(error)), "{ends:?}");
    } else {
        assert!(!out.contains(error), "{mode}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_error_of_a_statement_is_printed_once() {
    let world = world().await;
    let made = world.run("CREATE TABLE once (a PRIMARY KEY); INSERT INTO once VALUES (1);", "text");
    assert!(made.status.success(), "{made:?}");
    for (sql, error) in [
        ("SELECT FROM iris", "near \"FROM\": syntax error"),
        ("SELECT 1; SELECT * FROM irs;", "no such table: irs; did you mean iris?"),
        ("DROP TABLE nosuch", "no such table: nosuch"),
        ("DELETE FROM nosuch", "no such table: nosuch"),
        ("INSERT INTO once VALUES (1)", "UNIQUE constraint failed: once.a"),
        ("SELECT * FROM iris TO TRAIN xgboost.gbtree LABEL clas INTO m", "label clas does not exist"),
        ("SELECT class FROM iris TO TRAIN xgboost.gbtree LABEL class INTO m", "no feature column remains"),
        ("SELECT * FROM iris TO PREDICT p.c USING nosuch", "model nosuch does not exist"),
        ("DROP MODEL misspelt", "cannot drop model misspelt"),
    ] {
        for mode in MODES {
            let output = world.run(sql, mode);
            expect_once(&output, mode, error, 1);
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            let is_whole = sql.starts_with("SELECT 1;");
            assert!(is_whole || !(said.contains("done") || said.contains("\"type\":\"end\"")), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_killed_is_reported_once() {
    let mut world = world().await;
    for mode in MODES {
        let insert = format!("CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t {ENDLESS}");
        let run = world.control(&["run", "-e", &insert, "--output", mode]);
        let output = ended_by(&mut world, run, "RECURSIVE", |_, job| kill_agent(job, 0, 1)).await;
        expect_once(&output, mode, "the agent was killed", 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_is_reported_once() {
    let mut world = world().await;
    for mode in MODES {
        let run = world.control(&["run", "-e", ENDLESS, "--output", mode]);
        let output = ended_by(&mut world, run, "RECURSIVE", |world, job| {
            assert!(world.control(&["cancel", job]).output().unwrap().status.success());
        })
        .await;
        expect_once(&output, mode, "cancelled", 4);
    }
}

/// A file where the model's folder would be: publishing is retried for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_training_is_not_done_before_its_model_is_published() {
    let mut world = world().await;
    let models = world.dir.path().join("state/models");
    std::fs::create_dir_all(&models).unwrap();
    std::fs::write(models.join("blocked"), "").unwrap();
    let train =
        "SELECT * FROM iris TO TRAIN xgboost.gbtree WITH train.num_boost_round = 1 LABEL class INTO blocked";
    let run = world.control(&["run", "-e", train]);
    let output = ended_by(&mut world, run, "model blocked: ", |world, job| {
        assert!(world.control(&["cancel", job]).output().unwrap().status.success());
    })
    .await;
    expect_once(&output, "text", "was cancelled", 4);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("done"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_nobody_fetched_is_reported_once() {
    let mut world = world().await;
    for mode in MODES {
        let detach =
            world.control(&["run", "--detach", "--fetch-timeout", "1", "-e", ENDLESS]).output().unwrap();
        let token = String::from_utf8(detach.stdout).unwrap();
        while world.live_job().await.is_some() {
            tokio::time::sleep(POLL).await;
        }
        let output = world.control(&["fetch", token.trim(), "--output", mode]).output().unwrap();
        expect_once(&output, mode, "nobody fetched", 4);
    }
}

/// Starts the command, and ends its job in this way once its log has this text.
async fn ended_by(world: &mut World, mut run: Command, text: &str, end: impl FnOnce(&World, &str)) -> Output {
    let child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let job = loop {
        if let Some(job) = world.live_job().await {
            break job;
        }
        tokio::time::sleep(POLL).await;
    };
    // The command stores its token before it fetches.
    let fetch = ["fetch", &job, "--once", "--from-start", "--output", "json"];
    loop {
        let said = String::from_utf8(world.control(&fetch).output().unwrap().stdout).unwrap();
        if said.contains(text) {
            break;
        }
    }
    end(world, &job);
    child.wait_with_output().unwrap()
}
