//! A tracing backend.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use super::{LOOPBACK, Service, free_port_of, get, tool, wait_until};

/// A tracing backend that keeps spans in memory.
#[derive(Debug)]
pub struct Jaeger {
    /// Port of the collector, OTLP over gRPC: `http://127.0.0.1:<port>`.
    pub port: u16,
    /// Port of the collector, OTLP over HTTP.
    pub http_port: u16,
    /// Ports of the collector, gRPC and HTTP, where a client needs a certificate: `client.crt` in `dir`, which
    /// `ca.crt` there has signed, as it has the collector's.
    pub tls_ports: [u16; 2],
    /// Port of its query API.
    pub query_port: u16,
    /// The process.
    pub service: Service,
    /// Its log.
    pub dir: tempfile::TempDir,
}

impl Jaeger {
    /// The instance that all tests of this program share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Jaeger> = LazyLock::new(|| Jaeger::start_on(LOOPBACK));
        &SHARED
    }

    /// Starts one on this address of this machine.
    pub fn start_on(ip: &str) -> Self {
        let jaeger = tool("jaeger");
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        certificates(dir.path(), ip);
        let [port, http_port, tls_port, tls_http_port, query_port, query_grpc_port] =
            std::array::from_fn(|_| free_port_of(ip));
        let endpoint = |port: u16| serde_json::json!({ "endpoint": format!("{ip}:{port}") });
        let file = |name: &str| dir.path().join(name);
        let encrypted = |port: u16| {
            serde_json::json!({ "endpoint": format!("{ip}:{port}"), "tls": {
                "cert_file": file("server.crt"), "key_file": file("server.key"), "client_ca_file": file("ca.crt"),
            } })
        };
        let config = serde_json::json!({
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": { "traces": { "receivers": ["otlp", "otlp/tls"], "exporters": ["jaeger_storage_exporter"] } },
                "telemetry": { "metrics": { "level": "none" } },
            },
            "extensions": {
                "jaeger_storage": { "backends": { "memory": { "memory": { "max_traces": 10000 } } } },
                "jaeger_query": {
                    "storage": { "traces": "memory" },
                    "http": { "endpoint": format!("{ip}:{query_port}") },
                    "grpc": { "endpoint": format!("{ip}:{query_grpc_port}") },
                },
            },
            "receivers": {
                "otlp": { "protocols": { "grpc": endpoint(port), "http": endpoint(http_port) } },
                "otlp/tls": { "protocols": { "grpc": encrypted(tls_port), "http": encrypted(tls_http_port) } },
            },
            "exporters": { "jaeger_storage_exporter": { "trace_storage": "memory" } },
        });
        let config_file = file("config.json");
        std::fs::write(&config_file, config.to_string()).expect("the folder is ours");
        let log = dir.path().join("log");
        let service = Service::start(Command::new(&jaeger).arg("--config").arg(&config_file), &log);
        let ready = || get((ip, query_port), "/api/services").starts_with("HTTP/1.0 200");
        wait_until("Jaeger", &service, &log, ready);
        Self { port, http_port, tls_ports: [tls_port, tls_http_port], query_port, service, dir }
    }
}

/// `ca.crt`, and the pairs `server` and `client` signed by it.
fn certificates(dir: &Path, ip: &str) {
    let script = "set -e
key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
openssl req -x509 $key -keyout ca.key -subj /CN=ca -days 30 -out ca.crt
for name in server client; do
    openssl req $key -keyout $name.key -subj /CN=$name -out $name.csr
    openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile names -out $name.crt
done";
    std::fs::write(dir.join("names"), format!("subjectAltName=IP:{ip}")).expect("the folder is ours");
    let output = Command::new("sh").args(["-c", script]).current_dir(dir).output().expect("there is a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
