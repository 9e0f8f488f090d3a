//! The pages of jobs: in a real browser, without JavaScript, and without a key.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use sqlflow_proto::v1::{ListJobsRequest, job_status};
use sqlflow_tests::access;
use sqlflow_tests::http::{get, get_as_bearer, get_with, path_of, post};
use sqlflow_tests::server::Setup;
use sqlflow_tests::{python, stand_in};

use crate::MACHINE;

/// Path for a screenshot, for people to check.
fn screenshot(name: &str) -> String {
    let folder: PathBuf = python::repository().join("build/screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name).display().to_string()
}

async fn browser(arguments: &[&str]) -> Value {
    let python =
        std::env::var_os("SQLFLOW_TEST_S3_PYTHON").expect("`make test` names a Python with selenium");
    let mut command = Command::new(python);
    command
        .arg(python::repository().join("tests/observe/browser.py"))
        .args(arguments)
        .stderr(Stdio::inherit());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "the check in the browser failed: see above");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A#7671: also progress bars, and the job's end, without a reload.
#[tokio::test(flavor = "multi_thread")]
async fn page_shows_printed_line_within_a_second() {
    let _machine = MACHINE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let code = "import sys, time
for i in range(60):
    print(f'at {time.time():.6f}', flush=True)
    sys.stderr.write(f'\\r{i * 100 // 60:3d}%|###   | {i}/60 [00:01<00:09, 6.5it/s]')
    sys.stderr.flush()
    time.sleep(0.2)";
    let server = stand_in::setup(dir.path(), code, None).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(stand_in::STEP).await.unwrap();
    let seen = browser(&["live", &token.job_tracer_url, &screenshot("running.png")]).await;
    assert_eq!(
        (seen["running"].as_str(), seen["ended"].as_str()),
        (Some("running"), Some("succeeded")),
        "{seen}"
    );
    assert!(seen["seen"].as_u64() > Some(5) && seen["latest"].as_f64() < Some(1.0), "{seen}");
    assert!(seen["bar"].as_str().is_some_and(|it| it.contains("/60 [00:01<00:09")), "{seen}");
    assert_eq!(seen["keyboard"], true, "{seen}");
}

/// A log that is too large for a browser: 1 GB in `make drill`.
#[tokio::test(flavor = "multi_thread")]
async fn large_log_needs_bounded_memory_in_browser_and_server() {
    let _machine = MACHINE.lock().await;
    let megabytes: u64 = std::env::var("SQLFLOW_DRILL_PAGE_MIB").map_or(48, |it| it.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let code = format!(
        "import sys
line = 'x' * 80
for i in range({megabytes} << 13): sys.stdout.write(f'line {{i:8}} {{line}} and so on to 128 bytes .............\\n')
print('the very end')"
    );
    let server = stand_in::setup(dir.path(), &code, None).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(stand_in::STEP).await.unwrap();
    // Opened while the log is written, and after its end.
    for _ in 0..2 {
        let seen = browser(&["large", &token.job_tracer_url, "the job succeeded"]).await;
        assert!(seen["pieces"].as_u64() <= Some(4000), "{seen}");
        assert!(seen["heap"].as_u64() < Some(64 << 20), "{seen}");
        assert!(seen["marked"].as_u64() > Some(0), "{seen}");
    }
    assert!(server.resident_bytes().unwrap() < 256 << 20, "{} bytes", server.resident_bytes().unwrap());
}

const PROGRAM: &str = "SELECT * FROM iris LIMIT 3; SELECT * FROM iris TO TRAIN xgboost.gbtree
  WITH objective = \"multi:softmax\", num_class = 3, train.num_boost_round = 5 LABEL class INTO a_model;
SELECT abs(-9223372036854775808) FROM iris;";

/// The essentials are in the HTML itself. Without the key nothing is shown, not even whether the job exists.
#[tokio::test(flavor = "multi_thread")]
async fn page_needs_no_javascript_but_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let eve = access::Tokens::at(dir.path(), &["eve"]);
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap())
        .flag(eve.flag())
        .flag("--admin=unix:root")
        .flag("--trace-url=http://jaeger.example.com/trace/{trace}");
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(PROGRAM).await.unwrap();
    client.follow(&token).await.unwrap();
    let path = path_of(&token.job_tracer_url);
    let base = token.job_tracer_url.strip_suffix(path).unwrap();
    assert_eq!(base, format!("http://{}", server.http));

    let page = get(&server.http, path);
    assert_eq!(page.code, 200);
    for words in [
        "failed",
        "integer overflow",
        "exit code 1; memory peak",
        "Step 2 (train)",
        "train-mlogloss",
        "<polyline",
        "3 rows",
        "sepal_length",
        "a_model.tar.gz",
        "round 5/5",
        "SELECT abs(-9223372036854775808)",
        "http://jaeger.example.com/trace/",
    ] {
        assert!(page.body.contains(words), "{words}: {}", page.body);
    }
    assert!(page.headers.contains("content-security-policy: default-src 'none'"), "{}", page.headers);
    let found = get(&server.http, &format!("{}&q=ROUND+3", path.replace('?', "/search?")));
    assert!(found.body.contains("round 3/5") && !found.body.contains("round 4/5"), "{}", found.body);
    let log = get(&server.http, &path.replace('?', "/log?"));
    assert!(log.body.contains("round 5/5") && log.headers.contains("attachment"), "{}", log.headers);

    let (job, key) = path.split_once("?key=").unwrap();
    let other = client.run("SELECT 1;").await.unwrap();
    // Another user, who may use the server.
    let get_as_eve = |path: &str| get_as_bearer(&server.http, path, eve.of("eve"));
    let foreign = get_as_eve(&format!("/jobs/{}?key={key}", other.job_id));
    let missing = get_as_eve(&format!("/jobs/{}?key={key}", "0".repeat(26)));
    assert_eq!(get_as_eve(path).code, 200, "the link is a right to the page");
    assert_eq!((foreign.code, missing.code), (403, 403));
    assert_eq!(foreign.body, missing.body);
    for what in ["", "/log", "/search", "/live"] {
        assert_eq!(get_as_eve(&format!("{job}{what}")).code, 403, "{what}");
    }
    // The token opens the page too, and redirects to the link.
    assert_eq!(post(&server.http, job, "token=sqlflow00").code, 403);
    let entered = post(&server.http, job, &format!("token={}", token.token));
    assert_eq!(entered.code, 303);
    assert!(entered.headers.contains(&format!("{job}?key=")), "{}", entered.headers);

    // The cause is shown once: not again in the timeline, at the statement, or at the end of the log.
    let above = page.body.split("id=\"log-title\"").next().unwrap();
    assert_eq!(above.matches("integer overflow").count(), 1, "{above}");
    assert_eq!(page.body.matches("the job has ended; why is said above").count(), 1, "{}", page.body);
    for failed in [
        "<li class=\"failed\">",
        "<span class=\"badge failed\">failed</span> <code>SELECT",
        "href=\"#statement-3\"",
    ] {
        assert!(above.contains(failed), "{failed}: {above}");
    }

    // The list describes a job without the content that needs its key, and links to it.
    client.follow(&other).await.unwrap();
    let list = get(&server.http, "/jobs?state=failed");
    assert!(list.body.contains(&token.job_id) && !list.body.contains(&other.job_id), "{}", list.body);
    assert!(!list.body.contains(key), "{}", list.body);
    for words in [
        "SELECT * FROM iris LIMIT 3; SELECT * FROM iris TO TRAIN",
        "standard, train, standard",
        "a statement failed, in step 3 (standard): integer overflow",
        "a_model",
    ] {
        assert!(list.body.contains(words), "{words}: {}", list.body);
    }
    let cookie = page.headers.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap();
    let as_eve = |path: &str| {
        let token = eve.of("eve");
        get_with(&server.http, path, &format!("Cookie: {cookie}\r\nAuthorization: Bearer {token}\r\n"))
    };
    let known = as_eve(job);
    assert!(known.code == 307 || known.code == 303, "{known:?}");
    assert!(known.headers.contains(&format!("{job}?key=")), "{}", known.headers);
    let unknown = as_eve(&format!("/jobs/{}", other.job_id));
    assert_eq!((unknown.code, unknown.body), (403, foreign.body));
    let _machine = MACHINE.lock().await;
    let seen = browser(&["listed", &token.job_tracer_url, &token.job_id]).await;
    assert!(seen["title"].as_str().is_some_and(|it| it.starts_with("SELECT * FROM iris LIMIT 3;")), "{seen}");
    browser(&["still", &token.job_tracer_url, &screenshot("failed.png")]).await;
    browser(&["still", &format!("{base}/jobs"), &screenshot("list.png")]).await;
}

