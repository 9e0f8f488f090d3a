//! Servers with TLS.

use std::process::{Command, Output, Stdio};

use sqlflow_tests::access::{self, Tokens};
use sqlflow_tests::server::{Server, Setup, program};

struct World {
    server: Server,
    tokens: Tokens,
    dir: tempfile::TempDir,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    access::certificates(dir.path());
    let tokens = Tokens::at(dir.path(), &["bob"]);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let setup = Setup::new(dir.path(), format!("sqlite:///{}/x.db", dir.path().display()))
        .flag(tokens.flag())
        .flag(format!("--tls-cert={}", file("server.crt")))
        .flag(format!("--tls-key={}", file("server.key")))
        .flag(format!("--client-ca={}", file("ca.crt")));
    World { server: setup.start().unwrap(), tokens, dir }
}

impl World {
    fn ctl(&self, variables: &[(&str, &str)], args: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut command = Command::new(program("sqlflowctl"));
        command.env_clear().env("HOME", self.dir.path()).current_dir(self.dir.path()).args(args);
        command
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may not read it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Who ran the newest job, as the server's audit log says.
    fn newest_principal(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("state/server.log")).unwrap();
        let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut runs = lines.filter(|it| it["target"] == "audit" && it["fields"]["action"] == "run");
        runs.next().unwrap()["fields"]["principal"].as_str().unwrap().to_owned()
    }
}

#[test]
fn client_certificate_or_token_is_an_identity_over_tls() {
    let world = world();
    let url = format!("https://{}", world.server.address);
    let run = ["run", "-e", "SELECT 'done' AS d", "--output", "csv"];
    let server = ("SQLFLOW_SERVER", url.as_str());
    let ca = ("SQLFLOW_CA", "ca.crt");
    let is_done = |output: &Output| String::from_utf8_lossy(&output.stdout).contains("done");
    let as_ana = world.ctl(
        &[server, ca, ("SQLFLOW_CLIENT_CERT", "ana.crt"), ("SQLFLOW_CLIENT_KEY", "ana.key")],
        &run,
        "",
    );
    assert!(is_done(&as_ana), "{as_ana:?}");
    assert_eq!(world.newest_principal(), "cert:ana");
    let as_bob = world.ctl(&[server, ca, ("SQLFLOW_ACCESS_TOKEN", world.tokens.of("bob"))], &run, "");
    assert!(is_done(&as_bob), "{as_bob:?}");
    assert_eq!(world.newest_principal(), "token:bob");

    // Signed by somebody else.
    let as_eve = world.ctl(
        &[server, ca, ("SQLFLOW_CLIENT_CERT", "eve.crt"), ("SQLFLOW_CLIENT_KEY", "eve.key")],
        &run,
        "",
    );
    assert!(!is_done(&as_eve) && as_eve.status.code() == Some(3), "{as_eve:?}");
    // The server may be somebody else.
    let untrusting =
        world.ctl(&[server, ("SQLFLOW_CA", "other.crt"), ("SQLFLOW_ACCESS_TOKEN", "x")], &run, "");
    assert!(untrusting.status.code() == Some(3), "{untrusting:?}");
    // The port does not speak without TLS.
    let plain = world.ctl(&[("SQLFLOW_SERVER", world.server.address.as_str())], &run, "");
    assert!(!is_done(&plain), "{plain:?}");
}

/// One login, and no more options.
#[test]
fn login_is_stored_once_the_server_accepts_it() {
    let world = world();
    let url = format!("https://{}", world.server.address);
    let login = ["login", "--server", &url, "--ca", "ca.crt"];
    let wrong = world.ctl(&[], &login, "wrong\n");
    assert!(wrong.status.code() == Some(2), "{wrong:?}");
    let stored = world.dir.path().join(".config/sqlflow/login.json");
    assert!(!stored.exists());
    let right = world.ctl(&[], &login, &format!("{}\n", world.tokens.of("bob")));
    assert!(right.status.success(), "{right:?}");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&stored).unwrap().permissions().mode() & 0o777, 0o600);
    let run = world.ctl(&[], &["run", "-e", "SELECT 'done' AS d", "--output", "csv"], "");
    assert!(String::from_utf8_lossy(&run.stdout).contains("done"), "{run:?}");
    assert_eq!(world.newest_principal(), "token:bob");
    // Its token is for its server only.
    let elsewhere = world.ctl(&[], &["list", "--server", "http://127.0.0.1:1", "--no-pager"], "");
    assert!(elsewhere.status.code() == Some(3), "{elsewhere:?}");
    assert!(world.ctl(&[], &["logout"], "").status.success());
    assert!(!stored.exists());
}

#[test]
fn pages_have_tls_too() {
    let world = world();
    let (host, port) = world.server.http.rsplit_once(':').unwrap();
    let script = format!(
        "printf 'GET /healthz HTTP/1.0\\r\\nHost: {host}\\r\\n\\r\\n' | openssl s_client -quiet -verify_return_error -CAfile ca.crt -connect {host}:{port}"
    );
    let output = Command::new("sh").args(["-c", &script]).current_dir(world.dir.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("ok\n"), "{output:?}");
}
