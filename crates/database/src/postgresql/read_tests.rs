//! Selects whose values arrive in binary form, from a real PostgreSQL and from servers that misbehave.

use std::net::TcpStream;

use proptest::prelude::*;

use super::frames::tests::frame;
use super::scripted_server::{Server, answer, answered_with, complete, error, ready};
use super::writer_tests::{TYPES, odd_session};
use crate::test_servers::{Kept, Postgresql, are_same, run, texts};
use crate::{Database, Error, ErrorKind, Limits, Values};

/// Reads a select in binary form, and as the server prints it. Both must have the same columns and values.
fn assert_same(database: &mut dyn Database, select: &str) -> Kept {
    let (mut binary, mut printed) = (Kept::default(), Kept::default());
    database.read(select, &mut binary).unwrap_or_else(|error| panic!("{select}: {error}"));
    // The settings of the session are those for reading, from now on.
    database.execute(select, &mut printed).unwrap();
    assert_eq!(binary.columns, printed.columns, "{select}");
    assert_eq!(binary.changed, printed.changed, "{select}");
    assert_eq!(binary.rows(), printed.rows(), "{select}");
    if let ([a], [b]) = (binary.batches.as_slice(), printed.batches.as_slice()) {
        for (place, (a, b)) in a.columns.iter().zip(&b.columns).enumerate() {
            assert!(are_same(a, b), "{select}: {:?}\n{a:?}\n{b:?}", binary.columns[place]);
        }
    }
    binary
}

#[test]
fn values_are_those_that_the_server_prints() {
    let server = Postgresql::start();
    let mut database = server.open();
    run(
        &mut *database,
        "CREATE TYPE mood AS ENUM ('sad', 'it''s'); CREATE DOMAIN age AS int CHECK (value > 0)",
    );
    run(&mut *database, "CREATE DOMAIN share AS numeric(5,2)");
    let odd = &mut *odd_session(&server);
    let share: (&str, &[&str], bool) = ("share", &["1.50"], true);
    for (kind, values, _) in TYPES.iter().chain([&share]) {
        let value = |it: &&str| format!("(E'{}'::{kind})", it.replace('\\', "\\\\").replace('\'', "''"));
        let rows: Vec<_> = values.iter().map(value).chain(["(NULL)".to_owned()]).collect();
        run(&mut *database, "DROP TABLE IF EXISTS source");
        run(
            &mut *database,
            &format!("CREATE TABLE source AS SELECT * FROM (VALUES {}) AS q (v)", rows.join(", ")),
        );
        // Instants outside the calendar are printed in UTC.
        run(&mut *database, "SET timezone TO 'UTC'");
        assert_same(&mut *database, "SELECT * FROM source");
        if !is_odd_instant(kind, values) {
            assert_same(odd, "SELECT v, v AS v FROM source -- twice");
        }
        assert_same(&mut *database, "SELECT v, array[v] FROM source WHERE v IS NULL");
    }
}

fn is_odd_instant(kind: &str, values: &[&str]) -> bool {
    kind == "timestamptz" && values.iter().any(|it| it.contains("BC") || it.ends_with("-12"))
}

