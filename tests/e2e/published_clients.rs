//! The clients that are published on PyPI, unchanged, against the real server: each in a Python of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use sqlflow_proto::published::sql_flow_client::SqlFlowClient;
use sqlflow_proto::published::{Request, Session, task_status::Code};
use sqlflow_proto::v1::{Cause, ListJobsRequest};
use sqlflow_tests::access::Tokens;
use sqlflow_tests::published::{CLIENTS, SCRIPT, client, run, shown};
use sqlflow_tests::server::Setup;
use sqlflow_tests::{ENDLESS, python};

fn setup(dir: &Path) -> Setup {
    Setup::new(dir, python::iris(&dir.join("iris.db")).unwrap())
}

/// Several results, one of them empty in the middle, one at the end, and values of every type of SQLite.
const TABLES: &str = "SELECT 1 AS a, 0.5 AS b, 'é' AS c, x'00ff' AS d, NULL AS e UNION ALL SELECT 2, 1e300, '', x'', 3; \
                      SELECT * FROM iris LIMIT 0; CREATE TABLE t (n INTEGER); SELECT 9223372036854775807 AS big; \
                      SELECT * FROM iris LIMIT 0; SELECT 7 AS seven, 8 AS eight; SELECT n FROM t;";

#[tokio::test(flavor = "multi_thread")]
async fn results_of_run_are_shown_by_the_published_clients() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    for name in CLIENTS {
        let (tables, out) =
            shown(&run(name, &server.address, "run", &format!("DROP TABLE IF EXISTS t; {TABLES}")));
        assert_eq!(tables[0][0], json!(["a", "b", "c", "d", "e"]), "{name}");
        assert_eq!(tables[0][1], json!([[1, 0.5, "é", "b'\\x00\\xff'", null], [2, 1e300, "", "b''", 3]]));
        assert_eq!(tables[1], json!([["big"], [[i64::MAX]]]), "{name}: {tables}");
        assert_eq!(tables[2], json!([["seven", "eight"], [[7, 8]]]), "{name}: {tables}");
        assert_eq!(tables[3], json!([["n"], []]), "{name}: the last one is a table, though empty");
        assert!(
            out.contains("the result has no rows; its columns: sepal_length, sepal_width"),
            "{name}: {out}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn job_is_fetched_by_the_published_clients() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let mut own = server.client().await.unwrap();
    let token = own.run(TABLES).await.unwrap();
    own.follow(&token).await.unwrap().expect_success();
    for name in CLIENTS {
        // As often as it likes: another client of the same job reads the same.
        let (tables, out) = shown(&run(name, &server.address, "fetch", &token.token));
        assert_eq!(tables[0][1], json!([[1, 0.5, "é", "b'\\x00\\xff'", null], [2, 1e300, "", "b''", 3]]));
        assert_eq!(tables[1], json!([["big"], [[i64::MAX]]]), "{name}: {tables}");
        assert_eq!(tables[2], json!([["seven", "eight"], [[7, 8]]]), "{name}: {tables}");
        assert_eq!(out.matches("the result has no rows").count(), 3, "{name}: {out}");
    }
}

/// More rows than fit into a message.
#[tokio::test(flavor = "multi_thread")]
async fn long_results_are_split_for_the_published_clients() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let program = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 60000) \
                   SELECT n, n AS twice FROM n; SELECT 1 AS one;";
    let mut own = server.client().await.unwrap();
    let token = own.run(program).await.unwrap();
    for (how, what) in [("run", program), ("fetch", &token.token)] {
        let (tables, _) = shown(&run("sqlflow", &server.address, how, what));
        let rows = tables[0][1].as_array().unwrap();
        assert_eq!((rows.len(), &rows[59_999]), (60_000, &json!([60_000, 60_000])), "{how}");
        assert_eq!(tables[1], json!([["one"], [[1]]]), "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn published_clients_train_and_see_plots_and_output() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let program = "SELECT * FROM iris TO TRAIN xgboost.gbtree \
                     WITH objective = 'multi:softmax', num_class = 3, train.num_boost_round = 3 LABEL class INTO m; \
                   SELECT * FROM iris TO EVALUATE m WITH validation.metrics = 'accuracy_score' LABEL class INTO scores; \
                   SELECT * FROM iris TO EXPLAIN m WITH summary.plot_type = bar; \
                   SELECT count(*) AS scores FROM scores; \
                   SELECT * FROM iris TO EXPLAIN m WITH summary.plot_type = bar;";
    let mut own = server.client().await.unwrap();
    let token = own.run(program).await.unwrap();
    own.follow(&token).await.unwrap().expect_success();
    for (name, how, what) in [("sqlflow", "run", program), ("sqlflowcli", "fetch", token.token.as_str())] {
        let (tables, out) = shown(&run(name, &server.address, how, what));
        let tables = tables.as_array().unwrap();
        assert_eq!(tables.last().unwrap()[0], json!(["scores"]), "{name}: {tables:?}");
        assert!(out.contains("model m published") && out.contains("mlogloss"), "{name}: {out}");
        assert_eq!(out.matches("IPython.core.display.HTML object").count(), 2, "{name}: {out}");
    }
}

/// The clients have no state of a failure: the code and the message tell.
#[tokio::test(flavor = "multi_thread")]
async fn failed_job_is_an_error_of_the_published_clients() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let program = "SELECT 1 AS a; SELECT abs(-9223372036854775807 - 1);";
    let mut own = server.client().await.unwrap();
    let token = own.run(program).await.unwrap();
    for (name, how, what) in [
        ("sqlflow", "run", program),
        ("sqlflowcli", "run", program),
        ("sqlflow", "fetch", token.token.as_str()),
        ("sqlflowcli", "fetch", token.token.as_str()),
    ] {
        let output = run(name, &server.address, how, what);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name}");
        assert!(
            error.contains("FAILED_PRECONDITION") && error.contains("integer overflow"),
            "{name}: {error}"
        );
    }
    let wrong = run("sqlflow", &server.address, "run", "SELECT * FROM iris TO TRAIN;");
    let error = String::from_utf8_lossy(&wrong.stderr);
    assert!(error.contains("INVALID_ARGUMENT"), "{error}");
}

