//! Attacks by data sources: on files of the server's machine, and on what its user has there.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sqlflow_proto::v1::{Cause, Session};
use sqlflow_tests::access::Tokens;
use sqlflow_tests::client::Client;
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::stand_in;
use sqlflow_tests::until::until;
use tonic::{Code, Status};

/// A server with the SQLite files `data/a.db`, `own.db` and `hers.db` beside its state.
struct World {
    dir: tempfile::TempDir,
    tokens: Option<Tokens>,
    server: Server,
}

/// Its files, before it starts. The value in the table `t` of each is its name.
fn files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    for name in ["data/a.db", "own.db", "hers.db"] {
        let sql = format!("CREATE TABLE t (a); INSERT INTO t VALUES ('{name}');");
        rusqlite::Connection::open(dir.path().join(name)).unwrap().execute_batch(&sql).unwrap();
    }
    dir
}

/// For its own user.
fn single_user() -> World {
    let dir = files();
    let server = Setup::new(dir.path(), source(dir.path(), "own.db")).start().unwrap();
    World { dir, tokens: None, server }
}

/// For ana, with the data source `own`, and bob, with `hers`.
fn shared(flags: &[String]) -> World {
    let dir = files();
    let tokens = Tokens::at(dir.path(), &["ana", "bob"]);
    let [own, hers] = [("own", "ana"), ("hers", "bob")].map(|(name, user)| {
        let file = source(dir.path(), &format!("{name}.db"));
        format!("[{name}]\ndsn = '{file}'\nusers = ['token:{user}']\n")
    });
    let sources = dir.path().join("sources.toml");
    fs::write(&sources, own + &hers).unwrap();
    let setup = Setup::new(dir.path(), "")
        .flag(tokens.flag())
        .flag(format!("--data-sources={}", sources.display()))
        .flag(format!("--sqlite-folder={}", dir.path().join("data").display()));
    let server = flags.iter().fold(setup, |setup, flag| setup.flag(flag.as_str())).start().unwrap();
    World { dir, tokens: Some(tokens), server }
}

fn source(dir: &Path, name: &str) -> String {
    format!("sqlite:///{}", dir.join(name).display())
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn source(&self, name: &str) -> String {
        source(self.dir.path(), name)
    }

    /// Runs a program on this data source, as ana if there are users. Returns its rows, or its failure.
    async fn run(&self, data_source: &str, sql: &str) -> Result<Result<Vec<Vec<String>>, String>, Status> {
        let mut client = self.server.client().await.unwrap();
        let token = self.tokens.as_ref().map(|it| it.of("ana").to_owned()).unwrap_or_default();
        run(&mut client, Session { token, db_conn_str: data_source.to_owned(), ..Session::default() }, sql)
            .await
    }

    /// The message with which Run refuses a data source.
    async fn refusal(&self, data_source: &str) -> String {
        let status = self.run(data_source, "SELECT a FROM t").await.expect_err(data_source);
        assert_eq!(status.code(), Code::PermissionDenied, "{data_source}: {status:?}");
        status.message().to_owned()
    }

    /// The failure of a program.
    async fn failure(&self, data_source: &str, sql: &str) -> String {
        self.run(data_source, sql).await.unwrap().expect_err(sql)
    }
}

