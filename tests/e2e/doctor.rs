//! `sqlflow-server doctor` on the state of stopped and running servers: each kind of damage is listed with its job and
//! repaired, and the server serves the rest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Response, Token};
use sqlflow_tests::client::Client;
use sqlflow_tests::documents;
use sqlflow_tests::python::{self, repository};
use sqlflow_tests::server::{Setup, program};

const SHORT: &str = "SELECT * FROM iris LIMIT 40; SELECT * FROM iris LIMIT 41; SELECT * FROM iris LIMIT 42;";
const LONG: &str = "SELECT * FROM iris TO TRAIN xgboost.gbtree
WITH objective = \"multi:softmax\", num_class = 3, train.num_boost_round = 1000000 LABEL class INTO m;";

struct Bench {
    dir: tempfile::TempDir,
    setup: Setup,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap())
            .flag("--grace=2s")
            .flag("--small-log=0");
        Self { dir, setup }
    }

    fn doctor(&self, flags: &[&str]) -> Report {
        let mut command = Command::new(program("sqlflow-server"));
        let output = command.arg("doctor").arg("--state-dir").arg(&self.setup.state_dir).args(flags).output();
        Report(output.unwrap())
    }

    fn log(&self, job: &Token) -> PathBuf {
        let shard = &job.job_id[job.job_id.len() - 2..];
        self.setup.state_dir.join("log").join(shard).join(&job.job_id)
    }

    /// Flips a bit in the middle of the job's log.
    fn damage_log(&self, job: &Token) {
        let mut files = fs::read_dir(self.log(job)).unwrap().map(|file| file.unwrap().path());
        let segment = files.find(|file| file.extension().is_some_and(|it| it == "log")).unwrap();
        let mut bytes = fs::read(&segment).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&segment, bytes).unwrap();
    }

    fn change_store(&self, sql: &str) {
        let code = "import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=30); c.execute('PRAGMA foreign_keys = ON'); c.execute(sys.argv[2]); c.commit()";
        python::run(code, &[self.setup.state_dir.join("state.db").to_str().unwrap(), sql]).unwrap();
    }
}

struct Report(Output);

