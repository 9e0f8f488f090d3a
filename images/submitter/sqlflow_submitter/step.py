"""The step's document, `step.json`: what the server wants run."""

from __future__ import annotations

import json
from typing import Any

from sqlflow_submitter.errors import SubmitterError

VERSION = 1

Expression = dict[str, Any]
"""A node of a COLUMN clause: `{"ident": "x"}`, `{"call": "NUMERIC", "args": […]}` …"""


class Statement:
    """One statement of the step; fields that its kind does not have are None or empty."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.index: int = document["index"]
        self.kind: str = document["kind"]
        self.sql: str = document.get("sql", "")
        self.repeatable: bool = document.get("repeatable", False)
        self.select: str = document.get("select") or ""
        self.estimator: str = document.get("estimator") or ""
        self.attributes: dict[str, Any] = document.get("attributes") or {}
        self.columns: dict[str, list[Expression]] = document.get("columns") or {}
        self.label: str | None = document.get("label")
        self.model: str = document.get("model") or ""
        self.output: str = document.get("output") or ""
        self.pretrained: str | None = document.get("pretrained")
        self.model_dir: str = document.get("model_dir") or ""
        self.listing: str = document.get("listing") or ""
        self.result_table: str | None = document.get("result_table")
        self.result_column: str | None = document.get("result_column")
        self.using: str | None = document.get("using")
        """The earlier model of a TRAIN statement that is checked ahead."""
        self.depends_on_earlier: bool = document.get("hangs_on_row", False)
        """Of one that is checked ahead: its selects name a table that an earlier statement is yet to make."""


class CleanUp:
    """What an attempt needs to know that only removes what earlier attempts of its step left in the database."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.granted_attempt: int | None = document.get("granted_attempt")
        """The attempt that was allowed to replace the result table and did not report its end."""


class Step:
    """A step: standard statements in a run, or one extended statement."""

    def __init__(self, document: dict[str, Any]) -> None:
        version = document.get("version")
        if version != VERSION:
            raise SubmitterError(f"step document has version {version}, this submitter reads version {VERSION}")
        self.job: str = document["job"]
        self.step: int = document["step"]
        self.attempt: int = document["attempt"]
        self.user: str = document.get("user", "")
        """Who runs the program, as the session says; may be empty."""
        self.staging_suffix: str = document["scratch_suffix"]
        self.clean_up: CleanUp | None = CleanUp(document["clean_up"]) if "clean_up" in document else None
        self.replay: list[str] = [statement["sql"] for statement in document.get("replay", ())]
        self.statements = [Statement(statement) for statement in document["statements"]]
        self.later_statements = [Statement(statement) for statement in document.get("ahead", ())]
        """Statements of later steps, to be checked before this step does its work."""

    def may_create_table(self) -> bool:
        """Tells whether a statement may be of use in a database that has no table yet, such as CREATE TABLE.

        Then an SQLite file that is not there may be made: else a misspelt path would leave an empty one.
        """
        return any(
            statement.kind == "standard" and first_word(statement.sql) not in NEED_EXISTING_TABLE
            for statement in self.statements
        )


NEED_EXISTING_TABLE = {
    *("SELECT", "WITH", "VALUES", "EXPLAIN", "INSERT", "REPLACE", "UPDATE", "DELETE", "DROP", "ALTER", "ANALYZE"),
    *("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"),
}
"""First words of statements that need a table which is there, or that leave nothing."""


def first_word(sql: str) -> str:
    """Gives the word that a statement begins with, after comments, in capital letters."""
    rest = sql.lstrip()
    while rest.startswith(("--", "/*")):
        rest = rest.partition("\n" if rest.startswith("--") else "*/")[2].lstrip()
    end = next((place for place, character in enumerate(rest) if not character.isalnum()), len(rest))
    return rest[:end].upper()


def load_step(path: str) -> Step:
    """Reads a step document.

    Raises:
        SubmitterError: the file is absent, is not JSON, or is of another version.
    """
    try:
        # Not with pathlib: a standard step would import it for this line alone.
        with open(path, "rb") as file:
            return Step(json.load(file))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SubmitterError(f"step document {path} cannot be read: {error!r}") from error
