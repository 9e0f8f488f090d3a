//! Peers that connect and never complete a request: their connections are closed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use sqlflow_tests::server::Setup;

/// Timeout for the server to close a connection.
const BOUND: Duration = Duration::from_secs(120);

/// Reads until the peer closes the connection, or an error.
fn read_to_end(mut stream: TcpStream) {
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|read| read > 0) {}
}

/// An HTTP/1 request whose header never ends.
fn endless_header(address: &str) {
    let stream = TcpStream::connect(address).unwrap();
    let mut writer = stream.try_clone().unwrap();
    writer.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    std::thread::spawn(move || {
        while writer.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    read_to_end(stream);
}

/// An HTTP/2 client that answers pings and sends no request.
fn no_request(address: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings].concat()).unwrap();
    let mut header = [0; 9];
    while stream.read_exact(&mut header).is_ok() {
        let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
        if stream.read_exact(&mut payload).is_err() {
            return;
        }
        let (kind, is_answer) = (header[3], header[4] & 1 == 1);
        if kind == 6 && !is_answer {
            header[4] = 1;
            let _ = stream.write_all(&[header.as_slice(), &payload].concat());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_without_a_request_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        Setup::new(dir.path(), format!("sqlite://{}", dir.path().join("x.db").display())).start().unwrap();
    let (clients, pages) = (server.address.clone(), server.http.clone());
    let header = tokio::task::spawn_blocking(move || endless_header(&pages));
    let request = tokio::task::spawn_blocking(move || no_request(&clients));
    tokio::time::timeout(BOUND, header).await.expect("the pages keep the connection").unwrap();
    tokio::time::timeout(BOUND, request).await.expect("the API keeps the connection").unwrap();
}
