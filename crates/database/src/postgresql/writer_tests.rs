//! Result tables in a real PostgreSQL. Messages about old tables: `images/submitter/tests/test_replace.py`.

use arrow_array::{BooleanArray, Float64Array, Int64Array, StringArray};

use sqlflow_data_source::Reach;

use super::PostgresqlDatabase;
use super::copy_binary::BinaryColumn;
use super::writer::PostgresqlWriter;
use crate::connect::ignore_notices;
use crate::test_servers::{Postgresql, computed, options, read, run, texts};
use crate::{
    Batch, Column, ComputedKind, ConnectOptions, Database, Error, ErrorKind, PassthroughColumns, ResultSpec,
    ResultTable, Results, TableName, Values, check_result_table, clean_up, connect,
};

const SPEC: ResultSpec<'_> =
    ResultSpec { name: "result", suffix: "sqlflow_j_0_1", replace: false, selects: &[] };

/// Types with values of them; whether they are written in binary form.
pub(super) const TYPES: &[(&str, &[&str], bool)] = &[
    ("boolean", &["true", "false"], true),
    ("smallint", &["-32768", "32767"], true),
    ("integer", &["-2147483648", "2147483647"], true),
    ("bigint", &["-9223372036854775808", "9223372036854775807"], true),
    ("oid", &["0", "4294967295"], true),
    ("numeric", &["0", "-0.00", "1e-20", "-12345678901234567890.1250", "1e131000", "1.50"], true),
    ("numeric", &["9999", "10000", "0.0001", "100000000", "0.00010000", "-0.5"], true),
    ("numeric", &["NaN", "Infinity", "-Infinity"], true),
    ("numeric(30,4)", &["12345678901234567890.1250", "-0.0001"], true),
    ("numeric(3,-2)", &["12300"], true),
    ("real", &["1.5", "0.1", "-0.0", "1e-45", "3.4028235e38", "16777217", "1.17549435e-38"], true),
    ("real", &["NaN", "Infinity", "-Infinity"], true),
    ("double precision", &["0.1", "-0.0", "5e-324", "1.7976931348623157e308", "123456789012345680"], true),
    ("double precision", &["NaN", "Infinity", "-Infinity"], true),
    ("text", &["", "\\", "\\N", "\\.", "a\tb\\n😀\r\n", "\u{1}\u{7f}", "x' \"", "\u{8}\u{c}\u{b}"], true),
    ("varchar(9)", &["ab", ""], true),
    ("char(3)", &["ab", "", "é"], true),
    ("\"char\"", &["a", ""], false),
    ("name", &["ab"], false),
    ("bytea", &["\\x00ff275c", "\\x"], true),
    ("date", &["1969-12-31", "0001-01-01", "9999-12-31", "2000-02-29"], true),
    ("date", &["infinity", "2024-01-01"], false),
    ("date", &["-infinity", "0044-03-15 BC", "5874897-12-31", "4713-01-01 BC"], false),
    ("timestamp", &["1970-01-02 00:00:00.000001", "0001-01-01", "9999-12-31 23:59:59.999999"], true),
    ("timestamp", &["1999-12-31 23:59:59.5"], true),
    ("timestamp", &["infinity", "0044-03-15 01:02:03.4 BC", "294276-01-01", "2024-01-01"], false),
    (
        "timestamptz",
        &["1970-01-01 02:00:00+02", "2024-10-27 02:30:00+01", "9999-12-31 23:59:59.999999+15"],
        true,
    ),
    ("timestamptz", &["9999-12-31 23:59:59.999999-12", "2024-01-01"], false),
    ("timestamptz", &["-infinity", "0044-03-15 01:02:03.4+01 BC", "2024-01-01"], false),
    ("time", &["24:00", "00:00", "01:02:03.000004", "23:59:59.5"], true),
    ("timetz", &["24:00+02", "01:02:03.000004-03:30"], false),
    ("interval", &["1 mon 2 days", "-1 days 02:03:04", "1 mon -1 days", "-1 year -2 mons"], false),
    ("json", &["{\"a\":  [1]}", "\"\\u00e9\\n\""], true),
    ("jsonb", &["{\"a\": [1, 1.50]}", "\"é\\t\"", "null"], true),
    ("jsonpath", &["$.\"a\""], false),
    ("uuid", &["00000000-0000-0000-0000-00000000000a", "ffffffff-ffff-ffff-ffff-ffffffffffff"], true),
    ("xml", &["<a>x</a>", "fragment<b/>"], false),
    ("money", &["-12.34"], false),
    ("inet", &["10.0.0.1/8", "::1"], false),
    ("macaddr", &["08:00:2b:01:02:03"], false),
    ("bit(3)", &["101"], false),
    ("varbit", &["", "1"], false),
    ("int[]", &["{1,NULL}", "{}", "[2:3]={1,2}"], false),
    ("text[]", &["{\"a\\\\b\",NULL,\"NULL\",\"\\t\"}"], false),
    ("tstzrange", &["[2024-01-01 00:00:00+00,)", "empty"], false),
    ("mood", &["sad", "it's"], true),
    ("age", &["1"], true),
    ("point", &["(1,2.5)"], false),
];

