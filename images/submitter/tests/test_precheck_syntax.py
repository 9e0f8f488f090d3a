"""The syntax of later statements of every kind, and the tables that they need or create, are checked ahead."""

from __future__ import annotations

from typing import Any

import pytest
from agent import StandInAgent
from conftest import Runner
from prechecks import SOURCE, TRAIN, assert_passes, database_of, existing, rejects, standard, use

WRONG = [
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
]
RIGHT = {
    "sqlite": [
        "CREATE TRIGGER note AFTER INSERT ON outcome BEGIN DELETE FROM source; UPDATE source SET a = 1; END",
        "CREATE VIRTUAL TABLE other USING no_such_module(a)",
        "ALTER TABLE outcome RENAME COLUMN a TO b",
        "CREATE TABLE elsewhere.other (a INT)",
        "CREATE INDEX elsewhere.i ON other (a)",
        "DROP INDEX i",
        "PRAGMA user_version = 7",
        "EXPLAIN PRAGMA user_version = 7",
        "EXPLAIN QUERY PLAN DELETE FROM outcome",
        "ATTACH 'file' AS other",
        "VACUUM INTO 'other'",
        "ANALYZE",
        "REINDEX nosuch",
        "SAVEPOINT a",
    ],
    "mysql": [
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
    ],
    "postgresql": [
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END",
        "CREATE RULE r AS ON INSERT TO outcome DO (DELETE FROM source; DELETE FROM source)",
        "DO $$ BEGIN PERFORM 1; END $$",
        "SELECT * FROM json_to_record('{}')",
        "INSERT INTO source VALUES (1, 2, 3, 4)",
        "CREATE TABLE other AS SELECT * FROM json_to_record('{}')",
        "ALTER TABLE IF EXISTS ONLY outcome ADD CONSTRAINT c CHECK (a > 0) NOT VALID",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO nosuch",
        "COPY outcome FROM STDIN",
        "SET LOCAL search_path = nosuch, public",
        "CALL nosuch()",
        "VACUUM (FULL) outcome",
        "CREATE EXTENSION nosuch",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "SELECT 'it\\'s'",
    ],
}


def test_wrong_syntax_is_found_in_every_kind_of_statement(source: Runner, agent: StandInAgent) -> None:
    unknown = standard("ALTER TABLE source ADD COLUMN z INT", effect="unknown")
    for earlier in ([], [unknown]):
        first = 1 + len(earlier)
        later = [standard(sql, first + place, hangs_on_row=bool(earlier)) for place, sql in enumerate(WRONG)]
        found = rejects(agent, *earlier, *later).split("; statement ")
        assert len(found) == len(WRONG), found
        for place, (sql, message) in enumerate(zip(WRONG, found, strict=True)):
            word = "INSERT" if "INSERT" in sql else sql.split()[0]
            assert message.removeprefix("statement ").startswith(f"{first + place + 1} ({word}): ")
            assert "syntax" in message or "incomplete input" in message, message
            if database_of(source) != "sqlite":
                assert f": line {1 + sql.count(chr(10))}: " in message
    # Nothing was executed.
    assert source.sql("SELECT * FROM source WHERE a = 1") == [("1", "2", "1")]


def test_no_right_statement_is_rejected(source: Runner, agent: StandInAgent) -> None:
    """Neither one whose objects are missing, nor one that the database cannot prepare."""
    right = RIGHT[database_of(source)]
    later = [standard(sql, 1 + place, hangs_on_row=True) for place, sql in enumerate(right)]
    assert_passes(agent, *later)
    assert "syntax" in rejects(agent, *later, standard("DROP TABEL x", 1 + len(later), hangs_on_row=True))
    if database_of(source) == "sqlite":
        assert source.sql("PRAGMA user_version") == [("0",)]


def test_extended_statements_are_checked_after_an_unknown_change(source: Runner, agent: StandInAgent) -> None:
    unknown = standard("ALTER TABLE source ADD COLUMN z INT", effect="unknown")
    model = existing(source, "numbers", objective="reg:squarederror")
    later = {"model": "numbers", "model_dir": model, "hangs_on_row": True}
    assert_passes(agent, unknown, use("explain", 2, select="SELECT z FROM nosuch", **later))
    assert "statement 3 (TO EXPLAIN): " in rejects(agent, unknown, use("explain", 2, select=f"{SOURCE} WHERE", **later))
    held_out = {**TRAIN, "index": 2, "attributes": {"validation.select": f"{SOURCE} WHERE"}, "hangs_on_row": True}
    assert "statement 3 (TO TRAIN): validation.select: " in rejects(agent, unknown, held_out)
    metric = use("evaluate", 2, attributes={"validation.metrics": "accuracy"}, **later)
    assert "metric accuracy does not exist" in rejects(agent, unknown, metric)


