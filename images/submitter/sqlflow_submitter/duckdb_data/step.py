"""The step document, `step.json`, as the data process reads it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sqlflow_submitter.duckdb_data.result_table import Spec
from sqlflow_submitter.errors import SubmitterError
from sqlflow_submitter.step import VALIDATION, VERSION, first_word

READING = {
    "SELECT",
    "WITH",
    "FROM",
    "VALUES",
    "TABLE",
    "SHOW",
    "DESCRIBE",
    "DESC",
    "SUMMARIZE",
    "EXPLAIN",
    "SET",
    "USE",
    "PRAGMA",
}
"""First words of statements that read, if the server says that they may be repeated."""


class Statement:
    """A statement of the step, or a later one."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.index: int = document["index"]
        self.kind: str = document["kind"]
        self.sql: str = document.get("sql") or ""
        self.repeatable: bool = document.get("repeatable", False)
        self.attributes: dict[str, Any] = document.get("attributes") or {}
        self.result_table: str | None = document.get("result_table")
        self._select: str = document.get("select") or ""

    @property
    def is_standard(self) -> bool:
        return self.kind == "standard"

    def select(self, which: str) -> str:
        """Returns one of its selects; empty if it has none."""
        return str(self.attributes.get("validation.select") or "") if which == VALIDATION else self._select

    def texts(self) -> list[str]:
        """Returns what reads tables."""
        texts = [self.sql] if self.is_standard else [self._select, self.select(VALIDATION)]
        return [text for text in texts if text]

    def reads_only(self) -> bool:
        if not self.is_standard:
            return self.result_table is None
        return self.repeatable and first_word(self.sql) in READING


class Step:
    """A step: standard statements, or one extended statement."""

    def __init__(self, document: dict[str, Any]) -> None:
        if document.get("version") != VERSION:
            raise SubmitterError(
                f"cannot read the step document: it has version {document.get('version')}, and this program reads "
                f"version {VERSION}"
            )
        self.suffix: str = document.get("scratch_suffix", "")
        """The suffix of the staging tables of this attempt."""
        self.clean_up: dict[str, Any] | None = document.get("clean_up")
        """The task only to drop what earlier attempts left in the database."""
        self.replay: list[str] = [it["sql"] for it in document.get("replay", ())]
        self.statements = [Statement(it) for it in document["statements"]]
        self._later = [Statement(it) for it in document.get("ahead", ())]

    def statement(self, index: int) -> Statement:
        """Returns a statement of the step, or a later one."""
        for statement in [*self.statements, *self._later]:
            if statement.index == index:
                return statement
        raise SubmitterError("cannot answer a request of the submitter: there is no such statement")

    def reads_only(self) -> bool:
        # What is attached to a database that is open to read only must exist.
        attaches = any(first_word(sql) == "ATTACH" for sql in self.replay)
        return self.clean_up is None and not attaches and all(it.reads_only() for it in self.statements)

    def result(self, statement: Statement) -> Spec:
        """Returns a statement's result table."""
        if statement.result_table is None:
            raise SubmitterError("cannot answer a request of the submitter: the statement has no result table")
        replace = statement.attributes.get("result.replace") is True
        return Spec(statement.result_table, self.suffix, replace, statement.texts())


STEP_DIGEST = "step_sha256"
"""Name of the secret with the document's SHA-256: see `crates/data-source/src/step_digest.rs`."""


def load(path: str, digest: str | None) -> Step:
    """Reads a step document, which must have this digest if it is known.

    Raises:
        SubmitterError: it does not exist, was changed, is not JSON, or has another version.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
        if digest is not None and hashlib.sha256(content).hexdigest() != digest:
            raise SubmitterError(
                f"cannot read the step document {path}: a program has changed it since the server assigned it"
            )
        return Step(json.loads(content))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SubmitterError(f"cannot read the step document {path}: {error!r}") from error
