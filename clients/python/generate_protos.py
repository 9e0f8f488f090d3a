#!/usr/bin/env python3
"""Generates `sqlflow/_proto` from the project's .proto files.

    python generate_protos.py            writes the modules
    python generate_protos.py --check    exits with 1 if the modules are not up to date

Two things of protoc's output are changed:

- Absolute imports (`from sqlflow.v1 import …`) become relative ones, because the package has its modules elsewhere.
- The check that the installed protobuf is not older than protoc is removed. It would bind users to one major version of
  protobuf, which other packages of their environment often exclude. The messages need nothing of later versions.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROTO_ROOT = HERE.parent.parent / "proto"
TARGET = HERE / "sqlflow" / "_proto"
FILES = ("sqlflow/v1/data.proto", "sqlflow/v1/sqlflow.proto")

ABSOLUTE_IMPORT = re.compile(r"^from sqlflow\.v1 import", re.MULTILINE)
VERSION_IMPORT = re.compile(r"^from google\.protobuf import runtime_version .*\n", re.MULTILINE)
VERSION_CHECK = re.compile(r"^_runtime_version\.ValidateProtobufRuntimeVersion\(.*?^\)\n", re.MULTILINE | re.DOTALL)


def generate() -> dict[str, str]:
    """Returns the text of every generated file by its name in `TARGET`."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    texts = {"__init__.py": ""}
    with tempfile.TemporaryDirectory() as folder:
        import grpc_tools  # type: ignore[import-untyped]

        well_known = Path(grpc_tools.__file__).parent / "_proto"
        arguments = ["protoc", f"-I{PROTO_ROOT}", f"-I{well_known}", f"--python_out={folder}", f"--pyi_out={folder}"]
        if protoc.main([*arguments, *FILES]) != 0:
            raise SystemExit("protoc failed")
        for path in sorted(Path(folder).rglob("*.py*")):
            text = ABSOLUTE_IMPORT.sub("from . import", path.read_text())
            texts[path.name] = VERSION_CHECK.sub("", VERSION_IMPORT.sub("", text))
    return texts


def stale() -> list[str]:
    """Returns the generated files that are missing or not up to date."""
    texts = generate()
    return sorted(
        name for name, text in texts.items() if not (TARGET / name).exists() or (TARGET / name).read_text() != text
    )


def main() -> int:
    if "--check" in sys.argv[1:]:
        names = stale()
        for name in names:
            print(f"{TARGET / name} is not up to date: run {Path(__file__).name}", file=sys.stderr)
        return 1 if names else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, text in generate().items():
        (TARGET / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
