#!/usr/bin/env python3
"""Generates the Python modules of the project's .proto files: those of the client, and those of the submitter's tests.

    generate_protos.py            writes the modules
    generate_protos.py --check    exits with 1 if modules are not up to date

It needs grpcio-tools: run it with the Python of `make venv-dev` or `make venv-clients`. The submitter itself does not
use the modules: it has an encoder of its own. Only the fake agent of its tests decodes messages with them.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROTOS = REPOSITORY / "proto"

ABSOLUTE_IMPORT = re.compile(r"^from sqlflow\.", re.MULTILINE)
V1_IMPORT = re.compile(r"^from sqlflow\.v1 import", re.MULTILINE)
VERSION_IMPORT = re.compile(r"^from google\.protobuf import runtime_version .*\n", re.MULTILINE)
VERSION_CHECK = re.compile(r"^_runtime_version\.ValidateProtobufRuntimeVersion\(.*?^\)\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Package:
    """A Python package of generated modules."""

    root: Path
    files: tuple[str, ...]
    """The .proto files, below `PROTOS`."""
    rewrite: Callable[[Path, str], tuple[Path, str]]
    """Changes the path below `root` and the text of a module that protoc made."""


def of_client(path: Path, text: str) -> tuple[Path, str]:
    """All modules are in one folder, so absolute imports (`from sqlflow.v1 import …`) become relative ones.

    The check that the installed protobuf is not older than protoc is removed. It would bind users to one major version
    of protobuf, which other packages of their environment often exclude. The messages need nothing of later versions.
    """
    text = V1_IMPORT.sub("from . import", text)
    return Path(path.name), VERSION_CHECK.sub("", VERSION_IMPORT.sub("", text))


def of_submitter_tests(path: Path, text: str) -> tuple[Path, str]:
    """A package named `sqlflow` would collide with the client's. So imports are changed to the package `protos`."""
    return path, ABSOLUTE_IMPORT.sub("from protos.sqlflow.", text)


PACKAGES = (
    Package(
        REPOSITORY / "clients/python/sqlflow/_proto",
        ("sqlflow/v1/data.proto", "sqlflow/v1/sqlflow.proto"),
        of_client,
    ),
    Package(
        REPOSITORY / "images/submitter/tests/protos",
        ("sqlflow/v1/data.proto", "sqlflow/record/v1/record.proto", "sqlflow/agent/v1/channel.proto"),
        of_submitter_tests,
    ),
)


def generate(package: Package) -> dict[Path, str]:
    """Returns the text of every file of a package by its path."""
    import grpc_tools  # type: ignore[import-untyped]
    from grpc_tools import protoc

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    texts: dict[Path, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["protoc", f"-I{PROTOS}", f"-I{well_known}", f"--python_out={folder}", f"--pyi_out={folder}"]
        if protoc.main([*arguments, *package.files]) != 0:
            raise SystemExit("protoc failed")
        for file in sorted(Path(folder).rglob("*.py*")):
            path, text = package.rewrite(file.relative_to(folder), file.read_text())
            texts[path] = text
    for parent in {parent for path in texts for parent in path.parents}:
        texts[parent / "__init__.py"] = ""
    return {package.root / path: text for path, text in texts.items()}


def main() -> int:
    texts = {path: text for package in PACKAGES for path, text in generate(package).items()}
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    for path in sorted(stale):
        if "--check" in sys.argv[1:]:
            print(f"{path} is not up to date: run scripts/{Path(__file__).name}", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path])
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
