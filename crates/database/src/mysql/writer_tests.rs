//! Tables that are written in a real MariaDB.

use arrow_array::{BooleanArray, Float64Array, Int64Array, StringArray};

use super::real_tests::COLUMNS;
use crate::test_servers::{Kept, MariaDb, are_same, computed, options, read, run};
use crate::{
    Batch, Column, ComputedColumn, ComputedKind, ConnectOptions, Database, ErrorKind, Mark,
    PassthroughColumns, TableName, TableWriter, Values, connect, rows, texts,
};

pub(super) fn open(server: &MariaDb, user: &str, settings: &[&str]) -> Box<dyn Database> {
    let replay = settings.iter().map(|it| (*it).to_owned()).collect();
    connect(&server.source_of(user), ConnectOptions { replay, ..options(|_| ()) }).unwrap()
}

pub(super) fn name(text: &str) -> TableName {
    TableName { schema: None, name: text.to_owned() }
}

/// Copies a select to a new table, by its position and another name of its first column.
fn copy(database: &mut dyn Database, select: &str, table: &str) {
    let described = database.describe(select).unwrap();
    let mut columns: Vec<_> = described.iter().map(|it| it.name.clone()).enumerate().collect();
    columns[0].1 = "first".to_owned();
    let mut writer = database.writer().unwrap();
    let kept = PassthroughColumns { select, columns: &columns, described: &described };
    writer.create(&name(table), Some(kept), &[], mark(table)).unwrap();
    let Kept { columns, batches, .. } = read(database, select);
    for batch in batches {
        writer.insert(&name(table), &columns, &batch).unwrap();
    }
}

const MORE_COLUMNS: [(&str, &str); 14] = [
    ("BOOLEAN", "TRUE"),
    ("DECIMAL(5,0) UNSIGNED", "7"),
    ("DECIMAL(65,30)", "-0.000000000000000000000000000001"),
    ("CHAR(9) CHARACTER SET latin1", "'ä'"),
    ("VARCHAR(9) CHARACTER SET utf16", "'ä😀 '"),
    ("LONGTEXT", r"'a\tb\\n\'\0'"),
    ("JSON", r#"'{"a": [1]}'"#),
    ("BINARY(5)", "X'00ff'"),
    ("YEAR", "0"),
    ("DATE", "'2023-02-31'"),
    ("ENUM('a','b')", "'outside'"),
    ("TIMESTAMP(3) NULL", "'2024-07-01 12:00:00.125'"),
    ("TIMESTAMP NULL", "'0000-00-00 00:00:00'"),
    ("DATETIME", "'9999-12-31 23:59:59'"),
];

#[test]
fn tables_are_written() {
    let server = MariaDb::start();
    kept_columns_have_the_same_values(&server);
    computed_columns_have_types(&server);
    rows_of_any_size_are_written(&server);
    what_does_not_fit_is_an_error(&server);
    values_outside_the_list_of_an_enum_are_kept(&server);
    statements_are_prepared_again(&server);
}

/// In each of these sessions, the values that are written are those that were read.
const SESSIONS: [&[&str]; 6] = [
    &[],
    &["SET sql_mode = 'TRADITIONAL,ANSI_QUOTES,NO_BACKSLASH_ESCAPES'", "SET time_zone = '+05:30'"],
    &["SET autocommit = 0, sql_select_limit = 9, completion_type = 2", "SET time_zone = '-03:30'"],
    &["SET sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,PIPES_AS_CONCAT'"],
    &["SET collation_connection = 'latin1_swedish_ci'"],
    // Of a database in latin1.
    &["SET character_set_database = latin1", "SET CHARACTER SET utf8mb4"],
];

fn kept_columns_have_the_same_values(server: &MariaDb) {
    let database = &mut *server.open();
    let all = || COLUMNS.iter().chain(&MORE_COLUMNS).enumerate();
    let columns: Vec<String> = all().map(|(place, (declared, _))| format!("c{place} {declared}")).collect();
    let values: Vec<&str> = all().map(|(_, (_, value))| *value).collect();
    run(
        database,
        &format!("CREATE TABLE types (id INT NOT NULL, day DATE NOT NULL, {})", columns.join(", ")),
    );
    run(database, "SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'");
    run(database, &format!("INSERT INTO types VALUES (1, '0000-00-00', {})", values.join(", ")));
    run(database, "INSERT INTO types (id) VALUES (2)");
    // In the second of these columns, a batch has texts, since one is zero.
    let second = all().position(|(_, (declared, _))| declared.starts_with("TIMESTAMP")).unwrap() + 1;
    run(database, &format!("INSERT INTO types (id, c{second}) VALUES (3, '2024-07-01 12:00:00')"));
    // What the server compares: also digits of a FLOAT that it does not print.
    let equal: Vec<_> = all().map(|(place, _)| format!("s.c{place} <=> t.c{place}")).collect();
    let same = |table: &str| {
        format!("SELECT count(*) FROM types AS s JOIN {table} AS t ON first = id AND {}", equal.join(" AND "))
    };
    for (place, settings) in SESSIONS.into_iter().enumerate() {
        let reader = &mut *open(server, "root", settings);
        let quoted = if place == 1 { "\"types\"" } else { "`types`" };
        let select = format!("SELECT * FROM {quoted} ORDER BY id LIMIT 9 -- the end");
        let table = format!("copy{place}");
        copy(reader, &select, &table);
        let other = &mut *open(server, "root", settings);
        let (expected, found) = (read(reader, &select), read(other, &format!("SELECT * FROM {table}")));
        let types = |kept: &Kept| kept.columns.iter().map(|it| it.database_type.clone()).collect::<Vec<_>>();
        assert_eq!(types(&expected), types(&found), "{settings:?}");
        for (column, (expected, found)) in
            expected.batches[0].columns.iter().zip(&found.batches[0].columns).enumerate()
        {
            assert!(are_same(expected, found), "{settings:?}, column {column}:\n{expected:?}\n{found:?}");
        }
        assert_eq!((found.batches[0].rows, found.columns[0].name.as_str()), (3, "first"));
        assert_eq!(texts(database, &same(&table)).unwrap(), ["3"], "{settings:?}");
    }
}

/// Columns as a caller describes them.
fn described(writer: &dyn TableWriter, columns: &[ComputedColumn]) -> Vec<Column> {
    let column = |it: &ComputedColumn| Column {
        name: it.name.clone(),
        database_type: writer.type_of(it.kind).to_owned(),
        kind: None,
    };
    columns.iter().map(column).collect()
}

/// The mark of a table with this final name.
pub(super) fn mark(name: &str) -> Mark<'_> {
    Mark { name, made_by: "j_0_1" }
}

