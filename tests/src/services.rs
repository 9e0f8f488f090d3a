//! Real services that tests talk to, one of each for a test program; they end with it.

#![expect(clippy::print_stderr, reason = "what a failed test shows")]

mod hdfs;
mod jaeger;
mod mariadb;
mod s3;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use hdfs::Hdfs;
pub use jaeger::Jaeger;
pub use mariadb::{Mariadb, PASSWORD};
pub use s3::{S3, S3_KEY};

/// Enough for a JVM on a busy machine; a service that needs longer does not come.
const START: Duration = Duration::from_secs(120);

/// What `scripts/test-tool.sh` makes, cached outside the clone.
pub fn tool(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test-tool.sh");
    let output = Command::new(script).arg(name).stderr(Stdio::inherit()).output().expect("the script runs");
    assert!(output.status.success(), "scripts/test-tool.sh {name} failed");
    String::from_utf8(output.stdout).expect("a path is text").trim_end().into()
}

const LOOPBACK: &str = "127.0.0.1";

/// A port of loopback that nobody uses.
pub fn free_port() -> u16 {
    free_port_of(LOOPBACK)
}

/// The same of another address of this machine.
pub fn free_port_of(ip: &str) -> u16 {
    let listener = TcpListener::bind((ip, 0)).expect("the address is there");
    listener.local_addr().expect("it is bound").port()
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
        // The kernel ends it with the thread that started it; so that thread stays.
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            tied.env(name, value.unwrap_or_default());
        }
        tied.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let (send, started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut child = tied.spawn().expect("the service starts");
            send.send(child.id()).expect("somebody waits");
            child.wait().expect("it can be waited for")
        });
        let pid = started.recv().expect("the service starts");
        Self { pid: i32::try_from(pid).expect("pids are positive i32") }
    }
}

fn wait_until(what: &str, log: &Path, mut is_ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_ready() {
        if begun.elapsed() > START {
            eprintln!("{}", std::fs::read_to_string(log).unwrap_or_default());
            panic!("{what} did not start");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// `GET path`, as text; empty when nobody answers.
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
