//! Selects by the binary protocol of a real MariaDB. Its text protocol: `images/submitter/tests`.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use crate::{
    Batch, Column, ConnectOptions, Database, Discard, Error, ErrorKind, Notice, Results, Values, connect,
};

/// A server that ends with the test.
struct MariaDb {
    process: Child,
    folder: TempDir,
}

impl MariaDb {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = format!("--datadir={}/data", folder.path().display());
        let install = [
            "--no-defaults",
            &data,
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
            .args(["--skip-networking", "--innodb-buffer-pool-size=16M", &format!("--socket={at}/socket")])
            .args([&format!("--init-file={at}/setup.sql"), "--sql-mode="])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, folder };
        // The socket exists before the database does.
        while connect(&server.source(), options(|_| ())).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn source(&self) -> String {
        format!("mysql://root@unix({}/socket)/test", self.folder.path().display())
    }

    fn open(&self) -> Box<dyn Database> {
        connect(&self.source(), options(|_| ())).unwrap()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn options(notify: impl Fn(Notice) + Send + Sync + 'static) -> ConnectOptions {
    ConnectOptions { replay: Vec::new(), may_create: false, notify: Arc::new(notify) }
}

/// Keeps all results.
#[derive(Default)]
struct Kept {
    columns: Vec<Column>,
    batches: Vec<Vec<Values>>,
    rows: usize,
    changed: Vec<Option<u64>>,
}

impl Results for Kept {
    fn result_set(&mut self, columns: &[Column]) -> Result<(), Error> {
        self.columns = columns.to_vec();
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        self.rows += batch.rows;
        self.batches.push(batch.columns);
        Ok(())
    }

    fn changed(&mut self, rows: Option<u64>) {
        self.changed.push(rows);
    }
}

fn run(database: &mut dyn Database, sql: &str) {
    database.execute(sql, &mut Discard).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn read(database: &mut dyn Database, sql: &str) -> Kept {
    let mut kept = Kept::default();
    database.read(sql, &mut kept).unwrap_or_else(|error| panic!("{sql}: {error}"));
    kept
}

/// Both protocols must have the same columns and values.
fn assert_same(database: &mut dyn Database, select: &str) -> Kept {
    let mut text = Kept::default();
    // Statements with a variable are not prepared.
    database.execute(&format!("{select} /* @ */"), &mut text).unwrap();
    let mut executed = Kept::default();
    database.execute(select, &mut executed).unwrap();
    assert_eq!((&text.columns, text.rows), (&executed.columns, executed.rows));
    let binary = read(database, select);
    assert_eq!(text.columns, binary.columns);
    let all = |kept: &Kept, column: usize| {
        kept.batches.iter().map(|it| format!("{:?}", it[column])).collect::<Vec<_>>()
    };
    // The sizes of rows differ, and so do batches.
    if text.batches.len() == 1 {
        for column in 0..text.columns.len() {
            let name = &text.columns[column].database_type;
            assert_eq!(all(&text, column), all(&binary, column), "{name}");
            assert_eq!(all(&text, column), all(&executed, column), "{name}");
        }
    }
    binary
}

const COLUMNS: [(&str, &str); 31] = [
    ("TINYINT", "-128"),
    ("TINYINT UNSIGNED", "255"),
    ("SMALLINT", "-32768"),
    ("MEDIUMINT", "-8388608"),
    ("MEDIUMINT UNSIGNED", "16777215"),
    ("INT(8) ZEROFILL", "42"),
    ("INT", "-2147483648"),
    ("BIGINT", "-9223372036854775808"),
    ("BIGINT UNSIGNED", "18446744073709551615"),
    ("BIGINT UNSIGNED", "7"),
    ("YEAR", "2024"),
    ("BIT(10)", "b'1000000001'"),
    ("BIT(64)", "~0"),
    ("DECIMAL(30,4)", "-12345678901234567890.1250"),
    ("DOUBLE", "-1.7976931348623157e308"),
    ("DOUBLE(12,3)", "0.1"),
    ("FLOAT", "16777217"),
    ("FLOAT(7,2)", "1.005"),
    ("VARCHAR(9)", "'ä😀'"),
    ("LONGTEXT", "REPEAT('x', 70000)"),
    ("BLOB", "X'00FF27'"),
    ("VARBINARY(3)", "X'00FF27'"),
    ("DATE", "'1969-12-31'"),
    ("DATE", "'0000-00-00'"),
    ("DATETIME(6)", "'1970-01-02 00:00:00.000001'"),
    ("DATETIME(3)", "'2024-00-00 01:02:03.5'"),
    ("TIME(1)", "'-838:59:58.5'"),
    ("TIME", "'00:00:00'"),
    ("ENUM('a','b')", "'b'"),
    ("SET('a','b')", "'a,b'"),
    ("POINT", "ST_GeomFromText('POINT(1 2)')"),
];

#[test]
fn values_are_those_of_the_text_protocol() {
    let server = MariaDb::start();
    let database = &mut *server.open();
    let columns: Vec<String> =
        COLUMNS.iter().enumerate().map(|(place, (declared, _))| format!("c{place} {declared}")).collect();
    run(database, &format!("CREATE TABLE types ({})", columns.join(", ")));
    let values: Vec<&str> = COLUMNS.iter().map(|(_, value)| *value).collect();
    assert_same(database, "SELECT * FROM types");
    run(database, &format!("INSERT INTO types VALUES ({})", values.join(", ")));
    assert_same(database, "SELECT * FROM types");
    run(database, "INSERT INTO types () VALUES ()");
    assert_eq!(assert_same(database, "SELECT * FROM types").rows, 2);
    assert_same(
        database,
        "SELECT AVG(c15), SUM(c16), NULL, 1 + 0.5, 'é', NOW() IS NULL, JSON_OBJECT('a', 1) FROM types",
    );

    run(database, "CREATE TABLE floats (f FLOAT, d DOUBLE, g DOUBLE(20,4)) ENGINE=MyISAM");
    let random = "(RAND(seq) - 0.5) * POW(10, seq % 60 - 30e0)";
    run(database, &format!("INSERT INTO floats SELECT {random}, {random}, {random} FROM seq_1_to_90"));
    run(database, "INSERT INTO floats VALUES (-0.0, -0.0, -0.0), (3.40282e38, 4.9e-324, 0.00005)");
    assert_eq!(assert_same(database, "SELECT * FROM floats").rows, 92);
    let large = read(database, "SELECT seq, NULLIF(seq % 2, 0), 'x' FROM seq_1_to_100000");
    assert_eq!((large.rows, large.batches.len() > 10), (100_000, true));

    statements_that_are_not_plain_selects(database);
    state_of_the_session_stays(database);
    timestamps_are_instants(&server);
}

fn statements_that_are_not_plain_selects(database: &mut dyn Database) {
    // It cannot be prepared.
    assert_eq!(read(database, "SHOW SLAVE HOSTS").rows, 0);
    run(database, "CREATE PROCEDURE several() BEGIN SELECT 1 AS a; SELECT 2e0 AS b, 'x' AS c; END");
    let several = read(database, "CALL several()");
    assert_eq!((several.rows, several.columns[1].name.as_str()), (2, "c"));
    assert_eq!(read(database, "SELECT 1e0 INTO @x").changed, [Some(1)]);
    for wrong in
        ["SELECT * FROM nowhere", "SELECT 1,\nFROM", "SELECT ?", "SELECT (SELECT seq FROM seq_1_to_2)"]
    {
        let error = database.read(wrong, &mut Discard).unwrap_err();
        assert_eq!(error.kind, ErrorKind::User, "{error}");
        assert_eq!(error.message, database.execute(wrong, &mut Discard).unwrap_err().message);
    }
    assert_eq!(database.describe("SELECT 1.5e0 AS v, c7 FROM types").unwrap()[1].database_type, "BIGINT");
}

/// Statements that are prepared first leave the same state as others.
fn state_of_the_session_stays(database: &mut dyn Database) {
    let count = |database: &mut dyn Database, sql: &str| crate::texts(database, sql).unwrap().len();
    run(database, "SET sql_mode = 'ERROR_FOR_DIVISION_BY_ZERO'");
    for variable in ["", " /* @ */"] {
        run(database, &format!("SELECT d, CAST('x' AS INT) FROM floats LIMIT 3{variable}"));
        assert_eq!(count(database, "SHOW WARNINGS"), 3, "{variable}");
        run(database, &format!("SELECT SQL_CALC_FOUND_ROWS d FROM floats LIMIT 3{variable}"));
        assert_eq!(crate::texts(database, "SELECT FOUND_ROWS()").unwrap(), ["92"], "{variable}");
        run(database, "UPDATE floats SET d = 1 WHERE f = 0");
        run(database, "UPDATE floats SET d = 2 WHERE f = 0");
        assert_eq!(
            crate::texts(database, "SELECT ROW_COUNT() FROM floats LIMIT 1").unwrap(),
            ["1"],
            "{variable}"
        );
        run(database, "DO LAST_INSERT_ID(7)");
        assert_eq!(crate::texts(database, "SELECT LAST_INSERT_ID(), d FROM floats LIMIT 1").unwrap(), ["7"]);
    }
    // Nothing stays prepared.
    let prepared = "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'Prepared_stmt_count'";
    assert_eq!(crate::texts(database, prepared).unwrap(), ["0"]);
}

fn timestamps_are_instants(server: &MariaDb) {
    let notices = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&notices);
    let mut database =
        connect(&server.source(), options(move |notice| kept.lock().unwrap().push(notice))).unwrap();
    let database = &mut *database;
    run(database, "SET time_zone = '+05:30'");
    run(database, "CREATE TABLE moments (t TIMESTAMP(2) NULL, d DATETIME)");
    run(database, "INSERT INTO moments VALUES (FROM_UNIXTIME(1700000000.25), '2024-01-01'), (NULL, NULL)");
    for zone in ["+05:30", "-03:30", "+00:00"] {
        run(database, &format!("SET time_zone = '{zone}'"));
        let found = read(database, "SELECT * FROM moments");
        let Values::Instants(moments) = &found.batches[0][0] else { panic!("{:?}", found.batches) };
        assert_eq!(moments.iter().collect::<Vec<_>>(), [Some(1_700_000_000_250_000), None], "{zone}");
        assert!(matches!(found.batches[0][1], Values::Timestamps(_)));
    }
    assert!(notices.lock().unwrap().is_empty());
}
