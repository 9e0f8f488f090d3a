"""Which files a data source may open. The server decides (`crates/data-source/src/reach.rs`), and this obeys.

DuckDB reads and writes any file that a statement names. It can be confined to folders, but then follows links out of
them, and it cannot be kept from a folder. So a statement names files only on a server of one user, on this machine.
Where the server limits files to folders, and in Pods, it names none: a Pod has the agent's credentials in files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import islice
from typing import Any

from sqlflow_submitter.errors import SubmitterError, UserError

SECRET = "data_source_reach"
MAX_ENTRIES = 1000
"""Maximum number of entries of the state folder in which a second name of a file is searched."""


class Reach:
    """What a job may reach by its data source. Without the secret there are no limits."""

    def __init__(self, text: str | None) -> None:
        self._is_by_hand = text is None
        try:
            found: dict[str, Any] = json.loads(text or "{}")
        except ValueError as error:
            raise SubmitterError(f"cannot read {SECRET}: {error}") from error
        self.is_clients = bool(found.get("is_clients"))
        """Whether the client brought the data source. Otherwise it is the operator's."""
        self.folders: list[str] | None = found.get("sqlite_folders")
        """The folders with files that clients may name. None: any folder."""
        self.state_folder: str | None = found.get("state_folder")
        self.private: list[str] = found.get("private") or []

    @property
    def may_name_files(self) -> bool:
        """Whether a statement may name a file, as in `SELECT … FROM 'a.parquet'`, `COPY` and `ATTACH`."""
        return self._is_by_hand or (self.folders is None and self.state_folder is not None)

    def own_file(self, path: str) -> str:
        """Returns the real path of the data source's file, which need not exist.

        Raises:
            UserError: it may not be opened.
        """
        folder, name = os.path.split(path)
        real = os.path.realpath(path)
        if not os.path.lexists(path):
            real = os.path.join(os.path.realpath(folder), name)
        refusal = self._refusal(real)
        if refusal is None and os.path.islink(path) and not os.path.exists(path):
            refusal = "it is a symbolic link to a file that does not exist; correct the path"
        if refusal is not None:
            raise UserError(f"cannot open DuckDB file {path}: {refusal}")
        return real

    def judge_open(self, real: str) -> None:
        """Judges an open file by its real path: a folder may have been exchanged meanwhile.

        Raises:
            UserError: it may not be open.
        """
        refusal = self._refusal(real)
        if refusal is not None:
            raise UserError(f"cannot open DuckDB file {real}: {refusal}")

    def _refusal(self, real: str) -> str | None:
        if self.state_folder is not None and (
            is_below(real, self.state_folder) or has_second_name_in(real, self.state_folder)
        ):
            return "it belongs to the state of the server; use another file"
        if not self.is_clients:
            # The operator knows where files of data sources lie.
            return None
        if any(is_at(real, it) for it in self.private):
            return "it is the operator's, and no session names it; use the name of a data source"
        if self.folders is not None and not any(is_below(real, it) for it in self.folders):
            return f"it lies in no folder for database files of this server; {_listed(self.folders)}"
        return None


def _listed(folders: Sequence[str]) -> str:
    if not folders:
        return "there is none: use a data source that the operator has named"
    return f"use a file below {' or '.join(folders)}"


def is_below(real: str, folder: str) -> bool:
    """Returns whether a real path lies below this folder, which may be a link."""
    folder = os.path.realpath(folder)
    return real != folder and os.path.commonpath([real, folder]) == folder


def is_at(real: str, other: str) -> bool:
    """Returns whether a real path is this file, under whichever name, or lies below this folder."""
    other = os.path.realpath(other)
    try:
        return os.path.commonpath([real, other]) == other or os.path.samefile(real, other)
    except OSError:
        return False


def has_second_name_in(real: str, folder: str) -> bool:
    """Returns whether a file has another name in this folder, by a hard link."""
    try:
        found = os.stat(real)
        if os.path.isdir(real) or found.st_nlink < 2:
            return False
        with os.scandir(folder) as entries:
            return any(os.path.samestat(found, entry.stat()) for entry in islice(entries, MAX_ENTRIES))
    except OSError:
        return False
