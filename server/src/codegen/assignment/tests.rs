//! Assignments from steps, without a server.

use sqlflow_job::{Event, LauncherId, LauncherKind};
use sqlflow_job_store::{NewJob, ServerId, SqliteStore};
use sqlflow_sql::{Dialect, compile};

use super::*;
use crate::codegen::step_specs;
use crate::fixture;

const TRAIN: &str = "SELECT * FROM t TO TRAIN xgboost.gbtree LABEL y INTO m;";

fn spec(sql: &str) -> StepSpec {
    step_specs(&compile(sql, Dialect::Sqlite).unwrap(), "").remove(0)
}

/// The secrets with the digest of the assignment's step document.
fn with_digest(assigned: &Assignment, secrets: &HashMap<String, String>) -> HashMap<String, String> {
    let document = assigned.files.iter().find(|it| it.path == STEP_DOCUMENT).unwrap();
    let digest = (STEP_DIGEST.to_owned(), step_digest(&document.content));
    secrets.clone().into_iter().chain([digest]).collect()
}

#[test]
fn remedy_names_the_image_of_the_attempt() {
    let option = |sql: &str, role| {
        let remedy = remedy(&spec(sql), role)?;
        Some(remedy.split_once("the image of ")?.1.split([' ', ',']).next()?.to_owned())
    };
    assert_eq!(option("SELECT 1;", Role::Run).as_deref(), Some("--pod-sql-image"));
    assert_eq!(option(TRAIN, Role::Run).as_deref(), Some("--pod-image"));
    assert_eq!(option(TRAIN, Role::Cleanup).as_deref(), Some("--pod-sql-image"), "it runs no Python");
    assert_eq!(option("SHOW MODELS;", Role::Run), None);
}

#[test]
fn program_is_the_same_for_every_step() {
    let options = Assigner::idle_options();
    let main = |step, spec| {
        let attempt = AttemptId { job: sqlflow_job::JobId::generate(), step, number: 1 };
        let assigned = assign(&options, &attempt, spec, None, HashMap::new());
        let file = assigned.files.into_iter().find(|it| it.path == "main.py").unwrap();
        String::from_utf8(file.content.to_vec()).unwrap()
    };
    let program = main(0, spec(TRAIN));
    assert!(program.ends_with("\nrun_step(\"step.json\")\n"), "{program}");
    assert_eq!(main(3, spec("SHOW MODELS;")), program);
    let title = "\"\"\"\nimport os\n\"\"\"".to_owned();
    assert_eq!(main(0, StepSpec { title, ..spec(TRAIN) }), program, "the title is no source code");
}

#[test]
fn data_process_of_duckdb_is_python() {
    let options = Assigner::idle_options();
    let attempt = AttemptId { job: sqlflow_job::JobId::generate(), step: 0, number: 1 };
    let secrets = HashMap::from([(DATA_SOURCE.to_owned(), "duckdb://".to_owned())]);
    let spec = |sql| StepSpec { python_data: true, ..spec(sql) };
    let data_process = ["python", "-P", "-m", "sqlflow_submitter.duckdb_data", "step.json"];
    let plain = assign(&options, &attempt, spec("SELECT 1;"), None, secrets.clone());
    assert_eq!(plain.secrets, with_digest(&plain, &secrets));
    assert_eq!(plain.command, data_process);
    let train = assign(&options, &attempt, spec(TRAIN), None, secrets.clone());
    assert_eq!(train.command, ["python", "main.py"]);
    assert_eq!(train.companions[0].command, data_process);
    assert_eq!(train.companions[0].secrets, with_digest(&train, &secrets));
    assert!(train.secrets.is_empty());
    let cleanup = Cleanup { granted_attempt: None };
    assert_eq!(assign(&options, &attempt, spec(TRAIN), Some(cleanup), secrets).command, data_process);
    assert!(spec("SELECT 1;").is_plain_sql() && !spec("SELECT 1;").needs_no_python());
    assert_eq!(remedy(&spec("SELECT 1;"), Role::Run), None);
}

/// The denied paths of an attempt; `None`: it is not confined.
async fn denied(sql: &str, launcher: LauncherKind, role: Role) -> Option<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("state.db")).await.unwrap();
    let mut job = fixture::job(true);
    let new = NewJob {
        step_specs: vec![serde_json::to_string(&spec(sql)).unwrap()],
        secrets: vec![(DATA_SOURCE.to_owned(), Secret::new("sqlite:////data/own.db".to_owned()))],
        ..fixture::new_job(job.clone(), &ServerId("s".to_owned()))
    };
    store.create(new).await.unwrap();
    let launcher_id = LauncherId::of(launcher);
    job.apply(Event::AttemptCreated { step: 0, role, launcher_id: launcher_id.clone() }, 0).unwrap();
    let attempt = AttemptId { job: job.id.clone(), step: 0, number: 1 };
    let mut assigner = Assigner::idle(Arc::new(store));
    assigner.options.confinement = Some(ConfinementOptions { denied: vec!["/state".into()], required: true });
    let confinement = assigner.assignment(&job, &attempt).await.unwrap().confinement?;
    assert!(confinement.required);
    assert_eq!(confinement.agent_files, launcher_id.kind == LauncherKind::Kubernetes);
    Some(confinement.denied_paths.iter().map(|it| String::from_utf8_lossy(it).into_owned()).collect())
}

#[test]
fn data_process_learns_what_the_data_source_may_reach() {
    let reach = Reach { is_clients: true, state_folder: Some("/state".into()), ..Reach::default() };
    let secrets = secrets(&Secret::new("sqlite:////a.db"), &reach).unwrap();
    assert_eq!(secrets[DATA_SOURCE], "sqlite:////a.db");
    assert_eq!(serde_json::from_str::<Reach>(&secrets[Reach::SECRET]).unwrap(), reach);
    let attempt = AttemptId { job: sqlflow_job::JobId::generate(), step: 0, number: 1 };
    let options = Assigner::idle_options();
    for (sql, of_python) in [("SELECT 1;", false), (TRAIN, true), ("SHOW MODELS;", true)] {
        let assigned = assign(&options, &attempt, spec(sql), None, secrets.clone());
        let text = format!("{:?}", assigned.files);
        assert!(!text.contains("/state") && !text.contains("a.db"), "user code reads them");
        assert_eq!(assigned.secrets.is_empty(), of_python, "{sql}");
        let expected = with_digest(&assigned, &secrets);
        assert!(assigned.companions.iter().all(|it| it.secrets == expected), "{sql}");
    }
}

#[tokio::test]
async fn python_of_this_machine_is_confined() {
    let paths = Some(vec!["/state".to_owned(), "/data/own.db".to_owned()]);
    assert_eq!(denied(TRAIN, LauncherKind::Local, Role::Run).await, paths);
    assert_eq!(denied("SHOW MODELS;", LauncherKind::Local, Role::Run).await, paths);
    assert_eq!(denied(TRAIN, LauncherKind::Local, Role::Cleanup).await, None, "it is the data process");
    assert_eq!(denied("SELECT 1;", LauncherKind::Local, Role::Run).await, None);
}

#[tokio::test]
async fn python_in_a_pod_is_kept_from_the_agents_files() {
    let pod = LauncherKind::Kubernetes;
    let nothing_of_the_server = Some(Vec::new());
    assert_eq!(denied(TRAIN, pod.clone(), Role::Run).await, nothing_of_the_server);
    assert_eq!(denied(TRAIN, pod, Role::Cleanup).await, None, "it is the data process");
}
