"""Changes of rows, settings and objects by earlier statements: what later prechecks still find, and what ends them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agent import StandInAgent
from conftest import Runner
from prechecks import TRAIN, assert_passes, database_of, rejects, standard, use


def test_changes_of_rows_do_not_end_the_check(source: Runner, agent: StandInAgent) -> None:
    change = standard("UPDATE source SET b = 5", effect="rows")
    message = rejects(agent, change, use("explain", 2, select="SELECT a FROM source"))
    assert message.startswith("statement 3 (TO EXPLAIN): the model's column b does not exist")
    wrong = standard("INSERT INTO source (a, nosuch) VALUES (1, 2)", effect="rows")
    message = rejects(agent, wrong, standard("SELECT nosuch FROM source", 2))
    assert message.startswith("statement 2 (INSERT): ")
    assert "; statement 3 (SELECT): " in message
    assert_passes(
        agent, change, standard("DELETE FROM outcome", 2, effect="rows", hangs_on_row=True), use("explain", 3)
    )
    assert source.sql("SELECT max(b) FROM source") == [("3",)]


def test_column_that_may_have_no_value_by_then_is_not_required(source: Runner, agent: StandInAgent) -> None:
    """A change of rows before a training decides which columns the training omits."""
    training = {**TRAIN, "index": 2, "model": "next", "output": ""}
    narrow = use("explain", 3, model="next", select="SELECT a FROM source")
    assert "b does not exist" in rejects(agent, standard("SELECT 1"), training, narrow)
    assert_passes(agent, standard("UPDATE source SET b = NULL", effect="rows"), training, narrow)


def test_settings_hold_for_later_checks(source: Runner, agent: StandInAgent, tmp_path: Path) -> None:
    """They are executed in another session, so that the names are those of the program."""
    match database_of(source):
        case "sqlite":
            Runner(f"sqlite://{tmp_path}/other.db?mode=rwc", tmp_path).sql("CREATE TABLE elsewhere (a INT, z INT)")
            setting, wrong = f"ATTACH '{tmp_path}/other.db' AS other", "ATTACH '' AS main"
            table = "other.elsewhere"
        case "mysql":
            source.sql("CREATE DATABASE other", "CREATE TABLE other.elsewhere (a INT, z INT)")
            setting, wrong, table = "USE other", "USE othr", "elsewhere"
        case _:
            source.sql("CREATE SCHEMA other", "CREATE TABLE other.elsewhere (a INT, z INT)")
            setting, wrong, table = "SELECT set_config('search_path', 'other', false)", "SET ROLE nosuch", "elsewhere"
    try:
        change = standard(setting, effect="session")
        assert_passes(agent, change, standard(f"INSERT INTO {table} (z) VALUES (1)", 2, effect="rows"))
        message = rejects(agent, change, standard(f"INSERT INTO {table} (nosuch) VALUES (1)", 2, effect="rows"))
        assert message.startswith("statement 3 (INSERT): ")
        assert "nosuch" in message
        message = rejects(agent, standard(f"SELECT z FROM {table}"))
        assert message.startswith("statement 2 (SELECT): ")
        if database_of(source) != "sqlite":
            # The result table is looked for there, too.
            taken = use("predict", 2, select="SELECT 1 AS a, 2 AS b", result_table="elsewhere", result_column="p")
            assert "cannot write table elsewhere: it exists (0 rows)" in rejects(agent, change, taken)
            message = rejects(agent, standard(wrong, effect="session"), standard("SELECT nosuch FROM nosuch", 2))
            assert message.startswith(f"statement 2 ({wrong.split()[0]}): ")
            assert "statement 3" not in message
        # A session of the program ends with the check, and nothing was executed.
        assert source.sql("SELECT count(*) FROM source") == [("3",)]
    finally:
        if database_of(source) == "mysql":
            source.sql("DROP DATABASE other")
        if database_of(source) == "postgresql":
            source.sql("DROP SCHEMA other CASCADE")


def test_attached_file_is_not_created_by_a_check(tmp_path: Path, sqlite_dsn: str) -> None:
    runner, agent = Runner(sqlite_dsn, tmp_path), StandInAgent(tmp_path, sqlite_dsn)
    runner.sql("CREATE TABLE source (a INT, b INT, y INT)", "INSERT INTO source VALUES (1, 2, 1), (2, 1, 2)")
    attach = standard(f"ATTACH '{tmp_path}/new.db' AS new", effect="session")
    # What follows is unknown.
    assert_passes(agent, attach, standard("SELECT * FROM new.t", 2))
    assert not (tmp_path / "new.db").exists()


def test_check_in_another_session_is_left_out_if_there_can_be_none(sqlite_dsn: str, tmp_path: Path) -> None:
    runner, agent = Runner(sqlite_dsn, tmp_path), StandInAgent(tmp_path, sqlite_dsn)
    runner.sql(
        "PRAGMA journal_mode = WAL",
        "CREATE TABLE source (a INT, b INT, y INT)",
        "INSERT INTO source VALUES (1, 2, 1), (2, 1, 2)",
    )
    setting = standard("PRAGMA case_sensitive_like = 1", effect="session")
    wrong = standard("SELECT nosuch FROM source", 2)
    assert "nosuch" in rejects(agent, setting, wrong)
    agent.run(TRAIN, ahead=[setting, wrong], replay=("PRAGMA locking_mode = EXCLUSIVE",)).succeeded()


def test_what_depends_on_changed_tables_is_not_checked(source: Runner, agent: StandInAgent) -> None:
    source.sql("CREATE VIEW later_view AS SELECT a, b, y FROM source")
    dropped = {"effect": "objects", "names": ["source"], "drops": True}
    change = standard("DROP TABLE source", **dropped)
    reading = use("explain", 2, select="SELECT a, z FROM later_view")
    assert_passes(agent, change, reading)
    assert "statement 3 (TO EXPLAIN): " in rejects(agent, standard("SELECT 1"), reading)
    # What holds back a result table may be dropped before.
    source.sql("CREATE TABLE outcome (a INT)")
    predicting = use("predict", 2)
    assert "cannot write table outcome: it exists" in rejects(agent, standard("SELECT 1"), predicting)
    assert_passes(agent, standard("DROP VIEW other", effect="objects", names=["other"], drops=True), predicting)
    made = {"effect": "objects", "names": ["other"]}
    assert "cannot write table outcome" in rejects(agent, standard("CREATE TABLE other (a INT)", **made), predicting)


def test_routine_that_makes_tables_ends_the_check(source: Runner, agent: StandInAgent) -> None:
    """Of a query, or of a trigger."""
    reading = standard("SELECT z FROM second", 2)
    change = standard("INSERT INTO source VALUES (7, 7, 7)", effect="rows")
    harmless = standard("UPDATE kept SET a = 1", effect="rows")
    match database_of(source):
        case "sqlite":
            pytest.skip("triggers create no tables")
        case "mysql":
            body = "BEGIN CREATE TEMPORARY TABLE IF NOT EXISTS second (z INT); {} END"
            source.sql(
                "CREATE TABLE kept (a INT)",
                f"CREATE FUNCTION make_it() RETURNS INT {body.format('RETURN 1;')}",
                f"CREATE TRIGGER make_it AFTER INSERT ON source FOR EACH ROW {body.format('')}",
            )
            drop = ["DROP FUNCTION make_it", "DROP TRIGGER make_it", "DROP TABLE kept"]
        case _:
            body = "BEGIN CREATE TABLE IF NOT EXISTS second (z int); RETURN {}; END"
            source.sql(
                "CREATE TABLE kept (a int)",
                f"CREATE FUNCTION make_it() RETURNS int LANGUAGE plpgsql AS '{body.format(1)}'",
                f"CREATE FUNCTION make_them() RETURNS trigger LANGUAGE plpgsql AS '{body.format('NEW')}'",
                "CREATE TABLE child () INHERITS (source)",
                "CREATE TRIGGER make_it BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION make_them()",
            )
            drop = ["DROP TABLE child, kept", "DROP FUNCTION make_it", "DROP FUNCTION make_them"]
    try:
        assert_passes(agent, change, reading)
        assert_passes(agent, standard("SELECT make_it()"), reading)
        assert rejects(agent, harmless, reading).startswith("statement 3 (SELECT): ")
        if database_of(source) == "postgresql":
            first = {**TRAIN, "select": "SELECT a, b, y, make_it() AS one FROM source"}
            assert_passes(agent, standard("SELECT z FROM second"), first=first)
    finally:
        source.sql(*drop)


def test_function_that_changes_the_search_path_ends_the_check(source: Runner, agent: StandInAgent) -> None:
    if database_of(source) != "postgresql":
        pytest.skip("functions of others change no names")
    source.sql(
        "CREATE SCHEMA other",
        "CREATE TABLE other.elsewhere (a int)",
        "CREATE FUNCTION go() RETURNS int LANGUAGE plpgsql AS 'BEGIN SET search_path = other; RETURN 1; END'",
    )
    try:
        assert_passes(agent, standard("SELECT go()"), standard("SELECT a FROM elsewhere", 2))
    finally:
        source.sql("DROP FUNCTION go", "DROP SCHEMA other CASCADE")


def test_event_trigger_makes_ddl_unknown(source: Runner, agent: StandInAgent) -> None:
    if database_of(source) != "postgresql":
        pytest.skip("others have none")
    create = standard("CREATE TABLE other (a int)", effect="objects", names=["other"])
    wrong = standard("SELECT z FROM nosuch", 2)
    assert "nosuch" in rejects(agent, create, wrong)
    source.sql(
        "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE EVENT TRIGGER note ON ddl_command_end EXECUTE FUNCTION note()",
    )
    try:
        assert_passes(agent, create, wrong)
    finally:
        source.sql("DROP EVENT TRIGGER note", "DROP FUNCTION note")


def test_function_that_may_create_tables_ends_the_check(source: Runner, agent: StandInAgent) -> None:
    if "postgresql" not in source.dsn:
        pytest.skip("functions of others make no tables")
    source.sql(
        "CREATE FUNCTION make_it() RETURNS int LANGUAGE plpgsql AS "
        "$$ BEGIN CREATE TABLE IF NOT EXISTS second (z int); RETURN 1; END $$",
        "CREATE FUNCTION harmless() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
    )
    try:
        reading: dict[str, Any] = {"index": 2, "kind": "standard", "sql": "SELECT z FROM second"}
        assert_passes(agent, {"index": 1, "kind": "standard", "sql": "SELECT make_it()"}, reading)
        message = rejects(agent, {"index": 1, "kind": "standard", "sql": "SELECT harmless()"}, reading)
        assert message.startswith("statement 3 (SELECT): ")
    finally:
        source.sql("DROP FUNCTION make_it", "DROP FUNCTION harmless")


def test_creation_with_a_long_name_is_read_in_linear_time(source: Runner, agent: StandInAgent) -> None:
    """With a pattern that divides the name in every way, this never ends."""
    name = "customer_features_" * 3 + "daily"
    assert_passes(agent, standard(f"CREATE TABLE {name} (a INT)", effect="objects", changed_names=[name]))


@pytest.mark.parametrize("what", ["TABLE second", "TEMPORARY TABLE second", "VIEW later_view"])
def test_select_of_a_new_table_is_checked(source: Runner, agent: StandInAgent, what: str) -> None:
    def created(select: str) -> dict[str, Any]:
        return {"index": 1, "kind": "standard", "sql": f"CREATE {what} AS\n{select}", "effect": "objects"}

    wrong = created("SELECT a, no_such FROM source")
    if "VIEW" in what and "sqlite" in source.dsn:
        assert_passes(agent, wrong)
    else:
        assert "statement 2 (CREATE): " in rejects(agent, wrong)
    if "postgresql" in source.dsn:
        assert "line 2: " in rejects(agent, created("SELECT a, no_such\nFROM source"))
    assert_passes(agent, created("WITH q AS (SELECT a FROM source) SELECT a FROM q -- end"))
    # What depends on earlier statements, or has a further clause, is not checked.
    assert_passes(agent, {**wrong, "hangs_on_row": True})
    if "postgresql" in source.dsn and "VIEW" not in what:
        assert_passes(agent, created("SELECT no_such FROM source WITH NO DATA"))
