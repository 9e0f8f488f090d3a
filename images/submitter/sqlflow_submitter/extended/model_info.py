"""SHOW MODELS and DESCRIBE MODEL."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlflow_submitter.errors import SubmitterError
from sqlflow_submitter.extended.computed_rows import send_rows
from sqlflow_submitter.model import WEIGHTS, ModelMeta
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement

if TYPE_CHECKING:
    from sqlflow_submitter.database import Database


def show_models(statement: Statement, database: Database | None, channel: StatementChannel) -> None:
    """Sends one row for each model: name, size, and time of publication in UTC."""
    try:
        models = json.loads(Path(statement.listing).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SubmitterError("cannot list the models: the agent is older than the server; update it") from None
    rows = [(model["name"], model["size_bytes"], _time(model.get("published_ms"))) for model in models]
    send_rows(["Model", "Size in bytes", "Published (UTC)"], list(zip(*rows, strict=True)), database, channel)


def _time(published_ms: int | None) -> str | None:
    if published_ms is None:
        return None
    return f"{datetime.fromtimestamp(published_ms // 1000, UTC):%Y-%m-%d %H:%M:%S}"


def describe_model(statement: Statement, database: Database | None, channel: StatementChannel) -> None:
    """Sends the properties of a model as rows of (property, value): first the model's own, then its columns."""
    folder = Path(statement.model_dir)
    meta = ModelMeta.load(folder)
    classes = None if meta.classes is None else ", ".join(map(str, meta.classes))
    rows: list[tuple[str, Any]] = [
        ("model", statement.model),
        ("estimator", meta.class_name),
        ("objective", meta.objective),
        ("label", meta.label),
        ("classes", classes),
        *((f"measured {name}", f"{value:.6g}") for name, value in meta.evaluation.items()),
        *((f"attribute {name}", str(value)) for name, value in meta.attributes.items()),
        ("weights in bytes", str((folder / WEIGHTS).stat().st_size)),
        # Newlines are kept, because they end comments.
        ("select", meta.select.strip()),
        ("trained (UTC)", _time(meta.trained_ms)),
        ("trained by", meta.trained_by or None),
        ("job", meta.job or None),
        ("made by", meta.created_by),
        ("objective chosen", meta.objective_reason or None),
        *((f"column {column['name']}", _column(column)) for column in meta.columns),
        *((f"feature {feature.label()}", feature.kind) for feature in meta.features if not meta.columns),
    ]
    send_rows(
        ["Property", "Value"], list(zip(*(row for row in rows if row[1] is not None), strict=True)), database, channel
    )


def _column(column: dict[str, Any]) -> str:
    """Formats a column: `number, declared REAL, 35 distinct, 2 missing; nearly unique`."""
    words = [column["taken_as"]]
    if column["declared"]:
        words.append(f"declared {column['declared']}")
    if column["distinct"] is not None:
        words.append(f"{'>' if column['more_distinct'] else ''}{column['distinct']} distinct")
    if column["missing"]:
        words.append(f"{column['missing']} missing")
    return "; ".join([", ".join(words), *column["warnings"]])
