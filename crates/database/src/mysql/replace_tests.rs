//! Tables that are found and replaced in a real MariaDB.

use super::writer_tests::{mark, name, open};
use crate::test_servers::{MariaDb, computed, options, read, run};
use crate::{ComputedKind, Discard, Error, ErrorKind, TableWriter, clean_up, connect, texts};

#[test]
fn tables_are_replaced() {
    let server = MariaDb::start();
    tables_are_found_and_replaced(&server);
    reader_locks_the_old_table_until_it_ends(&server);
    obstacles_are_found(&server);
    table_of_an_attempt_is_found_without_a_privilege_to_read_it(&server);
}

fn always(_: &mut dyn TableWriter) -> Result<(), Error> {
    Ok(())
}

fn tables_are_found_and_replaced(server: &MariaDb) {
    let database = &mut *server.open();
    let mut writer = database.writer().unwrap();
    let columns = computed(&[("a", ComputedKind::Int)]);
    let (table, staging) = (name("outcome"), name("outcome").with_suffix("s_1", writer.name_limit()));
    assert_eq!(writer.find_table(&table).unwrap(), None);
    for _ in 0..2 {
        writer.create(&staging, None, &columns, mark(&table.name)).unwrap();
        assert!(!writer.find_table(&staging).unwrap().unwrap().is_marked());
        writer.swap(&staging, &table, "s_1", &mut always).unwrap();
        assert!(writer.find_table(&table).unwrap().unwrap().is_marked());
        for left in writer.leftovers(&table, "s_1") {
            assert_eq!(writer.find_table(&left).unwrap(), None, "{left}");
        }
    }
    assert_eq!(texts(writer.database().unwrap(), "SELECT @@lock_wait_timeout").unwrap(), ["60"]);
    let names: Vec<_> = writer.leftovers(&table, "s_1").iter().map(ToString::to_string).collect();
    assert_eq!(names, ["outcome__s_1", "outcome__s_1_old"]);
    // The check decides.
    writer.create(&staging, None, &columns, mark(&table.name)).unwrap();
    let refused = writer.swap(&staging, &table, "s_1", &mut |_| Err(Error::user("no"))).unwrap_err();
    assert_eq!(refused.message, "no");
    assert!(writer.find_table(&staging).unwrap().is_some());

    let writer = &mut *writer;
    writer.database().unwrap().execute("CREATE VIEW shown AS SELECT 1 AS v", &mut Discard).unwrap();
    assert_eq!(writer.find_table(&name("shown")).unwrap().unwrap().kind, "view");
    run(writer.database().unwrap(), "CREATE SEQUENCE seq");
    assert_eq!(writer.find_table(&name("seq")).unwrap().unwrap().kind, "sequence");
    run(writer.database().unwrap(), "CREATE DATABASE elsewhere");
    run(writer.database().unwrap(), "CREATE TABLE elsewhere.outcome LIKE test.outcome");
    let copied = writer.find_table(&writer.table_name("elsewhere.outcome")).unwrap().unwrap();
    assert_eq!((copied.is_marked(), copied.marked_as()), (false, Some("test.outcome")));

    run(writer.database().unwrap(), "ALTER TABLE outcome ADD PRIMARY KEY (a), ADD INDEX ix (a)");
    run(writer.database().unwrap(), "CREATE TRIGGER tr AFTER INSERT ON outcome FOR EACH ROW DO 1");
    assert_eq!(writer.attached(&table).unwrap(), ["index PRIMARY", "index ix", "trigger tr"]);
    assert!(writer.dependents(&table).unwrap().is_empty());
    run(
        writer.database().unwrap(),
        "CREATE TABLE kid (id BIGINT, CONSTRAINT up FOREIGN KEY (id) REFERENCES outcome (a))",
    );
    assert_eq!(writer.dependents(&table).unwrap(), ["foreign key up of table test.kid"]);
    // The old table comes back, since it cannot be dropped.
    let error = writer.swap(&staging, &table, "s_1", &mut always).unwrap_err();
    let said = "cannot replace table outcome: a foreign key of a table that this user cannot see depends on it; choose \
                another name";
    assert_eq!((error.message.as_str(), error.is_unclear), (said, false));
    run(writer.database().unwrap(), "INSERT INTO outcome VALUES (1)");
    run(writer.database().unwrap(), "INSERT INTO kid VALUES (1)");
    assert_eq!(writer.find_table(&writer.leftovers(&table, "s_1")[1].clone()).unwrap(), None);
    writer.drop_table(&staging).unwrap();
    writer.drop_table(&staging).unwrap();
}

