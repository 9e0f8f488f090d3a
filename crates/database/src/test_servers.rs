//! Real servers for tests.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::{ConnectOptions, Database, Discard, Notice, Values, connect};

/// A MariaDB that ends with the test.
pub(crate) struct MariaDb {
    process: Child,
    folder: TempDir,
}

impl MariaDb {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = format!("--datadir={}/data", folder.path().display());
        // In /tmp, servers of other containers may have the same process number.
        let temporary = format!("--tmpdir={}", folder.path().display());
        let install = [
            "--no-defaults",
            &data,
            &temporary,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--user=root",
        ];
        let installed = Command::new("mariadb-install-db").args(install).output();
        let installed = installed.expect("MariaDB is installed: `make test` does that");
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        std::fs::write(folder.path().join("setup.sql"), "CREATE DATABASE test CHARACTER SET utf8mb4;\n")
            .unwrap();
        let at = folder.path().display();
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "/usr/sbin/mariadbd", "--no-defaults", &data, "--user=root"])
            .args([
                "--skip-networking",
                &temporary,
                "--innodb-buffer-pool-size=16M",
                &format!("--socket={at}/socket"),
            ])
            .args([&format!("--init-file={at}/setup.sql"), "--sql-mode="])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, folder };
        // The socket exists before the database does.
        await_connection(&server.source());
        server
    }

    pub(crate) fn source(&self) -> String {
        self.source_of("root")
    }

    /// The data source of a user, with or without a password.
    pub(crate) fn source_of(&self, user: &str) -> String {
        format!("mysql://{user}@unix({}/socket)/test", self.folder.path().display())
    }

    pub(crate) fn open(&self) -> Box<dyn Database> {
        connect(&self.source(), options(|_| ())).unwrap()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A PostgreSQL that ends with the test.
pub(crate) struct Postgresql {
    process: Child,
    folder: TempDir,
}

impl Postgresql {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display().to_string();
        // It does not run as root.
        let is_root = nix::unistd::geteuid().is_root();
        if is_root {
            let user = nix::unistd::User::from_name("postgres").unwrap().expect("its package makes the user");
            nix::unistd::chown(folder.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        let command = |program: &str| {
            let mut command = Command::new("setpriv");
            if is_root {
                command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
            }
            command.args(["--pdeathsig", "KILL"]).arg(postgresql_program(program)).current_dir(folder.path());
            command
        };
        let data = format!("{at}/data");
        let installed = command("initdb")
            .args([&format!("--pgdata={data}"), "--username=u", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync"])
            .output()
            .unwrap();
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        let process = command("postgres")
            .args(["-D", &data, "-k", &at, "-c", "listen_addresses=", "-F"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, folder };
        await_connection(&server.source());
        server
    }

    pub(crate) fn source(&self) -> String {
        format!("postgresql:///postgres?host={}&user=u", self.folder.path().display())
    }

    pub(crate) fn open(&self) -> Box<dyn Database> {
        connect(&self.source(), options(|_| ())).unwrap()
    }
}

impl Drop for Postgresql {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Debian does not put it on PATH.
fn postgresql_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut programs: Vec<_> = versions.map(|it| it.path().join("bin").join(name)).collect();
    programs.sort();
    programs.pop().unwrap_or_else(|| name.into())
}

fn await_connection(source: &str) {
    while connect(source, options(|_| ())).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn options(notify: impl Fn(Notice) + Send + Sync + 'static) -> ConnectOptions {
    ConnectOptions { replay: Vec::new(), may_create: false, notify: Arc::new(notify) }
}

pub(crate) fn run(database: &mut dyn Database, sql: &str) {
    database.execute(sql, &mut Discard).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

pub(crate) fn texts(database: &mut dyn Database, sql: &str) -> Vec<String> {
    crate::texts(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Whether the values are the same, floats by their bits. The texts of arrays leave out values in the middle.
pub(crate) fn are_same(a: &Values, b: &Values) -> bool {
    match (a, b) {
        (Values::Mixed(a), Values::Mixed(b)) => a == b,
        _ => {
            let data = |values: &Values| values.array().map(|it| it.to_data());
            std::mem::discriminant(a) == std::mem::discriminant(b) && data(a) == data(b)
        }
    }
}