const RESULTS: &str = "-- how many of each
SELECT class, count(*) AS n FROM iris GROUP BY class;
SELECT * FROM iris TO TRAIN xgboost.gbtree WITH objective = \"multi:softmax\", num_class = 3, eta = 0.9,
  train.num_boost_round = 300, train.early_stopping_rounds = 2,
  validation.select = \"SELECT * FROM iris WHERE sepal_length > 6\" LABEL class INTO stopped;
SELECT * FROM iris TO EVALUATE stopped WITH validation.metrics = \"accuracy_score\" LABEL class INTO scores;
SELECT * FROM iris TO EXPLAIN stopped;
SELECT sepal_length AS s FROM iris LIMIT 30;
SELECT *, sepal_length * petal_length AS a_product_with_a_long_name FROM iris LIMIT 3;";

/// The results of all statements, not only of the last.
#[tokio::test(flavor = "multi_thread")]
async fn page_shows_the_result_of_each_statement() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(RESULTS).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    ended.expect_success();
    let path = path_of(&token.job_tracer_url);
    let page = get(&server.http, path).body;
    let parts: Vec<_> = page.split("id=\"statement-").collect();
    let [_, select, train, evaluate, explain, last, wide] = parts[..] else {
        panic!("{} parts: {page}", parts.len())
    };
    for (part, words) in [
        (select, &["<code>SELECT class, count(*)", ">n</th>", "50</td>", "3 rows"][..]),
        (
            train,
            &["mlogloss", "line-0", "line-1", " is kept</text>", ">round</text>", "TO TRAIN xgboost.gbtree"],
        ),
        (evaluate, &["accuracy", "TO EVALUATE stopped"]),
        (explain, &["<img src=\"/jobs/"]),
        (last, &["The first 20 rows of 30"]),
        (wide, &["class=\"scrolls\"", "a_product_with_a_long_name</th>"]),
    ] {
        for words in words {
            assert!(part.contains(words), "{words}: {part}");
        }
    }
    assert_eq!(train.matches("<figure>").count(), 1, "train and validation are lines of one chart: {train}");

    let picture =
        explain.split("<img src=\"").nth(1).unwrap().split('"').next().unwrap().replace("&amp;", "&");
    let shown = get(&server.http, &picture);
    assert_eq!(shown.code, 200);
    assert!(
        shown.headers.contains("content-type: image/png") && shown.body.contains("PNG"),
        "{}",
        shown.headers
    );
    let (without_key, _) = picture.split_once('?').unwrap();
    let stranger = get_with(&server.http, without_key, "Authorization: Bearer wrong\r\n");
    assert_eq!(stranger.code, 401);
    let key = path.split_once("?key=").unwrap().1;
    for nothing in [0_u64, 1, 1 << 40, u64::MAX] {
        let answer = get(&server.http, &format!("/jobs/{}/display/{nothing}?key={key}", token.job_id));
        assert_eq!(answer.code, 404, "{nothing}");
    }
    let _machine = MACHINE.lock().await;
    let seen = browser(&["still", &token.job_tracer_url, &screenshot("results.png")]).await;
    assert_eq!(seen["cut"], 1, "the statement with many columns, on a phone: {seen}");
}

