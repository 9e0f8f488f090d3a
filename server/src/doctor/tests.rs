//! Every kind of damage, on a state that servers have written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use serde_json::Value;
use sqlflow_job::{Job, JobId, TokenHash};
use sqlflow_job_store::secret_keys::SecretKey;
use sqlflow_job_store::{Membership, NewJob, SecretKeys, ServerId, SqliteStore, Store as _};
use sqlflow_os::clock;
use sqlflow_proto::record::{Notice, Record, record::Payload};
use sqlflow_result_log::{Entry, LogOptions, Maintenance, Producer, ResultLog as _, SegmentLog, TieredLog};
use tokio_util::sync::CancellationToken;

use super::repair::{Orphans, Repairs};
use super::report::{Counts, Form, Report};
use super::scan::Scan;
use super::state::State;
use crate::fixture::{self, BadBlocks};

/// A state folder.
struct Folder {
    dir: tempfile::TempDir,
    jobs: u8,
}

/// Output of the doctor.
struct Said {
    findings: Vec<Value>,
    counts: Counts,
}

impl Said {
    fn kinds(&self) -> BTreeMap<String, Vec<String>> {
        let mut kinds = BTreeMap::<String, Vec<String>>::new();
        for finding in &self.findings {
            let text = |name: &str| finding[name].as_str().unwrap_or("-").to_owned();
            kinds.entry(text("kind")).or_default().push(text("job"));
        }
        kinds
    }

    /// The result of the remedy of the only finding of this kind.
    fn repair(&self, kind: &str) -> (bool, String) {
        let mut of_kind = self.findings.iter().filter(|finding| finding["kind"] == kind);
        let (finding, None) = (of_kind.next().unwrap(), of_kind.next()) else {
            panic!("{:?}", self.findings)
        };
        let repair = &finding["repair"];
        (repair["repaired"].as_bool().unwrap(), repair["what"].as_str().unwrap().to_owned())
    }
}