#[test]
fn many_values_are_those_that_the_server_prints() {
    let server = Postgresql::start();
    let mut database = server.open();
    let database = &mut *database;
    run(database, "SET timezone TO 'UTC'; SELECT setseed(0.5)");
    let selects = [
        "SELECT date '4713-01-01 BC' + 9973 * i FROM generate_series(0, 600) AS i",
        "SELECT date '0002-12-01 BC' + i FROM generate_series(0, 800) AS i",
        "SELECT date '0001-01-01' + 997 * i FROM generate_series(0, 3662) AS i",
        "SELECT timestamp '4713-01-01 BC' + i * interval '9973 days 1:02:03.040506' FROM generate_series(0, 3000) AS i",
        "SELECT timestamptz '0001-01-01' + i * interval '997 days 1:02:03.045' FROM generate_series(0, 3650) AS i",
        "SELECT (random() - 0.5)::numeric * 10::numeric ^ (i % 80 - 40) FROM generate_series(0, 3000) AS i",
        "SELECT trunc((random() * 1e18)::numeric / 10::numeric ^ (i % 30), i % 25) FROM generate_series(0, 3000) AS i",
        "SELECT (random() - 0.5) * 10 ^ (i % 600 - 300) FROM generate_series(0, 3000) AS i",
        "SELECT ((random() - 0.5) * 10 ^ (i % 70 - 35))::real FROM generate_series(0, 3000) AS i",
        "SELECT 'NaN'::float8 AS a, -('NaN'::float8) AS b, 'NaN'::real AS c, '-0'::float8 AS d, 'Infinity'::float8 AS e",
        "SELECT i, i::text AS t, CASE i % 3 WHEN 0 THEN i / 3.0 END AS n FROM generate_series(0, 3000) AS i",
    ];
    for select in selects {
        run(database, "DROP TABLE IF EXISTS drawn");
        run(database, &format!("CREATE TABLE drawn AS {select}"));
        assert_same(database, "SELECT * FROM drawn");
    }
    let huge = assert_same(database, "SELECT 1e131000 AS n FROM generate_series(1, 200)");
    // Printed numbers count, not those that arrive.
    assert!(huge.batches.len() > 4, "{}", huge.batches.len());
    assert!(huge.batches.iter().all(|it| it.columns[0].long_bytes() <= Limits::COMPUTED.bytes + 140_000));
    let many: Vec<_> = (0..600).map(|it| format!("1e131000 AS c{it}")).collect();
    let error = database.read(&format!("SELECT {}", many.join(", ")), &mut Kept::default()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Undelivered);
    assert!(
        error.message.ends_with("it is too long; select fewer or smaller columns (limit: 67108864 bytes)")
    );
    assert_eq!(database.execute("SELECT 1", &mut Kept::default()).unwrap_err().kind, ErrorKind::Unavailable);
}

#[test]
fn statements_of_any_kind_are_executed_once() {
    let server = Postgresql::start();
    let mut database = server.open();
    let database = &mut *database;
    run(database, "CREATE TABLE log (id serial, v int)");
    run(
        database,
        "CREATE FUNCTION note(int) RETURNS int LANGUAGE sql AS 'INSERT INTO log (v) VALUES ($1) RETURNING v'",
    );
    let read = |database: &mut dyn Database, select: &str| {
        let mut kept = Kept::default();
        database.read(select, &mut kept).map(|()| kept)
    };
    for (statement, rows) in [
        ("SELECT note(1)", 1),
        ("WITH w AS (INSERT INTO log (v) VALUES (1) RETURNING v) SELECT * FROM w", 1),
        ("INSERT INTO log (v) VALUES (1) RETURNING id", 1),
        ("INSERT INTO log (v) VALUES (1)", 0),
        ("SELECT note(1) AS v INTO made", 0),
        ("SELECT FROM (VALUES (1)) AS q (v) WHERE note(v) = 1 -- no column", 1),
        ("TABLE log", 0),
        ("VALUES (note(1))", 1),
    ] {
        run(database, "TRUNCATE log");
        let kept = read(database, statement).unwrap();
        let expected = if statement.starts_with("TABLE") { "0" } else { "1" };
        assert_eq!(texts(database, "SELECT count(*) FROM log"), [expected], "{statement}");
        assert_eq!(kept.rows(), rows, "{statement}");
    }
    for wrong in [
        "SELECT * FROM nowhere",
        "SELECT 1,\n  FROM",
        "SELECT $1::int",
        "SELECT 1; SELECT 2",
        "SELECT 1 / (v - v) FROM note(5) AS v",
        "SELECT x FROM (SELECT 1 AS y) q",
    ] {
        run(database, "TRUNCATE log");
        let error = read(database, wrong).err().unwrap_or_else(|| panic!("{wrong}"));
        assert_eq!(error.kind, ErrorKind::User, "{wrong}");
        if !wrong.contains(';') {
            assert_eq!(error, database.execute(wrong, &mut Kept::default()).unwrap_err(), "{wrong}");
        }
        assert_eq!(texts(database, "SELECT count(*) FROM log"), ["0"], "{wrong}");
    }
    // An error within a transaction of the user is the first one.
    run(database, "BEGIN");
    assert!(read(database, "SELECT * FROM nowhere").err().unwrap().message.contains("nowhere"));
    run(database, "ROLLBACK");
    // Types of the columns, and values that are all NULL.
    let kept =
        read(database, "SELECT NULL::date AS d, 1::smallint AS s, 'x'::bytea AS b WHERE true").unwrap();
    let types: Vec<_> = kept.columns.iter().map(|it| it.database_type.as_str()).collect();
    assert_eq!(types, ["date", "smallint", "bytea"]);
    assert!(matches!(kept.batches[0].columns[0], Values::Null));
    assert_eq!(kept.batches[0].columns[1].array().unwrap().len(), 1);
}

