//! Real services for tests: one of each per test program. They end with it.

#![expect(clippy::print_stderr, reason = "what a failed test shows")]

mod hdfs;
mod jaeger;
mod mariadb;
mod oidc_provider;
mod postgresql;
mod s3;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::python;
use crate::until::until;

pub use hdfs::Hdfs;
pub use jaeger::Jaeger;
pub use mariadb::{Mariadb, PASSWORD};
pub use oidc_provider::OidcProvider;
pub use postgresql::Postgresql;
pub use s3::{S3, S3_KEY};

/// Timeout for the start of a service. Enough for a JVM on a busy machine.
const START: Duration = Duration::from_secs(120);

/// Folder of a tool that `scripts/test-tool.sh` builds and caches outside the clone.
pub fn tool(name: &str) -> PathBuf {
    let script = python::repository().join("scripts/test-tool.sh");
    let output = Command::new(script).arg(name).stderr(Stdio::inherit()).output().expect("the script runs");
    assert!(output.status.success(), "scripts/test-tool.sh {name} failed");
    String::from_utf8(output.stdout).expect("a path is text").trim_end().into()
}

const LOOPBACK: &str = "127.0.0.1";

/// A free port of loopback.
pub fn free_port() -> u16 {
    free_port_of(LOOPBACK)
}

/// A free port of another address of this machine.
pub fn free_port_of(ip: &str) -> u16 {
    free_port_in(ip, SERVICE_PORTS)
}

/// Below the kernel's ephemeral ports: between this call and the start of a service, which takes seconds in a JVM, the
/// kernel could assign such a port to another process.
const SERVICE_PORTS: Range<u16> = 10_000..32_000;

/// A free port of this range that no earlier call returned.
fn free_port_in(ip: &str, ports: Range<u16>) -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("no thread panics while it holds the lock");
    loop {
        let port = rand::random_range(ports.clone());
        if TcpListener::bind((ip, port)).is_ok() && given.insert(port) {
            return port;
        }
    }
}

/// A process that ends with this one.
#[derive(Debug)]
pub struct Service {
    /// For `kill`.
    pub pid: i32,
}

impl Service {
    /// Starts it with its output in `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::create(log).expect("the log can be made");
        // The kernel ends it with the thread that started it, so that thread waits.
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            tied.env(name, value.unwrap_or_default());
        }
        tied.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let (send, started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut child = tied.spawn().expect("the service starts");
            send.send(child.id()).expect("the receiver waits");
            child.wait().expect("it can be waited for")
        });
        let pid = started.recv().expect("the service starts");
        Self { pid: i32::try_from(pid).expect("pids are positive i32") }
    }

    /// Ends it before this process does, with this signal.
    pub fn end(&self, signal: Signal) {
        // An error means that it has ended already.
        let _ = kill(Pid::from_raw(self.pid), signal);
        until("the service has ended", || !self.is_alive());
    }

    /// Whether it runs, or was not reaped yet.
    fn is_alive(&self) -> bool {
        Path::new(&format!("/proc/{}", self.pid)).exists()
    }
}

/// Waits for a service that logs into this file.
fn wait_until(what: &str, service: &Service, log: &Path, mut is_ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_ready() {
        let ended = !service.is_alive();
        if ended || begun.elapsed() > START {
            eprintln!("{}", std::fs::read_to_string(log).unwrap_or_default());
            panic!("{what} {}", if ended { "ended while it started" } else { "did not start in time" });
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// `GET path`, as text; empty without a response.
pub fn get(address: (&str, u16), path: &str) -> String {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    ask().unwrap_or_default()
}