impl Folder {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        SqliteStore::open(&dir.path().join("state.db")).await.unwrap().close().await;
        fs::create_dir(dir.path().join("servers")).unwrap();
        Self { dir, jobs: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> SegmentLog {
        SegmentLog::open(LogOptions {
            dir: self.path("log"),
            segment_bytes: 500,
            retain_output_bytes_per_job: u64::MAX,
            max_bytes_per_job: u64::MAX,
            opened_micros: 0,
            fsync: false,
        })
        .unwrap()
    }

    /// A live job that this server holds for a minute.
    async fn job(&mut self, owner: &ServerId) -> JobId {
        self.jobs += 1;
        let store = SqliteStore::open(&self.path("state.db")).await.unwrap();
        let job = Job::new(JobId::generate(), Vec::new());
        let id = job.id.clone();
        let new = NewJob {
            token: TokenHash([self.jobs; 32]),
            step_specs: Vec::new(),
            lease: Duration::from_secs(60),
            created_ms: clock::now_ms(),
            ..fixture::new_job(job, owner)
        };
        store.create(new).await.unwrap();
        store.close().await;
        id
    }

    /// A log of several files.
    async fn write_log(&self, id: &JobId) -> Vec<PathBuf> {
        let log = self.log();
        for number in 0..20 {
            let notice = Notice { text: format!("{number:0100}"), ..Notice::default() };
            let record = Record { payload: Some(Payload::Notice(notice)), ..Record::default() };
            log.append(id, vec![Entry { producer: Producer::server(0), record }]).await.unwrap();
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(Maintenance::of(&self.path("log")).path(id)).unwrap() {
            files.push(entry.unwrap().path());
        }
        files.sort();
        files
    }

    fn tamper(&self, sql: &str) {
        fixture::tamper(&self.path("state.db"), sql);
    }

    async fn doctor(&self, repairs: Option<Orphans>) -> Said {
        self.doctor_with(repairs, SecretKeys::default()).await
    }

    async fn doctor_with(&self, repairs: Option<Orphans>, keys: SecretKeys) -> Said {
        let state = State::find(self.dir.path()).unwrap();
        let mut out = Vec::new();
        let mut scan = Scan {
            survey: state.survey().unwrap(),
            state,
            report: Report::new(&mut out, Form::Json),
            repairs: repairs.map(Repairs::new),
            stop: CancellationToken::new(),
            keys,
        };
        scan.run().await.unwrap();
        let counts = scan.report.counts.clone();
        drop(scan);
        let findings =
            std::str::from_utf8(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap());
        Said { findings: findings.collect(), counts }
    }
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Everything below the folder.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            all.extend(contents(&path));
            all.insert(path, Vec::new());
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

fn kinds(expected: &[(&str, &[&JobId])]) -> BTreeMap<String, Vec<String>> {
    let named = |(kind, jobs): &(&str, &[&JobId])| {
        ((*kind).to_owned(), jobs.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    expected.iter().map(named).collect()
}

#[tokio::test]
async fn healthy_state_has_no_finding() {
    let mut folder = Folder::new().await;
    assert_eq!(folder.doctor(None).await.findings, Vec::<Value>::new());
    let here = Membership::join(&folder.path("servers")).unwrap();
    let id = folder.job(here.id()).await;
    folder.write_log(&id).await;
    let said = folder.doctor(None).await;
    assert_eq!(said.findings, Vec::<Value>::new());
    assert_eq!((said.counts.jobs, said.counts.logs), (1, 1));
}

/// A log in the database is repaired as others are: in a folder.
#[tokio::test]
async fn small_log_is_checked_and_repaired() {
    let mut folder = Folder::new().await;
    let here = Membership::join(&folder.path("servers")).unwrap();
    let id = folder.job(here.id()).await;
    let store = SqliteStore::open(&folder.path("state.db")).await.unwrap();
    let log = TieredLog::new(Arc::new(store.clone()), folder.log(), 1 << 20);
    for number in 0..3 {
        let notice = Notice { text: format!("{number}"), ..Notice::default() };
        let record = Record { payload: Some(Payload::Notice(notice)), ..Record::default() };
        log.append(&id, vec![Entry { producer: Producer::server(0), record }]).await.unwrap();
    }
    store.close().await;
    folder.tamper("UPDATE jobs SET ended_ms = 5");
    let said = folder.doctor(None).await;
    assert_eq!((said.kinds(), said.counts.logs), (kinds(&[]), 1));
    folder.tamper(
        "UPDATE small_logs SET bytes = CAST(substr(bytes, 1, 12) || X'FF' || substr(bytes, 14) AS BLOB)
         WHERE first_byte = (SELECT MIN(first_byte) FROM small_logs WHERE first_byte > 0)",
    );
    let before = contents(folder.dir.path());
    assert_eq!(folder.doctor(None).await.kinds(), kinds(&[("damaged-log", &[&id])]));
    assert!(contents(folder.dir.path()) == before, "looking changes nothing");
    let (is_repaired, what) = folder.doctor(Some(Orphans::SetAside)).await.repair("damaged-log");
    assert!(is_repaired, "{what}");
    assert_eq!(folder.doctor(None).await.kinds(), kinds(&[("kept-aside", &[&id])]));
    let records = folder.log().read(&id, 0, 1000).await.unwrap().records;
    assert_eq!(records.len(), 3, "a gap stands for the one that is lost");
}

#[tokio::test]
async fn each_kind_of_damage_is_found_without_a_change_and_repaired_once() {
    let mut folder = Folder::new().await;
    let here = Membership::join(&folder.path("servers")).unwrap();
    let (cut, damaged, newer, lost) = (
        folder.job(here.id()).await,
        folder.job(here.id()).await,
        folder.job(here.id()).await,
        folder.job(here.id()).await,
    );
    let (orphan, run) = (JobId::generate(), JobId::generate());
    let files = folder.write_log(&cut).await;
    flip(&files[1], 100);
    folder.write_log(&orphan).await;
    fs::create_dir_all(folder.path("run").join(run.as_str()).join("0-1")).unwrap();
    folder.tamper(&format!("UPDATE jobs SET doc = '{{' WHERE job_id = '{damaged}'"));
    folder.tamper(&format!("UPDATE jobs SET doc_version = 99 WHERE job_id = '{newer}'"));
    let done = r#"json_set(doc, '$.state', 'succeeded')"#;
    folder.tamper(&format!(
        "UPDATE jobs SET ended_ms = 5, state = 'succeeded', doc = {done} WHERE job_id = '{lost}'"
    ));

    let before = contents(folder.dir.path());
    let said = folder.doctor(None).await;
    let all = kinds(&[
        ("damaged-document", &[&damaged]),
        ("damaged-log", &[&cut]),
        ("missing-log", &[&lost]),
        ("newer-document", &[&newer]),
        ("orphan-log", &[&orphan]),
        ("orphan-run-folder", &[&run]),
    ]);
    assert_eq!(said.kinds(), all);
    assert_eq!(said.counts.left(), 6);
    assert!(contents(folder.dir.path()) == before, "looking changes nothing");

    let said = folder.doctor(Some(Orphans::SetAside)).await;
    assert_eq!(said.kinds(), all);
    assert_eq!((said.counts.repaired, said.counts.left()), (4, 2));
    assert!(said.repair("damaged-document").1.contains("the job is FAILED"));
    for (kind, id, place) in
        [("orphan-log", &orphan, "lost+found/log"), ("orphan-run-folder", &run, "lost+found/run")]
    {
        let place = folder.path(place).join(id.as_str());
        assert_eq!(
            said.repair(kind),
            (true, format!("moved to {}", fs::canonicalize(place).unwrap().display()))
        );
    }

    let left = kinds(&[("missing-log", &[&lost]), ("newer-document", &[&newer]), ("kept-aside", &[&cut])]);
    let said = folder.doctor(Some(Orphans::SetAside)).await;
    let mut found = said.kinds();
    assert_eq!(found.remove("lost-and-found"), Some(vec!["-".to_owned()]));
    assert_eq!(found, left);
    assert_eq!((said.counts.problems, said.counts.notes), (2, 2));
    let page = folder.log().read(&cut, 0, usize::MAX).await.unwrap();
    assert_eq!((page.records.len(), page.last_position), (20, 20), "the rest of the log is there");
}

/// As bytes that are wrong. A temporary error is not damage: the log is left alone.
#[tokio::test]
async fn log_on_an_unreadable_disk_block_is_repaired() {
    let mut folder = Folder::new().await;
    let here = Membership::join(&folder.path("servers")).unwrap();
    let id = folder.job(here.id()).await;
    let files = folder.write_log(&id).await;
    let passing = BadBlocks::at(&files[1], 0..4096, Errno::ENOMEM);
    let said = folder.doctor(Some(Orphans::SetAside)).await;
    assert_eq!((said.kinds(), said.counts.left()), (kinds(&[("unreadable", &[&id])]), 1));
    drop(passing);
    let _bad = BadBlocks::at(&files[1], 0..4096, Errno::EIO);
    let said = folder.doctor(Some(Orphans::SetAside)).await;
    assert_eq!((said.kinds(), said.counts.left()), (kinds(&[("damaged-log", &[&id])]), 0));
    assert!(said.repair("damaged-log").0);
    assert_eq!(folder.doctor(None).await.kinds(), kinds(&[("kept-aside", &[&id])]));
    let page = folder.log().read(&id, 0, usize::MAX).await.unwrap();
    assert!(page.records.len() > 10 && page.last_position == 20, "the rest of the log is there");
    folder.log().delete(&id).await.unwrap();
}

#[tokio::test]
async fn orphans_are_deleted_only_on_request() {
    let folder = Folder::new().await;
    let (orphan, run) = (JobId::generate(), JobId::generate());
    folder.write_log(&orphan).await;
    fs::create_dir_all(folder.path("run").join(run.as_str()).join("0-1")).unwrap();
    let said = folder.doctor(Some(Orphans::Delete)).await;
    assert_eq!(said.counts.repaired, 2);
    assert_eq!(said.kinds().len(), 2);
    assert!(!folder.path("lost+found").exists());
    assert_eq!(folder.doctor(None).await.findings, Vec::<Value>::new());
}

#[tokio::test]
async fn misplaced_log_is_moved_to_lost_and_found() {
    let mut folder = Folder::new().await;
    let here = Membership::join(&folder.path("servers")).unwrap();
    let id = folder.job(here.id()).await;
    folder.write_log(&id).await;
    let place = folder.path("log/elsewhere").join(id.as_str());
    fs::create_dir_all(&place).unwrap();
    let said = folder.doctor(Some(Orphans::SetAside)).await;
    assert_eq!(said.kinds(), kinds(&[("orphan-log", &[&id])]));
    assert!(!place.exists() && Maintenance::of(&folder.path("log")).path(&id).exists());
}

#[tokio::test]
async fn jobs_of_an_ended_server_are_released() {
    let mut folder = Folder::new().await;
    let gone = Membership::join(&folder.path("servers")).unwrap();
    let server = gone.id().clone();
    let id = folder.job(&server).await;
    assert_eq!(folder.doctor(None).await.findings, Vec::<Value>::new());
    drop(gone);
    let said = folder.doctor(Some(Orphans::SetAside)).await;
    assert_eq!(said.kinds(), kinds(&[("not-held", &[&id])]));
    assert!(said.repair("not-held").0);
    let mut survey = State::find(folder.dir.path()).unwrap().survey().unwrap();
    assert_eq!(survey.job(&id).unwrap().unwrap().lease.owner.0, "");
    assert!(folder.path("servers").join(format!("{server}.lock")).exists(), "servers remove their locks");
    // A released job stays released; without a server it stays a problem.
    let said = folder.doctor(Some(Orphans::SetAside)).await;
    assert_eq!((said.kinds(), said.counts.left()), (kinds(&[("not-held", &[&id])]), 1));
}

/// With running servers a job may be between two of them for a moment.
#[tokio::test]
async fn job_claimed_in_time_is_not_stuck() {
    let mut folder = Folder::new().await;
    let here = Membership::join(&folder.path("servers")).unwrap();
    let held = folder.job(here.id()).await;
    let free = folder.job(&ServerId("gone".to_owned())).await;
    folder.tamper("UPDATE jobs SET lease_owner = '' WHERE lease_owner = 'gone'");
    let taken = async {
        // Before the doctor's second check.
        tokio::time::sleep(Duration::from_millis(100)).await;
        folder.tamper(&format!("UPDATE jobs SET lease_owner = '{}'", here.id()));
    };
    let (said, ()) = tokio::join!(folder.doctor(None), taken);
    assert_eq!(said.findings, Vec::<Value>::new(), "{held} and {free}");
    folder.tamper("UPDATE jobs SET lease_owner = ''");
    assert_eq!(folder.doctor(None).await.kinds()["not-held"].len(), 2);
}

#[tokio::test]
async fn interrupt_stops_between_two_items() {
    let mut folder = Folder::new().await;
    folder.job(&ServerId("gone".to_owned())).await;
    let state = State::find(folder.dir.path()).unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let mut scan = Scan {
        survey: state.survey().unwrap(),
        state,
        report: Report::new(Vec::new(), Form::Text),
        repairs: Some(Repairs::new(Orphans::SetAside)),
        stop,
        keys: SecretKeys::default(),
    };
    assert!(matches!(scan.run().await, Err(super::scan::ScanError::Interrupted)));
    assert_eq!(scan.report.counts, Counts::default());
}

#[tokio::test]
async fn data_source_of_another_key_is_reported() {
    let keys = |byte: u8| SecretKeys::new(SecretKey::read(&[byte; 32]).unwrap(), Vec::new());
    let mut folder = Folder::new().await;
    let job = folder.job(&ServerId(String::new())).await;
    fixture::tamper(
        &folder.path("state.db"),
        &format!("INSERT INTO secrets (job_id, name, value) VALUES ('{job}', 'db', 'sqlite:///x')"),
    );
    let finding = "unreadable-secret";
    assert!(!folder.doctor_with(None, keys(1)).await.kinds().contains_key(finding), "it is not encrypted");
    // A server encrypts it.
    SqliteStore::open_with_keys(&folder.path("state.db"), keys(1)).await.unwrap().close().await;
    assert!(!folder.doctor_with(None, keys(1)).await.kinds().contains_key(finding));
    assert!(!folder.doctor(None).await.kinds().contains_key(finding), "nobody asks");
    let found = folder.doctor_with(None, keys(2)).await;
    assert_eq!(found.kinds()[finding], [job.to_string()]);
}