struct Insert<'a>(&'a mut ResultTable);

impl Results for Insert<'_> {
    fn result_set(&mut self, _: &[Column]) -> Result<(), Error> {
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        self.0.insert(&batch)
    }

    fn changed(&mut self, _: Option<u64>) {}
}

/// Writes a staging table with all columns of a select.
fn fill(database: &mut dyn Database, select: &str) -> Result<ResultTable, Error> {
    let described = database.describe(select)?;
    let columns: Vec<_> = described.iter().enumerate().map(|(place, it)| (place, it.name.clone())).collect();
    let mut table = ResultTable::open(database, &SPEC)?;
    table.create(Some(PassthroughColumns { select, columns: &columns, described: &described }), &[])?;
    database.read(select, &mut Insert(&mut table))?;
    Ok(table)
}

/// A session whose settings change how values are printed and read.
pub(super) fn odd_session(server: &Postgresql) -> Box<dyn Database> {
    let replay = [
        "SET datestyle TO 'SQL, DMY'",
        "SET intervalstyle TO sql_standard",
        "SET timezone TO 'Europe/Berlin'",
        "SET xmloption TO document",
        "SET extra_float_digits TO 0",
        "SET bytea_output TO escape",
        "SET standard_conforming_strings TO off",
        "SET array_nulls TO off",
    ];
    let replay = replay.into_iter().map(str::to_owned).collect();
    connect(&server.source(), ConnectOptions { replay, ..options(|_| ()) }).unwrap()
}

#[test]
fn kept_values_of_each_type_come_back_equal() {
    let server = Postgresql::start();
    let mut database = server.open();
    run(
        &mut *database,
        "CREATE TYPE mood AS ENUM ('sad', 'it''s'); CREATE DOMAIN age AS int CHECK (value > 0)",
    );
    for (kind, values, is_binary) in TYPES {
        run(&mut *database, "DROP TABLE IF EXISTS source");
        run(&mut *database, &format!("CREATE TABLE source (id int, v {kind})"));
        run(&mut *database, "INSERT INTO source VALUES (0)");
        for (id, value) in values.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('\'', "''");
            run(&mut *database, &format!("INSERT INTO source VALUES ({id}, E'{value}')"));
        }
        // In binary form, if there is one, and as texts.
        for select in ["SELECT * FROM source -- all", "SELECT *, '1 day'::interval AS i FROM source"] {
            for mut reader in [server.open(), odd_session(&server)] {
                let mut table = fill(&mut *reader, select).unwrap();
                assert_eq!(table.rows(), values.len() as u64 + 1);
                table.publish().unwrap();
            }
            assert_equal(&mut *database, kind);
        }
        assert_eq!(is_written_in_binary(&server), *is_binary, "{kind} {values:?}");
    }
}

fn assert_equal(database: &mut dyn Database, kind: &str) {
    let mut shown = |name: &str| {
        let query = format!("SELECT id || ' ' || coalesce(v::text, 'NULL') FROM {name} ORDER BY id, v::text");
        texts(database, &query)
    };
    assert_eq!(shown("result"), shown("source"), "{kind}");
    // Also what no text shows.
    let mut sent = |name: &str| {
        texts(database, &format!("SELECT record_send(row(id, v))::text FROM {name} ORDER BY id, v::text"))
    };
    assert_eq!(sent("result"), sent("source"), "{kind}");
    let mut declared = |name: &str| {
        let kind =
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'v' AND attrelid = ";
        texts(database, &format!("{kind}'{name}'::regclass"))
    };
    assert_eq!(declared("result"), declared("source"));
}