impl Report {
    fn text(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    fn errors(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    fn code(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    /// The jobs of each kind of finding, without notes.
    fn problems(&self) -> BTreeMap<String, String> {
        let words = |line: &str| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        };
        let text = self.text();
        let lines = text.lines().filter(|line| !line.starts_with(' ') && !line.starts_with("looked at"));
        let is_note = |kind: &str| ["kept-aside", "lost-and-found"].contains(&kind);
        lines.filter_map(words).filter(|(kind, _)| !is_note(kind)).collect()
    }
}

/// All files of the state, without those that SQLite and the test's server write.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            // A live job writes there.
            if name != "run" {
                all.extend(contents(&path));
            }
        } else if path.is_file() && !["state.db-shm", "server.log"].contains(&name) {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

async fn run_to_end(client: &mut Client, sql: &str) -> (Token, Vec<Response>) {
    let token = client.run(sql).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.code(), Code::Succeeded, "{:?}", ended.status);
    // A cursor, to read from the beginning: a plain token would continue.
    (Token { token: format!("{}.0", token.token), ..token }, ended.results)
}

/// Asserts that one record was replaced by a gap record.
fn assert_all_but_one(now: &[Response], whole: &[Response]) {
    assert_eq!(now.len(), whole.len(), "{now:?}");
    let mut others = now.iter().zip(whole).filter(|(now, whole)| now != whole);
    let (Some((gap, _)), None) = (others.next(), others.next()) else {
        panic!("expected one different record: {now:?}")
    };
    assert!(matches!(&gap.response, Some(Payload::Gap(gap)) if gap.reason.contains("damaged")), "{gap:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn state_of_a_stopped_server_is_checked_and_repaired() {
    let bench = Bench::new();
    let server = bench.setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let (cut, whole) = run_to_end(&mut client, SHORT).await;
    let (document, _) = run_to_end(&mut client, SHORT).await;
    let (orphan, _) = run_to_end(&mut client, SHORT).await;
    let (lost, _) = run_to_end(&mut client, SHORT).await;
    let live = client.run(LONG).await.unwrap();
    client.until(&live, |it| matches!(it, Payload::Metrics(_))).await.unwrap();
    assert_eq!(bench.doctor(&[]).code(), 0, "no damage yet: {}", bench.doctor(&[]).text());
    server.kill();

    bench.damage_log(&cut);
    bench.change_store(&format!("UPDATE jobs SET doc = '{{' WHERE job_id = '{}'", document.job_id));
    bench.change_store(&format!("DELETE FROM jobs WHERE job_id = '{}'", orphan.job_id));
    fs::remove_dir_all(bench.log(&lost)).unwrap();
    let unknown = "0".repeat(26);
    fs::create_dir_all(bench.setup.state_dir.join("run").join(&unknown).join("0-1")).unwrap();
    let all = BTreeMap::from(
        [
            ("damaged-log", &cut.job_id),
            ("damaged-document", &document.job_id),
            ("orphan-log", &orphan.job_id),
            ("missing-log", &lost.job_id),
            ("not-held", &live.job_id),
            ("orphan-run-folder", &unknown),
        ]
        .map(|(kind, job)| (kind.to_owned(), job.clone())),
    );
    let before = contents(&bench.setup.state_dir);
    let said = bench.doctor(&[]);
    assert_eq!((said.problems(), said.code()), (all.clone(), 1), "{}", said.text());
    assert!(said.text().contains("looked at 4 jobs and 3 logs: 6 problems"), "{}", said.text());
    assert!(contents(&bench.setup.state_dir) == before, "a check changes nothing");

    let said = bench.doctor(&["--repair"]);
    assert_eq!((said.problems(), said.code()), (all, 1), "{}", said.text());
    assert!(said.text().contains("6 problems, 5 repaired, 1 left"), "{}", said.text());
    let aside = bench.setup.state_dir.join("lost+found");
    assert!(aside.join("log").join(&orphan.job_id).is_dir() && aside.join("run").join(&unknown).is_dir());

    let server = bench.setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    assert_all_but_one(&client.follow(&cut).await.unwrap().results, &whole);
    assert_eq!(client.follow(&document).await.unwrap().status.code(), Code::Succeeded);
    client.api.cancel(live.clone()).await.unwrap();
    assert_eq!(client.follow(&live).await.unwrap().status.code(), Code::Failed);
    let said = bench.doctor(&[]);
    let left = BTreeMap::from([("missing-log".to_owned(), lost.job_id.clone())]);
    assert_eq!((said.problems(), said.code()), (left, 1), "{}", said.text());
    server.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn log_of_a_running_server_is_repaired_unless_locked() {
    let bench = Bench::new();
    let server = bench.setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let (cut, whole) = run_to_end(&mut client, SHORT).await;
    let live = client.run(LONG).await.unwrap();
    client.until(&live, |it| matches!(it, Payload::Metrics(_))).await.unwrap();
    bench.damage_log(&cut);

    let lock = File::open(bench.log(&cut).join("lock")).unwrap();
    lock.lock().unwrap();
    let said = bench.doctor(&["--repair", "--json"]);
    assert_eq!(said.code(), 1, "{}", said.errors());
    let lines: Vec<serde_json::Value> =
        said.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [finding, summary] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&finding["kind"], &finding["job"]), (&"damaged-log".into(), &cut.job_id.as_str().into()));
    let why = finding["repair"]["what"].as_str().unwrap();
    assert!(why.contains(&format!("process {} holds it", std::process::id())), "{why}");
    assert_eq!((&finding["repair"]["repaired"], &summary["repaired"]), (&false.into(), &0.into()));

    drop(lock);
    let said = bench.doctor(&["--repair"]);
    assert_eq!((said.problems().len(), said.code()), (1, 0), "{}", said.text());
    assert_all_but_one(&client.follow(&cut).await.unwrap().results, &whole);
    let said = bench.doctor(&[]);
    assert_eq!((said.problems().len(), said.code()), (0, 0), "a live job is no problem: {}", said.text());
    client.api.cancel(live.clone()).await.unwrap();
    client.follow(&live).await.unwrap();
    server.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_state_folder_is_an_error_and_nothing_is_created() {
    let bench = Bench::new();
    let said = bench.doctor(&["--repair"]);
    assert_eq!(said.code(), 2);
    assert!(said.errors().contains("--state-dir") && !bench.setup.state_dir.exists(), "{}", said.errors());
    bench.setup.start().unwrap().stop().unwrap();
    bench.change_store("INSERT INTO _sqlx_migrations VALUES (9999, 'x', CURRENT_TIMESTAMP, TRUE, X'00', 0)");
    let said = bench.doctor(&["--repair"]);
    assert_eq!(said.code(), 2);
    assert!(said.errors().contains("is of a newer server"), "{}", said.errors());
    bench.change_store("DELETE FROM _sqlx_migrations WHERE version = 9999");
    if nix::unistd::geteuid().is_root() {
        chown(&bench.setup.state_dir, Some(12345), None).unwrap();
        let said = bench.doctor(&["--repair"]);
        assert_eq!(said.code(), 2);
        assert!(said.errors().contains("belongs to user 12345"), "{}", said.errors());
        assert_eq!(bench.doctor(&[]).code(), 0, "a check needs only read permission");
    }
}

/// The commands of `docs/running-a-server.md`, unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn documented_doctor_commands_list_and_repair_damage() {
    let bench = Bench::new();
    let server = bench.setup.start().unwrap();
    let (cut, _) = run_to_end(&mut server.client().await.unwrap(), SHORT).await;
    server.stop().unwrap();
    bench.damage_log(&cut);

    let block = documents::commands("docs/running-a-server.md", "sqlflow-server doctor");
    let commands: Vec<&str> = block.lines().collect();
    let folder = program("sqlflow-server").parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let codes = commands.iter().map(|command| {
        // As the user of the test.
        let command = command.replace("sudo -u sqlflow ", "");
        let command = command.replace("/var/lib/sqlflow", bench.setup.state_dir.to_str().unwrap());
        let output = Command::new("sh").args(["-c", &command]).env("PATH", &path).output().unwrap();
        Report(output)
    });
    let [listed, repaired, json] = &codes.collect::<Vec<_>>()[..] else { panic!("{commands:?}") };
    assert_eq!(listed.code(), 1, "{}", listed.errors());
    assert!(listed.text().contains(&cut.job_id));
    assert_eq!(repaired.code(), 0, "{}", repaired.errors());
    assert!(repaired.text().contains("1 problem, 1 repaired, 0 left"), "{}", repaired.text());
    assert_eq!(json.code(), 0, "{}", json.errors());
    assert!(json.text().lines().last().unwrap().contains(r#""kind":"summary""#), "{}", json.text());

    // The page explains every kind of finding.
    let page = documents::page("docs/running-a-server.md");
    let kinds = fs::read_to_string(repository().join("server/src/doctor/finding.rs")).unwrap();
    let names = kinds.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next());
    for name in
        names.filter(|name| name.contains('-') || ["elsewhere", "waiting", "unreadable"].contains(name))
    {
        assert!(page.contains(&format!("`{name}`")), "{name} is not explained");
    }
    drop(bench.dir);
}
