//! What one connection of a client may carry.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use sqlflow_tests::server::Setup;

/// The preface of HTTP/2, and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
/// Type of a SETTINGS frame.
const SETTINGS: u8 = 4;
/// Identifier of the setting SETTINGS_MAX_CONCURRENT_STREAMS.
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// The settings that a server sends first, as pairs of identifier and value.
fn settings(address: &str) -> Vec<(u16, u32)> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(HELLO).unwrap();
    let mut header = [0; 9];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header[3], SETTINGS, "a server begins with its settings");
    let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
    stream.read_exact(&mut payload).unwrap();
    let pairs = payload.chunks_exact(6);
    pairs
        .map(|it| (u16::from_be_bytes([it[0], it[1]]), u32::from_be_bytes([it[2], it[3], it[4], it[5]])))
        .collect()
}

/// Libraries of gRPC use one connection for all calls of a process. Beyond the limit a call waits for another one to
/// end, and a Fetch may take a second.
#[tokio::test(flavor = "multi_thread")]
async fn connection_carries_a_fetch_for_each_of_1000_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        Setup::new(dir.path(), format!("sqlite://{}", dir.path().join("x.db").display())).start().unwrap();
    let settings = settings(&server.address);
    let streams = settings.iter().find(|(identifier, _)| *identifier == MAX_CONCURRENT_STREAMS).unwrap().1;
    assert!(streams >= 1_000, "{settings:?}");
}
