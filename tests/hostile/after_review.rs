//! The attacks of a review, against the server that was repaired after it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::task::{Context, Poll};

use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_proto::v1::{ListJobsRequest, Session};
use sqlflow_tests::access::{self, Tokens, as_nobody};
use sqlflow_tests::client::Client;
use sqlflow_tests::raw_codec::Raw;
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::until::until;
use sqlflow_tests::{http, python, stand_in};
use tonic::codegen::{Body, Bytes, Service as _, http as http2};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const MIB: u64 = 1 << 20;
/// The largest message that a server takes from a client.
const LONGEST: usize = 17 << 20;

fn setup(dir: &Path) -> Setup {
    Setup::new(dir, format!("sqlite:///{}/x.db", dir.display()))
}

async fn connect(server: &Server) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap()
}

/// Whether the server serves somebody who has a token, on a connection of their own.
async fn serves(server: &Server, tokens: &Tokens, user: &str) -> Result<(), Status> {
    let mut client = SqlFlowClient::with_interceptor(connect(server).await, tokens.interceptor(user));
    client.list_jobs(ListJobsRequest::default()).await.map(drop)
}

/// The beginning of a long message, and no end.
struct Unfinished {
    /// Header of the message.
    beginning: Option<Bytes>,
    /// Bytes that follow.
    left: usize,
}

impl Unfinished {
    fn of(bytes: usize) -> Self {
        let length = u32::try_from(LONGEST).unwrap().to_be_bytes();
        Self { beginning: Some([&[0][..], &length].concat().into()), left: bytes }
    }
}

impl Body for Unfinished {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        static CHUNK: [u8; 64 << 10] = [b'x'; 64 << 10];
        if let Some(beginning) = self.beginning.take() {
            return Poll::Ready(Some(Ok(http_body::Frame::data(beginning))));
        }
        let next = self.left.min(CHUNK.len());
        self.left -= next;
        // Nothing wakes it: the request stays open.
        if next == 0 {
            Poll::Pending
        } else {
            Poll::Ready(Some(Ok(http_body::Frame::data(CHUNK[..next].into()))))
        }
    }
}

/// Sends unfinished requests on connections of their own; the codes of those that the server ends, once all bytes are
/// sent or refused.
async fn unfinished_requests(
    server: &Server,
    streams: usize,
    bytes: usize,
    bearer: Option<&str>,
) -> Vec<Code> {
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let channel = connect(server).await;
        for _ in 0..streams {
            let mut channel = channel.clone();
            let mut request = http2::Request::post("/sqlflow.v1.SQLFlow/Run")
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            if let Some(token) = bearer {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let request = request.body(tonic::body::Body::new(Unfinished::of(bytes))).unwrap();
            calls.spawn(async move {
                std::future::poll_fn(|context| channel.poll_ready(context)).await.ok()?;
                let answer = channel.call(request).await.ok()?;
                Status::from_header_map(answer.headers()).map(|it| it.code())
            });
        }
    }
    let mut codes = Vec::new();
    // Those that the server holds have no end.
    while let Ok(Some(call)) =
        tokio::time::timeout(std::time::Duration::from_secs(2), calls.join_next()).await
    {
        codes.push(call.unwrap().unwrap_or(Code::Unknown));
    }
    codes
}

/// 3 connections of 100 requests took 1.7 GB.
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_requests_take_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::at(dir.path(), &["ana"]);
    let server = setup(dir.path())
        .flag(tokens.flag())
        // What is freed is no longer resident: this measures what requests hold.
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        .start()
        .unwrap();
    let before = server.memory_peak();
    let grown = || server.memory_peak().saturating_sub(before) / MIB;
    // Somebody without a right.
    let refused = connect(&server).await;
    let refused = SqlFlowClient::new(refused).list_jobs(ListJobsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let ended = unfinished_requests(&server, 100, 4 << 20, None).await;
    assert_eq!(ended.len(), 300, "their connections are closed");
    assert!(grown() < 64, "{} MiB", grown());
    // Ana has a right, and needs not more than some programs at a time.
    let ended = unfinished_requests(&server, 40, 8 << 20, Some(tokens.of("ana"))).await;
    assert!(ended.contains(&Code::ResourceExhausted), "{ended:?}");
    assert!(grown() < 400, "{} MiB", grown());
    serves(&server, &tokens, "ana").await.unwrap();
}

