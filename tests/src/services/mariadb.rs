//! A database server.

use std::process::Command;

use super::{Service, free_port_of, wait_until};

/// MariaDB with an empty database `test`, for one user with all privileges.
#[derive(Debug)]
pub struct Mariadb {
    /// DSN for `sqlflow-server --datasource`.
    pub dsn: String,
    /// Its port.
    pub port: u16,
    /// The process.
    pub service: Service,
    /// Its data.
    pub dir: tempfile::TempDir,
}

/// A password with characters that a DSN must quote. It is unique, so that tests can search for it.
pub const PASSWORD: &str = "pass/w@rd:hunter2";

impl Mariadb {
    /// Starts one on this address.
    pub fn start_on(ip: &str) -> Self {
        Self::start_with(ip, &[])
    }

    /// The same with more options, which take precedence.
    pub fn start_with(ip: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let data = format!("--datadir={}/data", dir.path().display());
        let installed = Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                &data,
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--user=root",
            ])
            .output()
            .expect("MariaDB is installed: `make test` does that");
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        let setup = dir.path().join("setup.sql");
        let sql = format!(
            "CREATE DATABASE test CHARACTER SET utf8mb4;\nCREATE USER 'u'@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO 'u'@'%';\n"
        );
        std::fs::write(&setup, sql).expect("the test owns the folder");
        let port = free_port_of(ip);
        let mut command = Command::new("/usr/sbin/mariadbd");
        command.args([
            "--no-defaults",
            &data,
            "--user=root",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=64M",
        ]);
        command.arg(format!("--socket={}/socket", dir.path().display())).arg(format!("--port={port}"));
        command.arg(format!("--bind-address={ip}")).arg(format!("--init-file={}", setup.display()));
        command.args(options);
        let log = dir.path().join("log");
        let service = Service::start(&mut command, &log);
        wait_until("MariaDB", &service, &log, || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ready for connections"))
        });
        let dsn = format!("mysql://u:{PASSWORD}@tcp({ip}:{port})/test?maxAllowedPacket=0");
        Self { dsn, port, service, dir }
    }
}