fn computed_columns_have_types(server: &MariaDb) {
    let settings = "SET autocommit = 0, sql_select_limit = 0, completion_type = 2, \
                    collation_connection = 'latin1_swedish_ci'";
    let database = &mut *open(server, "root", &["SET sql_mode = 'NO_BACKSLASH_ESCAPES'", settings]);
    let columns = computed(&[
        ("b`ool", ComputedKind::Bool),
        ("i", ComputedKind::Int),
        ("f", ComputedKind::Float),
        ("t", ComputedKind::Text),
    ]);
    let mut writer = database.writer().unwrap();
    let table = name(r"it's \ `x` 日");
    writer.create(&table, None, &columns, mark(&table.name)).unwrap();
    let found = writer.find_table(&table).unwrap().unwrap();
    assert!(found.is_marked() && found.made_by() == Some("j_0_1"), "{found:?}");
    let comment = r"SQLFlow result table test.it's \ `x` 日, attempt j_0_1";
    assert_eq!((&*found.comment, found.marked_as()), (comment, None));
    let values = vec![
        Values::Bools(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Values::Ints(Int64Array::from(vec![i64::MIN, 0, i64::MAX])),
        Values::Floats(Float64Array::from(vec![f64::NAN, f64::NEG_INFINITY, 0.1])),
        Values::Texts(StringArray::from(vec!["ä😀", "", "\\'\0"])),
    ];
    let batch = Batch { rows: 3, columns: values };
    writer.insert(&table, &described(&*writer, &columns), &batch).unwrap();
    let nulls = Batch { rows: 1, columns: vec![Values::Null, Values::Null, Values::Null, Values::Null] };
    writer.insert(&table, &described(&*writer, &columns), &nulls).unwrap();
    // Written rows are visible at once.
    run(database, "SET sql_select_limit = DEFAULT");
    let found = read(database, r"SELECT * FROM `it's \ ``x`` 日`");
    let types: Vec<_> = found.columns.iter().map(|it| it.database_type.as_str()).collect();
    assert_eq!(types, ["TINYINT(1)", "BIGINT", "DOUBLE", "TEXT"]);
    let expected = "Ints([1,NULL,0,NULL]) Ints([-9223372036854775808,0,9223372036854775807,NULL]) \
                    Floats([NULL,NULL,0.1,NULL]) Texts([ä😀,,\\'\0,NULL])";
    assert_eq!(found.batches[0].columns.iter().map(plain).collect::<Vec<_>>().join(" "), expected);
    // Several INSERTs, in one transaction each.
    let columns = &columns[1..2];
    let table = name("several");
    writer.create(&table, None, columns, mark(&table.name)).unwrap();
    let settings = [(); 2].map(|()| {
        let batch = Batch { rows: 10_000, columns: vec![Values::Ints(vec![7; 10_000].into())] };
        writer.insert(&table, &described(&*writer, columns), &batch).unwrap();
        rows(writer.connection(), "SHOW STATUS LIKE 'Com_set_option'").unwrap()
    });
    // The second batch changes none.
    assert_eq!(settings[0], settings[1]);
    let mut other = server.open();
    assert_eq!(texts(&mut *other, "SELECT sum(i) FROM several").unwrap(), ["140000"]);
}

/// Values in one line.
fn plain(values: &Values) -> String {
    fn all<T: ToString>(values: impl Iterator<Item = Option<T>>) -> String {
        let values = values.map(|it| it.map_or_else(|| "NULL".to_owned(), |it| it.to_string()));
        values.collect::<Vec<_>>().join(",")
    }

    match values {
        Values::Ints(array) => format!("Ints([{}])", all(array.iter())),
        Values::Floats(array) => format!("Floats([{}])", all(array.iter())),
        Values::Texts(array) => format!("Texts([{}])", all(array.iter())),
        other => panic!("{other:?}"),
    }
}

fn rows_of_any_size_are_written(server: &MariaDb) {
    let database = &mut *server.open();
    // Long texts, a row above the size of a packet, and many rows.
    let select = "SELECT seq, REPEAT('x', IF(seq = 5, 3000000, seq % 70000)) AS t, REPEAT('y', seq % 253) AS u, seq / 3e0 AS f \
                  FROM seq_1_to_30000 WHERE seq < 200 OR seq > 28000 OR seq % 97 = 0";
    copy(database, select, "sizes");
    let sums = "SELECT count(*), sum(length(t)), sum(crc32(t)), sum(crc32(u)), sum(f)";
    let expected = rows(database, &format!("{sums} FROM ({select}) AS q")).unwrap();
    assert_eq!(rows(database, &format!("{sums} FROM sizes")).unwrap(), expected);
    // Many parameters.
    let many: Vec<String> = (0..50).map(|it| format!("seq + {it} AS c{it}")).collect();
    let select = format!("SELECT {} FROM seq_1_to_20001", many.join(", "));
    copy(database, &select, "many");
    let sums = "SELECT count(*), sum(first), sum(c49)";
    let found = rows(database, &format!("{sums} FROM many")).unwrap();
    let expected = ["20001", "200030001", "201010050"].map(|it| Some(it.to_owned()));
    assert_eq!(found, [expected]);
    // Nearly as many columns as a row of InnoDB can have.
    let most: Vec<String> = (0..900).map(|it| format!("seq % 128 AS c{it}")).collect();
    copy(database, &format!("SELECT {} FROM seq_1_to_300", most.join(", ")), "most");
    assert_eq!(texts(database, "SELECT count(*) FROM most WHERE c899 = first").unwrap(), ["300"]);
    // Statements are closed with their connection.
    let prepared = "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'Prepared_stmt_count'";
    assert_eq!(texts(database, prepared).unwrap(), ["0"]);
}

fn what_does_not_fit_is_an_error(server: &MariaDb) {
    let database = &mut *open(server, "root", &["SET sql_mode = ''"]);
    run(database, "CREATE TABLE narrow (id INT, e ENUM('a'), t VARCHAR(3) CHARACTER SET latin1)");
    let column =
        |database_type: &str| Column { name: "c".into(), database_type: database_type.into(), kind: None };
    let columns = [column("INT"), column("ENUM"), column("VARCHAR(3)")];
    let mut writer = database.writer().unwrap();
    let batch = |ids: Vec<i64>, enums: Vec<&str>, texts: Vec<&str>| {
        let (rows, ids) = (ids.len(), Values::Ints(ids.into()));
        Batch { rows, columns: vec![ids, Values::Texts(enums.into()), Values::Texts(texts.into())] }
    };
    writer.insert(&name("narrow"), &columns, &batch(vec![1, 2], vec!["a", ""], vec!["é", "abc"])).unwrap();
    for (id, e, t, said) in [
        (1 << 40, "a", "x", "Out of range value for column 'id' at row 1"),
        (1, "b", "x", "Data truncated for column 'e' at row 1"),
        (1, "a", "abcd", "Data too long for column 't' at row 1"),
        (1, "a", "日", r"Incorrect string value: '\xE6\x97\xA5' for column `test`.`narrow`.`t` at row 1"),
        (1 << 40, "", "x", "Out of range value for column 'id' at row 1"),
    ] {
        let error = writer.insert(&name("narrow"), &columns, &batch(vec![id], vec![e], vec![t])).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::User, said));
    }
    // Two of three warnings are right, and in another INSERT than the third one.
    let error = writer
        .insert(&name("narrow"), &columns, &batch(vec![3, 3, 1 << 40], vec!["", "", "b"], vec!["x"; 3]))
        .unwrap_err();
    assert_eq!(error.message, "Out of range value for column 'id' at row 1");
    assert_eq!(texts(database, "SELECT id FROM narrow WHERE id = 3").unwrap(), [""; 0]);
    // Of a batch that is several INSERTs, nothing is kept.
    let rows = 70_000;
    let ids = (0..rows).map(|it| if it == rows - 1 { 1 << 40 } else { it }).collect();
    let large = batch(ids, vec!["a"; 70_000], vec!["x"; 70_000]);
    writer.insert(&name("narrow"), &columns, &large).unwrap_err();
    drop(writer);
    let found = "SELECT concat(id, e + 0, t) FROM narrow WHERE id < 3";
    assert_eq!(texts(database, found).unwrap(), ["11é", "20abc"]);
}