/// Another user of this machine who holds connections and says nothing.
struct SilentNobody {
    process: Child,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl SilentNobody {
    fn connect(address: &str, connections: usize) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap();
        let script = format!(
            "import resource, select, socket
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
all = [socket.create_connection(('{host}', {port})) for _ in range({connections})]
print('connected', flush=True)
input()
ended = select.poll()
for it in all: ended.register(it, select.POLLIN)
print(len(all) - len(ended.poll(0)))"
        );
        let mut process = as_nobody("python3")
            .env("PATH", "/usr/bin:/bin")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, said) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut nobody = Self { process, orders, said: BufReader::new(said) };
        assert_eq!(nobody.next_line(), "connected");
        nobody
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Number of connections that the server has not closed.
    fn open(mut self) -> usize {
        writeln!(self.orders).unwrap();
        let open = self.next_line().parse().unwrap();
        self.process.wait().unwrap();
        open
    }
}

/// As many as may wait for their admission filled the places for handshakes until these timed out.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_leave_room_for_handshakes() {
    let dir = tempfile::tempdir().unwrap();
    access::certificates(dir.path());
    let tokens = Tokens::at(dir.path(), &["ana"]);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let server = setup(dir.path())
        .flag(tokens.flag())
        .flag(format!("--tls-cert={}", file("server.crt")))
        .flag(format!("--tls-key={}", file("server.key")))
        // A listener has a quarter of them.
        .descriptors(10_000)
        .start()
        .unwrap();
    let silent = SilentNobody::connect(&server.address, 1100);
    let ca = std::fs::read_to_string(dir.path().join("ca.crt")).unwrap();
    let mut ana = Client::connect_with_tls(&server.address, "localhost", &ca).await.unwrap();
    let session = Session { token: tokens.of("ana").to_owned(), ..Session::default() };
    ana.run_in("SELECT 1", session).await.unwrap();
    let open = silent.open();
    assert!((900..=1024).contains(&open), "ana was served beside {open}");
    // They lost their places to newer ones, and not to the timeout of handshakes.
    let log = dir.path().join("state/server.log");
    until("the oldest ones are closed", || {
        std::fs::read_to_string(&log).unwrap().contains("closing the oldest connections")
    });
}

/// A health check; whether the server says that it serves.
async fn is_serving(channel: Channel) -> Result<bool, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = "/grpc.health.v1.Health/Check".parse().unwrap();
    let answer = client.unary(tonic::Request::new(Vec::new()), path, Raw).await?;
    Ok(answer.into_inner() == [1 << 3, 1])
}

/// Their places were those of clients without an identity, for as long as they wanted.
#[tokio::test(flavor = "multi_thread")]
async fn health_probes_leave_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::at(dir.path(), &["ana"]);
    let server = setup(dir.path())
        .flag(tokens.flag())
        .flag("--limit-connections=3")
        // 128 connections of a listener, of which half may wait for their admission.
        .descriptors(512)
        .start()
        .unwrap();
    let mut held = Vec::new();
    for _ in 0..200 {
        let channel = connect(&server).await;
        assert!(is_serving(channel.clone()).await.unwrap());
        held.push(channel);
    }
    assert!(is_serving(connect(&server).await).await.unwrap(), "a probe");
    serves(&server, &tokens, "ana").await.unwrap();
    let session = Session { token: tokens.of("ana").to_owned(), ..Session::default() };
    server.client().await.unwrap().run_in("SELECT 1", session).await.unwrap();
    drop(held);
}

/// The local user behind the connection is the proxy's.
#[test]
fn request_of_a_proxy_is_nobodys() {
    let is_refused = |address: &str, lines: &str| {
        let (list, metrics) =
            (http::get_with(address, "/jobs", lines), http::get_with(address, "/metrics", lines));
        assert!(list.code == 401 && list.body.contains("action=\"/sign-in\""), "{lines}: {list:?}");
        assert!(metrics.code == 403 && !metrics.body.contains("sqlflow_jobs"), "{lines}: {metrics:?}");
    };
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    assert_eq!(http::get(&server.http, "/jobs").code, 200, "its own user");
    for line in [
        "X-Forwarded-For: 192.0.2.1",
        "x-forwarded-for:",
        "Forwarded: for=192.0.2.1",
        "Via: 1.1 proxy",
        "X-Real-IP: 192.0.2.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: sqlflow.example.com",
    ] {
        is_refused(&server.http, &format!("{line}\r\n"));
    }
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).flag("--public-url=https://sqlflow.example.com").start().unwrap();
    is_refused(&server.http, "");
    assert_eq!(http::get_from_host(&server.http, "/jobs", "sqlflow.example.com").code, 401);
    assert_eq!(http::get(&server.http, "/healthz").code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_other_sites_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let mut client = server.client().await.unwrap();
    let job = client.run("SELECT 1").await.unwrap();
    let (page, token) = (format!("/jobs/{}", job.job_id), format!("token={}", job.token));
    for site in ["cross-site", "same-site"] {
        let line = format!("Sec-Fetch-Site: {site}\r\n");
        for (path, form) in [("/sign-in", "token=x"), ("/sign-out", ""), (&page, &token)] {
            let answer = http::post_with(&server.http, path, form, &line);
            assert!(answer.code == 403 && !answer.headers.contains("set-cookie"), "{path}: {answer:?}");
            assert!(!answer.headers.contains("location"), "{path}: {answer:?}");
        }
    }
    let own = http::post_with(&server.http, &page, &token, "Sec-Fetch-Site: same-origin\r\n");
    assert_eq!(own.code, 303, "{own:?}");
}