def test_statement_of_another_database_gets_its_hint(source: Runner, agent: StandInAgent) -> None:
    message = rejects(agent, standard("SHWO TABLES", hint="list them by hand"))
    assert message.endswith("; list them by hand")


def test_unknown_settings_that_decide_the_syntax_end_the_check(source: Runner, agent: StandInAgent) -> None:
    """In MySQL they may include `sql_mode`."""
    if database_of(source) != "mysql":
        pytest.skip("in others, no setting changes the syntax")
    quoted = standard('CREATE TABLE "other" (a INT)', 2)
    assert_passes(agent, standard("SET sql_mode = 'ANSI_QUOTES'", effect="session"), quoted)
    assert_passes(agent, standard("", effect="session"), quoted)
    assert "syntax" in rejects(agent, standard("SELECT 1"), quoted)


def test_change_of_a_missing_table_is_found(source: Runner, agent: StandInAgent) -> None:
    name = database_of(source)
    unknown: dict[str, Any] = {"effect": "unknown"}
    drops: dict[str, Any] = {"effect": "objects", "names": ["sorce"], "drops": True}
    message = rejects(agent, standard("DROP TABLE sorce", **drops))
    assert message == (
        "statement 2 (DROP): cannot drop table sorce: it does not exist; correct the name, or write IF EXISTS"
    )
    message = rejects(agent, standard("ALTER TABLE sorce ADD COLUMN z INT", **unknown))
    assert message == "statement 2 (ALTER): cannot alter table sorce: it does not exist; did you mean source?"
    assert_passes(agent, standard("DROP TABLE IF EXISTS sorce", **drops))
    assert_passes(agent, standard("DROP TABLE source", **{**drops, "names": ["source"]}))
    assert_passes(agent, standard("DROP TABLE sorce", hangs_on_row=True, **drops))
    # What an earlier statement does is not known.
    assert_passes(agent, standard("SELECT 1", **unknown), standard("DROP TABLE sorce", 2, **drops))
    # A view without its table is there.
    if name == "sqlite":
        source.sql("CREATE VIEW later_view AS SELECT * FROM nosuch")
        assert_passes(agent, standard("DROP TABLE later_view", **drops))
    if name != "sqlite":
        assert "cannot drop table sorce" in rejects(agent, standard("drop table source , sorce;", **drops))
        assert "cannot truncate table sorce" in rejects(agent, standard("TRUNCATE TABLE sorce", effect="rows"))
        assert_passes(agent, standard("TRUNCATE source", effect="rows"))


def test_creation_of_an_existing_table_is_found(source: Runner, agent: StandInAgent) -> None:
    def create(sql: str, index: int = 1) -> dict[str, Any]:
        return standard(sql, index, effect="objects", names=["x"])

    schema = {"sqlite": "main", "mysql": "test", "postgresql": "public"}[database_of(source)]
    for wrong in ("source", f"{schema}.source"):
        message = rejects(agent, create(f"CREATE TABLE {wrong} (a INT)"))
        assert message.startswith(f"statement 2 (CREATE): cannot create table {wrong}: it exists; ")
    assert "cannot create table source: it exists" in rejects(agent, create("CREATE TABLE source AS SELECT 1 AS a"))
    assert_passes(agent, create("CREATE TABLE IF NOT EXISTS source (a INT)"))
    assert_passes(agent, create("CREATE TEMPORARY TABLE source (a INT)"))
    # An earlier statement may drop it.
    dropped = standard("DROP VIEW IF EXISTS x", effect="objects", names=["x"], drops=True)
    assert_passes(agent, dropped, create("CREATE TABLE source (a INT)", 2))
    match database_of(source):
        case "sqlite":
            # A table of SQLite's own does not prevent one.
            assert_passes(agent, create("CREATE TABLE json_each (a INT)"))
            assert_passes(agent, create("CREATE TABLE temp.source (a INT)"))
        case "mysql":
            # Names may differ in case only.
            assert_passes(agent, create("CREATE TABLE SOURCE (a INT)"))
            assert_passes(agent, create("CREATE OR REPLACE TABLE source (a INT)"))
        case _:
            assert_passes(agent, create("CREATE TABLE pg_class (a int)"))
            assert "it exists" in rejects(agent, create("CREATE TABLE SOURCE (a int)"))
