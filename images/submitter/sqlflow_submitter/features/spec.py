"""The definition of a feature, as stored in `model_meta.json`."""

from __future__ import annotations

from typing import Any

DENSE = "dense"
SPARSE = "sparse"
BUCKET = "bucket"
CATEGORY_ID = "category_id"
CATEGORY_HASH = "category_hash"
VOCABULARY = "vocabulary"
CROSS = "cross"
INDICATOR = "indicator"

CATEGORICAL = {CATEGORY_ID, CATEGORY_HASH, VOCABULARY, CROSS}
"""Kinds whose value is a code. Codes can only be compared for equality."""


class Feature:
    """One feature: how some columns of the select become `width` columns of the matrix."""

    def __init__(
        self,
        kind: str,
        *,
        column: str = "",
        width: int = 1,
        separator: str | None = None,
        pair_separator: str = ":",
        boundaries: list[float] | None = None,
        vocabulary: list[str] | None = None,
        inputs: list[Feature] | None = None,
        form: str = "",
        offset: int | float = 0,
        scale: int = 1,
        canonical: bool = False,
        boolean: bool = False,
        drops_unseen: bool = False,
    ) -> None:
        self.kind = kind
        self.column = column
        """The column that is read; empty if `inputs` are read instead."""
        self.width = width
        """DENSE: numbers in a value. SPARSE: highest index + 1. Categorical kinds and INDICATOR: number of codes."""
        self.separator = separator
        """Separates the numbers of a text. None means a comma, spaces, or both."""
        self.pair_separator = pair_separator
        self.boundaries = boundaries or []
        self.vocabulary = vocabulary
        """VOCABULARY: the sorted texts. A text's code is its position."""
        self.inputs = inputs or []
        self.form = form
        """DENSE of one number: `number` or `date`, if only that is read. Empty: both, with dates as days."""
        self.offset = offset
        """DENSE of one number: subtracted from each value, so that 32 bits suffice. For dates, in microseconds."""
        self.scale = scale
        """DENSE of one number: the divisor after the subtraction. For dates, it converts microseconds to days."""
        self.canonical = canonical
        """CATEGORY_HASH: the hashed text of a value is the same in every database. False in models of format 1."""
        self.boolean = boolean
        """DENSE of one number: the column was declared as boolean, so words such as `true` are numbers."""
        self.drops_unseen = drops_unseen
        """SPARSE: the width was learned, so indices beyond it are missing instead of an error."""

    def columns(self) -> list[str]:
        """Returns the columns of the select that this feature reads."""
        names = [self.column] if self.column else []
        for feature in self.inputs:
            names += [name for name in feature.columns() if name not in names]
        return names

    def use_canonical_text(self) -> None:
        """Makes hashes depend on the value, and not on how a database prints it."""
        if self.kind == CATEGORY_HASH:
            self.canonical = True
        for inner in self.inputs:
            inner.use_canonical_text()

    def matrix_width(self) -> int:
        """Returns the number of columns of this feature in the matrix."""
        if self.kind in CATEGORICAL or self.kind == BUCKET:
            return 1
        if self.kind == INDICATOR:
            return self.inputs[0].codes()
        return self.width

    def codes(self) -> int:
        """Returns the number of codes of a categorical or bucketed feature."""
        if self.kind == BUCKET:
            return len(self.boundaries) + 1
        return len(self.vocabulary or []) if self.kind == VOCABULARY else self.width

    def label(self) -> str:
        """Returns the feature's name for people and for result tables."""
        if self.kind == CROSS:
            return "_x_".join(feature.label() for feature in self.inputs)
        return self.column or self.inputs[0].label()

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"kind": self.kind, "width": self.width}
        if self.column:
            document["column"] = self.column
        if self.separator is not None:
            document["separator"] = self.separator
        if self.kind == SPARSE:
            document["pair_separator"] = self.pair_separator
        if self.boundaries:
            document["boundaries"] = self.boundaries
        if self.vocabulary is not None:
            document["vocabulary"] = self.vocabulary
        for name in ("form", "offset", "canonical", "boolean", "drops_unseen"):
            if getattr(self, name):
                document[name] = getattr(self, name)
        if self.scale != 1:
            document["scale"] = self.scale
        if self.inputs:
            document["inputs"] = [feature.to_json() for feature in self.inputs]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Feature:
        fields = dict(document)
        kind = fields.pop("kind")
        fields["inputs"] = [cls.from_json(inner) for inner in fields.get("inputs", ())]
        return cls(kind, **fields)