/// Runs each attack, and prints which one was successful.
const ATTACKS: &str = r#"
import os, sys
tokens, sources, key, database = sys.argv[1:5]
def read(path):
    with open(path, "rb") as file: file.read(1)
def append(path):
    with open(path, "ab"): pass
def create(path):
    with open(path, "xb"): pass
def replace(path):
    create("own")
    os.replace("own", path)
def link(path):
    os.symlink(path, "link")
    try: read("link")
    finally: os.unlink("link")
def hard_link(path):
    os.link(path, "hard")
    os.unlink("hard")
def rename(path):
    os.rename(path, path + ".old")
    os.rename(path + ".old", path)
def rename_folder(path):
    rename(os.path.dirname(path))
def by_root(path):
    read("/proc/self/root" + path)
reached = []
for path in tokens, sources, key, database:
    for attack in read, append, replace, link, hard_link, rename, rename_folder, by_root, os.truncate:
        try:
            attack(path, 1) if attack is os.truncate else attack(path)
            reached.append(f"{attack.__name__} {path}")
        except OSError:
            pass
for suffix in "-wal", "-journal":
    try:
        create(database + suffix)
        reached.append(database + suffix)
    except OSError:
        pass
print("REACHED", reached, flush=True)
"#;

/// What the attacks of a step reach, with this confinement.
async fn reached(confine: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let [private, data] = ["private", "data"].map(|it| dir.path().join(it));
    std::fs::create_dir(&private).unwrap();
    std::fs::create_dir(&data).unwrap();
    access::certificates(&private);
    let tokens = Tokens::at(&private, &["ana"]);
    let (database, sources) = (data.join("hers.db"), private.join("sources.toml"));
    std::fs::write(&database, "secret").unwrap();
    let text = format!("[hers]\ndsn = 'sqlite:///{}'\nusers = ['token:bob']\n", database.display());
    std::fs::write(&sources, text).unwrap();
    let attacks = dir.path().join("attacks.py");
    std::fs::write(&attacks, ATTACKS).unwrap();
    let key = private.join("server.key");
    let paths = [tokens.file(), &sources, &key, &database].map(|it| it.display().to_string());
    let exec = format!("exec {} {} {}", python::program().display(), attacks.display(), paths.join(" "));
    let python = stand_in::python_that(dir.path(), "python", &exec);
    let server = setup(dir.path())
        .flag(tokens.flag())
        .flag(format!("--data-sources={}", sources.display()))
        .flag(format!("--tls-cert={}", private.join("server.crt").display()))
        .flag(format!("--tls-key={}", key.display()))
        .flag(format!("--python={}", python.display()))
        .flag(format!("--confine={confine}"))
        .start()
        .unwrap();
    let ca = std::fs::read_to_string(private.join("ca.crt")).unwrap();
    let mut ana = Client::connect_with_tls(&server.address, "localhost", &ca).await.unwrap();
    let session = Session { token: tokens.of("ana").to_owned(), ..Session::default() };
    let token = ana.run_in(stand_in::STEP, session).await.unwrap();
    let log = ana.follow(&token).await.unwrap().log();
    log.lines().find_map(|it| it.strip_prefix("REACHED ")).unwrap_or_else(|| panic!("{log}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn confined_python_reaches_no_tokens_and_no_data_sources() {
    assert_eq!(reached("require").await, "[]");
    let all = reached("off").await;
    // Otherwise the line above would prove nothing.
    assert_eq!(all.matches("', '").count() + 1, 4 * 9 + 2, "{all}");
}
