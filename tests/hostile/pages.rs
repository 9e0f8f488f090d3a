//! Attacks on the port of the pages, and on that of the metrics.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_proto::v1::{Request, Session};
use sqlflow_tests::access::Tokens;
use sqlflow_tests::http::{self, path_of};
use sqlflow_tests::server::Server;
use sqlflow_tests::services::free_port;
use sqlflow_tests::stand_in;
use tonic::transport::Endpoint;

/// More than a listener of a server with 512 descriptors serves.
const CONNECTIONS: usize = 140;

/// Sends requests until the server takes no more of them, and reads nothing.
fn flood(address: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let requests = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").repeat(5000);
    let mut left = requests.as_bytes();
    while let Ok(count) = stream.write(left)
        && count > 0
    {
        left = &left[count..];
    }
    stream
}

/// Opens the live updates of a job's page, and reads the beginning of the answer.
fn open_page(server: &Server, page: &str) -> TcpStream {
    let mut open = TcpStream::connect(&server.http).unwrap();
    let live = page.replace("?key=", "/live?key=");
    write!(open, "GET {live} HTTP/1.1\r\nHost: {}\r\n\r\n", server.http).unwrap();
    let mut first = [0; 12];
    open.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    open
}

/// Whether the server has not closed it.
fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// They had the port for as long as they wanted: while answers to a peer wait, no timeout of a request runs.
#[tokio::test(flavor = "multi_thread")]
async fn peers_that_read_nothing_leave_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::at(dir.path(), &["ana"]);
    let metrics = format!("127.0.0.1:{}", free_port());
    let server = stand_in::setup(dir.path(), "import time; time.sleep(1000)", None)
        .flag(tokens.flag())
        .flag("--grace=1s")
        .flag(format!("--metrics-listen={metrics}"))
        .descriptors(512)
        .start()
        .unwrap();
    let channel =
        Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    let mut ana = SqlFlowClient::with_interceptor(channel, tokens.interceptor("ana"));
    let program =
        Request { sql: stand_in::STEP.to_owned(), session: Some(Session::default()), ..Request::default() };
    let job = ana.run(program).await.unwrap().into_inner();
    // By its link, which is a right.
    let mut page = open_page(&server, path_of(&job.job_tracer_url));

    let mut held = Vec::new();
    for (address, path) in [(&server.http, "/jobs"), (&metrics, "/metrics")] {
        held.extend((0..CONNECTIONS).map(|_| flood(address, path)));
        assert_eq!(http::get(address, "/healthz").code, 200, "{address}");
    }
    // An address of their own shows metrics to everybody, and the pages' only to administrators.
    let shown = http::get(&metrics, "/metrics");
    assert!(shown.code == 200 && shown.body.contains("sqlflow_"), "{shown:?}");
    assert_eq!(http::get(&metrics, "/jobs").code, 404);
    assert_eq!(http::get(&server.http, "/metrics").code, 403);
    assert_eq!(http::get_as_bearer(&server.http, "/jobs", tokens.of("ana")).code, 200);
    assert!(is_open(&mut page), "it has a right, and keeps its place");
    drop(held);
}
