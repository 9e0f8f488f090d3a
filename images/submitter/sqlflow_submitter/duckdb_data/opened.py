"""Opens the database of a data source."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from sqlflow_submitter.duckdb_data.failure import DatabaseBusy
from sqlflow_submitter.duckdb_data.files import Reach
from sqlflow_submitter.duckdb_data.source import Source
from sqlflow_submitter.errors import SubmitterError, UserError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LOCK_SECONDS = 30.0
"""Time to wait for a file that another program has open."""
LOCK_PAUSE_SECONDS = 0.05
FLOCK = "hhqqi4x"
"""`struct flock` of Linux with 64 bits."""
MEMORY_SHARE = 0.5
"""DuckDB's share of the memory: XGBoost may run beside it."""
CGROUP_MEMORY = "/sys/fs/cgroup/memory.max"
CGROUP_CPU = "/sys/fs/cgroup/cpu.max"


def library() -> Any:
    """Imports DuckDB.

    Raises:
        SubmitterError: it is not installed, or too old.
    """
    try:
        import duckdb
    except ImportError as error:
        raise SubmitterError(
            f"cannot read DuckDB: {sys.executable} has no package duckdb; "
            f"install it: {sys.executable} -m pip install duckdb"
        ) from error
    if int(duckdb.__version__.partition(".")[0]) < 2:
        raise SubmitterError(
            f"cannot read DuckDB: {sys.executable} has duckdb {duckdb.__version__}, and this needs 2.0 or newer; "
            f"install it: {sys.executable} -m pip install --upgrade duckdb"
        )
    return duckdb


def connect(source: Source, reach: Reach, *, reads_only: bool) -> DuckDBPyConnection:
    """Opens the database.

    Args:
        source: the data source.
        reach: the files that it may open.
        reads_only: whether the statements only read. Then other programs may read at the same time.

    Raises:
        SubmitterError: it cannot be opened.
    """
    duckdb = library()
    settings = _settings(reach)
    if source.path is None:
        in_memory: DuckDBPyConnection = duckdb.connect(":memory:", config=settings)
        return in_memory
    path = reach.own_file(source.path)
    is_there = os.path.exists(path)
    if not is_there:
        _check_absent(source)
    reads_only = is_there and (reads_only or source.mode == "ro")
    before = _open_files()
    _await_lock(path, reads_only=reads_only)
    # With the prefix, DuckDB opens no file of another program by an extension. Such a name counts as a further file.
    name = f"duckdb:{path}" if reach.may_name_files else path
    try:
        connection: DuckDBPyConnection = duckdb.connect(name, read_only=reads_only, config=settings)
    except duckdb.Error as error:
        if _holder(path, reads_only=reads_only) is not None:
            raise _busy(path, reads_only=reads_only) from error
        raise UserError(f"cannot open DuckDB file {path}: {first_part(error)}") from error
    try:
        for opened in _open_files() - before:
            reach.judge_open(opened)
    except UserError:
        connection.close()
        raise
    return connection


def first_part(error: Exception) -> str:
    """Returns a message of DuckDB without the excerpt of the statement that it ends with."""
    text, _, excerpt = str(error).partition("\n\nLINE ")
    line = excerpt.partition(":")[0]
    return f"line {line}: {text}" if line.isdigit() and line != "1" else text


def _settings(reach: Reach) -> dict[str, Any]:
    settings: dict[str, Any] = {
        # Nothing is downloaded that no statement names.
        "autoinstall_known_extensions": "false",
        # A name in a statement means no variable of this program.
        "python_enable_replacements": "false",
        "temp_directory": _temporary_folder(),
        "threads": _threads(),
        "memory_limit": f"{_memory()}B",
    }
    if not reach.may_name_files:
        settings |= {
            "enable_external_access": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_persistent_secrets": "false",
            "lock_configuration": "true",
            "allowed_configs": ["TimeZone"],
        }
    return settings


def _temporary_folder() -> str:
    workspace = os.getcwd()
    if os.stat(workspace).st_uid == os.geteuid():
        return os.path.join(workspace, "duckdb.tmp")
    # With `--run-as`, the workspace is the user code's, who could put a link there.
    return tempfile.mkdtemp(prefix="sqlflow-duckdb-")


def _threads() -> int:
    threads = len(os.sched_getaffinity(0))
    quota, _, period = _first_line(CGROUP_CPU).partition(" ")
    if quota.isdigit() and period.isdigit():
        threads = min(threads, max(1, int(quota) // int(period)))
    return threads


def _memory() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _first_line(CGROUP_MEMORY)
    if limit.isdigit():
        memory = min(memory, int(limit))
    return int(memory * MEMORY_SHARE)


def _first_line(path: str) -> str:
    try:
        with open(path) as file:
            return file.readline().strip()
    except OSError:
        return ""


def _check_absent(source: Source) -> None:
    """Raises UserError if a file that does not exist is not created."""
    folder = os.path.dirname(source.path or "")
    if not os.path.isdir(folder):
        raise UserError(f"cannot open DuckDB file {source.path}: the folder {folder} does not exist")
    if source.mode != "rwc":
        raise UserError(
            f"cannot open DuckDB file {source.path}: it does not exist; correct the path, or add ?mode=rwc to the data "
            "source, which creates it"
        )


def _open_files() -> set[str]:
    """Returns the real paths of the files that this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if path.startswith("/") and os.path.isfile(path):
            found.add(path)
    return found


def _await_lock(path: str, *, reads_only: bool) -> None:
    """Waits until no other program has the file open in a way that excludes this one.

    Raises:
        DatabaseBusy: it did not end.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while _holder(path, reads_only=reads_only) is not None:
        if time.monotonic() >= deadline:
            raise _busy(path, reads_only=reads_only)
        time.sleep(LOCK_PAUSE_SECONDS)


def _holder(path: str, *, reads_only: bool) -> int | None:
    """Returns the process that has a lock which excludes this one. Must not be called while the file is open here.

    Closing any descriptor of a file ends the process's own locks of it.
    """
    kind = fcntl.F_RDLCK if reads_only else fcntl.F_WRLCK
    wanted = struct.pack(FLOCK, kind, os.SEEK_SET, 0, 0, 0)
    try:
        with open(path, "rb") as file:
            found, *_, process = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, wanted))
    except OSError:
        # Opening it shows the cause.
        return None
    return None if found == fcntl.F_UNLCK else int(process)


def _busy(path: str, *, reads_only: bool) -> DatabaseBusy:
    process = _holder(path, reads_only=reads_only)
    who = f"process {process}" if process else "another program"
    what = "to write it" if reads_only else "and this step writes it"
    return DatabaseBusy(
        f"cannot open DuckDB file {path}: {who} has it open{', ' if not reads_only else ' '}{what}; close it there "
        "(DuckDB allows one program that writes, or several that read)"
    )