fn values_outside_the_list_of_an_enum_are_kept(server: &MariaDb) {
    let database = &mut *open(server, "root", &["SET sql_mode = ''"]);
    run(database, "CREATE TABLE listed (id INT, e ENUM('x', 'y'))");
    run(database, "INSERT INTO listed VALUES (1, 'y'), (2, 'outside')");
    copy(database, "SELECT id, MAX(e) AS m FROM listed GROUP BY id", "maxima");
    assert_eq!(texts(database, "SELECT concat(first, m + 0) FROM maxima").unwrap(), ["12", "20"]);
}

/// The error comes from a function and from a trigger, at their first call in a session.
fn statements_are_prepared_again(server: &MariaDb) {
    let database = &mut *server.open();
    let fail_once =
        "IF @called IS NULL THEN SET @called = 1; SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1615; END IF;";
    run(
        database,
        &format!("CREATE FUNCTION fails_once() RETURNS INT DETERMINISTIC BEGIN {fail_once} RETURN 1; END"),
    );
    let kept = read(database, "SELECT seq FROM seq_1_to_2 WHERE fails_once() = 1");
    assert_eq!(kept.rows(), 2);
    assert_eq!(texts(database, "SELECT @called").unwrap(), ["1"]);

    let mut writer = database.writer().unwrap();
    let (table, columns) = (name("stale"), computed(&[("a", ComputedKind::Int)]));
    writer.create(&table, None, &columns, mark("stale")).unwrap();
    run(
        writer.database().unwrap(),
        &format!("CREATE TRIGGER stale_tr BEFORE INSERT ON stale FOR EACH ROW BEGIN {fail_once} END"),
    );
    let batch = Batch { rows: 3, columns: vec![Values::Ints(vec![1, 2, 3].into())] };
    for _ in 0..2 {
        writer.insert(&table, &described(&*writer, &columns), &batch).unwrap();
    }
    assert_eq!(texts(database, "SELECT sum(a) FROM stale").unwrap(), ["12"]);
}