async fn run(
    client: &mut Client,
    session: Session,
    sql: &str,
) -> Result<Result<Vec<Vec<String>>, String>, Status> {
    let token = client.run_in(sql, session).await?;
    let ended = client.follow(&token).await.unwrap();
    let has_succeeded = ended.status.code() == sqlflow_proto::v1::job_status::Code::Succeeded;
    Ok(if has_succeeded { Ok(ended.rows()) } else { Err(ended.status.message.clone()) })
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_files_of_sessions_lie_in_the_folders() {
    let world = shared(&["--allow-client-dsn".to_owned()]);
    symlink(world.path("own.db"), world.path("data/link.db")).unwrap();
    symlink(world.path("state"), world.path("data/state")).unwrap();
    fs::hard_link(world.path("state/state.db"), world.path("data/hard.db")).unwrap();
    fs::hard_link(world.path("hers.db"), world.path("data/hers.db")).unwrap();
    for (name, expected) in [
        ("x.db?mode=rwc", "it lies in no folder for database files of this server; use a file below"),
        ("data/../x.db?mode=rwc", "it lies in no folder for database files"),
        ("../../../../etc/passwd", "it lies in no folder for database files"),
        ("data/link.db", "it is the operator's"),
        ("own.db", "it is the operator's"),
        ("hers.db", "it is the operator's"),
        ("data/hers.db", "it is the operator's"),
        ("tokens.toml", "it is the operator's"),
        ("state/state.db", "it belongs to the state of the server"),
        ("data/state/state.db", "it belongs to the state of the server"),
        ("data/state/new.db?mode=rwc", "it belongs to the state of the server"),
        ("data/hard.db?mode=ro", "it belongs to the state of the server"),
    ] {
        let said = world.refusal(&world.source(name)).await;
        assert!(said.contains(expected), "{name}: {said}");
    }
    assert!(!world.path("x.db").exists() && !world.path("state/new.db").exists());
    let rows = world.run(&world.source("data/a.db"), "SELECT a FROM t").await.unwrap().unwrap();
    assert_eq!(rows, [["data/a.db"]]);
    let created = world.source("data/new.db?mode=rwc");
    world.run(&created, "CREATE TABLE t (a)").await.unwrap().unwrap();
    // The operator's own lies anywhere.
    assert_eq!(world.run("own", "SELECT a FROM t").await.unwrap().unwrap(), [["own.db"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_attach_only_files_of_the_folders() {
    let world = shared(&[]);
    let at = |name: &str| world.path(name).display().to_string();
    for (sql, expected) in [
        (format!("ATTACH '{}' AS x", at("hers.db")), "it is the operator's"),
        (
            format!("SELECT 1; ATTACH '{}' AS x; SELECT a FROM x.t", at("state/state.db")),
            "it belongs to the state",
        ),
        (format!("ATTACH 'file:{}?mode=ro' AS x", at("state/state.db")), "it belongs to the state"),
        (format!("ATTACH '{}' || '' AS x", at("hers.db")), "that an expression names"),
        (format!("ATTACH '{}' AS x", at("x.db")), "it lies in no folder for database files"),
        (format!("ATTACH '{}' AS x", at("none/x.db")), "it lies in no folder for database files"),
        (format!("ATTACH '{}' AS x", at("data/x.db")), "no such file"),
        (format!("ATTACH 'file:{}?mode=rwc' AS x", at("x.db")), "it lies in no folder for database files"),
        (format!("VACUUM INTO '{}'", at("x.db")), "it lies in no folder for database files"),
        (format!("VACUUM INTO '{}'", at("state/x.db")), "it belongs to the state"),
        ("SELECT load_extension('libc.so.6')".to_owned(), "load_extension"),
    ] {
        let said = world.failure("own", &sql).await;
        assert!(said.contains(expected) || said.contains("not authorized"), "{sql}: {said}");
    }
    assert!(!world.path("x.db").exists() && !world.path("state/x.db").exists());
    let attached = format!(
        "ATTACH '{}' AS x; ATTACH ':memory:' AS m; CREATE TABLE m.u AS SELECT a FROM x.t; SELECT a FROM m.u",
        at("data/a.db")
    );
    assert_eq!(world.run("own", &attached).await.unwrap().unwrap(), [["data/a.db"]]);
}

/// An accident of a single user would damage all jobs.
#[tokio::test(flavor = "multi_thread")]
async fn state_of_a_single_users_server_is_no_data_source() {
    let world = single_user();
    symlink(world.path("state/state.db"), world.path("link.db")).unwrap();
    fs::hard_link(world.path("state/state.db"), world.path("hard.db")).unwrap();
    for name in ["state/state.db", "link.db", "hard.db", "state/new.db?mode=rwc"] {
        let said = world.refusal(&world.source(name)).await;
        assert!(said.contains("it belongs to the state of the server"), "{name}: {said}");
        let attach = format!("ATTACH 'file:{}' AS x", world.path(name).display());
        let said = world.failure("", &attach).await;
        assert!(said.contains("it belongs to the state of the server"), "{name}: {said}");
    }
    let attach = format!("ATTACH '{}' AS x; SELECT a FROM x.t", world.path("hers.db").display());
    assert_eq!(world.run(&world.source("data/a.db"), &attach).await.unwrap().unwrap(), [["hers.db"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn misspelt_path_is_an_error_and_creates_no_file() {
    let world = single_user();
    let path = world.path("misspelt.db");
    for mode in ["", "?mode=ro", "?mode=rw"] {
        for sql in ["SELECT 1", "CREATE TABLE t (a)"] {
            let said = world.failure(&world.source(&format!("misspelt.db{mode}")), sql).await;
            let expected = format!("cannot open SQLite file {}: no such file; ", path.display());
            assert!(said.contains(&expected), "{mode}: {said}");
            assert!(!path.exists());
        }
    }
    let created = world.source("misspelt.db?mode=rwc");
    world.run(&created, "SELECT 1").await.unwrap().unwrap();
    assert!(!path.exists(), "it creates no table");
    world.run(&created, "CREATE TABLE t (a)").await.unwrap().unwrap();
    assert!(path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn data_source_of_a_session_takes_nothing_of_the_servers_user() {
    for (world, is_shared) in [(single_user(), false), (shared(&["--allow-client-dsn".to_owned()]), true)] {
        for option in ["sslrootcert=/etc/shadow", "sslcert=/c&sslkey=/k"] {
            let said = world.refusal(&format!("postgresql://u:hunter2@127.0.0.1:1/d?{option}")).await;
            assert!(said.contains("names no files of the server"), "{said}");
            assert!(!said.contains("hunter2") && !said.contains("shadow"), "{said}");
        }
        for option in ["ssl-key=%2Fetc%2Fshadow", "allowAllFiles=true", "serverPubKey=x"] {
            let said = world.refusal(&format!("mysql://u:hunter2@tcp(127.0.0.1:1)/d?{option}")).await;
            assert!(said.contains("names no files of the server"), "{said}");
        }
        for option in ["passfile=/dev/null", "service=x", "servicefile=/x", "sslkeylogfile=/x"] {
            let source = format!("postgresql://u:hunter2@127.0.0.1:1/d?{option}");
            let status = world.run(&source, "SELECT 1").await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            assert!(status.message().contains("is not supported"), "{status:?}");
        }
        // The database may trust the server's user.
        for source in ["mysql://root@unix(/no/my.sock)/d", "postgresql:///d?host=/no/postgresql"] {
            if is_shared {
                assert!(world.refusal(source).await.contains("has no Unix socket here"));
            }
        }
    }
}

/// Prints the names of its variables.
const VARIABLES: &str = "import os; print('VARIABLES', *sorted(os.environ))";

#[tokio::test(flavor = "multi_thread")]
async fn programs_inherit_no_credentials() {
    const CREDENTIALS: [&str; 12] = [
        "PGPASSWORD",
        "PGPASSFILE",
        "PGSERVICEFILE",
        "KRB5CCNAME",
        "KRB5_KTNAME",
        "AWS_SECRET_ACCESS_KEY",
        "MYSQL_PWD",
        "GITHUB_TOKEN",
        "HF_TOKEN",
        "SSH_AUTH_SOCK",
        "SQLFLOW_SERVER_DATASOURCE",
        "XDG_RUNTIME_DIR",
    ];
    let dir = tempfile::tempdir().unwrap();
    let setup = stand_in::setup(dir.path(), VARIABLES, None)
        .envs(CREDENTIALS.map(|name| (name, "secret".to_owned())))
        .env("JAVA_HOME", "/java")
        .env("TEAM_NAME", "ml")
        .env("OMP_NUM_THREADS", "3")
        .flag("--socket=")
        .flag("--pass-env=JAVA_HOME,TEAM_*");
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(stand_in::STEP).await.unwrap();
    let log = client.follow(&token).await.unwrap().log();
    let line =
        log.lines().find_map(|line| line.strip_prefix("VARIABLES ")).unwrap_or_else(|| panic!("{log}"));
    let names: Vec<&str> = line.split(' ').collect();
    for name in CREDENTIALS {
        assert!(!names.contains(&name), "{name}: {line}");
    }
    for name in ["PATH", "PYTHONPATH", "OMP_NUM_THREADS", "JAVA_HOME", "TEAM_NAME", "SQLFLOW_ATTEMPT"] {
        assert!(names.contains(&name), "{name}: {line}");
    }
}

/// Whether a file of this folder has the text. Folders of jobs may be removed meanwhile.
fn is_in_files(folder: &Path, text: &str) -> bool {
    let has = |bytes: Vec<u8>| bytes.windows(text.len()).any(|it| it == text.as_bytes());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
        Err(error) => panic!("{}: {error}", folder.display()),
    };
    let mut paths = entries.flatten().map(|it| it.path());
    paths.any(|path| if path.is_dir() { is_in_files(&path, text) } else { fs::read(path).is_ok_and(has) })
}

/// Neither of a job that failed, nor of one that was cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn password_of_an_ended_job_is_in_no_file_of_the_state() {
    const PASSWORD: &str = "open-sesame";
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), "");
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    // It accepts connections, and says nothing: the jobs stay live.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let session =
        Session { db_conn_str: format!("mysql://u:{PASSWORD}@tcp({address})/d"), ..Session::default() };
    let failing = client.run_in("SELECT 1", session.clone()).await.unwrap();
    let cancelled = client.run_in("SELECT 1", session).await.unwrap();
    assert!(is_in_files(&setup.state_dir, PASSWORD), "otherwise the next lines would prove nothing");

    client.api.cancel(cancelled.clone()).await.unwrap();
    let cancelled = client.follow(&cancelled).await.unwrap();
    assert_eq!(cancelled.status.cause(), Cause::Cancelled, "{cancelled:?}");
    drop(silent);
    let failed = client.follow(&failing).await.unwrap();
    assert!(failed.status.message.contains("MySQL server at"), "{failed:?}");
    // The end deletes it from the database; the write-ahead log is truncated a few seconds later.
    until("the password is in no file", || !is_in_files(&setup.state_dir, PASSWORD));
    server.stop().unwrap();
    assert!(!is_in_files(&setup.state_dir, PASSWORD));
}

/// It would write each time the step is repeated.
#[tokio::test(flavor = "multi_thread")]
async fn validation_select_that_writes_is_refused() {
    let world = single_user();
    let train = |select: &str| {
        format!(
            "SELECT a FROM t TO TRAIN xgboost.gbtree WITH validation.select = \"{select}\" LABEL a INTO m;"
        )
    };
    for writing in [
        "INSERT INTO t VALUES ('x') RETURNING *",
        "/* a */ insert into t values ('x') returning a",
        "REPLACE INTO t VALUES ('x') RETURNING *",
        "UPDATE t SET a = 'x' RETURNING *",
        "DELETE FROM t RETURNING *",
        "WITH d AS (SELECT 'x') INSERT INTO t SELECT * FROM d RETURNING *",
    ] {
        let status = world.run("", &train(writing)).await.expect_err(writing);
        assert_eq!(status.code(), Code::InvalidArgument, "{writing}: {status:?}");
        let why = "attribute validation.select must be a SELECT that only reads";
        assert!(status.message().contains(why), "{writing}: {status:?}");
    }
    let status = world.run("", &train("SELECT a FROM t; INSERT INTO t VALUES ('x')")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("attribute validation.select must be one statement"), "{status:?}");
    assert_eq!(world.run("", "SELECT a FROM t").await.unwrap().unwrap(), [["own.db"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_sources_in_the_state_are_encrypted() {
    const PASSWORD: &str = "open-sesame";
    let dir = tempfile::tempdir().unwrap();
    let keys = ["first", "second"].map(|name| dir.path().join(name));
    for (key, digit) in keys.iter().zip(["1", "2"]) {
        fs::write(key, digit.repeat(64)).unwrap();
    }
    let setup = Setup::new(dir.path(), "");
    let key = |flag: &str, file: &Path| format!("--{flag}={}", file.display());
    // It accepts connections, and says nothing: the job stays live.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let session =
        Session { db_conn_str: format!("mysql://u:{PASSWORD}@tcp({address})/d"), ..Session::default() };
    let submit = async |server: &Server| {
        server.client().await.unwrap().run_in("SELECT 1", session.clone()).await.unwrap()
    };

    let server = setup.start().unwrap();
    submit(&server).await;
    assert!(is_in_files(&setup.state_dir, PASSWORD), "otherwise the next lines would prove nothing");
    server.stop().unwrap();

    // That of the server before is encrypted, too.
    let with_first = setup.clone().flag(key("secrets-key", &keys[0]));
    let server = with_first.start().unwrap();
    submit(&server).await;
    server.stop().unwrap();
    assert!(!is_in_files(&setup.state_dir, PASSWORD));

    for other in [setup.clone(), setup.clone().flag(key("secrets-key", &keys[1]))] {
        let error = other.start().map(drop).unwrap_err().to_string();
        assert!(error.contains("data sources of 2 live job(s) are encrypted with the key"), "{error}");
    }
    let rotated = setup.clone().flag(format!("--secrets-key-command=cat {}", keys[1].display()));
    rotated.flag(key("secrets-key-old", &keys[0])).start().unwrap().stop().unwrap();
    let server = setup.clone().flag(key("secrets-key", &keys[1])).start().unwrap();
    // Its data process gets it as before.
    drop(silent);
    let token = submit(&server).await;
    let ended = server.client().await.unwrap().follow(&token).await.unwrap();
    assert!(ended.status.message.contains("MySQL server at"), "{:?}", ended.status);
    let in_state = dir.path().join("state/key");
    fs::copy(&keys[1], &in_state).unwrap();
    let error = setup.flag(key("secrets-key", &in_state)).start().map(drop).unwrap_err().to_string();
    assert!(error.contains("it lies in the state folder"), "{error}");
}
