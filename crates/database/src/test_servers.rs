//! Real servers for tests, and what tests of several databases need.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sqlflow_sql::Dialect;
use tempfile::TempDir;

use crate::{
    Batch, Column, ComputedColumn, ComputedKind, ConnectOptions, Database, Discard, Error, ErrorKind, Limits,
    Notice, Results, Values, connect,
};

/// A server that ends with the test.
struct Server {
    process: Child,
    folder: TempDir,
}

impl Server {
    /// Starts a server in its folder.
    fn start(command: &mut Command, folder: TempDir) -> Self {
        Self { process: command.stderr(Stdio::null()).spawn().unwrap(), folder }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A MariaDB.
pub(crate) struct MariaDb(Server);

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
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "/usr/sbin/mariadbd", "--no-defaults", &data, "--user=root"]);
        command.args(["--skip-networking", &temporary, "--innodb-buffer-pool-size=16M", "--sql-mode="]);
        command.args([format!("--socket={at}/socket"), format!("--init-file={at}/setup.sql")]);
        let server = Self(Server::start(&mut command, folder));
        // The socket exists before the database does.
        await_connection(&server.source());
        server
    }

    pub(crate) fn source(&self) -> String {
        self.source_of("root")
    }

    /// The data source of a user, with or without a password.
    pub(crate) fn source_of(&self, user: &str) -> String {
        format!("mysql://{user}@unix({}/socket)/test", self.0.folder.path().display())
    }

    pub(crate) fn open(&self) -> Box<dyn Database> {
        connect(&self.source(), options(|_| ())).unwrap()
    }
}

/// A PostgreSQL.
pub(crate) struct Postgresql(Server);

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
        let arguments = ["-D", &data, "-k", &at, "-c", "listen_addresses=", "-F"];
        let server = Self(Server::start(command("postgres").args(arguments), folder));
        await_connection(&server.source());
        server
    }

    pub(crate) fn source(&self) -> String {
        format!("postgresql:///postgres?host={}&user=u", self.0.folder.path().display())
    }

    pub(crate) fn open(&self) -> Box<dyn Database> {
        connect(&self.source(), options(|_| ())).unwrap()
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
    ConnectOptions {
        replay: Vec::new(),
        may_create: false,
        reach: sqlflow_data_source::Reach::default(),
        notify: Arc::new(notify),
    }
}

pub(crate) fn run(database: &mut dyn Database, sql: &str) {
    database.execute(sql, &mut Discard).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

pub(crate) fn texts(database: &mut dyn Database, sql: &str) -> Vec<String> {
    crate::texts(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Keeps the results of a statement: the columns of the last result set.
pub(crate) struct Kept {
    limits: Limits,
    pub(crate) columns: Vec<Column>,
    pub(crate) batches: Vec<Batch>,
    pub(crate) changed: Vec<Option<u64>>,
}

impl Kept {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, columns: Vec::new(), batches: Vec::new(), changed: Vec::new() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.batches.iter().map(|it| it.rows).sum()
    }
}

impl Default for Kept {
    fn default() -> Self {
        Self::new(Limits::COMPUTED)
    }
}

impl Results for Kept {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn result_set(&mut self, columns: &[Column]) -> Result<(), Error> {
        self.columns = columns.to_vec();
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        self.batches.push(batch);
        Ok(())
    }

    fn changed(&mut self, rows: Option<u64>) {
        self.changed.push(rows);
    }
}

pub(crate) fn read(database: &mut dyn Database, select: &str) -> Kept {
    let mut kept = Kept::default();
    database.read(select, &mut kept).unwrap_or_else(|error| panic!("{select}: {error}"));
    kept
}

pub(crate) fn computed(columns: &[(&str, ComputedKind)]) -> Vec<ComputedColumn> {
    columns.iter().map(|(name, kind)| ComputedColumn { name: (*name).to_owned(), kind: *kind }).collect()
}

/// Statements with a wrong syntax, with and without the tables that they name.
const WRONG: [&str; 10] = [
    "CREATE TABLE other (a INT,, b INT)",
    "CREATE TABLE source (a INT,, b INT)",
    "CREATE TABEL other (a INT)",
    "CREATE INDEX ON",
    "CREATE VIEW later_view SELECT a FROM source",
    "DROP TABLE IF EXIST source",
    "ALTER TABLE source ADD COLUMN",
    "ALTER TABLE outcome ADD COLUMN",
    "-- a comment\nINSERT INTO outcome VALUES (1,)",
    "SELECT a FROM WHERE",
];

/// The table `source` exists.
pub(crate) fn assert_syntax_is_checked(database: &mut dyn Database, right: &[&str]) {
    for sql in WRONG {
        let error = database.check_syntax(sql).unwrap_err();
        assert!(error.is_syntax && error.kind == ErrorKind::User, "{sql}: {error:?}");
        // SQLite does not report a line.
        let line = format!("line {}: ", 1 + sql.matches('\n').count());
        assert!(
            database.dialect() == Dialect::Sqlite || error.message.starts_with(&line),
            "{sql}: {error:?}"
        );
    }
    for sql in right {
        database.check_syntax(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
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
