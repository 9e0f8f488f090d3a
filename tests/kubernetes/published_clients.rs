//! The published clients, and the design document's client, with jobs in Pods: Run returns the job at once.

use serde_json::json;
use sqlflow_proto::published::sql_flow_client::SqlFlowClient;
use sqlflow_proto::published::{FetchRequest, Request, Session, response, task_status::Code};
use sqlflow_tests::cluster::{HOST, Namespace};
use sqlflow_tests::published::{CLIENTS, kill_once_printed, notebook, run, shown};
use sqlflow_tests::python;
use sqlflow_tests::services::{Hdfs, Mariadb, PASSWORD};

use crate::SQLITE;
use crate::jobs::{LOAD, PREDICT, TRAIN};

const PROGRAM: &str = "SELECT 1 AS a; SELECT 'x' AS b, NULL AS c;";

#[tokio::test(flavor = "multi_thread")]
async fn published_clients_poll_jobs_in_pods() {
    let namespace = Namespace::new("published");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    for name in CLIENTS {
        let (tables, _) = shown(&run(name, &server.address, "run", PROGRAM));
        assert_eq!(tables, json!([[["a"], [[1]]], [["b", "c"], [["x", null]]]]), "{name}");
        let failed = run(name, &server.address, "run", "SELECT abs(-9223372036854775807 - 1);");
        let error = String::from_utf8_lossy(&failed.stderr);
        assert!(
            error.contains("FAILED_PRECONDITION") && error.contains("integer overflow"),
            "{name}: {error}"
        );
    }
}

/// They poll again from the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn job_in_a_pod_outlives_restarts_of_the_published_clients() {
    let namespace = Namespace::new("restarted");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    // Some seconds: the clients are killed meanwhile.
    let program = "SELECT 1 AS a WHERE 0; SELECT 2 AS b; \
                   WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000000) \
                   SELECT max(i) AS last FROM n;";
    let mut own = server.client().await.unwrap();
    let token = own.run(program).await.unwrap();
    for name in ["sqlflow", "sqlflowcli", "sqlflow"] {
        kill_once_printed(name, &server.address, "fetch", &token.token, "the result has no rows");
    }
    for name in CLIENTS {
        let (tables, out) = shown(&run(name, &server.address, "fetch", &token.token));
        assert_eq!(tables, json!([[["b"], [[2]]], [["last"], [[20_000_000]]]]), "{name}");
        assert_eq!(out.matches("the result has no rows").count(), 1, "{name}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn published_magics_run_jobs_in_pods() {
    let namespace = Namespace::new("magics");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let cells = [
        "%load_ext sqlflow.magic",
        "%%sqlflow\nSELECT 4200 AS number; SELECT 'second' AS word;",
        "%%sqlflow\nSELECT * FROM no_such_table;",
    ];
    for name in CLIENTS {
        let shown = notebook(name, namespace.dir(), &server.address, SQLITE, &cells);
        let states: Vec<_> = shown.iter().map(|it| it["status"].as_str().unwrap()).collect();
        assert_eq!(states, ["ok", "ok", "error"], "{name}: {shown:?}");
        let html = shown[1]["html"].as_str().unwrap();
        assert!(html.contains("<td>4200</td>") && html.contains("<td>second</td>"), "{name}: {html}");
        let error = shown[2]["text"].as_str().unwrap();
        assert!(
            error.contains("FAILED_PRECONDITION") && error.contains("no such table: no_such_table"),
            "{name}: {error}"
        );
    }
}

/// Every statement kind, with the model in an HDFS: its output and its plots come by Fetch.
#[tokio::test(flavor = "multi_thread")]
async fn published_clients_train_in_pods() {
    let namespace = Namespace::new("published-train");
    let hdfs = Hdfs::start_on(HOST);
    let database = Mariadb::start_on(HOST);
    python::run(LOAD, &[HOST, &database.port.to_string(), PASSWORD]).unwrap();
    let template = "spec: {containers: [{name: submitter, env: [{name: HADOOP_USER_NAME, value: root}]}]}";
    let models = format!("--models=hdfs://{HOST}:{}/sqlflow/models", hdfs.port);
    let server = namespace.setup(&database.dsn, template).flag(models).start().unwrap();
    let program = format!(
        "{TRAIN} SELECT * FROM iris TO EVALUATE flowers.m WITH validation.metrics = 'accuracy_score' LABEL class; \
         SELECT * FROM iris TO EXPLAIN flowers.m WITH summary.plot_type = bar; {PREDICT} \
         SHOW TRAIN flowers.m; DROP MODEL flowers.m; SELECT 18446744073709551615 AS n, 1.50 AS d;"
    );
    for name in CLIENTS {
        let (tables, out) = shown(&run(name, &server.address, "run", &program));
        let all = tables.to_string();
        assert!(all.contains("accuracy") && all.contains("TO TRAIN xgboost.gbtree"), "{name}: {all}");
        let last = tables.as_array().unwrap().last().unwrap();
        assert_eq!(last, &json!([["n", "d"], [[u64::MAX, "1.50"]]]), "{name}");
        for part in ["model flowers.m published", "predicted 150 row(s)", "model flowers.m dropped"] {
            assert!(out.contains(part), "{name}: {part} is not in {out}");
        }
        assert_eq!(out.matches("IPython.core.display.HTML object").count(), 1, "{name}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn job_in_a_pod_is_followed_by_the_address_of_its_page() {
    let namespace = Namespace::new("finished");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = SqlFlowClient::connect(format!("http://{}", server.address)).await.unwrap();
    let request = Request { sql: PROGRAM.to_owned(), ..Request::default() };
    let mut responses = client.run(request).await.unwrap().into_inner();
    let Some(response::Response::Job(job)) = responses.message().await.unwrap().unwrap().response else {
        panic!("the first response is not the job")
    };
    assert_eq!(responses.message().await.unwrap(), None, "nothing follows the job");
    let session = Session { job_tracer_url: job.job_tracer_url.clone(), ..Session::default() };
    let request = Request { session: Some(session), ..Request::default() };
    let mut is_over = async || loop {
        let mut states = client.is_finished(request.clone()).await.unwrap().into_inner();
        match states.message().await.unwrap().unwrap().code() {
            Code::Pending => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            over => break over,
        }
    };
    let over = tokio::time::timeout(std::time::Duration::from_secs(90), is_over()).await;
    assert_eq!(over.expect("the job does not end"), Code::Completed);

    // Another client reads it from its beginning.
    let mut client = SqlFlowClient::connect(format!("http://{}", server.address)).await.unwrap();
    let (mut since, mut ends, mut rows) = (FetchRequest { job: Some(job), ..FetchRequest::default() }, 0, 0);
    loop {
        let page = client.fetch(since).await.unwrap().into_inner();
        for response in page.responses.unwrap().response {
            match response.response {
                Some(response::Response::Row(_)) => rows += 1,
                Some(response::Response::Eoe(_)) => ends += 1,
                _ => {}
            }
        }
        since = page.updated_fetch_since.unwrap();
        if page.eof {
            break;
        }
    }
    assert_eq!((rows, ends), (2, 2));
}
