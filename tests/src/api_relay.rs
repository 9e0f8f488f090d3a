//! The Kubernetes API without TLS and credentials, by `kubectl proxy`; optionally behind an [`HttpRelay`].

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::cluster::Cluster;
use crate::http_relay::{HttpRelay, Mode};
use crate::services::{Service, free_port};

/// `kubectl proxy`, until it is dropped.
#[derive(Debug)]
pub struct ApiProxy {
    /// Port in `http://127.0.0.1:<port>`.
    pub port: u16,
    _proxy: Service,
}

impl ApiProxy {
    /// Starts it; it logs into this folder.
    pub fn start(dir: &Path) -> Self {
        let port = free_port();
        let command = Cluster::shared().kubectl_command();
        let mut words = command.split(' ');
        let mut proxy = Command::new(words.next().expect("it has a program"));
        proxy.args(words).args(["proxy", &format!("--port={port}")]);
        let service = Service::start(&mut proxy, &dir.join("proxy.log"));
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Self { port, _proxy: service }
    }
}

/// An API that forwards everything, or answers every request with an error.
#[derive(Debug)]
pub struct ApiRelay {
    /// Port in `http://127.0.0.1:<port>`.
    pub port: u16,
    relay: HttpRelay,
    _proxy: ApiProxy,
}

impl ApiRelay {
    /// Starts one that logs into this folder.
    pub fn start(dir: &Path) -> Self {
        let proxy = ApiProxy::start(dir);
        let relay = HttpRelay::start(proxy.port);
        Self { port: relay.port, relay, _proxy: proxy }
    }

    /// From now on every request gets this response. Open calls are cut.
    pub fn answer(&self, code: u16, reason: &'static str) {
        let status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "injected", "reason": reason, "code": code,
        });
        self.relay.set(Mode::Answer(code, reason, status.to_string()));
    }

    /// From now on everything is forwarded.
    pub fn pass(&self) {
        self.relay.set(Mode::Pass);
    }
}
