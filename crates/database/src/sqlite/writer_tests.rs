//! Result tables in SQLite files.

use arrow_array::{Float64Array, StringArray};

use super::test_file::File;
use crate::test_servers::{computed, texts};
use crate::{
    Batch, Column, ComputedKind, Database, Discard, Error, ErrorKind, Limits, PassthroughColumns, ResultSpec,
    ResultTable, Results, Value, Values, check_result_table, clean_up,
};

const SUFFIX: &str = "sqlflow_j_0_2";

pub(super) fn file_with_source() -> File {
    let file = File::new();
    file.run(&[
        "CREATE TABLE source (a, b REAL, c TEXT)",
        "INSERT INTO source VALUES (1, 2.5, 'x'), ('é', NULL, '')",
        "INSERT INTO source VALUES (x'00ff', -0.0, NULL), (9e999, 1, 'a''b')",
    ]);
    file
}

pub(super) fn spec(name: &str) -> ResultSpec<'_> {
    ResultSpec { name, suffix: SUFFIX, replace: false, selects: &[] }
}

fn replacing(name: &str) -> ResultSpec<'_> {
    ResultSpec { replace: true, ..spec(name) }
}

/// Writes each batch that it reads, with a computed column.
pub(super) struct Predict<'a> {
    pub(super) table: &'a mut ResultTable,
    pub(super) limits: Limits,
}

impl Results for Predict<'_> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn result_set(&mut self, _: &[Column]) -> Result<(), Error> {
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        let predicted = (0..batch.rows).map(|row| if row == 1 { f64::NAN } else { row as f64 });
        let predicted = Values::Floats(Float64Array::from_iter_values(predicted));
        let columns = batch.columns.into_iter().chain([predicted]).collect();
        self.table.insert(&Batch { rows: batch.rows, columns })
    }

    fn changed(&mut self, _: Option<u64>) {}
}

/// Fills a staging table with all columns of a select, and a column `p`.
pub(super) fn fill(
    database: &mut dyn Database,
    spec: &ResultSpec<'_>,
    select: &str,
    rows: usize,
) -> Result<ResultTable, Error> {
    let described = database.describe(select)?;
    let columns: Vec<_> = described.iter().enumerate().map(|(place, it)| (place, it.name.clone())).collect();
    let mut table = ResultTable::open(database, spec)?;
    let kept = PassthroughColumns { select, columns: &columns, described: &described };
    table.create(Some(kept), &computed(&[("p", ComputedKind::Float)]))?;
    let limits = Limits { first_rows: rows, rows, bytes: 1 << 20, timed_rows: 1 };
    database.read(select, &mut Predict { table: &mut table, limits })?;
    Ok(table)
}

/// Writes a table. Returns what it replaced.
pub(super) fn write(
    database: &mut dyn Database,
    spec: &ResultSpec<'_>,
    select: &str,
) -> Result<Option<String>, Error> {
    check_result_table(database, spec)?;
    let mut table = fill(database, spec, select, 2)?;
    let replaced = table.replaced()?;
    table.publish()?;
    Ok(replaced)
}

pub(super) const SELECT: &str = "SELECT * FROM source -- all";

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::User, "{error}");
    error.message
}

#[test]
fn kept_values_come_back_equal() {
    let file = file_with_source();
    // Texts in a table that is not STRICT.
    file.run(&["CREATE TABLE strict (a ANY) STRICT", "INSERT INTO strict VALUES ('1'), (1), (1.0), (x'31')"]);
    for (source, columns) in [("source", vec!["a", "b", "c"]), ("strict", vec!["a"])] {
        let mut database = file.open();
        let select = format!("SELECT * FROM {source}");
        assert_eq!(write(&mut *database, &spec("result"), &select), Ok(None));
        for column in columns {
            let values =
                |table: &str| file.texts(&format!("SELECT typeof({column}) || quote({column}) FROM {table}"));
            assert_eq!(values("result"), values(source), "{column}");
        }
        file.run(&["DROP TABLE result"]);
    }
    write(&mut *file.open(), &spec("result"), SELECT).unwrap();
    assert_eq!(file.texts("SELECT type FROM pragma_table_info('result')"), ["", "REAL", "TEXT", "REAL"]);
    assert_eq!(file.texts("SELECT quote(p) FROM result"), ["0.0", "NULL", "0.0", "NULL"]);
}

