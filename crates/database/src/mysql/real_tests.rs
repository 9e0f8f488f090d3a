//! Selects by the binary protocol of a real MariaDB. Its text protocol: `images/submitter/tests`.

use std::sync::{Arc, Mutex};

use crate::test_servers::{Kept, MariaDb, are_same, assert_syntax_is_checked, options, run};
use crate::{Database, Discard, ErrorKind, Kind, Limits, Values, connect};

fn read(database: &mut dyn Database, sql: &str) -> Kept {
    let mut kept = Kept::new(Limits::SHOWN);
    database.read(sql, &mut kept).unwrap_or_else(|error| panic!("{sql}: {error}"));
    kept
}

/// Both protocols must have the same columns and values. Those that are read have more digits of a FLOAT.
fn assert_same(database: &mut dyn Database, select: &str) -> Kept {
    let mut text = Kept::new(Limits::SHOWN);
    // Statements with a variable are not prepared.
    database.execute(&format!("{select} /* @ */"), &mut text).unwrap();
    let mut executed = Kept::new(Limits::SHOWN);
    database.execute(select, &mut executed).unwrap();
    assert_eq!((&text.columns, text.rows()), (&executed.columns, executed.rows()));
    let binary = read(database, select);
    assert_eq!(text.columns, binary.columns);
    // The sizes of rows differ, and so do batches.
    if text.batches.len() == 1 {
        for column in 0..text.columns.len() {
            let name = &text.columns[column].database_type;
            let [text, binary, executed] =
                [&text, &binary, &executed].map(|it| &it.batches[0].columns[column]);
            match (text, binary) {
                (Values::Floats(text), Values::Floats(binary)) if name == "FLOAT" => {
                    let digits = |value: f64| format!("{:.5e}", value as f32).parse::<f64>().unwrap();
                    let are_near = |(text, binary): (Option<f64>, Option<f64>)| {
                        text == binary || text == binary.map(digits)
                    };
                    assert!(text.iter().zip(binary).all(are_near), "{text:?}\n{binary:?}");
                }
                _ => assert!(are_same(text, binary), "{name}\n{text:?}\n{binary:?}"),
            }
            assert!(are_same(text, executed), "{name}\n{text:?}\n{executed:?}");
        }
    }
    binary
}

pub(super) const COLUMNS: [(&str, &str); 31] = [
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
    assert_eq!(assert_same(database, "SELECT * FROM types").rows(), 2);
    types_decide_kinds(database);
    assert_same(
        database,
        "SELECT AVG(c15), SUM(c16), NULL, 1 + 0.5, 'é', NOW() IS NULL, JSON_OBJECT('a', 1) FROM types",
    );

    run(database, "CREATE TABLE floats (f FLOAT, d DOUBLE, g DOUBLE(20,4)) ENGINE=MyISAM");
    let random = "(RAND(seq) - 0.5) * POW(10, seq % 60 - 30e0)";
    run(database, &format!("INSERT INTO floats SELECT {random}, {random}, {random} FROM seq_1_to_90"));
    run(database, "INSERT INTO floats VALUES (-0.0, -0.0, -0.0), (3.40282e38, 4.9e-324, 0.00005)");
    assert_eq!(assert_same(database, "SELECT * FROM floats").rows(), 92);
    let large = read(database, "SELECT seq, NULLIF(seq % 2, 0), 'x' FROM seq_1_to_100000");
    assert_eq!((large.rows(), large.batches.len() > 10), (100_000, true));

    statements_that_are_not_plain_selects(database);
    state_of_the_session_stays(database);
    timestamps_are_instants(&server);
}

fn types_decide_kinds(database: &mut dyn Database) {
    let described =
        database.describe("SELECT types.*, NULL, FROM_UNIXTIME(1), TIMESTAMP(NOW()) FROM types").unwrap();
    let kinds: Vec<_> = described.iter().map(|it| it.kind).collect();
    let of = |kind, count| std::iter::repeat_n(kind, count);
    let expected = of(Some(Kind::Int), 13)
        .chain(of(Some(Kind::Decimal), 1))
        .chain(of(Some(Kind::Float), 4))
        .chain(of(None, 2))
        .chain(of(Some(Kind::Blob), 2))
        .chain(of(Some(Kind::Date), 2))
        .chain(of(Some(Kind::Timestamp), 2))
        .chain(of(None, 4))
        .chain(of(Some(Kind::Blob), 1))
        .chain(of(None, 1))
        .chain(of(Some(Kind::Timestamp), 2));
    assert_eq!(kinds, expected.collect::<Vec<_>>());
}