fn is_written_in_binary(server: &Postgresql) -> bool {
    let mut database =
        PostgresqlDatabase::open(&server.source(), Reach::default(), &ignore_notices()).unwrap();
    let found = read(&mut database, "SELECT v FROM source");
    let types = PostgresqlWriter::new(database).unwrap().types(&TableName::parse("source")).unwrap();
    types[1].is_some_and(|it| BinaryColumn::new(it, &found.batches[0].columns[0]).is_some())
}

#[test]
fn computed_values_are_written() {
    let server = Postgresql::start();
    let mut database = server.open();
    let columns = [
        ("b", ComputedKind::Bool),
        ("i", ComputedKind::Int),
        ("f", ComputedKind::Float),
        ("t", ComputedKind::Text),
    ];
    let mut table = ResultTable::open(&mut *database, &ResultSpec { name: "Public.RESULT", ..SPEC }).unwrap();
    table.create(None, &computed(&columns)).unwrap();
    let values = [
        Values::Bools(BooleanArray::from(vec![Some(true), Some(false), None])),
        Values::Ints(Int64Array::from(vec![None, Some(i64::MIN), Some(1)])),
        Values::Floats(Float64Array::from(vec![f64::NAN, f64::INFINITY, -0.0])),
        Values::Texts(StringArray::from(vec![Some("a\tb"), None, Some("")])),
    ];
    table.insert(&Batch { rows: 3, columns: values.to_vec() }).unwrap();
    table
        .insert(&Batch { rows: 2, columns: vec![Values::Null, Values::Null, Values::Null, Values::Null] })
        .unwrap();
    assert_eq!((table.rows(), table.name().as_str()), (5, "public.result"));
    assert_eq!(table.replaced(), Ok(None));
    table.publish().unwrap();
    let shown = "SELECT row(r.*)::text FROM public.result r";
    assert_eq!(
        texts(&mut *database, shown),
        ["(t,,,\"a\tb\")", "(f,-9223372036854775808,Infinity,)", "(,1,-0,\"\")", "(,,,)", "(,,,)"]
    );
    let comment = "SELECT obj_description('result'::regclass)";
    assert_eq!(texts(&mut *database, comment), ["SQLFlow result table public.result, attempt sqlflow_j_0_1"]);
}

#[test]
fn connection_can_be_used_after_a_value_that_is_rejected() {
    let server = Postgresql::start();
    let mut database = server.open();
    run(&mut *database, "CREATE TABLE source (small smallint, id uuid)");
    let mut table = fill(&mut *database, "SELECT * FROM source").unwrap();
    let batch = |small: i64, id: &str| Batch {
        rows: 2,
        columns: vec![
            Values::Ints(Int64Array::from(vec![1, small])),
            Values::Texts(StringArray::from(vec!["00000000-0000-0000-0000-00000000000a", id])),
        ],
    };
    for (small, id, message) in [
        // No binary form.
        (70_000, "00000000-0000-0000-0000-00000000000b", "value \"70000\" is out of range for type smallint"),
        (2, "no uuid", "invalid input syntax for type uuid: \"no uuid\""),
        // Rejected by the server.
        (-2, "00000000-0000-0000-0000-00000000000b", "violates check constraint \"positive\""),
    ] {
        let staging = "ALTER TABLE result__sqlflow_j_0_1";
        run(&mut *database, &format!("{staging} ADD CONSTRAINT positive CHECK (small > 0)"));
        let error = table.insert(&batch(small, id)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::User);
        assert!(error.message.contains(message), "{error}");
        run(&mut *database, &format!("{staging} DROP CONSTRAINT positive"));
        table.insert(&batch(3, "{0000000000000000000000000000000C}")).unwrap();
    }
    assert_eq!(table.rows(), 6);
    assert_eq!(texts(&mut *database, "SELECT count(*) FROM result__sqlflow_j_0_1"), ["6"]);
    // Larger than the buffers between here and the server.
    let ids = StringArray::from_iter_values((0..200_000).map(|it| format!("{it:032}")));
    let small = Int64Array::from_iter_values((0..200_000).map(|_| 7));
    run(&mut *database, "DROP TABLE result__sqlflow_j_0_1");
    let error =
        table.insert(&Batch { rows: 200_000, columns: vec![Values::Ints(small), Values::Texts(ids)] });
    assert!(error.unwrap_err().message.contains("does not exist"));
    table.clear().unwrap();
}