#[test]
fn values_of_a_compound_select_come_back_equal() {
    let file = file_with_source();
    file.run(&[
        "CREATE TABLE numbers (x INTEGER, y REAL)",
        "CREATE TABLE texts (x TEXT, y TEXT)",
        "INSERT INTO numbers VALUES (5, 1)",
        "INSERT INTO texts VALUES ('007', '1.50')",
        "CREATE VIEW both AS SELECT * FROM numbers UNION ALL SELECT * FROM texts",
    ]);
    let types = || file.texts("SELECT type FROM pragma_table_info('result') WHERE name <> 'p'").concat();
    for select in [
        "SELECT * FROM numbers UNION ALL SELECT * FROM texts",
        "SELECT * FROM texts UNION SELECT * FROM numbers",
        "SELECT * FROM numbers UNION ALL SELECT * FROM texts ORDER BY 1 -- merged",
        "SELECT * FROM (SELECT * FROM numbers UNION ALL SELECT * FROM texts)",
        "/* c */ WITH q AS (SELECT * FROM texts EXCEPT SELECT * FROM numbers) SELECT * FROM q",
        "WITH RECURSIVE q(x, y) AS (SELECT * FROM numbers UNION ALL SELECT x || '0', '01' FROM q LIMIT 4) SELECT * FROM q",
        "SELECT x, y FROM both",
        "SELECT y FROM both WHERE y > 1",
    ] {
        write(&mut *file.open(), &replacing("result"), select).unwrap();
        let values = |from: &str| {
            let quoted = if select.starts_with("SELECT y") { "quote(y)" } else { "quote(x) || quote(y)" };
            file.texts(&format!("SELECT {quoted} FROM ({from}\n) ORDER BY 1"))
        };
        assert_eq!(values("SELECT * FROM result"), values(select), "{select}");
        assert_eq!(types(), "", "{select}");
    }
    write(&mut *file.open(), &replacing("result"), "SELECT 'UNION' AS u, x FROM numbers").unwrap();
    assert_eq!(types(), "INTEGER");
}

#[test]
fn staging_table_is_filled_while_the_select_is_read() {
    let file = file_with_source();
    let select = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) \
                  SELECT i, 'x' || i AS t, (SELECT count(*) FROM source) AS c FROM n";
    for mode in ["delete", "wal"] {
        file.run(&[&format!("PRAGMA journal_mode = {mode}"), "DROP TABLE IF EXISTS result"]);
        let mut database = file.open();
        let mut table = fill(&mut *database, &spec("main.result"), select, 1000).unwrap();
        assert_eq!((table.rows(), table.name().as_str()), (10_000, "main.result"));
        // Each batch is a transaction, and the table is not visible under its name.
        assert_eq!(file.tables(), ["result__sqlflow_j_0_2", "source"]);
        let shown = file.texts("SELECT sum(i) || ' ' || max(t) FROM result__sqlflow_j_0_2");
        assert_eq!(shown, ["50005000 x9999"]);
        assert_eq!(table.replaced(), Ok(None));
        table.publish().unwrap();
        assert_eq!(file.tables(), ["result", "source"]);
    }
}

#[test]
fn old_table_is_replaced_only_if_sqlflow_made_it() {
    let file = file_with_source();
    let refused = |name: &str, reason: &str| {
        let mut database = file.open();
        let found = message(check_result_table(&mut *database, &spec(name)));
        assert_eq!(found, format!("cannot write table {name}: {reason}"));
        // Also if it appeared after the check.
        let mut table = fill(&mut *database, &spec(name), SELECT, 10).unwrap();
        assert_eq!(message(table.publish()), found);
        table.clear().unwrap();
    };
    let advice = |rows: &str| {
        format!(
            "choose another name (WITH result.replace = true replaces it: what it holds now, {rows}, is lost)"
        )
    };
    let mut database = file.open();
    write(&mut *database, &spec("result"), SELECT).unwrap();
    assert_eq!(
        write(&mut *database, &spec("RESULT"), "SELECT 1 AS a"),
        Ok(Some("(4 rows); lost with it: column b, column c".into()))
    );
    assert_eq!(write(&mut *database, &spec("result"), "SELECT 1 AS a"), Ok(Some("(1 row)".into())));

    let rows = "it exists (1 row) and this release of SQLFlow did not make it; ";
    file.run(&["CREATE TABLE copied AS SELECT * FROM result", "ALTER TABLE result RENAME TO \"mo'ved\""]);
    refused("copied", &format!("{rows}{}", advice("1 row")));
    refused("mo'ved", &format!("{rows}{}", advice("1 row")));
    refused(
        "source",
        &format!("it exists (4 rows) and this release of SQLFlow did not make it; {}", advice("4 rows")),
    );
    file.run(&["CREATE VIEW v AS SELECT 1", "CREATE INDEX i ON source (a)"]);
    refused("v", "it is a view; choose another name");
    refused("I", "it is an index; choose another name");
    assert_eq!(write(&mut *database, &replacing("copied"), SELECT), Ok(Some("(1 row)".into())));
    assert_eq!(write(&mut *database, &spec("copied"), SELECT), Ok(Some("(4 rows)".into())));
    assert!(message(write(&mut *database, &replacing("v"), SELECT)).contains("it is a view"));
}

