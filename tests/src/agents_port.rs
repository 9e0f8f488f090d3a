//! Where agents attach to a server: its socket, and its port for Pods, with a stand-in for the API server that reviews
//! their tokens.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlflow_proto::agent::agent_client::AgentClient;
use sqlflow_proto::agent::attach_request::Message;
use sqlflow_proto::agent::executor_identity::Identity;
use sqlflow_proto::agent::{
    AttachRequest, AttachResponse, ExecutorIdentity, Hello, KubernetesPod, LocalProcess, attach_response,
};
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Status, Streaming};

use crate::server::Setup;

/// The token of the only Pod that the API server knows.
pub const TOKEN: &str = "a.right.token";

/// A server that launches Pods, with this address for their agents. The folder has the certificates of
/// [`crate::access::certificates`].
pub fn setup(dir: &Path, address: &str) -> Setup {
    let file = |name: &str| dir.join(name).display().to_string();
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
    let setup = Setup::new(dir, format!("sqlite:///{}/x.db", dir.display()));
    flags.into_iter().fold(setup, Setup::flag).env("KUBECONFIG", api_server(dir))
}

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
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it listens");
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
    std::fs::write(&file, config.to_string()).expect("the folder can be written");
    file.display().to_string()
}

/// A connection to the port for Pods.
///
/// # Errors
/// Nobody listens there, or it has another certificate.
pub async fn connect(dir: &Path, address: &str) -> anyhow::Result<Channel> {
    let authority = Certificate::from_pem(std::fs::read(dir.join("ca.crt"))?);
    let tls = ClientTlsConfig::new().ca_certificate(authority).domain_name("localhost");
    Ok(Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?.connect().await?)
}

/// A connection to the agents' socket in a state folder, which is there soon after the server is ready.
pub async fn agents_socket(state: &Path) -> Channel {
    let socket = format!("unix://{}", state.join("agent.sock").display());
    let endpoint = Endpoint::from_shared(socket).expect("it is the address of a socket");
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The identity of a Pod with this token.
pub fn pod(token: &str) -> Identity {
    Identity::Kubernetes(KubernetesPod { token: token.to_owned() })
}

/// The identity of a process of this machine.
pub fn process() -> Identity {
    Identity::Local(LocalProcess {})
}

/// An agent without an attempt.
#[derive(Debug)]
pub struct Waiting {
    /// What the server says.
    pub answers: Streaming<AttachResponse>,
    /// Its stream is open as long as this.
    _requests: Sender<AttachRequest>,
}

/// Attaches; the server lets it wait for an attempt.
///
/// # Errors
/// The server's, or it has another answer.
pub async fn attach(channel: Channel, identity: Identity) -> Result<Waiting, Status> {
    let hello = Hello {
        protocol: 1,
        identity: Some(ExecutorIdentity { identity: Some(identity) }),
        instance_key: vec![7; 16].into(),
        ..Hello::default()
    };
    let (requests, stream) = mpsc::channel(1);
    let first = AttachRequest { message: Some(Message::Hello(hello)) };
    requests.send(first).await.map_err(|error| Status::internal(error.to_string()))?;
    let mut answers = AgentClient::new(channel).attach(ReceiverStream::new(stream)).await?.into_inner();
    match answers.message().await?.and_then(|it| it.message) {
        Some(attach_response::Message::Wait(_)) => Ok(Waiting { answers, _requests: requests }),
        other => Err(Status::internal(format!("the server does not let it wait: {other:?}"))),
    }
}
