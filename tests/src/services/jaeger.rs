//! A tracing backend.

use std::process::Command;
use std::sync::LazyLock;

use super::{LOOPBACK, Service, free_port_of, get, tool, wait_until};

/// A tracing backend that keeps spans in memory.
#[derive(Debug)]
pub struct Jaeger {
    /// Port of the collector, OTLP over gRPC: `http://127.0.0.1:<port>`.
    pub port: u16,
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
        let [port, query_port, query_grpc_port] = std::array::from_fn(|_| free_port_of(ip));
        let config = serde_json::json!({
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": { "traces": { "receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"] } },
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
            "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": format!("{ip}:{port}") } } } },
            "exporters": { "jaeger_storage_exporter": { "trace_storage": "memory" } },
        });
        let file = dir.path().join("config.json");
        std::fs::write(&file, config.to_string()).expect("the test owns the folder");
        let log = dir.path().join("log");
        let service = Service::start(Command::new(&jaeger).arg("--config").arg(&file), &log);
        let ready = || get((ip, query_port), "/api/services").starts_with("HTTP/1.0 200");
        wait_until("Jaeger", &service, &log, ready);
        Self { port, query_port, service, dir }
    }
}
