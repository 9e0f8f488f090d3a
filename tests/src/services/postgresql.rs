//! A database server.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::{LOOPBACK, Service, free_port, wait_until};

/// PostgreSQL with an empty database, for one user with all privileges.
#[derive(Debug)]
pub struct Postgresql {
    /// Data source.
    pub dsn: String,
    /// The process.
    pub service: Service,
    /// Its data.
    pub dir: tempfile::TempDir,
}

impl Postgresql {
    /// Starts one.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let data = dir.path().join("data");
        // It refuses to run as root.
        let account = nix::unistd::User::from_name("postgres").ok().flatten();
        let account = account.filter(|_| nix::unistd::geteuid().is_root());
        let mut initdb = Command::new(installed("initdb"));
        initdb.arg(format!("--pgdata={}", data.display())).current_dir(dir.path());
        initdb.args(["--username=u", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        let mut server = Command::new("setpriv");
        if let Some(account) = account {
            std::os::unix::fs::chown(dir.path(), Some(account.uid.as_raw()), Some(account.gid.as_raw()))
                .expect("root may do that");
            initdb.uid(account.uid.as_raw()).gid(account.gid.as_raw());
            server.args([format!("--reuid={}", account.uid), format!("--regid={}", account.gid)]);
            // A change of the user clears it.
            server.args(["--clear-groups", "--pdeathsig", "KILL"]);
        }
        let output = initdb.output().expect("PostgreSQL is installed: `make test` does that");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let port = free_port();
        server.arg(installed("postgres")).arg("-D").arg(&data).args(["-p", &port.to_string()]);
        server.args(["-h", LOOPBACK, "-F", "-k"]).arg(dir.path());
        let log = dir.path().join("log");
        let service = Service::start(&mut server, &log);
        wait_until("PostgreSQL", &service, &log, || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ready to accept connections"))
        });
        Self { dsn: format!("postgresql://u@{LOOPBACK}:{port}/postgres"), service, dir }
    }
}

/// A program of the newest version that is installed. Debian has no links to them.
fn installed(program: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|it| it.path().join("bin").join(program)).filter(|it| it.exists()).max();
    newest.unwrap_or_else(|| program.into())
}