/// Nobody else has the job's token.
#[tokio::test(flavor = "multi_thread")]
async fn published_client_that_is_killed_cancels_its_job() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let mut command = client("sqlflow", &["-c", SCRIPT, &server.address, "run", ENDLESS]);
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut own = server.client().await.unwrap();
    let mut job = async || {
        let jobs = own.api.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner().jobs;
        jobs.into_iter().next().and_then(|job| job.status)
    };
    let cancelled = async {
        while job().await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        running.kill().unwrap();
        running.wait().unwrap();
        while job().await.unwrap().cause() != Cause::Cancelled {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), cancelled).await.expect("the job goes on");
}

/// These clients send their access token in the session only.
#[tokio::test(flavor = "multi_thread")]
async fn published_client_shows_who_it_is_in_its_session() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::at(dir.path(), &["ana"]);
    let setup = setup(dir.path()).flag(tokens.flag()).flag("--datasource-users=token:ana");
    let server = setup.start().unwrap();
    let run = |token: &str| {
        let mut command = client("sqlflow", &["-c", SCRIPT, &server.address, "run", "SELECT 1 AS a;"]);
        command.env("SQLFLOW_USER_TOKEN", token).output().unwrap()
    };
    assert_eq!(shown(&run(tokens.of("ana"))).0, json!([[["a"], [[1]]]]));
    let wrong = run("wrong");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("UNAUTHENTICATED"), "{wrong:?}");
}

/// The design document's client: it has the address of the job's page only.
#[tokio::test(flavor = "multi_thread")]
async fn state_of_a_job_is_told_by_the_address_of_its_page() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let mut own = server.client().await.unwrap();
    let mut published = SqlFlowClient::connect(format!("http://{}", server.address)).await.unwrap();
    let mut state = async |url: &str| {
        let session = Session { job_tracer_url: url.to_owned(), ..Session::default() };
        let request = Request { session: Some(session), ..Request::default() };
        let mut states = published.is_finished(request).await?.into_inner();
        let state = states.message().await?.expect("one state");
        assert_eq!(states.message().await?, None, "one state");
        Ok::<_, tonic::Status>((state.code(), state.message))
    };
    let endless = own.run(ENDLESS).await.unwrap();
    assert_eq!(state(&endless.job_tracer_url).await.unwrap(), (Code::Pending, String::new()));
    own.api.cancel(endless.clone()).await.unwrap();
    own.follow(&endless).await.unwrap();
    let cancelled = "the job was cancelled by its client".to_owned();
    assert_eq!(state(&endless.job_tracer_url).await.unwrap(), (Code::Failed, cancelled));
    let done = own.run("SELECT 1;").await.unwrap();
    own.follow(&done).await.unwrap().expect_success();
    assert_eq!(state(&done.job_tracer_url).await.unwrap(), (Code::Completed, String::new()));
    assert_eq!(state("http://localhost/jobs/x").await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn published_magics_show_tables() {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(dir.path());
    let server = setup.start().unwrap();
    let code = "get_ipython().run_line_magic('load_ext', 'sqlflow.magic'); \
                print(get_ipython().run_cell_magic('sqlflow', '', 'SELECT 4200 + count(*) AS irises FROM iris;'))";
    for name in CLIENTS {
        let mut command = client(name, &["-m", "IPython", "--no-banner", "--colors=NoColor", "-c", code]);
        command.env("SQLFLOW_SERVER", &server.address).env("IPYTHONDIR", dir.path().join(name));
        // The magic of sqlflowcli asks a playground for one otherwise.
        let source = format!("sqlite:///{}", dir.path().join("iris.db").display());
        let output = command.env("SQLFLOW_DATASOURCE", source).output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        let is_shown = out.contains("irises") && out.contains("4350") && !out.contains("Traceback");
        assert!(is_shown, "{name}: {output:?}");
    }
}
