//! Probes and metrics, as Kubernetes and Prometheus ask for them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::ENDLESS;
use sqlflow_tests::http::{get, get_as};
use sqlflow_tests::python;
use sqlflow_tests::server::{Server, Setup, copy_program, program};
use sqlflow_tests::until::until;

fn promtool(arguments: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(python::repository().join("manifests/monitoring"));
    let mut promtool =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}\n{input}");
}

/// Names of the metrics, without the suffixes of histograms.
fn names(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|it| it.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned)).collect()
}

/// Names of the metrics in queries.
fn asked(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metric = |it: &&str| it.starts_with("sqlflow_");
    words.filter(metric).map(|it| it.trim_end_matches("_bucket").to_owned()).collect()
}

/// Asserts the standard names of Prometheus' client libraries, with plausible values.
fn expect_process_metrics(text: &str, server: &Server) {
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is missing: {text}")).parse().unwrap()
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(value("process_cpu_seconds_total") > 0.0);
    assert!((8.0..4096.0).contains(&value("process_open_fds")));
    assert!(value("process_open_fds") < value("process_max_fds"));
    let resident = server.resident_bytes().unwrap() as f64;
    assert!((resident / 2.0..resident * 2.0).contains(&value("process_resident_memory_bytes")));
    assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
    assert!((now - 3600.0..now + 2.0).contains(&value("process_start_time_seconds")));
    assert!(value("process_threads") > 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_jobs_and_follow_prometheus_naming_rules() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    for program in ["SELECT * FROM iris;", "SELECT nothing FROM iris;"] {
        let token = client.run(program).await.unwrap();
        client.follow(&token).await.unwrap();
    }
    client.run("SELECT * TO TRAIN;").await.unwrap_err();
    let cancelled = client.run(ENDLESS).await.unwrap();
    client.until(&cancelled, |it| matches!(it, Payload::Started(_))).await.unwrap();
    client.api.cancel(cancelled.clone()).await.unwrap();
    client.follow(&cancelled).await.unwrap();
    let metrics = get(&server.http, "/metrics");
    promtool(&["check", "metrics"], &metrics.body);
    for line in [
        "sqlflow_jobs{state=\"succeeded\"} 1",
        "sqlflow_jobs{state=\"failed\"} 1",
        "sqlflow_jobs{state=\"cancelled\"} 1",
        "sqlflow_jobs_ended_total{state=\"failed\"} 1",
        "sqlflow_jobs_ended_total{state=\"cancelled\"} 1",
        "sqlflow_jobs_taken_total 3",
        "sqlflow_attempts_ended_total{reason=\"exited\"} 1",
        "sqlflow_attempt_phase_duration_seconds_count{phase=\"run\"} 3",
        "sqlflow_rpc_duration_seconds_count{code=\"invalid_argument\",method=\"Run\"} 1",
        "sqlflow_store_operation_duration_seconds_count{operation=\"create\"} 3",
        "sqlflow_agents_attached",
        "sqlflow_agent_spool_bytes",
        "sqlflow_reconcile_lag_seconds_count 3",
    ] {
        let labels = |text: &str| {
            // The order of labels does not matter.
            let (name, rest) = text.split_once('{').unwrap_or((text, ""));
            let (labels, value) = rest.split_once('}').unwrap_or(("", rest));
            let mut labels: Vec<_> = labels.split(',').map(str::to_owned).collect();
            labels.sort();
            (name.to_owned(), labels, value.to_owned())
        };
        let is_there = metrics.body.lines().any(|it| it.starts_with(line) || labels(it) == labels(line));
        assert!(is_there, "{line}: {}", metrics.body);
    }
    assert!(
        metrics
            .body
            .lines()
            .any(|it| it.starts_with("sqlflow_log_appended_bytes_total ") && !it.ends_with(" 0"))
    );
    let newer = get_as(&server.http, "/metrics", "application/openmetrics-text");
    assert!(newer.headers.contains("openmetrics") && newer.body.ends_with("# EOF\n"), "{}", newer.headers);
    // No label has a value that a user chooses, so the number of series is bounded.
    let series = metrics.body.lines().filter(|it| !it.starts_with('#')).count();
    assert!(series < 2000, "{series} series");

    expect_process_metrics(&metrics.body, &server);

    // The metrics of the dashboard and the alerts exist.
    let monitoring = python::repository().join("manifests/monitoring");
    let known: BTreeSet<_> = names(&metrics.body);
    for file in ["dashboard.json", "alerts.yaml"] {
        let text = std::fs::read_to_string(monitoring.join(file)).unwrap();
        let unknown: Vec<_> = asked(&text).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}; there are {known:?}");
    }
    promtool(&["check", "rules", "alerts.yaml"], "");
    promtool(&["test", "rules", "alerts_test.yaml"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_and_metrics_report_broken_agent_and_log() {
    let dir = tempfile::tempdir().unwrap();
    let agent = dir.path().join("agent");
    copy_program(&program("sqlflow-agent"), &agent);
    copy_program(&program("sqlflow-data"), &dir.path().join("sqlflow-data"));
    let setup = Setup::new(dir.path(), "sqlite:///tmp/none.db").flag(format!("--agent={}", agent.display()));
    let server = setup.start().unwrap();
    assert_eq!(get(&server.http, "/healthz").code, 200);
    let ready = get(&server.http, "/readyz");
    assert_eq!((ready.code, ready.body.as_str()), (200, "store: ok\nlog: ok\nnew jobs: ok\nlauncher: ok\n"));
    assert!(get(&server.http, "/metrics").body.contains("\nsqlflow_launcher_ready 1\n"));
    // Results can still be fetched, so the server is ready.
    std::fs::remove_file(&agent).unwrap();
    // The launcher's answer is used again for some seconds.
    until("the agent is missed", || !get(&server.http, "/readyz").body.contains("launcher: ok"));
    let powerless = get(&server.http, "/readyz");
    assert_eq!(powerless.code, 200);
    assert!(
        powerless.body.starts_with("store: ok\nlog: ok\nnew jobs: ok\nlauncher: the agent"),
        "{}",
        powerless.body
    );
    assert!(get(&server.http, "/metrics").body.contains("\nsqlflow_launcher_ready 0\n"));
    std::fs::remove_dir_all(setup.state_dir.join("log")).unwrap();
    let unready = get(&server.http, "/readyz");
    assert_eq!(unready.code, 503);
    assert!(unready.body.starts_with("store: ok\nlog: cannot list"), "{}", unready.body);
    assert_eq!(get(&server.http, "/healthz").code, 200, "it is alive");
}
