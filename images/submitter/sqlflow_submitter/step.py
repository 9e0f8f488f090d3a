"""The step document, `step.json`: the step that the server assigns to the submitter."""

from __future__ import annotations

from sqlflow_submitter.errors import SubmitterError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

VERSION = 1

Expression: TypeAlias = "dict[str, Any]"
"""A node of a COLUMN clause: `{"ident": "x"}`, `{"call": "NUMERIC", "args": […]}` …"""


STATEMENT = "statement"
VALIDATION = "validation"
"""Names of a statement's selects."""


class Query:
    """A select of a statement. The data process finds its text in the step document."""

    def __init__(self, statement: int, select: str) -> None:
        self.statement = statement
        self.select = select

    def to_json(self) -> dict[str, Any]:
        return {"statement": self.statement, "select": self.select}


class Statement:
    """One statement of the step. Fields that do not apply to its kind are None or empty."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.index: int = document["index"]
        self.kind: str = document["kind"]
        self.sql: str = document.get("sql", "")
        self.repeatable: bool = document.get("repeatable", False)
        self.select: str = document.get("select") or ""
        self.query = Query(self.index, STATEMENT)
        self.validation_query = Query(self.index, VALIDATION)
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
        self.hint: str = document.get("hint") or ""
        """In a standard statement of another database, such as SHOW TABLES: what to write instead."""
        self.using: str | None = document.get("using")
        """In a later TRAIN statement: the model that USING names."""
        self.depends_on_earlier: bool = document.get("hangs_on_row", False)
        """In a later statement: only its syntax and effect count, because it names a table that an earlier statement
        will create, or because the tables, columns or settings by then are not known."""
        self.effect: str = document.get("effect", "")
        """In a later standard statement: what it changes. `rows`, `session` (settings), `objects` (tables, views) or
        `unknown` (anything, except the grammar)."""
        self.changed_names: list[str] = document.get("names") or []
        """Effect `objects`: the names of the tables and views, in lower case and without their schema."""
        self.may_drop: bool = document.get("drops", False)
        """Effect `objects`: whether the tables and views may be dropped."""


class Step:
    """A step: one extended statement, and the later statements that are checked before."""

    def __init__(self, document: dict[str, Any]) -> None:
        version = document.get("version")
        if version != VERSION:
            raise SubmitterError(
                f"cannot read the step document: it has version {version}, and this submitter reads version {VERSION}"
            )
        self.job: str = document["job"]
        self.user: str = document.get("user", "")
        """The user of the session; may be empty."""
        self.statements = [Statement(statement) for statement in document["statements"]]
        self.later_statements = [Statement(statement) for statement in document.get("ahead", ())]
        """Statements of later steps, which are checked before this step starts its work."""


# Whitespace, parentheses and comments.
BEFORE_WORD = r"(?:[\s(]|--[^\n]*|\#[^\n]*|/\*.*?(?:\*/|\Z))*+"


def first_word(sql: str) -> str:
    """Returns the first word of a statement in upper case, without comments and parentheses, or an empty string."""
    import re

    match = re.match(rf"{BEFORE_WORD}(\w+)", sql, re.DOTALL)
    return match.group(1).upper() if match else ""


def load_step(path: str) -> Step:
    """Reads a step document.

    Raises:
        SubmitterError: the file does not exist, is not JSON, or has another version.
    """
    import json

    try:
        with open(path, "rb") as file:
            return Step(json.load(file))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SubmitterError(f"cannot read the step document {path}: {error!r}") from error
