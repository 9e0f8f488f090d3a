"""Drops staging tables of killed attempts, if no later attempt of their step will do it."""

from __future__ import annotations

from sqlflow_submitter.connect.database import Database
from sqlflow_submitter.connect.open_writer import open_writer
from sqlflow_submitter.connect.writer import TableName, TableWriter
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.extended.result_table import leftovers
from sqlflow_submitter.step import CleanUp, Step


def clean_up(step: Step, task: CleanUp, database: Database) -> None:
    """Drops the staging tables of all attempts of the step. Idempotent.

    An attempt that was killed after its grant may or may not have replaced the result table. If its staging table
    still exists, it has not. This is reported before the staging table is dropped.
    """
    for statement in step.statements:
        if statement.result_table is None:
            continue
        with open_writer(database) as writer:
            table = writer.table_name(statement.result_table)
            if task.granted_attempt is not None:
                print(_report(writer, table, step, task.granted_attempt), flush=True)
            for staging in leftovers(writer, table, step.staging_suffix):
                writer.drop(staging)


def _report(writer: TableWriter, table: TableName, step: Step, granted_attempt: int) -> str:
    prefix, _, _ = step.staging_suffix.rpartition("_")
    staging = table.with_suffix(f"{prefix}_{granted_attempt}", writer.name_limit)
    if _exists(writer, staging):
        return f"table {table} was not replaced: the statement ended before that"
    return f"table {table} was replaced: it holds the statement's result"


def _exists(writer: TableWriter, table: TableName) -> bool:
    try:
        writer.run(f"SELECT 1 FROM {writer.quoted(table)} WHERE 1 = 0")
    except UserError:
        return False
    return True
