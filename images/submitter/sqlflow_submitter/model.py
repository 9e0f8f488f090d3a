"""A model's folder: the weights, and `model_meta.json` with everything that is needed to use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlflow_submitter.errors import SubmitterError
from sqlflow_submitter.features.spec import Feature

META = "model_meta.json"
WEIGHTS = "model.ubj"
FORMAT = 2
READABLE = (1, 2)
"""Format 1 lacks `columns`, and in features `form` and all later fields of `Feature`."""


def weights_digest(folder: Path) -> str:
    """Returns the SHA-256 of the weights in a model's folder, in hexadecimal."""
    import hashlib

    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ModelMeta:
    """The content of `model_meta.json`. Field names are those of upstream SQLFlow where it has the same field."""

    def __init__(
        self,
        *,
        original_sql: str,
        select: str,
        validation_select: str,
        class_name: str,
        attributes: dict[str, Any],
        objective: str,
        features: list[Feature],
        label: str,
        classes: list[Any] | None,
        evaluation: dict[str, float],
        created_by: str,
        trained_by: str = "",
        trained_ms: int | None = None,
        job: str = "",
        columns: list[dict[str, Any]] | None = None,
        objective_reason: str = "",
        weights_sha256: str = "",
    ) -> None:
        self.original_sql = original_sql
        self.select = select
        self.validation_select = validation_select
        self.class_name = class_name
        """The estimator as the program named it, such as `xgboost.gbtree`."""
        self.attributes = attributes
        self.objective = objective
        self.features = features
        self.label = label
        self.classes = classes
        """Label values by class code; None if the model predicts a number."""
        self.evaluation = evaluation
        """The metrics of the last round of training, such as `validate-rmse`."""
        self.created_by = created_by
        self.trained_by = trained_by
        """The user whose job trained it; may be empty."""
        self.trained_ms = trained_ms
        """End of the training, in milliseconds since 1970 in UTC. None in models of older releases."""
        self.job = job
        """The job's id; empty in models of older releases."""
        self.columns = columns or []
        """How each column of the training data was read, the label first: `ColumnReport.to_json`."""
        self.objective_reason = objective_reason
        """Why the objective was chosen."""
        self.weights_sha256 = weights_sha256
        """SHA-256 of the weights, in hexadecimal; empty in models of older releases."""

    def check_weights(self, folder: Path) -> None:
        """Checks that the weights in a model's folder are those that were trained.

        Raises:
            SubmitterError: they are not, or cannot be read.
        """
        if not self.weights_sha256:
            return
        try:
            found = weights_digest(folder)
        except OSError as error:
            raise SubmitterError(f"cannot read the model in {folder}: {error!r}") from error
        if found != self.weights_sha256:
            raise SubmitterError(
                f"cannot read the model in {folder}: {WEIGHTS} was changed after the training, its SHA-256 is {found} "
                f"and not {self.weights_sha256}; train the model again"
            )

    def inputs(self) -> list[str]:
        """Returns the names of the columns that the model reads."""
        return list(dict.fromkeys(name for feature in self.features for name in feature.columns()))

    def save(self, folder: Path) -> None:
        """Writes the document into an existing folder."""
        document: dict[str, Any] = {"format": FORMAT, **vars(self)}
        document["features"] = [feature.to_json() for feature in self.features]
        (folder / META).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ModelMeta:
        """Reads the document of a model's folder.

        Raises:
            SubmitterError: it does not exist, or this release cannot read it.
        """
        path = folder / META
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            found = document.pop("format")
            if found not in READABLE:
                readable = " and ".join(map(str, READABLE))
                raise SubmitterError(
                    f"cannot read the model in {folder}: it has format {found}, and this release reads {readable}"
                )
            document["features"] = [Feature.from_json(feature) for feature in document["features"]]
            return cls(**document)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SubmitterError(f"cannot read the model in {folder}: {error!r}") from error
