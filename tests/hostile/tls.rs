//! Servers with TLS.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use sqlflow_proto::v1::ListJobsRequest;
use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_tests::access::{self, Tokens};
use sqlflow_tests::raw_codec::Raw;
use sqlflow_tests::server::{Server, Setup, program};
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::audit;

struct World {
    server: Server,
    tokens: Tokens,
    dir: tempfile::TempDir,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    access::certificates(dir.path());
    server_in(dir, "ca.crt", &[])
}

/// A server that trusts the authorities in this file of the folder.
fn server_in(dir: tempfile::TempDir, authorities: &str, flags: &[String]) -> World {
    let tokens = Tokens::at(dir.path(), &["bob"]);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let setup = Setup::new(dir.path(), format!("sqlite:///{}/x.db", dir.path().display()))
        .flag(tokens.flag())
        .flag(format!("--tls-cert={}", file("server.crt")))
        .flag(format!("--tls-key={}", file("server.key")))
        .flag(format!("--client-ca={}", file(authorities)));
    let setup = flags.iter().fold(setup, |setup, flag| setup.flag(flag));
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
        let lines = audit::lines(self.dir.path());
        let newest = lines.iter().rfind(|it| it["action"] == "run").unwrap();
        newest["principal"].as_str().unwrap().to_owned()
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

/// What the authority `ca` needs to sign with dates of its own, and to revoke.
const AUTHORITY: &str = "[ca]
default_ca = d
[d]
certificate = ca.crt
private_key = ca.key
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
default_md = sha256
default_days = 30
default_crl_days = 30
policy = p
x509_extensions = client
crl_extensions = list
[p]
commonName = supplied
[client]
basicConstraints = CA:FALSE
extendedKeyUsage = clientAuth
[list]
authorityKeyIdentifier = keyid:always
";

fn shell(dir: &Path, script: &str) {
    let made = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// Makes a client's certificate, by `openssl ca` with these options.
fn certify(dir: &Path, name: &str, options: &str) {
    let script = format!(
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr
        openssl ca -batch -notext -config ca.cnf -in {name}.csr -out {name}.crt {options}"
    );
    shell(dir, &script);
}

impl World {
    /// A call of this client that has no end, and its connection.
    async fn held(&self, client: &str) -> (Streaming<Vec<u8>>, Channel) {
        let read = |file: &str| std::fs::read(self.dir.path().join(file)).unwrap();
        let identity = Identity::from_pem(read(&format!("{client}.crt")), read(&format!("{client}.key")));
        let authority = Certificate::from_pem(read("ca.crt"));
        let tls =
            ClientTlsConfig::new().ca_certificate(authority).identity(identity).domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{}", self.server.address)).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        // The connection is admitted by it.
        SqlFlowClient::new(channel.clone()).list_jobs(ListJobsRequest::default()).await.unwrap();
        let mut calls = tonic::client::Grpc::new(channel.clone());
        calls.ready().await.unwrap();
        let path = "/grpc.health.v1.Health/Watch".parse().unwrap();
        let watched = calls.server_streaming(tonic::Request::new(Vec::new()), path, Raw).await;
        let mut stream = watched.unwrap().into_inner();
        assert!(stream.message().await.unwrap().is_some(), "{client}");
        (stream, channel)
    }
}

/// It stayed open for as long as its client wanted.
#[tokio::test(flavor = "multi_thread")]
async fn connection_ends_with_its_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    access::certificates(dir.path());
    std::fs::write(dir.path().join("ca.cnf"), AUTHORITY).unwrap();
    let list = "openssl ca -config ca.cnf -gencrl -out new.crl; mv new.crl crl";
    shell(
        dir.path(),
        &format!(
            "touch index.txt; echo 01 > serial; echo 01 > crlnumber; cat ca.crt other.crt > both.crt; {list}"
        ),
    );
    certify(dir.path(), "revoked", "");
    let crl = format!("--client-crl={}", dir.path().join("crl").display());
    let world = server_in(dir, "both.crt", &[crl]);
    let dir = world.dir.path();
    certify(dir, "short", "-enddate $(date -u -d '20 seconds' +%Y%m%d%H%M%SZ)");
    let (mut short, _) = world.held("short").await;
    let (mut foreign, _) = world.held("eve").await;
    let (mut revoked, _) = world.held("revoked").await;
    let (mut ana, channel) = world.held("ana").await;
    assert!(short.message().await.is_err(), "it has expired");
    shell(
        dir,
        &format!(
            "openssl ca -config ca.cnf -revoke revoked.crt; {list}; cp ca.crt new.crt; mv new.crt both.crt"
        ),
    );
    let (revoked, foreign) = tokio::join!(revoked.message(), foreign.message());
    assert!(revoked.is_err() && foreign.is_err(), "{revoked:?} {foreign:?}");
    assert!(tokio::time::timeout(Duration::ZERO, ana.message()).await.is_err(), "it stays");
    SqlFlowClient::new(channel).list_jobs(ListJobsRequest::default()).await.unwrap();
}

/// Nobody has to restart the server, and no call ends for it.
#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificate_is_shown_by_both_ports() {
    let world = world();
    let dir = world.dir.path();
    let (mut held, channel) = world.held("ana").await;
    let shown = |address: &str| {
        let script = format!(
            "openssl s_client -connect {address} -cert ana.crt -key ana.key < /dev/null 2> /dev/null |
            openssl x509 -noout -serial"
        );
        Command::new("sh").args(["-c", &script]).current_dir(dir).output().unwrap().stdout
    };
    let ports = [&world.server.address, &world.server.http];
    let before = shown(ports[0]);
    assert!(before.starts_with(b"serial="), "{before:?}");
    shell(
        dir,
        "openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile server.ext \
         -out new.crt; mv new.crt server.crt",
    );
    for port in ports {
        let is_renewed = |serial: &[u8]| serial.starts_with(b"serial=") && serial != before;
        let begun = std::time::Instant::now();
        while !is_renewed(&shown(port)) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{port} shows the old one");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    assert!(tokio::time::timeout(Duration::ZERO, held.message()).await.is_err(), "it stays");
    SqlFlowClient::new(channel).list_jobs(ListJobsRequest::default()).await.unwrap();
}