fn reader_locks_the_old_table_until_it_ends(server: &MariaDb) {
    let settings = "SET autocommit = 0, completion_type = 2, lock_wait_timeout = 1";
    let reader = &mut *open(server, "root", &[settings]);
    let mut writer = reader.writer().unwrap();
    let (table, staging) = (name("locked"), name("locked").with_suffix("s_1", writer.name_limit()));
    for table in [&table, &staging] {
        writer.create(table, None, &computed(&[("a", ComputedKind::Int)]), mark("locked")).unwrap();
    }
    read(reader, "SELECT a FROM locked");
    let error = writer.swap(&staging, &table, "s_1", &mut always).unwrap_err();
    let said = "cannot replace table locked: another session uses the old table, for example in an open transaction; \
                end that, and run the statement again";
    assert_eq!((error.kind, error.message.as_str(), error.is_unclear), (ErrorKind::Busy, said, false));
    reader.end_reading();
    writer.swap(&staging, &table, "s_1", &mut always).unwrap();
    assert_eq!(texts(reader, "SELECT count(*) FROM locked").unwrap(), ["0"]);
}

fn obstacles_are_found(server: &MariaDb) {
    let owner = &mut *server.open();
    run(owner, "GRANT SELECT, INSERT, CREATE, ALTER ON test.* TO poor@localhost IDENTIFIED BY 'p'");
    let obstacle = |writer: &mut dyn TableWriter, text: &str| {
        let table = writer.table_name(text);
        writer.creation_obstacle(&table).unwrap()
    };
    let mut poor = open(server, "poor:p", &[]).writer().unwrap();
    let said = obstacle(&mut *poor, "t").unwrap();
    assert!(
        said.starts_with("this user may not replace tables in database test: DROP command denied"),
        "{said}"
    );
    let mut writer = owner.writer().unwrap();
    assert_eq!(obstacle(&mut *writer, "t"), None);
    assert_eq!(obstacle(&mut *writer, "nowhere.t").unwrap(), "database nowhere does not exist");
    let long = "ä".repeat(65);
    assert_eq!(
        obstacle(&mut *writer, &long).unwrap(),
        "its name has 65 characters, and the database allows 64"
    );
    let source = server.source_of("root").replace("/test", "/");
    let mut nameless = connect(&source, options(|_| ())).unwrap().writer().unwrap();
    assert_eq!(
        obstacle(&mut *nameless, "t").unwrap(),
        "the data source names no database, and neither does the table"
    );

    // A foreign key that the user cannot see. The column has the name of the first probe.
    let owner = writer.database().unwrap();
    run(owner, "GRANT ALL ON test.* TO poor@localhost");
    run(owner, "CREATE TABLE parent (a INT PRIMARY KEY, sqlflow_no_column_0 INT)");
    run(owner, "CREATE DATABASE hidden");
    run(owner, "CREATE TABLE hidden.kid (id INT, FOREIGN KEY (id) REFERENCES test.parent (a))");
    let dependents =
        |server: &MariaDb| open(server, "poor:p", &[]).writer().unwrap().dependents(&name("parent")).unwrap();
    assert_eq!(dependents(server), ["a foreign key of a table that this user cannot see"]);
    run(owner, "DROP TABLE hidden.kid");
    assert!(dependents(server).is_empty());
    // One to itself is lost with it.
    run(owner, "ALTER TABLE parent ADD COLUMN up INT, ADD FOREIGN KEY (up) REFERENCES parent (a)");
    assert!(dependents(server).is_empty());
}

fn table_of_an_attempt_is_found_without_a_privilege_to_read_it(server: &MariaDb) {
    let owner = &mut *server.open();
    run(owner, "GRANT CREATE, DROP ON test.* TO blind@localhost IDENTIFIED BY 'p'");
    run(owner, "CREATE TABLE unread__s_j_0_1 (a INT)");
    let blind = &mut *open(server, "blind:p", &[]);
    let report = clean_up(blind, "unread", "s_j_0_1", Some(1)).unwrap().unwrap();
    assert_eq!(report, "table unread was not replaced: the statement ended before that");
    assert_eq!(texts(owner, "SHOW TABLES LIKE 'unread%'").unwrap(), [""; 0]);
}