/// The last 500 lines of a log that is longer than what the server reads for a page.
#[tokio::test(flavor = "multi_thread")]
async fn page_starts_with_the_last_500_lines() {
    let dir = tempfile::tempdir().unwrap();
    let code = "for i in range(100_000): print('line', i)";
    let server = stand_in::setup(dir.path(), code, None).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(stand_in::STEP).await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    let page = get(&server.http, path_of(&token.job_tracer_url)).body;
    let lines: Vec<_> =
        page.split("<span class=\"out\">").skip(1).map(|it| it.split('\n').next().unwrap()).collect();
    let expected: Vec<_> = (99_501..100_000).map(|it| format!("line {it}")).collect();
    assert_eq!(lines, expected, "and the notice of the end");
    assert!(page.contains("The last 500 lines"), "{page}");
}

/// Neither in the list nor on its page.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_job_is_not_shown_as_failed() {
    let dir = tempfile::tempdir().unwrap();
    let server = stand_in::setup(dir.path(), "import time\ntime.sleep(600)", None).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(stand_in::STEP).await.unwrap();
    client.api.cancel(token.clone()).await.unwrap();
    client.follow(&token).await.unwrap();
    let path = path_of(&token.job_tracer_url);
    let page = get(&server.http, path).body;
    let list = get(&server.http, "/jobs?state=cancelled").body;
    let (_, rows) = list.split_once("<tbody").unwrap();
    assert!(rows.contains(&token.job_id), "{list}");
    assert!(page.contains("Why it was cancelled") && page.contains("cancelled by its client"), "{page}");
    for text in [page.as_str(), rows] {
        assert!(text.contains("<span class=\"badge cancelled\">cancelled</span>"), "{text}");
        assert!(!text.contains("failed"), "{text}");
    }
    assert!(!get(&server.http, "/jobs?state=failed").body.contains(&token.job_id));
    // Clients see FAILED, with the cause.
    let codes = vec![job_status::Code::Failed.into()];
    let asked = ListJobsRequest { codes, ..ListJobsRequest::default() };
    let jobs = client.api.list_jobs(asked).await.unwrap().into_inner().jobs;
    assert_eq!(jobs.iter().map(|it| it.job_id.as_str()).collect::<Vec<_>>(), [token.job_id.as_str()]);

    for (wrong, words) in [("state=bogus", "there are pending, running"), ("before=x", "is no job id")] {
        let answer = get(&server.http, &format!("/jobs?{wrong}"));
        assert!(answer.code == 400 && answer.body.contains(words), "{wrong}: {answer:?}");
    }
}

/// The output of a job is escaped.
#[tokio::test(flavor = "multi_thread")]
async fn job_output_is_escaped_as_html() {
    let dir = tempfile::tempdir().unwrap();
    let code =
        "print('<script>alert(1)</script><img src=x onerror=alert(2)>')\nraise SystemExit('<b>bold</b>')";
    let server = stand_in::setup(dir.path(), code, None).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT '<script>alert(3)</script>' AS a; SHOW MODELS;").await.unwrap();
    client.follow(&token).await.unwrap();
    let page = get(&server.http, path_of(&token.job_tracer_url));
    assert!(page.body.contains("&lt;script&gt;alert(1)") && page.body.contains("&lt;script&gt;alert(3)"));
    assert!(
        !page.body.contains("<script>alert") && !page.body.contains("<img") && !page.body.contains("<b>bold")
    );
}
