"""A history file, opened so that whatever is in it can do no harm.

In: a path. Out: a read-only connection whose tables are exactly ours. Everything that can be known
from the first hundred bytes is known before SQLite sees the file.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from lightning_gradguard.errors import HistoryError
from lightning_gradguard.history import tables
from lightning_gradguard.history.held import is_held

__all__ = ["connect", "reading"]

_SUPER_JOURNAL: Final = bytes.fromhex("d9d505f920a163d7")
"""How a journal ends that names another file, which SQLite would delete; ours never does."""

MOST_BYTES: Final = 1 << 28
"""Size of a single value above which a file is refused."""
_MOST_COPIED: Final = 1 << 31
"""Bytes of a file that is copied to be mended."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a broken file leads to into one error."""
    try:
        yield
    except HistoryError:
        raise
    except sqlite3.OperationalError as error:
        what = "cannot be read just now" if _is_locked(error) else "is cut off or damaged"
        more = ". Another process holds it; try again." if _is_locked(error) else ""
        msg = f"{path} {what}: {error}{more}"
        raise HistoryError(msg) from error
    except (
        sqlite3.Error,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        OverflowError,
        AttributeError,
        RecursionError,
        MemoryError,
        OSError,
    ) as error:
        msg = f"{path} is cut off or damaged: {error}"
        raise HistoryError(msg) from error


def _is_locked(error: sqlite3.OperationalError) -> bool:
    # Only from Python 3.11 on there is a number.
    return "locked" in str(error)


def connect(path: Path) -> tuple[sqlite3.Connection, tempfile.TemporaryDirectory[str] | None]:
    """Open a file for reading.

    Returns:
        The connection, and a folder with a copy where the file itself could not be read without
        writing beside it.

    Raises:
        HistoryError: It is empty, cut off, newer or not ours.
    """
    is_ours = is_held(path)  # then no descriptor but SQLite's may be closed
    if not is_ours:
        _check_head(path)
    with reading(path):
        try:
            return _open(path), None
        except sqlite3.OperationalError as error:
            if is_ours or _is_locked(error):
                raise
            # What a killed training left must be rolled back first, which takes writing.
            _check_journal(path)
            return _mended(path)


def _mended(path: Path) -> tuple[sqlite3.Connection, tempfile.TemporaryDirectory[str]]:
    """Open a copy, in which what was left half done is undone."""
    parts = [Path(f"{path}{ending}") for ending in ("", "-wal", "-journal")]
    parts = [part for part in parts if part.exists()]
    if (size := sum(part.stat().st_size for part in parts)) > _MOST_COPIED:
        msg = f"{path} was left half-written and is too large to be mended: {size} bytes."
        raise HistoryError(msg)
    folder = tempfile.TemporaryDirectory(prefix="gradguard-")
    try:
        copy = Path(folder.name, tables.FILE_NAME)
        for part in parts:
            shutil.copyfile(part, f"{copy}{part.name.removeprefix(path.name)}")
        return _open(copy, mode="rw"), folder
    except BaseException:
        folder.cleanup()
        raise


def _open(path: Path, mode: str = "ro") -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(path.resolve()))}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=5.0, check_same_thread=False)
    try:
        if sys.version_info >= (3, 11):
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}")
        found = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL LIMIT 100"
        ).fetchall()
        connection.execute("PRAGMA query_only = ON")
        if {(kind, name, sql) for kind, name, sql in found} != {
            ("table", name, sql) for name, sql in tables.TABLES.items()
        }:
            msg = f"{path} is not a history of gradguard: its tables are others."
            raise HistoryError(msg)  # noqa: TRY301 - the connection is closed below
    except BaseException:
        connection.close()
        raise
    return connection


def _check_journal(path: Path) -> None:
    journal = Path(f"{path}-journal")
    if not journal.is_file() or journal.stat().st_size < len(_SUPER_JOURNAL):
        return
    with journal.open("rb") as file:
        file.seek(-len(_SUPER_JOURNAL), os.SEEK_END)
        if file.read() == _SUPER_JOURNAL:
            msg = f"{journal} names another file, which gradguard never does; it is not used."
            raise HistoryError(msg)


def _check_head(path: Path) -> None:
    if not path.is_file():
        msg = f"{path} is no file."
        raise HistoryError(msg)
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except OSError as error:
        msg = f"{path} cannot be opened: {error}"
        raise HistoryError(msg) from error
    if not head:
        msg = f"{path} is empty: the training was killed before it wrote, or has just begun."
        raise HistoryError(msg)
    if not head.startswith(b"SQLite format 3\0"[: len(head)]):
        msg = f"{path} is not a history of gradguard: it is no SQLite file."
        raise HistoryError(msg)
    if len(head) < 100:
        msg = f"{path} is cut off: it ends within its first hundred bytes."
        raise HistoryError(msg)
    number = int.from_bytes(head[68:72], "big")
    version = int.from_bytes(head[60:64], "big")
    if number != tables.APPLICATION_ID:
        msg = f"{path} is not a history of gradguard."
        raise HistoryError(msg)
    if version > tables.USER_VERSION:
        msg = (
            f"{path} is of schema gradguard/{version}, this version reads up to "
            f"{tables.SCHEMA_NAME}. Update lightning-gradguard."
        )
        raise HistoryError(msg)
    pages = int.from_bytes(head[28:32], "big")
    page = int.from_bytes(head[16:18], "big") or 1
    page = 65536 if page == 1 else page
    logged = any(Path(f"{path}-{ending}").exists() for ending in ("wal", "journal"))
    if not logged and path.stat().st_size < pages * page:
        msg = f"{path} is cut off: {path.stat().st_size} of {pages * page} bytes are there."
        raise HistoryError(msg)