/// Statements that can be prepared, and statements that cannot.
#[test]
fn statements_are_checked_and_not_executed() {
    let server = MariaDb::start();
    let database = &mut *server.open();
    run(database, "CREATE TABLE source (a INT)");
    assert_syntax_is_checked(database, &RIGHT);
    for sql in [
        "INSERT INTO source VALUES (1)",
        "EXPLAIN SELECT a FROM source",
        "CREATE TABLE other AS SELECT a FROM source",
        "CREATE TABLE other (a INT)",
        "DROP TABLE nosuch",
        "SHOW SLAVE HOSTS",
    ] {
        database.check_query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    for (sql, message) in [
        ("SELECT b FROM source", "Unknown column 'b' in 'SELECT'"),
        ("CREATE TABLE other\nAS SELECT a FROM nosuch", "Table 'test.nosuch' doesn't exist"),
    ] {
        let error = database.check_query(sql).unwrap_err();
        assert!(error.message.eq_ignore_ascii_case(message) && !error.is_syntax, "{error}");
    }
    let error = database.check_query("CREATE TABLE other\nAS\nSELECT a FROM WHERE").unwrap_err();
    assert!(error.is_syntax && error.message.starts_with("line 3: "), "{error}");
    assert_eq!(crate::texts(database, "SELECT COUNT(*) FROM source").unwrap(), ["0"]);
    settings_hold_for_further_connections(database);
}

fn settings_hold_for_further_connections(database: &mut dyn Database) {
    let quoted = "CREATE TABLE \"other\" (a INT)";
    assert!(database.check_syntax(quoted).unwrap_err().is_syntax);
    assert!(database.add_setting("SET sql_mode = 'ANSI_QUOTES'").unwrap());
    assert!(database.add_setting("SET sql_mod = 1").is_err());
    let mut checking = database.checking_connection().unwrap();
    checking.check_syntax(quoted).unwrap();
    run(&mut *checking, "SET autocommit = 0");
    assert_eq!(crate::texts(database, "SELECT @@autocommit").unwrap(), ["1"]);
}

const RIGHT: [&str; 17] = [
    "CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END",
    "CREATE TRIGGER tr AFTER INSERT ON outcome FOR EACH ROW BEGIN SET @a = 1; END",
    "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO BEGIN SELECT 1; END",
    "BEGIN NOT ATOMIC SELECT 1; SELECT 2; END",
    "PREPARE s FROM 'SELECT 1'",
    "EXECUTE s",
    "LOCK TABLES outcome READ",
    "LOAD DATA LOCAL INFILE 'x' INTO TABLE outcome",
    "SET STATEMENT max_statement_time = 1 FOR CREATE TABLE z (a INT)",
    "GRANT SELECT ON test.outcome TO 'x'@'%'",
    "SET PASSWORD FOR 'x'@'%' = PASSWORD('y')",
    "/*!40000 ALTER TABLE outcome DISABLE KEYS */",
    "ANALYZE FORMAT=JSON SELECT 1",
    "RENAME TABLE outcome TO other",
    "USE nosuch",
    "SET ROLE nosuch",
    "INSTALL PLUGIN x SONAME 'x.so'",
];

fn statements_that_are_not_plain_selects(database: &mut dyn Database) {
    // It cannot be prepared.
    assert_eq!(read(database, "SHOW SLAVE HOSTS").rows(), 0);
    run(database, "CREATE PROCEDURE several() BEGIN SELECT 1 AS a; SELECT 2e0 AS b, 'x' AS c; END");
    let several = read(database, "CALL several()");
    assert_eq!((several.rows(), several.columns[1].name.as_str()), (2, "c"));
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
        let Values::Instants(moments) = &found.batches[0].columns[0] else { panic!("{:?}", found.batches) };
        assert_eq!(moments.iter().collect::<Vec<_>>(), [Some(1_700_000_000_250_000), None], "{zone}");
        assert!(matches!(found.batches[0].columns[1], Values::Timestamps(_)));
    }
    assert!(notices.lock().unwrap().is_empty());
}