/// Describes a select with one column of this type.
fn described(oid: u32) -> Vec<u8> {
    let head = [&b"\0\x01v\0\0\0\0\0\0\0"[..], &oid.to_be_bytes(), b"\xff\xff\xff\xff\xff\xff\0\0"].concat();
    [frame(b'1', b""), frame(b't', b"\0\0"), frame(b'T', &head)].concat()
}

fn row(value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap();
    frame(b'D', &[b"\0\x01", &length.to_be_bytes()[..], value].concat())
}

/// Answers Parse, Describe and Flush, or Bind, Execute and Sync.
fn answer_three(session: &mut TcpStream, frames: &[Vec<u8>]) {
    answer(session, &[]);
    answer(session, &[]);
    answer(session, frames);
}

fn error_of(script: impl FnOnce(&mut TcpStream) + Send + 'static) -> (Error, String) {
    let server = Server::start(script);
    let mut database = server.connect();
    let error = database.read_binary("SELECT v", &mut Kept::default()).unwrap_err();
    (error, format!("PostgreSQL server at {}", server.address))
}

#[test]
fn what_ends_a_read_is_one_clear_error() {
    let (lost, at) = error_of(|session| answer_three(session, &[error("57P01", "terminating")]));
    assert_eq!(lost, Error::unavailable(format!("{at}: terminating")));
    let (lost, at) = error_of(|session| {
        answer_three(session, &[described(23)]);
        answer_three(session, &[]);
    });
    assert_eq!(lost, Error::unavailable(format!("{at}: server closed the connection unexpectedly")));
    for malformed in [row(b"abc"), frame(b'D', b"\0\x02"), complete("SELECT 1")[..5].to_vec()] {
        let (lost, at) = error_of(move |session| {
            answer_three(session, &[described(23)]);
            answer_three(session, &[frame(b'2', b""), malformed, ready()]);
        });
        assert_eq!((lost.kind, lost.message.starts_with(&at)), (ErrorKind::Unavailable, true), "{lost}");
    }
    // The session goes on after an error of the statement.
    let server = Server::start(|session| {
        answer_three(session, &[error("42P01", "no table")]);
        answer(session, &[ready()]);
        answer_three(session, &[described(23)]);
        let rows = [row(&7_i32.to_be_bytes()), complete("SELECT 1"), ready()].concat();
        answer_three(session, &[frame(b'2', b""), rows]);
    });
    let mut database = server.connect();
    let rejected = database.read_binary("SELECT v", &mut Kept::default()).unwrap_err();
    assert_eq!((rejected.kind, rejected.message.as_str()), (ErrorKind::User, "no table"));
    let mut kept = Kept::default();
    database.read_binary("SELECT v", &mut kept).unwrap();
    assert!(matches!(&kept.batches[0].columns[0], Values::Ints(array) if array.value(0) == 7));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_answer_panics(
        oid in prop::sample::select(vec![16_u32, 17, 20, 26, 701, 1082, 1114, 1184, 1700, 25]),
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 0..4),
        frames in proptest::collection::vec(("[RZTDCIEGHNSAv12tn]", any::<Vec<u8>>()), 0..4),
        is_described: bool,
    ) {
        let mut bytes = if is_described { described(oid) } else { Vec::new() };
        bytes.extend(frame(b'2', b""));
        bytes.extend(values.iter().flat_map(|it| row(it)));
        for (tag, body) in frames {
            bytes.extend(frame(tag.as_bytes()[0], &body));
        }
        answered_with(bytes, true, |database| drop(database.read_binary("SELECT v", &mut Kept::default())));
    }
}
