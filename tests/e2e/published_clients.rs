//! The clients that are published on PyPI, unchanged, against the real server: each in a Python of its own.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::json;
use sqlflow_proto::published::sql_flow_client::SqlFlowClient;
use sqlflow_proto::published::{FetchRequest, Job, Request, Session, response, task_status::Code};
use sqlflow_proto::v1::{Cause, ListJobsRequest};
use sqlflow_tests::access::Tokens;
use sqlflow_tests::published::{CLIENTS, SCRIPT, client, kill_once_printed, notebook, run, shown, ways};
use sqlflow_tests::server::Setup;
use sqlflow_tests::services::{Mariadb, Postgresql};
use sqlflow_tests::{ENDLESS, python, sqlite_lock};

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

/// Wrappers, timestamps and NULL; what these clients have no type for is a text. Their timestamps have no zone.
#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_are_shown_by_the_published_clients() {
    let (mariadb, postgresql) = (Mariadb::start_on("127.0.0.1"), Postgresql::start());
    let of_mariadb = "SELECT 18446744073709551615 AS a, CAST(-1.50 AS DECIMAL(5,2)) AS b, \
        CAST('2024-02-29' AS DATE) AS c, CAST('2024-02-29 01:02:03.000004' AS DATETIME(6)) AS d, \
        CAST('01:02:03' AS TIME) AS e, X'00ff' AS f, 'é😀' AS g, 1.5e0 AS h, NULL AS i;";
    let of_postgresql = "SELECT true AS a, -1.50::numeric AS b, '2024-02-29'::date AS c, \
        '2024-02-29 01:02:03.000004'::timestamp AS d, '2024-02-29 03:02:03+02'::timestamptz AS e, \
        '\\x00ff'::bytea AS f, '{\"a\": [1]}'::jsonb AS g, 1.5::float8 AS h, NULL::int AS i;";
    let (midnight, micros) = ("2024-02-29 00:00:00", "2024-02-29 01:02:03.000004");
    let bytes = "b'\\x00\\xff'";
    for (dsn, program, row) in [
        (
            &mariadb.dsn,
            of_mariadb,
            json!([u64::MAX, "-1.50", midnight, micros, "01:02:03", bytes, "é😀", 1.5, null]),
        ),
        (
            &postgresql.dsn,
            of_postgresql,
            json!([true, "-1.50", midnight, micros, "2024-02-29 01:02:03", bytes, "{\"a\": [1]}", 1.5, null]),
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = Setup::new(dir.path(), dsn.clone()).start().unwrap();
        let mut own = server.client().await.unwrap();
        let token = own.run(program).await.unwrap();
        own.follow(&token).await.unwrap().expect_success();
        for (name, how, what) in ways(program, &token.token) {
            let (tables, _) = shown(&run(name, &server.address, how, what));
            assert_eq!(tables[0][1], json!([row]), "{name} {how}");
        }
    }
}

