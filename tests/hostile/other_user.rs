//! Another user of the server's machine.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::access::as_nobody;
use sqlflow_tests::gate::Gate;
use sqlflow_tests::server::{Server, Setup, copy_program, program};
use sqlflow_tests::{client, http, stand_in};

/// A folder that every user may enter, with the command line.
fn open_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&program("sqlflowctl"), &dir.path().join("sqlflowctl"));
    dir
}

fn setup(dir: &Path) -> Setup {
    Setup::new(dir, format!("sqlite:///{}/x.db", dir.display()))
}

/// The command line, as another user.
fn ctl(dir: &Path, server: &str, args: &[&str]) -> Output {
    let mut command = as_nobody(dir.join("sqlflowctl"));
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .current_dir("/")
        .args(["--server", server])
        .args(args);
    command.output().unwrap()
}

/// `GET path` as another user; the whole response.
fn get(address: &str, path: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap();
    let script = format!(
        "exec 3<>/dev/tcp/{host}/{port}; printf 'GET {path} HTTP/1.0\\r\\nHost: {address}\\r\\n\\r\\n' >&3; cat <&3"
    );
    let output = as_nobody("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn job(server: &Server) -> String {
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 'a secret' AS s;").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert!(client::is_over(&ended.status));
    token.job_id
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_of_the_machine_gets_nothing() {
    let dir = open_folder();
    let server =
        setup(dir.path()).flag(format!("--socket={}", dir.path().join("s").display())).start().unwrap();
    let id = job(&server).await;
    for args in
        [&["run", "-e", "SELECT 1"][..], &["list"], &["describe", &id], &["fetch", &id], &["cancel", &id]]
    {
        let output = ctl(dir.path(), &server.address, args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(said.contains("unix:nobody may not use this server"), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
    }
    let socket = format!("unix://{}", dir.path().join("s").display());
    let output = ctl(dir.path(), &socket, &["list"]);
    assert_eq!(output.status.code(), Some(3), "the socket is for its user: {output:?}");
    for page in ["/jobs".to_owned(), format!("/jobs/{id}"), format!("/jobs/{id}/log"), "/metrics".to_owned()]
    {
        let answer = get(&server.http, &page);
        assert!(answer.starts_with("HTTP/1.0 403"), "{page}: {answer}");
        assert!(!answer.contains("secret"), "{page}: {answer}");
    }
    assert!(get(&server.http, "/healthz").starts_with("HTTP/1.0 200"));
    // The server's own user needs nothing.
    assert_eq!(http::get(&server.http, "/jobs").code, 200);
    assert_eq!(http::get(&server.http, "/metrics").code, 200);
}

/// Tries each attack on each file, and prints what came of it.
const ATTACKS: &str = "
import errno, fcntl, os, sys
def read(path):
    with open(path, 'rb') as file: file.read(1)
def write(path):
    with open(path, 'r+b'): pass
def append(path):
    with open(path, 'ab'): pass
def lock(path):
    with open(path, 'r+b') as file: fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
def create(path):
    with open(path + '.new', 'xb'): pass
    os.unlink(path + '.new')
def list_folder(path):
    os.listdir(os.path.dirname(path))
for path in sys.argv[1:]:
    for attack in read, write, append, lock, create, list_folder:
        try:
            attack(path)
            print('successful', attack.__name__, path)
        except OSError as error:
            print(errno.errorcode[error.errno], attack.__name__, path)
";

/// Number of attacks on each file.
const ATTACKS_ON_A_FILE: usize = 6;

/// A line for each attack by this Python.
fn attack(python: &mut Command, files: &[PathBuf]) -> Vec<String> {
    python.env("PATH", "/usr/bin:/bin").current_dir("/").args(["-c", ATTACKS]).args(files);
    let output = python.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), files.len() * ATTACKS_ON_A_FILE, "{lines:?}");
    lines
}

/// All files in a folder and its subfolders.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let of_entry = |it: fs::DirEntry| {
        if it.file_type().unwrap().is_dir() { files_below(&it.path()) } else { vec![it.path()] }
    };
    entries.flat_map(of_entry).collect()
}

/// Prints a line, and then waits for a line from the gate.
const WAITING: &str = "import sys
print('waiting', flush=True)
while True:
    with open(sys.argv[1] + '/gate') as gate:
        if gate.readline(): break";

