#!/usr/bin/env python3
"""Generates `tests/protos` from the project's .proto files, for the fake agent of the tests.

    python generate_protos.py            writes the modules
    python generate_protos.py --check    exits with 1 if the modules are not up to date

The submitter itself does not use them: it has an encoder of its own (`wire.py`). protoc writes absolute imports
(`from sqlflow.v1 import …`). A package named `sqlflow` would collide with that of the published client, so the imports
are changed to this package.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROTO_ROOT = HERE.parent.parent / "proto"
TARGET = HERE / "tests" / "protos"
FILES = ("sqlflow/v1/data.proto", "sqlflow/record/v1/record.proto", "sqlflow/agent/v1/channel.proto")

ABSOLUTE_IMPORT = re.compile(r"^from sqlflow\.", re.MULTILINE)


def generate() -> dict[Path, str]:
    """Returns the text of every generated file by its path below `TARGET`."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    texts: dict[Path, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["protoc", f"-I{PROTO_ROOT}", f"--python_out={folder}", f"--pyi_out={folder}", *FILES]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc failed")
        for path in sorted(Path(folder).rglob("*.py*")):
            text = ABSOLUTE_IMPORT.sub("from protos.sqlflow.", path.read_text())
            texts[path.relative_to(folder)] = text
    for package in {parent for path in texts for parent in path.parents}:
        texts[package / "__init__.py"] = ""
    return texts


def stale() -> list[Path]:
    """Returns the generated files that are missing or not up to date."""
    texts = generate()
    return sorted(
        path for path, text in texts.items() if not (TARGET / path).exists() or (TARGET / path).read_text() != text
    )


def main() -> int:
    if "--check" in sys.argv[1:]:
        paths = stale()
        for path in paths:
            print(f"{TARGET / path} is not up to date: run {Path(__file__).name}", file=sys.stderr)
        return 1 if paths else 0
    for path, text in generate().items():
        (TARGET / path).parent.mkdir(parents=True, exist_ok=True)
        (TARGET / path).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
