//! Attacks on the port of agents on other machines, which has TLS.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sqlflow_tests::access;
use sqlflow_tests::agents_port::{TOKEN, attach, connect, pod, setup};
use sqlflow_tests::services::free_port;
use tonic::Code;

/// A peer that completes its handshake and says nothing.
fn silent_tls(address: &str) -> Child {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-alpn", "h2", "-connect", address]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_without_an_identity_leave_room_for_agents() {
    let dir = tempfile::tempdir().unwrap();
    access::certificates(dir.path());
    let address = format!("127.0.0.1:{}", free_port());
    // 128 connections of a listener, of which half may wait for their admission.
    let server = setup(dir.path(), &address).descriptors(512).start().unwrap();

    let mut first = attach(connect(dir.path(), &address).await.unwrap(), pod(TOKEN)).await.unwrap();
    let speak = |bytes: &'static [u8]| {
        let mut stream = TcpStream::connect(&address).unwrap();
        // It may be closed already.
        let _ = stream.write_all(bytes);
        stream
    };
    let mut held = Vec::new();
    for said in [
        &b""[..],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0x16, 3, 1, 255, 255],
        &[0xff; 4096],
    ] {
        held.extend((0..150).map(|_| speak(said)));
        attach(connect(dir.path(), &address).await.unwrap(), pod(TOKEN)).await.unwrap();
    }
    let mut handshakes: Vec<Child> = (0..70).map(|_| silent_tls(&address)).collect();
    let mut strangers = Vec::new();
    for token in ["", "a.wrong.token", "x"].iter().cycle().take(70) {
        let channel = connect(dir.path(), &address).await.unwrap();
        let refused = attach(channel.clone(), pod(token)).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}: {refused}");
        strangers.push(channel);
    }
    attach(connect(dir.path(), &address).await.unwrap(), pod(TOKEN)).await.unwrap();
    // An admitted one keeps its place.
    assert!(tokio::time::timeout(Duration::ZERO, first.answers.message()).await.is_err());
    assert!(server.open_descriptors().unwrap() < 500, "{:?}", server.open_descriptors());
    drop((held, strangers));
    for handshake in &mut handshakes {
        let _ = handshake.kill();
        handshake.wait().unwrap();
    }
}
