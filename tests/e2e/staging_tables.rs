//! Staging tables in the user's database: none is left after the job's end.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Cause, GetJobRequest, Token, get_job_request::By};
use sqlflow_tests::client::Client;
use sqlflow_tests::python;
use sqlflow_tests::server::{Server, Setup};

/// Enough rows to end the job during the statement.
const PREDICT: &str = "SELECT a.* FROM iris AS a, iris AS b, iris AS c TO PREDICT predicted.class USING m;";
const TRAIN: &str = "SELECT * FROM iris TO TRAIN xgboost.gbtree
WITH objective = \"multi:softmax\", num_class = 3, train.num_boost_round = 2 LABEL class INTO m;";

struct World {
    _server: Server,
    client: Client,
    dir: tempfile::TempDir,
}

/// Creates a result table of one row.
const OLD: &str = "SELECT * FROM iris LIMIT 1 TO PREDICT predicted.class USING m;";

impl World {
    /// A server with the model `m` and a table `predicted` of one row.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
        let server = Setup::new(dir.path(), datasource).flag("--grace=2s").start().unwrap();
        let mut client = server.client().await.unwrap();
        let program = format!("{TRAIN} {OLD}");
        let token = client.run(program).await.unwrap();
        client.follow(&token).await.unwrap().expect_success();
        Self { _server: server, client, dir }
    }

    /// Runs PREDICT until its staging table exists.
    async fn predict(&mut self) -> Token {
        let token = self.client.run(PREDICT).await.unwrap();
        let cursor = self.client.until(&token, |it| matches!(it, Payload::Progress(_))).await.unwrap();
        assert_eq!(self.tables(), ["iris", "predicted", &staging_name(&token, 1)]);
        cursor
    }

    fn tables(&self) -> Vec<String> {
        let code = "import sqlite3, sys
for (name,) in sqlite3.connect(sys.argv[1]).execute('SELECT name FROM sqlite_master ORDER BY name'): print(name)";
        let tables = python::run(code, &[self.dir.path().join("iris.db").to_str().unwrap()]).unwrap();
        tables.lines().map(str::to_owned).collect()
    }

    /// Whether each attempt after the first cleans up.
    async fn clean_ups(&mut self, token: &Token) -> Vec<bool> {
        let by = GetJobRequest { by: Some(By::JobId(token.job_id.clone())) };
        let job = self.client.api.get_job(by).await.unwrap().into_inner();
        job.steps[0].attempts.iter().skip(1).map(|attempt| attempt.cleans_up).collect()
    }

    /// `clean_ups`: whether each attempt after the first cleans up.
    async fn expect_nothing_left(&mut self, token: &Token, cause: Cause, clean_ups: &[bool]) {
        let ended = self.client.follow(token).await.unwrap();
        assert_eq!(ended.status.cause(), cause, "{:?}", ended.status);
        assert_eq!(self.clean_ups(token).await, clean_ups);
        assert_eq!(self.tables(), ["iris", "predicted"]);
    }
}

fn staging_name(token: &Token, attempt: usize) -> String {
    format!("predicted__{}_0_{attempt}", token.job_id)
}

/// A program of an attempt: it has the attempt's environment variable, like the programs that it starts.
fn program_of(job_id: &str, attempt: usize, name: &str) -> Option<Pid> {
    let mark = format!("SQLFLOW_ATTEMPT={job_id}/0/{attempt}");
    let has_mark = |process: &Path| {
        let environ = std::fs::read(process.join("environ")).unwrap_or_default();
        let command = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default().replace('\0', " ");
        command.contains(name) && environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let marked = processes.map(|it| it.path()).find(|process| has_mark(process))?;
    Some(Pid::from_raw(marked.file_name().unwrap().to_str().unwrap().parse().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_predict_leaves_no_staging_table() {
    let mut world = World::new().await;
    let token = world.predict().await;
    world.client.api.cancel(token.clone()).await.unwrap();
    world.expect_nothing_left(&token, Cause::Cancelled, &[true]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn predict_with_killed_programs_leaves_no_staging_table() {
    let mut world = World::new().await;
    let token = world.predict().await;
    // All attempts of the step. Each one drops the table of the previous one.
    let killed: [(usize, &[&str]); 3] =
        [(1, &["main.py"]), (2, &["sqlflow-data step.json"]), (3, &["sqlflow-data step.json", "main.py"])];
    for (attempt, programs) in killed {
        let staging = staging_name(&token, attempt);
        let begun = Instant::now();
        while !world.tables().contains(&staging) {
            assert!(begun.elapsed() < Duration::from_secs(60), "attempt {attempt} writes nothing");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(world.tables(), ["iris", "predicted", &staging]);
        let found = programs.iter().map(|name| program_of(&token.job_id, attempt, name).expect("it runs"));
        for program in found.collect::<Vec<_>>() {
            kill(program, Signal::SIGKILL).unwrap();
        }
    }
    world.expect_nothing_left(&token, Cause::Killed, &[false, false, true]).await;
}
