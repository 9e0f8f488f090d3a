//! Attacks on the port of agents on other machines, which has TLS.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use sqlflow_proto::agent::agent_client::AgentClient;
use sqlflow_proto::agent::attach_request::Message;
use sqlflow_proto::agent::executor_identity::Identity;
use sqlflow_proto::agent::{
    AttachRequest, AttachResponse, ExecutorIdentity, Hello, KubernetesPod, attach_response,
};
use sqlflow_tests::access;
use sqlflow_tests::server::Setup;
use sqlflow_tests::services::free_port;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status, Streaming};

/// The token of the only Pod that the API server knows.
const TOKEN: &str = "a.right.token";

/// Answers a request to the API server: reviews of tokens, and no other objects.
fn answer(path: &str, body: &Value) -> Value {
    if !path.ends_with("/tokenreviews") {
        return json!({ "kind": "PodList", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": [] });
    }
    let is_right = body["spec"]["token"] == TOKEN;
    let pod = json!({
        "authentication.kubernetes.io/pod-name": ["a-pod"],
        "authentication.kubernetes.io/pod-uid": ["1"],
    });
    let user = json!({ "username": "system:serviceaccount:jobs:default", "extra": pod });
    let status = match is_right {
        true => json!({ "authenticated": true, "user": user, "audiences": body["spec"]["audiences"] }),
        false => json!({ "authenticated": false }),
    };
    json!({ "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": {}, "status": status })
}

/// Serves one request; `None`: the peer is gone.
fn serve(mut stream: TcpStream) -> Option<()> {
    let mut request = Vec::new();
    let (head, mut body) = loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        request.extend(&buffer[..count]);
        if let Some(end) = request.windows(4).position(|it| it == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
            break (head, request[end + 4..].to_vec());
        }
    };
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    while body.len() < length {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        body.extend(&buffer[..count]);
    }
    let path = head.split(' ').nth(1)?.split('?').next()?.to_owned();
    let text = answer(&path, &serde_json::from_slice(&body).unwrap_or_default()).to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{text}", text.len()).ok()
}

/// A stand-in for an API server; the path of a kubeconfig for it.
fn api_server(dir: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": format!("http://{address}") } }],
        "users": [{ "name": "u", "user": {} }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u", "namespace": "jobs" } }],
    });
    let file = dir.join("kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    file.display().to_string()
}

async fn connect(dir: &Path, address: &str) -> Channel {
    let authority = Certificate::from_pem(std::fs::read(dir.join("ca.crt")).unwrap());
    let tls = ClientTlsConfig::new().ca_certificate(authority).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
    endpoint.connect().await.unwrap()
}

/// An agent without an attempt.
struct Attached {
    answers: Streaming<AttachResponse>,
    /// Its stream is open as long as this.
    _requests: Sender<AttachRequest>,
}

/// Attaches; the server lets it wait.
async fn attach(channel: Channel, token: &str) -> Result<Attached, Status> {
    let pod = Identity::Kubernetes(KubernetesPod { token: token.to_owned() });
    let hello = Hello {
        protocol: 1,
        identity: Some(ExecutorIdentity { identity: Some(pod) }),
        instance_key: vec![7; 16].into(),
        ..Hello::default()
    };
    let first = AttachRequest { message: Some(Message::Hello(hello)) };
    let (requests, stream) = mpsc::channel(1);
    requests.send(first).await.unwrap();
    let mut answers = AgentClient::new(channel).attach(ReceiverStream::new(stream)).await?.into_inner();
    let answer = answers.message().await?.and_then(|it| it.message);
    assert!(matches!(answer, Some(attach_response::Message::Wait(_))), "{answer:?}");
    Ok(Attached { answers, _requests: requests })
}

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
    let file = |name: &str| dir.path().join(name).display().to_string();
    let address = format!("127.0.0.1:{}", free_port());
    let flags = [
        "--launcher=kubernetes".to_owned(),
        format!("--agent-listen={address}"),
        format!("--agent-cert={}", file("server.crt")),
        format!("--agent-key={}", file("server.key")),
        format!("--agent-url=https://{address}"),
        "--pod-image=none".to_owned(),
        "--python=python3".to_owned(),
        "--models=s3://nowhere/models".to_owned(),
    ];
    let setup = Setup::new(dir.path(), format!("sqlite:///{}/x.db", dir.path().display()));
    let setup = flags.into_iter().fold(setup, Setup::flag).env("KUBECONFIG", api_server(dir.path()));
    // 128 connections of a listener, of which half may wait for their admission.
    let server = setup.descriptors(512).start().unwrap();

    let mut first = attach(connect(dir.path(), &address).await, TOKEN).await.unwrap();
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
        attach(connect(dir.path(), &address).await, TOKEN).await.unwrap();
    }
    let mut handshakes: Vec<Child> = (0..70).map(|_| silent_tls(&address)).collect();
    let mut strangers = Vec::new();
    for token in ["", "a.wrong.token", "x"].iter().cycle().take(70) {
        let channel = connect(dir.path(), &address).await;
        let refused = attach(channel.clone(), token).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}: {refused}");
        strangers.push(channel);
    }
    attach(connect(dir.path(), &address).await, TOKEN).await.unwrap();
    // An admitted one keeps its place.
    assert!(tokio::time::timeout(Duration::ZERO, first.answers.message()).await.is_err());
    assert!(server.open_descriptors().unwrap() < 500, "{:?}", server.open_descriptors());
    drop((held, strangers));
    for handshake in &mut handshakes {
        let _ = handshake.kill();
        handshake.wait().unwrap();
    }
}
