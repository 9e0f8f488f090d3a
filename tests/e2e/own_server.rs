//! A server of the user's own: `sqlflowctl --server own` starts it, all clients of the user share it, and it ends when
//! nobody uses it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;
use sqlflow_tests::server::program;
use sqlflow_tests::until::until;
use sqlflow_tests::{ENDLESS, python};

const COUNT: [&str; 5] = ["run", "--output", "csv", "-e", "SELECT count(*) AS n FROM iris"];

/// A user with a home folder, who has irises and no server.
struct Home {
    folder: tempfile::TempDir,
    datasource: String,
    idle_time: &'static str,
}

impl Home {
    fn new(idle_time: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let datasource = python::iris(&folder.path().join("flowers.db")).unwrap();
        Self { folder, datasource, idle_time }
    }

    fn with(&self, command: &mut Command) {
        let programs = program("sqlflowctl");
        let path = std::env::var("PATH").unwrap();
        command
            .env_clear()
            .env("PATH", format!("{}:{path}", programs.parent().unwrap().display()))
            .env("HOME", self.folder.path())
            .env("SQLFLOW_SERVER", "own")
            .env("SQLFLOW_DATASOURCE", &self.datasource)
            .env("SQLFLOW_EXIT_WHEN_IDLE", self.idle_time)
            .env("SQLFLOW_PYTHON", python::program())
            .env("PYTHONPATH", python::package_path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("sqlflowctl"));
        self.with(&mut command);
        command.args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        expect_success(self.command(arguments).output().unwrap())
    }

    fn own(&self, name: &str) -> PathBuf {
        self.folder.path().join(".local/share/sqlflow/own").join(name)
    }

    /// The server that listens.
    fn server(&self) -> Option<Pid> {
        let stream = UnixStream::connect(self.own("server.sock")).ok()?;
        Some(Pid::from_raw(getsockopt(&stream, PeerCredentials).unwrap().pid()))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(server) = self.server() {
            let _ = kill(server, Signal::SIGKILL);
        }
    }
}

fn expect_success(output: Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A process that has ended has no command line, even if nobody has waited for it.
fn runs(process: Pid) -> bool {
    fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn program_runs_without_a_server_and_nothing_runs_afterwards() {
    let home = Home::new("3s");
    assert_eq!(home.run(&COUNT), "n\n150\n");
    let models = r#"
        SELECT * FROM iris TO TRAIN xgboost.gbtree
          WITH objective = "multi:softmax", num_class = 3, train.num_boost_round = 2
          LABEL class INTO flowers;
        SELECT * FROM iris TO PREDICT predicted.class USING flowers;
        SELECT count(*) AS predicted FROM predicted"#;
    let said = home.run(&["run", "--output", "csv", "-e", models]);
    assert!(said.ends_with("predicted\n150\n"), "{said}");

    let server = home.server().unwrap();
    until("the server ends", || !runs(server));
    assert!(!home.own("server.sock").exists());
    assert!(home.own("state/models/flowers").is_dir());

    // Another one has the same jobs.
    let said = home.run(&["fetch", "--from-start", "--output", "csv", "last"]);
    assert!(said.ends_with("predicted\n150\n"), "{said}");
}

#[test]
fn clients_that_start_at_once_share_one_server() {
    let home = Home::new("10m");
    let clients: Vec<Child> = (0..4).map(|_| home.command(&COUNT).spawn().unwrap()).collect();
    for client in clients {
        assert_eq!(expect_success(client.wait_with_output().unwrap()), "n\n150\n");
    }
    assert!(!home.own("server.log.old").exists(), "there was one start");
    // Without an address, too.
    let listed = home.command(&["list", "--output", "json"]).env_remove("SQLFLOW_SERVER").output().unwrap();
    assert_eq!(expect_success(listed).lines().count(), 4);
}

#[test]
fn socket_of_a_killed_server_is_replaced() {
    let home = Home::new("10m");
    home.run(&COUNT);
    let killed = home.server().unwrap();
    kill(killed, Signal::SIGKILL).unwrap();
    until("the server is gone", || !runs(killed));
    assert!(home.own("server.sock").exists());
    assert_eq!(home.run(&COUNT), "n\n150\n");
    assert_ne!(home.server().unwrap(), killed);
}

#[test]
fn server_and_job_outlive_the_terminal() {
    let home = Home::new("10m");
    // A program of its own holds the terminal: in this process, those that other tests start would inherit it.
    let mut terminal = Command::new(python::program());
    home.with(&mut terminal);
    terminal.args(["-c", "import pty, sys; pty.spawn(sys.argv[1:])", "bash", "-c"]);
    terminal.arg(r#""$0" "$@" && echo the job runs; read"#);
    terminal.arg(program("sqlflowctl")).args(["run", "--detach", "-e", ENDLESS]);
    let mut terminal = terminal.stdin(Stdio::piped()).spawn().unwrap();
    let shown = BufReader::new(terminal.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(shown.into_iter().any(|line| line.contains("the job runs")));
    let server = home.server().unwrap();
    // The kernel ends the shell then, and what runs in its foreground.
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    home.run(&["cancel", "last"]);
    let ended = home.command(&["fetch", "last"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(4), "cancelled: {ended:?}");
    assert_eq!(home.server(), Some(server), "it was not started again");
}

#[test]
fn server_that_cannot_start_says_why() {
    let home = Home::new("10m");
    let refused = home.command(&COUNT).env("SQLFLOW_GRACE", "soon").output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(
        said.contains("cannot start a server of your own: it ended with exit status: 2; its log "),
        "{said}"
    );
    assert!(said.contains("(from the environment variable SQLFLOW_GRACE)"), "{said}");

    let missing = home.command(&COUNT).env("SQLFLOW_SERVER_PROGRAM", "/no/sqlflow-server").output().unwrap();
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("the program /no/sqlflow-server is not there; "), "{said}");
    assert_eq!(home.run(&COUNT), "n\n150\n", "the next one starts");
}