const TRAIN: &str = "SELECT * FROM iris TO TRAIN xgboost.gbtree \
    WITH objective = 'multi:softmax', num_class = 3, train.num_boost_round = 3 LABEL class INTO m;";

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_every_kind_are_run_by_the_published_clients() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let program = format!(
        "CREATE TABLE IF NOT EXISTS kinds (n INTEGER); INSERT INTO kinds VALUES (1), (2); {TRAIN} \
         SELECT * FROM iris TO PREDICT predicted.class USING m; SELECT count(*) AS predicted FROM predicted; \
         SELECT * FROM iris TO EVALUATE m WITH validation.metrics = 'accuracy_score' LABEL class; \
         SELECT * FROM iris TO EXPLAIN m INTO explained; SHOW MODELS; DESCRIBE MODEL m; SHOW TRAIN m; \
         UPDATE kinds SET n = 3 WHERE n = 1; DELETE FROM kinds WHERE n = 3; DROP MODEL m; DROP TABLE explained; \
         SELECT count(*) AS models FROM kinds WHERE n = 3;"
    );
    let mut own = server.client().await.unwrap();
    let token = own.run(program.as_str()).await.unwrap();
    own.follow(&token).await.unwrap().expect_success();
    for (name, how, what) in ways(&program, &token.token) {
        let (tables, out) = shown(&run(name, &server.address, how, what));
        let tables = tables.as_array().unwrap();
        assert!(tables.contains(&json!([["predicted"], [[150]]])), "{name} {how}: {tables:?}");
        assert_eq!(tables.last().unwrap(), &json!([["models"], [[0]]]), "{name} {how}");
        let all = json!(tables).to_string();
        for part in ["accuracy", "xgboost.gbtree", "TO TRAIN"] {
            assert!(all.contains(part), "{name} {how}: {part} is not in {all}");
        }
        for part in ["model m published", "predicted 150 row(s)", "model m dropped"] {
            assert!(out.contains(part), "{name} {how}: {part} is not in {out}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn published_clients_train_and_see_plots_and_output() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let program = format!(
        "{TRAIN} \
         SELECT * FROM iris TO EVALUATE m WITH validation.metrics = 'accuracy_score' LABEL class INTO scores; \
         SELECT * FROM iris TO EXPLAIN m WITH summary.plot_type = bar; \
         SELECT count(*) AS scores FROM scores; \
         SELECT * FROM iris TO EXPLAIN m WITH summary.plot_type = bar;"
    );
    let mut own = server.client().await.unwrap();
    let token = own.run(program.as_str()).await.unwrap();
    own.follow(&token).await.unwrap().expect_success();
    for (name, how, what) in ways(&program, &token.token) {
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
    for (name, how, what) in ways(program, &token.token) {
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

/// The output of a training comes before its error.
#[tokio::test(flavor = "multi_thread")]
async fn output_of_a_failed_training_is_shown_before_its_error() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let program = format!("{TRAIN} {}", TRAIN.replace("num_class = 3", "num_class = 2"));
    let mut own = server.client().await.unwrap();
    let token = own.run(program.as_str()).await.unwrap();
    own.follow(&token).await.unwrap();
    for (name, how, what) in ways(&program, &token.token) {
        let Output { status, stdout, stderr } = run(name, &server.address, how, what);
        let [out, error] = [&stdout, &stderr].map(|it| String::from_utf8_lossy(it));
        assert!(!status.success() && out.contains("model m published"), "{name} {how}: {out}");
        assert!(
            error.contains("FAILED_PRECONDITION") && error.contains("but label class has 3 classes"),
            "{name} {how}: {error}"
        );
    }
}

/// Killed in the middle and started again, they read the job from its beginning.
#[tokio::test(flavor = "multi_thread")]
async fn job_outlives_restarts_of_the_published_clients() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    // The job waits for it.
    let mut writer = sqlite_lock::hold(&dir.path().join("iris.db")).await.unwrap();
    let program = "SELECT * FROM iris LIMIT 0; SELECT 1 AS first; PRAGMA busy_timeout = 600000; \
                   INSERT INTO iris (class) VALUES (7); SELECT 2 AS second;";
    let mut own = server.client().await.unwrap();
    let token = own.run(program).await.unwrap();
    for name in ["sqlflow", "sqlflowcli", "sqlflow"] {
        kill_once_printed(name, &server.address, "fetch", &token.token, "the result has no rows");
    }
    writer.kill().await.unwrap();
    for name in CLIENTS {
        let (tables, out) = shown(&run(name, &server.address, "fetch", &token.token));
        let tables = tables.as_array().unwrap();
        assert_eq!(tables.first().unwrap(), &json!([["first"], [[1]]]), "{name}");
        assert_eq!(tables.last().unwrap(), &json!([["second"], [[2]]]), "{name}");
        assert_eq!(out.matches("the result has no rows").count(), 1, "{name}: {out}");
    }
}

/// The Go command line crashes without `responses`, and all of them leave out what follows the end of a result set.
#[tokio::test(flavor = "multi_thread")]
async fn each_page_has_its_responses_and_at_most_one_end_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let mut own = server.client().await.unwrap();
    let token = own.run(TABLES).await.unwrap();
    let mut published = SqlFlowClient::connect(format!("http://{}", server.address)).await.unwrap();
    let job = Job { id: token.token.clone(), ..Job::default() };
    let (mut since, mut ends) = (FetchRequest { job: Some(job), ..FetchRequest::default() }, 0);
    loop {
        let page = published.fetch(since.clone()).await.unwrap().into_inner();
        let responses = page.responses.expect("it is always set").response;
        let is_end = |it: &Option<response::Response>| matches!(it, Some(response::Response::Eoe(_)));
        let of_page = responses.iter().filter(|it| is_end(&it.response)).count();
        assert!(of_page <= 1, "{responses:?}");
        assert!(of_page == 0 || is_end(&responses.last().unwrap().response), "{responses:?}");
        ends += of_page;
        since = page.updated_fetch_since.expect("it is always set");
        if page.eof {
            break;
        }
    }
    assert_eq!(ends, 3, "one for each result set with rows");
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

/// As a notebook executes them.
#[tokio::test(flavor = "multi_thread")]
async fn published_magics_run_in_an_ipython_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    // The magic of sqlflowcli asks a playground for one otherwise.
    let source = format!("sqlite:///{}", dir.path().join("iris.db").display());
    let train = format!("%%sqlflow\n{TRAIN}\nSELECT * FROM iris TO EXPLAIN m WITH summary.plot_type = bar;");
    let cells = [
        "%load_ext sqlflow.magic",
        "%%sqlflow\nSELECT 4200 + count(*) AS irises FROM iris; SELECT 'second' AS word;",
        &train,
        "%%sqlflow\nSELECT * FROM no_such_table;",
        "%%sqlflow\nSELECT 'after the error' AS word;",
    ];
    for name in CLIENTS {
        let shown = notebook(name, dir.path(), &server.address, &source, &cells);
        let states: Vec<_> = shown.iter().map(|it| it["status"].as_str().unwrap()).collect();
        assert_eq!(states, ["ok", "ok", "ok", "error", "ok"], "{name}: {shown:?}");
        let has = |cell: usize, kind: &str, part: &str| {
            assert!(shown[cell][kind].as_str().unwrap().contains(part), "{name}: {part}: {}", shown[cell]);
        };
        has(1, "html", "<td>4350</td>");
        has(1, "html", "<td>second</td>");
        has(2, "text", "model m published");
        has(2, "html", "<img src=\"data:image/png;base64,");
        has(3, "text", "FAILED_PRECONDITION");
        has(3, "text", "no such table: no_such_table");
        has(4, "html", "<td>after the error</td>");
    }
}