#[test]
fn names_are_quoted_in_marker_and_statements() {
    let file = file_with_source();
    for name in ["a\"b", "it's", "*/ x", "é", "order"] {
        let mut database = file.open();
        assert_eq!(write(&mut *database, &spec(name), SELECT), Ok(None), "{name}");
        assert_eq!(write(&mut *database, &spec(name), SELECT), Ok(Some("(4 rows)".into())), "{name}");
    }
}

#[test]
fn what_users_added_is_reported() {
    let file = file_with_source();
    let mut database = file.open();
    write(&mut *database, &spec("result"), SELECT).unwrap();
    file.run(&[
        "CREATE INDEX ix ON result (a)",
        "CREATE TRIGGER tr AFTER INSERT ON result BEGIN DELETE FROM source WHERE a < 0; END",
        "ALTER TABLE result ADD COLUMN note",
        "CREATE VIEW v AS SELECT a FROM result",
    ]);
    let lost = "(4 rows); lost with it: index ix, trigger tr, column note";
    assert_eq!(write(&mut *database, &spec("result"), SELECT), Ok(Some(lost.into())));
    assert_eq!(file.texts("SELECT count(*) FROM v"), ["4"]);
}

#[test]
fn enforced_foreign_key_prevents_the_replacement() {
    let file = file_with_source();
    write(&mut *file.open(), &spec("result"), SELECT).unwrap();
    file.run(&[
        "CREATE UNIQUE INDEX ix ON result (a)",
        "CREATE TABLE kid (id REFERENCES Result (a) ON DELETE CASCADE)",
        "INSERT INTO kid VALUES (1)",
    ]);
    let mut database = file.open_with("", &["PRAGMA foreign_keys = ON"]);
    for spec in [spec("result"), replacing("result")] {
        assert_eq!(
            message(check_result_table(&mut *database, &spec)),
            "cannot write table result: foreign key of table kid depends on it, so the database cannot replace it; \
             drop that first, or choose another name"
        );
    }
    write(&mut *file.open(), &spec("result"), SELECT).unwrap();
    assert_eq!(file.texts("SELECT id FROM kid"), ["1"]);
}

#[test]
fn tables_of_this_name_elsewhere_stay() {
    let file = file_with_source();
    let other = file.beside("other.db");
    let attach = format!("ATTACH 'file:{}?mode=rwc' AS other", other.display());
    let replay: [&str; 2] = [&attach, "CREATE TEMP TABLE result__sqlflow_j_0_2 (precious)"];
    let staging = "result__sqlflow_j_0_2";
    let mut database = file.open_with("", &replay);
    for name in ["result", staging] {
        for sql in
            [format!("CREATE TABLE other.{name} (precious)"), format!("INSERT INTO other.{name} VALUES (42)")]
        {
            database.execute(&sql, &mut Discard).unwrap();
        }
    }
    for _ in 0..2 {
        write(&mut *database, &spec("result"), SELECT).unwrap();
        // As a leftover.
        file.run(&[&format!("CREATE TABLE {staging} (a)")]);
        assert_eq!(clean_up(&mut *database, "result", SUFFIX, None), Ok(None));
    }
    assert_eq!(file.tables(), ["result", "source"]);
    for name in ["result", staging] {
        assert_eq!(texts(&mut *database, &format!("SELECT precious FROM other.{name}")), ["42"]);
    }
    assert_eq!(texts(&mut *database, "SELECT name FROM sqlite_temp_master"), [staging]);
}

#[test]
fn table_that_cannot_be_created_is_found_before_any_work() {
    let file = file_with_source();
    let check = |database: &mut dyn Database, name: &str| message(check_result_table(database, &spec(name)));
    let mut database = file.open_with("", &["ATTACH ':memory:' AS other"]);
    assert_eq!(
        check(&mut *database, "none.t"),
        "cannot write table none.t: schema none does not exist (known: main, other); choose another name"
    );
    for known in ["OTHER.t", "main.t"] {
        assert_eq!(write(&mut *database, &spec(known), SELECT), Ok(None), "{known}");
    }
    assert_eq!(
        check(&mut *database, "Temp.t"),
        "cannot write table Temp.t: a temporary table ends with the statement; choose another name"
    );
    assert!(check(&mut *database, "SQLite_x").contains("SQLite reserves names that begin with sqlite_; "));
    let mut database = file.open_with("?mode=ro", &[]);
    assert!(
        check(&mut *database, "t").contains("the data source is opened with mode=ro; choose another name")
    );

    let file = File::new();
    let mut database = file.open_existing();
    assert_eq!(
        check(&mut *database, "t"),
        format!(
            "cannot write into SQLite file {}: it does not exist; correct the path of the data source, or create a \
             table in it first",
            file.path().display()
        )
    );
}