#[test]
fn tables_of_other_schemas_of_the_search_path_stay() {
    let server = Postgresql::start();
    let mut owner = server.open();
    run(&mut *owner, "CREATE SCHEMA \"First.one\"; CREATE SCHEMA second");
    let names = ["result", "result__sqlflow_j_0_1"];
    for name in names {
        run(&mut *owner, &format!("CREATE TABLE second.{name} AS SELECT 42 AS precious"));
    }
    let replay = vec!["SET search_path TO \"First.one\", second".to_owned()];
    let options = ConnectOptions { replay, ..options(|_| ()) };
    let mut database = connect(&server.source(), options).unwrap();
    for _ in 0..2 {
        check_result_table(&mut *database, &SPEC).unwrap();
        fill(&mut *database, "SELECT 1 AS a").unwrap().publish().unwrap();
        let report = clean_up(&mut *database, "result", "sqlflow_j_0_1", Some(1)).unwrap();
        assert_eq!(report.unwrap(), "table result was replaced: it holds the statement's result");
    }
    assert_eq!(texts(&mut *owner, "SELECT a FROM \"First.one\".result"), ["1"]);
    for name in names {
        assert_eq!(texts(&mut *owner, &format!("SELECT precious FROM second.{name}")), ["42"]);
    }
}

#[test]
fn old_table_stays_if_it_may_not_be_replaced() {
    let server = Postgresql::start();
    let mut database = server.open();
    run(&mut *database, "CREATE TABLE source AS SELECT 1 AS a");
    let mut table = fill(&mut *database, "SELECT a FROM source").unwrap();
    table.publish().unwrap();
    let mut table = fill(&mut *database, "SELECT 2 AS a, 3 AS b FROM source").unwrap();
    run(&mut *database, "CREATE VIEW v AS SELECT a FROM result");
    let depends = "cannot write table result: v depends on it, so the database cannot replace it; drop that first, or \
                   choose another name";
    for _ in 0..2 {
        let error = table.publish().unwrap_err();
        assert_eq!((error.message.as_str(), error.is_unclear), (depends, false));
    }
    assert_eq!(check_result_table(&mut *database, &SPEC).unwrap_err().message, depends);
    run(&mut *database, "DROP VIEW v; ALTER TABLE result ADD c int; CREATE INDEX ix ON result (a)");
    let lost = "(1 row); lost with it: index ix, column c";
    assert_eq!(table.replaced(), Ok(Some(lost.to_owned())));
    table.publish().unwrap();
    assert_eq!(texts(&mut *database, "SELECT row(a, b)::text FROM result"), ["(2,3)"]);
    run(&mut *database, "ALTER TABLE result RENAME TO renamed");
    let renamed = ResultSpec { name: "renamed", ..SPEC };
    let error = check_result_table(&mut *database, &renamed).unwrap_err();
    assert!(error.message.contains("SQLFlow made it as public.result; "), "{error}");
}

#[test]
fn staging_table_of_a_lost_writer_is_dropped() {
    let server = Postgresql::start();
    let mut database = server.open();
    let mut table = fill(&mut *database, "SELECT 1 AS a").unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    run(&mut *database, end);
    let error = table.publish().unwrap_err();
    assert_eq!((error.kind, error.is_unclear), (ErrorKind::Unavailable, false), "{error}");
    assert!(table.clear().is_err());
    let mut clean = || clean_up(&mut *database, "RESULT", "sqlflow_j_0_2", Some(1)).unwrap().unwrap();
    assert_eq!(clean(), "table result was not replaced: the statement ended before that");
    assert_eq!(
        clean(),
        "it is not known whether table result was replaced: there is no table of this name now"
    );
}

#[test]
fn writer_that_waits_is_cancelled() {
    let server = Postgresql::start();
    let mut database = server.open();
    let mut table = fill(&mut *database, "SELECT 1 AS a").unwrap();
    run(&mut *database, "BEGIN; LOCK TABLE result__sqlflow_j_0_1");
    let cancel = table.canceller();
    let source = server.source();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            let mut other = connect(&source, options(|_| ())).unwrap();
            while texts(&mut *other, waits) != ["1"] {}
            cancel();
        });
        let column = Values::Ints(Int64Array::from(vec![1]));
        let error = table.insert(&Batch { rows: 1, columns: vec![column] }).unwrap_err();
        assert!(error.message.contains("canceling statement due to user request"), "{error}");
    });
    assert!(table.publish().unwrap_err().message.contains("cancelled before it began"));
    // Nevertheless, its staging table can be dropped.
    run(&mut *database, "COMMIT");
    table.clear().unwrap();
    assert_eq!(
        texts(&mut *database, "SELECT relname::text FROM pg_class WHERE relname LIKE 'result%'"),
        [""; 0]
    );
}