/// Otherwise the user could read results and programs, or make the server believe that the agent of an ended job lives.
#[tokio::test(flavor = "multi_thread")]
async fn another_user_opens_no_file_of_the_state_or_of_a_running_job() {
    let dir = open_folder();
    let gate = Gate::new(&dir.path().join("gate"));
    let setup = stand_in::setup(dir.path(), WAITING, None);
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(stand_in::STEP).await.unwrap();
    client.until(&token, |it| matches!(it, Payload::Log(_))).await.unwrap();

    let run_folder = setup.state_dir.join("run").join(&token.job_id).join("0-1");
    let kept =
        ["lock", "agent.log", "workspace/main.py", "workspace/step.json"].map(|it| run_folder.join(it));
    let of_job = files_below(&run_folder);
    for file in &kept {
        assert!(of_job.contains(file), "{} is missing: {of_job:?}", file.display());
    }
    let state = ["state.db", "links.key"].map(|it| setup.state_dir.join(it));
    for line in attack(&mut as_nobody("python3"), &[&of_job[..], &state].concat()) {
        assert!(line.starts_with("EACCES "), "{line}");
    }
    // Otherwise the lines above would prove nothing.
    for line in attack(&mut Command::new("python3"), &[&kept[..], &state].concat()) {
        assert!(line.starts_with("successful "), "{line}");
    }

    tokio::task::spawn_blocking(move || gate.open()).await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn allowed_user_has_jobs_of_their_own() {
    let dir = open_folder();
    let server = setup(dir.path()).flag("--allow=unix:nobody").flag("--admin=unix:root").start().unwrap();
    let id = job(&server).await;
    let run = ctl(dir.path(), &server.address, &["run", "-e", "SELECT 'mine' AS m", "--output", "csv"]);
    assert!(String::from_utf8_lossy(&run.stdout).contains("mine"), "{run:?}");
    let listed = ctl(dir.path(), &server.address, &["list", "--output", "json"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.lines().count(), 1, "{listed}");
    assert!(!listed.contains(&id), "{listed}");
    let described = ctl(dir.path(), &server.address, &["describe", &id]);
    assert_eq!(described.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&described.stderr).contains("no job of yours"), "{described:?}");
    // Who administers the server sees both.
    let all =
        server.client().await.unwrap().api.list_jobs(sqlflow_proto::v1::ListJobsRequest::default()).await;
    assert_eq!(all.unwrap().into_inner().jobs.len(), 2);
}

#[test]
fn address_that_others_reach_is_refused_without_authentication() {
    let dir = tempfile::tempdir().unwrap();
    for flag in ["--listen=0.0.0.0:0", "--http-listen=0.0.0.0:0"] {
        let error = setup(dir.path()).flag(flag).start().unwrap_err().to_string();
        assert!(error.contains("everybody who reaches it could run programs"), "{error}");
    }
    let server = setup(dir.path()).flag("--listen=0.0.0.0:0").flag("--insecure").start().unwrap();
    server.stop().unwrap();
}

/// Prints its port, and then the beginning of what each client sends.
const THIEF: &str = "import socket
server = socket.create_server(('127.0.0.1', 0))
print(server.getsockname()[1], flush=True)
while True:
    client, _ = server.accept()
    print(client.recv(16), flush=True)
    client.close()";

/// While a server is down, any user can listen at its address.
#[test]
fn secrets_are_not_sent_to_another_users_server() {
    let mut thief = as_nobody("python3")
        .env("PATH", "/usr/bin:/bin")
        .args(["-c", THIEF])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(thief.stdout.take().unwrap()).lines().map(Result::unwrap);
    let server = format!("127.0.0.1:{}", said.next().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let ctl = |token: &str, args: &[&str]| {
        let mut command = Command::new(program("sqlflowctl"));
        command.env_clear().env("HOME", dir.path()).env("SQLFLOW_SERVER", &server).args(args);
        if !token.is_empty() {
            command.env("SQLFLOW_ACCESS_TOKEN", token);
        }
        command.output().unwrap()
    };
    let own = ["run", "-e", "SELECT 1", "--datasource", "mysql://ana:secret@tcp(db:3306)/x"];
    let job = ["cancel", "sqlflow000102030405060708090a0b0c0d0e0f"];
    for (token, args) in [
        ("secret", &["list"][..]),
        ("", &["list"][..]),
        ("", &own[..]),
        ("", &job[..]),
        ("secret", &["run", "-e", "SELECT 1"][..]),
    ] {
        let output = ctl(token, args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        let part = format!("cannot use the server at {server}: it belongs to user nobody");
        assert!(error.contains(&part) && error.contains("--server-user nobody"), "{args:?}: {error}");
        assert_eq!(said.next().unwrap(), "b''", "{args:?}");
    }
    // A user who is named.
    for token in ["", "secret"] {
        let output = ctl(token, &["list", "--server-user", "nobody"]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert_eq!(said.find(|it| it != "b''").unwrap(), "b'PRI * HTTP/2.0\\r\\n'");
    }
    thief.kill().unwrap();
    thief.wait().unwrap();
}

/// A reader of the token file has hashes only.
#[test]
fn token_file_has_no_tokens_and_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens.toml");
    let made = Command::new(program("sqlflow-server"))
        .args(["token", "ana", "--token-file"])
        .arg(&file)
        .output()
        .unwrap();
    let token = String::from_utf8(made.stdout).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(token.starts_with("sqlflow_at_") && !text.contains(token.trim()), "{text}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}