#[test]
fn text_that_is_not_utf8_is_an_error_with_its_row() {
    let file = file_with_source();
    file.run(&[
        "CREATE TABLE texts (id INT, note)",
        "INSERT INTO texts VALUES (1, 'a'), (2, 'b'), (3, x'ff'), (4, NULL)",
    ]);
    file.run(&["INSERT INTO texts VALUES (5, CAST(x'ff27094100' AS TEXT))"]);
    let select = "SELECT * FROM texts";
    let expected = r#"column note, row 5: b"\xff'\tA\x00" cannot be written: it is not UTF-8"#;
    for rows in [1, 2, 3, 100] {
        let mut database = file.open();
        assert_eq!(message(fill(&mut *database, &spec("result"), select, rows).map(|_| ())), expected);
        // The blob is written, and no transaction is open.
        assert_eq!(clean_up(&mut *database, "result", SUFFIX, None), Ok(None));
    }
    // Copies of a row.
    let mut table = ResultTable::open(&mut *file.open(), &spec("result")).unwrap();
    table.create(None, &computed(&[("note", ComputedKind::Text)])).unwrap();
    table.set_copies(3);
    let texts = Values::Texts(StringArray::from_iter_values(["a"; 6]));
    table.insert(&Batch { rows: 6, columns: vec![texts] }).unwrap();
    let long = Value::NotUtf8(vec![0xff; 100]);
    let batch = Batch { rows: 2, columns: vec![Values::Mixed(vec![Value::Null, long])] };
    // 57 characters of the value.
    let shown = format!("b'{}\\xf…", r"\xff".repeat(13));
    assert_eq!(
        message(table.insert(&batch)),
        format!("column note, row 3: {shown} cannot be written: it is not UTF-8")
    );
    assert_eq!(table.rows(), 6);
}

#[test]
fn leftovers_of_earlier_attempts_are_dropped() {
    let file = file_with_source();
    for attempt in 1..=3 {
        let suffix = format!("sqlflow_j_0_{attempt}");
        file.run(&[&format!("CREATE TABLE result__{suffix} (a)")]);
    }
    file.run(&["CREATE TABLE other__sqlflow_j_0_1 (a)"]);
    ResultTable::open(&mut *file.open(), &spec("result")).unwrap();
    assert_eq!(file.tables(), ["other__sqlflow_j_0_1", "result__sqlflow_j_0_3", "source"]);
    let mut database = file.open();
    let mut clean = |attempt| clean_up(&mut *database, "result", "sqlflow_j_0_4", attempt);
    let not_replaced = "table result was not replaced: the statement ended before that";
    assert_eq!(clean(Some(3)), Ok(Some(not_replaced.into())));
    assert_eq!(file.tables(), ["other__sqlflow_j_0_1", "source"]);
    let unknown = "it is not known whether table result was replaced: ";
    let mut reports = |reason: &str| assert_eq!(clean(Some(3)), Ok(Some(format!("{unknown}{reason}"))));
    reports("there is no table of this name now");
    file.run(&["CREATE TABLE result (a)"]);
    reports("what has this name now was not made by SQLFlow");
    write(&mut *file.open(), &replacing("result"), SELECT).unwrap();
    let mut database = file.open();
    let mut clean = |attempt| clean_up(&mut *database, "result", "sqlflow_j_0_4", attempt);
    assert_eq!(clean(Some(2)), Ok(Some("table result was replaced: it holds the statement's result".into())));
    let other = "table result does not hold the statement's result, but that of sqlflow_j_0_2";
    assert_eq!(clean(Some(3)), Ok(Some(other.into())));
    assert_eq!(clean(None), Ok(None));
    file.run(&["DROP TABLE result", "CREATE TABLE result (/* SQLFlow result table result */ a)"]);
    check_result_table(&mut *file.open(), &spec("result")).unwrap();
    let mut database = file.open();
    let old = format!("{unknown}what has this name now was made by an earlier version of SQLFlow");
    assert_eq!(clean_up(&mut *database, "result", "sqlflow_j_0_4", Some(3)), Ok(Some(old)));
}
